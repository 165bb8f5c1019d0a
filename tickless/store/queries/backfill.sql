-- name: slot_runs :many
-- Runs of a DAG, finished or not, that are in the way of slots.
-- $1 dag_id text · $2 logical dates timestamptz[] · $3 run ids text[]
select key, run_id, logical_date, state
from tickless.dag_run
where dag_id = $1 and logical_date = any ($2)
union
select key, run_id, logical_date, state
from tickless.dag_run
where dag_id = $1 and run_id = any ($3)
order by key

-- name: backfills :many
-- Backfills, newest first.
-- $1 before: key bigint or null · $2 limit int · $3 dag_id text or null · $4 only what is not completed boolean
select
    key, dag_id, schedule::text as schedule, from_at, to_at, reprocess, max_active, is_backwards, conf, created_at,
    place, made, passed, is_paused, cancelled_at, completed_at
from tickless.backfill
where key < coalesce($1, 9223372036854775807) and ($3::text is null or dag_id = $3)
    and (not $4::boolean or completed_at is null)
order by key desc
limit $2

-- name: backfill :one
-- One backfill.
-- $1 key bigint
select
    key, dag_id, schedule::text as schedule, from_at, to_at, reprocess, max_active, is_backwards, conf, created_at,
    place, made, passed, is_paused, cancelled_at, completed_at
from tickless.backfill
where key = $1

-- name: backfill_run_counts :many
-- How many runs of some backfills are in each state.
-- $1 keys bigint[]
select backfill, state, count(*) as count from tickless.dag_run where backfill = any ($1) group by backfill, state
