-- Backfills, as the engine has decided. Called in one statement with a flush, after it. Repeatable.

-- p_backfills: as they are now. p_dags: DAGs that are deleted in the same flush; theirs go.
create or replace function tickless.write_backfills_v1(
    p_shard int, p_epoch bigint, p_backfills json, p_dags json
) returns void
language plpgsql as $$
declare
    last_key bigint;
begin
    perform tickless.check_epoch_v1(p_shard, p_epoch);
    if p_dags is not null then
        with gone as (
            delete from tickless.backfill b
            using json_to_recordset(p_dags) as r(dag_id text)
            where b.dag_id = r.dag_id
            returning b.key
        )
        select max(key) into last_key from gone;
        update tickless.shard s set last_backfill = last_key
        where s.shard_id = p_shard and s.last_backfill < last_key;
    end if;
    if p_backfills is not null then
        insert into tickless.backfill (
            key, dag_id, schedule, from_at, to_at, reprocess, max_active, is_backwards, conf, created_at, place, made,
            passed, is_paused, cancelled_at, completed_at
        )
        select
            r.key, r.dag_id, r.schedule, r.from_at, r.to_at, r.reprocess, r.max_active, r.is_backwards, r.conf::json,
            r.created_at, r.place, r.made, r.passed, r.is_paused, r.cancelled_at, r.completed_at
        from json_to_recordset(p_backfills) as r(
            key bigint, dag_id text, schedule json, from_at timestamptz, to_at timestamptz, reprocess text,
            max_active int, is_backwards boolean, conf text, created_at timestamptz, place timestamptz, made int,
            passed int, is_paused boolean, cancelled_at timestamptz, completed_at timestamptz
        )
        on conflict (key) do update set
            place = excluded.place, made = excluded.made, passed = excluded.passed, is_paused = excluded.is_paused,
            cancelled_at = excluded.cancelled_at, completed_at = excluded.completed_at;
    end if;
end
$$;

revoke execute on function tickless.write_backfills_v1(int, bigint, json, json) from public;
