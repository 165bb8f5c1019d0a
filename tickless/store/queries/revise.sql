-- name: flush_with_revision :exec
-- A flush with what people's requests bring along, after what they have deleted and noted.
-- $1 shard int · $2 epoch bigint · $3 expected row counts int[] · $4 versions · $5 dags · $6 dag states · $7 pools
-- $8 new runs · $9 runs · $10 new instances · $11 instances · $12 new attempts · $13 attempts · $14 xcoms
-- $15 requests · $16 maps
-- $17 progress of commands · $18 dropped xcoms · $19 events
-- $20 runs to delete · $21 what remains of deleted ones · $22 DAGs to delete · $23 notes
-- $24 backfills: json or null
select
    tickless.revise_v1($1, $2, $20, $21, $22, $23),
    tickless.note_requests_v1($17, $18, $19),
    tickless.flush_v3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16),
    tickless.write_backfills_v1($1, $2, $24, $22)

-- name: attempts_of_run :many
-- Attempts of a run, with their logs.
-- $1 run bigint · $2 limit int
select attempt_id, log_path from tickless.task_attempt where dag_run_key = $1 order by attempt_id limit $2

-- name: has_remains :one
-- Whether rows are left of a run, besides its attempts.
-- $1 run bigint
select
    exists (select from tickless.task_instance where dag_run_key = $1)
    or exists (select from tickless.xcom where dag_run_key = $1)
    or exists (select from tickless.task_map where dag_run_key = $1)
    or exists (select from tickless.note where dag_run_key = $1) as has_remains

-- name: notes :many
-- Notes of some runs, and of their task instances.
-- $1 run keys bigint[] · $2 only of runs themselves boolean
select dag_run_key, task_id, map_index, text, author, changed_at
from tickless.note
where dag_run_key = any ($1) and (not $2::boolean or task_id = '')
order by dag_run_key, task_id, map_index
