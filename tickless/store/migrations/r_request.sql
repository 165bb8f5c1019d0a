-- SQL as an API: what anybody may call inside a transaction of their own. Repeatable: applied again when it changes.
-- To let a role start runs:
--   GRANT USAGE ON SCHEMA tickless TO app;
--   GRANT EXECUTE ON FUNCTION tickless.trigger_dag TO app;

create or replace function tickless.hint_request() returns trigger
language plpgsql as $$
begin
    -- The same payload from many statements folds into one: it says where to look, not what is there.
    perform pg_notify('tickless', tg_table_name);
    return null;
end
$$;

-- Only on INSERT: the flusher's own UPDATE must not wake it.
create or replace trigger trigger_request_hint after insert on tickless.trigger_request
for each statement execute function tickless.hint_request();
create or replace trigger command_hint after insert on tickless.command
for each statement execute function tickless.hint_request();

-- Asks for a run of a DAG; it starts when, and only when, the calling transaction commits. Gives the id of the
-- request: SELECT * FROM trigger_request WHERE id = … says what became of it.
-- SECURITY DEFINER: the caller needs no right on any table. pg_temp last, or a temporary table could pose as ours.
create or replace function tickless.trigger_dag(
    dag_id text,
    conf jsonb default '{}',
    run_id text default null,
    logical_date timestamptz default null,
    idempotency_key text default null
) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into tickless.trigger_request (dag_id, conf, run_id, logical_date, idempotency_key)
    values (
        trigger_dag.dag_id, coalesce(trigger_dag.conf, '{}'), trigger_dag.run_id, trigger_dag.logical_date,
        trigger_dag.idempotency_key
    )
    returning id
$$;

revoke execute on function tickless.hint_request(), tickless.trigger_dag(text, jsonb, text, timestamptz, text)
from public;
