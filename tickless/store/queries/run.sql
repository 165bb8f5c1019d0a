-- name: runs :many
-- Runs of every DAG, newest first.
-- $1 before: key bigint or null · $2 states text[] or null · $3 limit int
select
    r.key, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.conf, r.logical_date, r.queued_at,
    r.started_at, r.ended_at, r.created_upto, r.cancel_requested_at, r.frozen, r.idempotency_key,
    r.run_after, r.data_interval_start, r.data_interval_end, r.cancel_reason, r.previous_run, r.backfill,
    v.number as version_number
from tickless.dag_run r
join tickless.dag_version v on v.key = r.version
where r.key < coalesce($1, 9223372036854775807) and ($2::text[] is null or r.state = any ($2))
order by r.key desc
limit $3

-- name: live_runs :many
-- Unfinished runs of every DAG in some of their states, newest first.
-- $1 before: key bigint or null · $2 states text[] · $3 limit int
select
    r.key, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.conf, r.logical_date, r.queued_at,
    r.started_at, r.ended_at, r.created_upto, r.cancel_requested_at, r.frozen, r.idempotency_key,
    r.run_after, r.data_interval_start, r.data_interval_end, r.cancel_reason, r.previous_run, r.backfill,
    v.number as version_number
from tickless.dag_run r
join tickless.dag_version v on v.key = r.version
where r.key < coalesce($1, 9223372036854775807) and r.state in ('queued', 'running') and r.state = any ($2::text[])
order by r.key desc
limit $3

-- name: runs_of_dag :many
-- Runs of one DAG, newest first: a query of its own, so that it always goes by its own index.
-- $1 dag_id text · $2 before: key bigint or null · $3 states text[] or null · $4 limit int
select
    r.key, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.conf, r.logical_date, r.queued_at,
    r.started_at, r.ended_at, r.created_upto, r.cancel_requested_at, r.frozen, r.idempotency_key,
    r.run_after, r.data_interval_start, r.data_interval_end, r.cancel_reason, r.previous_run, r.backfill,
    v.number as version_number
from tickless.dag_run r
join tickless.dag_version v on v.key = r.version
where r.dag_id = $1 and r.key < coalesce($2, 9223372036854775807)
    and ($3::text[] is null or r.state = any ($3))
order by r.key desc
limit $4

-- name: run :one
-- A run by its key.
-- $1 key bigint
select
    r.key, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.conf, r.logical_date, r.queued_at,
    r.started_at, r.ended_at, r.created_upto, r.cancel_requested_at, r.frozen, r.idempotency_key,
    r.run_after, r.data_interval_start, r.data_interval_end, r.cancel_reason, r.previous_run, r.backfill,
    v.number as version_number
from tickless.dag_run r
join tickless.dag_version v on v.key = r.version
where r.key = $1

-- name: run_by_id :one
-- A run by its names.
-- $1 dag_id text · $2 run_id text
select
    r.key, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.conf, r.logical_date, r.queued_at,
    r.started_at, r.ended_at, r.created_upto, r.cancel_requested_at, r.frozen, r.idempotency_key,
    r.run_after, r.data_interval_start, r.data_interval_end, r.cancel_reason, r.previous_run, r.backfill,
    v.number as version_number
from tickless.dag_run r
join tickless.dag_version v on v.key = r.version
where r.dag_id = $1 and r.run_id = $2

-- name: run_by_idempotency_key :one
-- The run that a request with this key has made.
-- $1 idempotency_key text
select
    r.key, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.conf, r.logical_date, r.queued_at,
    r.started_at, r.ended_at, r.created_upto, r.cancel_requested_at, r.frozen, r.idempotency_key,
    r.run_after, r.data_interval_start, r.data_interval_end, r.cancel_reason, r.previous_run, r.backfill,
    v.number as version_number
from tickless.dag_run r
join tickless.dag_version v on v.key = r.version
where r.idempotency_key = $1

-- name: previous_run :one
-- The last run of a DAG before an instant, by logical date; a run without one counts from when it was made.
-- $1 dag_id text · $2 before timestamptz · $3 state text or null
select
    r.key, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.conf, r.logical_date, r.queued_at,
    r.started_at, r.ended_at, r.created_upto, r.cancel_requested_at, r.frozen, r.idempotency_key,
    r.run_after, r.data_interval_start, r.data_interval_end, r.cancel_reason, r.previous_run, r.backfill,
    v.number as version_number
from tickless.dag_run r
join tickless.dag_version v on v.key = r.version
where r.dag_id = $1 and coalesce(r.logical_date, r.queued_at) < $2 and ($3::text is null or r.state = $3)
order by coalesce(r.logical_date, r.queued_at) desc
limit 1

-- name: instance_counts :many
-- Task instances of some runs, counted by state.
-- $1 run keys bigint[]
select dag_run_key, state, count(*) as count
from tickless.task_instance
where dag_run_key = any ($1)
group by dag_run_key, state

-- name: runs_of_backfill :many
-- Runs of one backfill, newest first.
-- $1 backfill bigint · $2 before: key bigint or null · $3 states text[] or null · $4 limit int · $5 dag_id text or null
select
    r.key, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.conf, r.logical_date, r.queued_at,
    r.started_at, r.ended_at, r.created_upto, r.cancel_requested_at, r.frozen, r.idempotency_key,
    r.run_after, r.data_interval_start, r.data_interval_end, r.cancel_reason, r.previous_run, r.backfill,
    v.number as version_number
from tickless.dag_run r
join tickless.dag_version v on v.key = r.version
where r.backfill = $1 and r.key < coalesce($2, 9223372036854775807)
    and ($3::text[] is null or r.state = any ($3)) and ($5::text is null or r.dag_id = $5)
order by r.key desc
limit $4
