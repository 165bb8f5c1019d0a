-- name: dags :many
-- DAGs by dag_id, each with its current version and latest run.
-- $1 after: dag_id text or null · $2 limit int · $3 with vanished ones too boolean
with live as (
    select dag_id, count(*) as live_runs from tickless.dag_run where state in ('queued', 'running') group by dag_id
)
select
    d.dag_id, d.current_version, v.number as version_number, v.hash, d.file, v.bundle, d.changed_at,
    d.is_paused, d.last_interval_start, d.last_interval_end, d.scheduled_since,
    (v.spec::json -> 'schedule')::text as schedule,
    e.error as import_error, coalesce(l.live_runs, 0) as live_runs, r.version_number as run_version_number,
    r.key as run_key, r.dag_id as run_dag_id, r.run_id as run_run_id, r.version as run_version,
    r.state as run_state, r.run_type as run_run_type, r.conf as run_conf, r.logical_date as run_logical_date,
    r.queued_at as run_queued_at, r.started_at as run_started_at, r.ended_at as run_ended_at,
    r.created_upto as run_created_upto, r.cancel_requested_at as run_cancel_requested_at,
    r.frozen as run_frozen, r.idempotency_key as run_idempotency_key,
    r.run_after as run_run_after, r.data_interval_start as run_data_interval_start,
    r.data_interval_end as run_data_interval_end, r.cancel_reason as run_cancel_reason,
    r.previous_run as run_previous_run, r.backfill as run_backfill
from tickless.dag d
left join tickless.dag_version v on v.key = d.current_version
left join lateral (
    select i.error from tickless.import_error i where i.file = d.file order by i.folder limit 1
) e on true
left join lateral (
    select q.key, q.dag_id, q.run_id, q.version, q.state, q.run_type, q.conf, q.logical_date, q.queued_at,
        q.started_at, q.ended_at, q.created_upto, q.cancel_requested_at, q.frozen, q.idempotency_key, q.run_after,
        q.data_interval_start, q.data_interval_end, q.cancel_reason, q.previous_run, q.backfill,
        w.number as version_number
    from tickless.dag_run q
    join tickless.dag_version w on w.key = q.version
    where q.dag_id = d.dag_id
    order by q.key desc
    limit 1
) r on true
left join live l on l.dag_id = d.dag_id
where d.dag_id > coalesce($1, '') and ($3::boolean or d.current_version is not null)
order by d.dag_id
limit $2

-- name: dag :one
-- One DAG, also one that has vanished.
-- $1 dag_id text
select
    d.dag_id, d.current_version, v.number as version_number, v.hash, d.file, v.bundle, d.changed_at,
    d.is_paused, d.last_interval_start, d.last_interval_end, d.scheduled_since,
    (v.spec::json -> 'schedule')::text as schedule,
    e.error as import_error, coalesce(l.live_runs, 0) as live_runs, r.version_number as run_version_number,
    r.key as run_key, r.dag_id as run_dag_id, r.run_id as run_run_id, r.version as run_version,
    r.state as run_state, r.run_type as run_run_type, r.conf as run_conf, r.logical_date as run_logical_date,
    r.queued_at as run_queued_at, r.started_at as run_started_at, r.ended_at as run_ended_at,
    r.created_upto as run_created_upto, r.cancel_requested_at as run_cancel_requested_at,
    r.frozen as run_frozen, r.idempotency_key as run_idempotency_key,
    r.run_after as run_run_after, r.data_interval_start as run_data_interval_start,
    r.data_interval_end as run_data_interval_end, r.cancel_reason as run_cancel_reason,
    r.previous_run as run_previous_run, r.backfill as run_backfill
from tickless.dag d
left join tickless.dag_version v on v.key = d.current_version
left join lateral (
    select i.error from tickless.import_error i where i.file = d.file order by i.folder limit 1
) e on true
left join lateral (
    select q.key, q.dag_id, q.run_id, q.version, q.state, q.run_type, q.conf, q.logical_date, q.queued_at,
        q.started_at, q.ended_at, q.created_upto, q.cancel_requested_at, q.frozen, q.idempotency_key, q.run_after,
        q.data_interval_start, q.data_interval_end, q.cancel_reason, q.previous_run, q.backfill,
        w.number as version_number
    from tickless.dag_run q
    join tickless.dag_version w on w.key = q.version
    where q.dag_id = d.dag_id
    order by q.key desc
    limit 1
) r on true
left join lateral (
    select count(*) as live_runs from tickless.dag_run where state in ('queued', 'running') and dag_id = $1
) l on true
where d.dag_id = $1

-- name: version :one
-- One stored version, with its spec.
-- $1 key bigint
select key, dag_id, number, spec, hash, bundle, file, created_at from tickless.dag_version where key = $1

-- name: current_version :one
-- The current version of a DAG, with its spec.
-- $1 dag_id text
select v.key, v.dag_id, v.number, v.spec, v.hash, v.bundle, v.file, v.created_at
from tickless.dag d
join tickless.dag_version v on v.key = d.current_version
where d.dag_id = $1

-- name: import_errors :many
-- DAG files that cannot be parsed now.
-- $1 limit int
select folder, file, line, error, traceback, at from tickless.import_error order by folder, file limit $1
