-- How the leader writes variables and connections: rarely, in a statement of its own beside the flush. Repeatable.

-- p_rows: JSON array of row images, each with its "table"; one with "is_gone" is removed. With p_attempt this is the
-- request p_number of that attempt: if it was carried out before, nothing is, and the answer is the same again.
-- Gives 'true' when a row was written or removed; then, or when there are no rows, p_events go into the audit.
--
-- write_settings_v1, which older releases called, stays behind in databases that have it.
create or replace function tickless.write_settings_v2(
    p_shard int, p_epoch bigint, p_attempt bigint, p_number int, p_rows json, p_events json
) returns text
language plpgsql as $$
declare
    told text;
    touched bigint;
    n bigint;
begin
    perform tickless.check_epoch_v1(p_shard, p_epoch);
    if p_attempt is not null then
        select q.value into told from tickless.attempt_request q
        where q.attempt_id = p_attempt and q.number >= p_number;
        if found then
            return told;
        end if;
    end if;

    insert into tickless.variable (key, val, description, changed_at)
    select r.key, r.val, r.description, r.changed_at
    from json_to_recordset(p_rows) as r(
        "table" text, is_gone boolean, key text, val text, description text, changed_at timestamptz
    )
    where r."table" = 'variable' and not coalesce(r.is_gone, false)
    on conflict (key) do update set
        val = excluded.val, description = coalesce(excluded.description, variable.description),
        changed_at = excluded.changed_at;
    get diagnostics touched = row_count;

    delete from tickless.variable v
    using json_to_recordset(p_rows) as r("table" text, is_gone boolean, key text)
    where r."table" = 'variable' and r.is_gone and v.key = r.key;
    get diagnostics n = row_count;
    touched := touched + n;

    insert into tickless.connection (
        conn_id, conn_type, description, host, schema, login, password, port, extra, changed_at
    )
    select
        r.conn_id, r.conn_type, r.description, r.host, r.schema, r.login, r.password, r.port, r.extra, r.changed_at
    from json_to_recordset(p_rows) as r(
        "table" text, is_gone boolean, conn_id text, conn_type text, description text, host text, schema text,
        login text, password text, port int, extra text, changed_at timestamptz
    )
    where r."table" = 'connection' and not coalesce(r.is_gone, false)
    on conflict (conn_id) do update set
        conn_type = excluded.conn_type, description = excluded.description, host = excluded.host,
        schema = excluded.schema, login = excluded.login, password = excluded.password, port = excluded.port,
        extra = excluded.extra, changed_at = excluded.changed_at;
    get diagnostics n = row_count;
    touched := touched + n;

    delete from tickless.connection c
    using json_to_recordset(p_rows) as r("table" text, is_gone boolean, conn_id text)
    where r."table" = 'connection' and r.is_gone and c.conn_id = r.conn_id;
    get diagnostics n = row_count;
    touched := touched + n;

    if touched > 0 or json_array_length(p_rows) = 0 then
        perform tickless.note_requests_v1(null, null, p_events);
    end if;

    told := (touched > 0)::text;
    if p_attempt is not null then
        delete from tickless.attempt_request q
        where not exists (
            select from tickless.task_attempt a
            where a.attempt_id = q.attempt_id and a.state in ('queued', 'running')
        );
        insert into tickless.attempt_request (attempt_id, number, value) values (p_attempt, p_number, told)
        on conflict (attempt_id) do update set number = excluded.number, value = excluded.value;
    end if;
    return told;
end
$$;

revoke execute on function tickless.write_settings_v2(int, bigint, bigint, int, json, json) from public;
