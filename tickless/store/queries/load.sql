-- name: load_versions :many
-- The current version of each DAG, and those that unfinished runs are pinned to.
select key, dag_id, number, spec, hash, bundle, file, created_at
from tickless.dag_version
where key in (
    select current_version from tickless.dag where current_version is not null
    union
    select version from tickless.dag_run where state in ('queued', 'running')
)
order by key

-- name: load_current :many
-- The current version of each DAG that a file defines.
select dag_id, current_version from tickless.dag where current_version is not null order by dag_id

-- name: load_dags :many
-- What outlives the versions of each DAG.
select dag_id, is_paused, last_interval_start, last_interval_end, scheduled_since, failed_in_a_row
from tickless.dag
order by dag_id

-- name: load_last_numbers :many
-- The highest version number ever given to each DAG.
select dag_id, max(number) as number from tickless.dag_version group by dag_id order by dag_id

-- name: load_runs :many
-- Unfinished runs, oldest first.
select
    key, dag_id, run_id, version, state, run_type, conf, logical_date, queued_at, started_at, ended_at, created_upto,
    cancel_requested_at, frozen, idempotency_key, run_after, data_interval_start, data_interval_end,
    cancel_reason, previous_run, backfill
from tickless.dag_run
where state in ('queued', 'running')
order by key

-- name: load_instances :many
-- Unfinished instances of unfinished runs.
select
    t.dag_run_key, t.task_id, t.map_index, t.state, t.try_number, t.attempt_id, t.lost_count, t.tries_cleared,
    t.scheduled_at, t.queued_at, t.started_at, t.ended_at, t.due_at, t.reason
from tickless.dag_run d
join tickless.task_instance t on t.dag_run_key = d.key
where d.state in ('queued', 'running')
    and (t.state is null or t.state not in ('success', 'failed', 'skipped', 'upstream_failed', 'removed'))
order by t.dag_run_key, t.task_id, t.map_index

-- name: load_tallies :many
-- Finished instances of unfinished runs, counted.
select
    t.dag_run_key, t.task_id, t.state, count(*) as count,
    count(*) filter (where t.state = 'success' and t.reason = 'exited') as returned
from tickless.dag_run d
join tickless.task_instance t on t.dag_run_key = d.key
where d.state in ('queued', 'running')
    and t.state in ('success', 'failed', 'skipped', 'upstream_failed', 'removed')
group by t.dag_run_key, t.task_id, t.state
order by t.dag_run_key, t.task_id, t.state

-- name: load_past_tallies :many
-- The same of finished runs that are the previous ones of unfinished runs.
select
    t.dag_run_key, t.task_id, t.state, count(*) as count,
    count(*) filter (where t.state = 'success' and t.reason = 'exited') as returned
from (
    select distinct previous_run as key from tickless.dag_run where state in ('queued', 'running') and previous_run > 0
) p
join tickless.dag_run d on d.key = p.key and d.state not in ('queued', 'running')
join tickless.task_instance t on t.dag_run_key = d.key
where t.state in ('success', 'failed', 'skipped', 'upstream_failed', 'removed')
group by t.dag_run_key, t.task_id, t.state
order by t.dag_run_key, t.task_id, t.state

-- name: load_maps :many
-- Of unfinished runs: lengths of what is mapped over, and how far mapped tasks are expanded.
select m.dag_run_key, m.task_id, m.length, m.expanded_upto
from tickless.dag_run d
join tickless.task_map m on m.dag_run_key = d.key
where d.state in ('queued', 'running')
order by m.dag_run_key, m.task_id

-- name: load_attempts :many
-- Live attempts.
select
    attempt_id, dag_run_key, task_id, map_index, try_number, state, executor, queue, pool, pool_slots, queued_at,
    log_path, started_at, ended_at, timeout_seconds, stop_requested_at, stop_reason, exit_code, signal, reason, error,
    pid, host
from tickless.task_attempt
where state in ('queued', 'running')
order by attempt_id

-- name: load_backfills :many
-- Those that are not completed, and those with slots that the schedule of their DAG has not passed yet.
select
    b.key, b.dag_id, b.schedule::text as schedule, b.from_at, b.to_at, b.reprocess, b.max_active, b.is_backwards,
    b.conf, b.created_at, b.place, b.made, b.passed, b.is_paused, b.cancelled_at, b.completed_at
from tickless.backfill b
join tickless.dag d on d.dag_id = b.dag_id
where b.completed_at is null or d.last_interval_start is null
    or least(b.to_at, b.created_at) >= d.last_interval_start
order by b.key

-- name: load_pools :many
-- Every pool.
select pool, slots from tickless.slot_pool order by pool

-- name: load_highest :one
-- The highest keys ever committed.
select
    greatest((select max(key) from tickless.dag_run), (select max(last_run) from tickless.shard), 0) as last_run,
    greatest(
        (select max(key) from tickless.dag_version), (select max(last_version) from tickless.shard), 0
    ) as last_version,
    greatest(
        (select max(key) from tickless.backfill), (select max(last_backfill) from tickless.shard), 0
    ) as last_backfill
