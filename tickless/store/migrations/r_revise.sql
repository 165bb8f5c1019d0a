-- What people have done to rows that the engine has forgotten: runs and DAGs deleted, notes written. Called in one
-- statement with a flush, before it; apart, so that the hot flush is not the slower for it. Repeatable.

-- p_runs: runs whose row goes, each of them finished. p_remains: of a run whose row has gone, up to `most` rows of each
-- kind, and the attempts named (their logs have gone before). p_dags: DAGs without runs. p_notes: notes as they are now;
-- one without text is removed.
create or replace function tickless.revise_v1(
    p_shard int, p_epoch bigint, p_runs json, p_remains json, p_dags json, p_notes json
) returns void
language plpgsql as $$
declare
    n bigint;
    last_key bigint;
    remains record;
begin
    perform tickless.check_epoch_v1(p_shard, p_epoch);

    if p_runs is not null then
        with gone as (
            delete from tickless.dag_run d
            using json_to_recordset(p_runs) as r(run bigint)
            where d.key = r.run and d.state in ('success', 'failed')
            returning d.key
        )
        select count(*), max(key) into n, last_key from gone;
        perform tickless.expect_rows_v1('runs to delete', n, json_array_length(p_runs));
        -- The number of a deleted run is never given again: its logs, its lines of the audit may still name it.
        update tickless.shard s set last_run = last_key where s.shard_id = p_shard and s.last_run < last_key;
    end if;

    -- By ctid, which an array makes a look-up; one run at a time, so that the array is not asked for row by row.
    for remains in
        select r.run, r.most, r.attempts from json_to_recordset(p_remains) as r(run bigint, most int, attempts json)
    loop
        delete from tickless.task_attempt a
        where a.attempt_id = any (array(select json_array_elements_text(remains.attempts)::bigint));
        delete from tickless.task_instance t
        where t.ctid = any (array(
            select i.ctid from tickless.task_instance i where i.dag_run_key = remains.run limit remains.most
        ));
        delete from tickless.xcom t
        where t.ctid = any (array(
            select x.ctid from tickless.xcom x where x.dag_run_key = remains.run limit remains.most
        ));
        delete from tickless.task_map t
        where t.ctid = any (array(
            select m.ctid from tickless.task_map m where m.dag_run_key = remains.run limit remains.most
        ));
        delete from tickless.note t
        where t.ctid = any (array(
            select o.ctid from tickless.note o where o.dag_run_key = remains.run limit remains.most
        ));
    end loop;

    if p_dags is not null then
        if exists (
            select from json_to_recordset(p_dags) as r(dag_id text) join tickless.dag_run d on d.dag_id = r.dag_id
        ) then
            perform tickless.expect_rows_v1('DAGs without runs', 0, 1);
        end if;
        with gone as (
            delete from tickless.dag_version v
            using json_to_recordset(p_dags) as r(dag_id text)
            where v.dag_id = r.dag_id
            returning v.key
        )
        select max(key) into last_key from gone;
        update tickless.shard s set last_version = last_key
        where s.shard_id = p_shard and s.last_version < last_key;
        delete from tickless.dag d using json_to_recordset(p_dags) as r(dag_id text) where d.dag_id = r.dag_id;
    end if;

    if p_notes is not null then
        delete from tickless.note o
        using json_to_recordset(p_notes) as r(run bigint, task_id text, map_index int, text text)
        where r.text is null and o.dag_run_key = r.run and o.task_id = r.task_id and o.map_index = r.map_index;
        insert into tickless.note (dag_run_key, task_id, map_index, text, author, changed_at)
        select r.run, r.task_id, r.map_index, r.text, r.author, r.changed_at
        from json_to_recordset(p_notes) as r(
            run bigint, task_id text, map_index int, text text, author text, changed_at timestamptz
        )
        join tickless.dag_run d on d.key = r.run
        where r.text is not null
        on conflict (dag_run_key, task_id, map_index) do update set
            text = excluded.text, author = excluded.author, changed_at = excluded.changed_at;
    end if;
end
$$;

revoke execute on function tickless.revise_v1(int, bigint, json, json, json, json) from public;
