-- name: flush :exec
-- The hot flush: everything or nothing, if the epoch is still ours.
-- $1 shard int · $2 epoch bigint · $3 expected row counts int[] · $4 versions · $5 dags · $6 dag states · $7 pools
-- $8 new runs · $9 runs · $10 new instances · $11 instances · $12 new attempts · $13 attempts · $14 xcoms
-- $15 requests · $16 maps: json or null
select tickless.flush_v3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)

-- name: flush_with_requests :exec
-- The same, with what people's requests bring along: first, for what is dropped may come anew.
-- $1 shard int · $2 epoch bigint · $3 expected row counts int[] · $4 versions · $5 dags · $6 dag states · $7 pools
-- $8 new runs · $9 runs · $10 new instances · $11 instances · $12 new attempts · $13 attempts · $14 xcoms
-- $15 requests · $16 maps
-- $17 progress of commands · $18 dropped xcoms · $19 events: json or null
select
    tickless.note_requests_v1($17, $18, $19),
    tickless.flush_v3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)

-- name: take_epoch :one
-- The next epoch; waits for flushes of an older one that are in flight.
-- $1 shard int · $2 owner text
select tickless.take_epoch_v1($1, $2)

-- name: end_recorded_writer :exec
-- End the backend that flushed for the last leader, if it is still the same one.
-- $1 shard int
select pg_terminate_backend(a.pid)
from tickless.shard s
join pg_stat_activity a on a.pid = s.backend_pid and a.backend_start = s.backend_start
where s.shard_id = $1

-- name: blockers :many
-- Who holds the locks that a backend waits for.
-- $1 backend int
select
    a.pid, a.usename, a.application_name, a.client_addr, a.state,
    extract(epoch from clock_timestamp() - a.xact_start)::float8 as open_seconds, left(a.query, 200) as query
from unnest(pg_blocking_pids($1)) as b(pid)
join pg_stat_activity a using (pid)

-- name: quarantine :one
-- Keep an event that raised, freeze its run.
-- $1 shard int · $2 epoch bigint · $3 run bigint · $4 attempt bigint · $5 kind text · $6 event text
-- $7 traceback text · $8 at timestamptz
select tickless.quarantine_v1($1, $2, $3, $4, $5, $6, $7, $8)

-- name: set_import_problems :exec
-- Record or clear import errors.
-- $1 shard int · $2 epoch bigint · $3 problems json
select tickless.set_import_problems_v1($1, $2, $3)

-- name: outputs :many
-- Return values of not mapped tasks of a run.
-- $1 run bigint · $2 task_ids text[]
select task_id, value
from tickless.xcom
where dag_run_key = $1 and task_id = any($2) and map_index = -1 and key = 'return_value'

-- name: pushed :many
-- What not mapped tasks of a run have handed on under other keys.
-- $1 run bigint · $2 task_ids text[] · $3 keys text[], in pairs
select x.task_id, x.key, x.value
from unnest($2::text[], $3::text[]) as wanted (task_id, key)
join tickless.xcom x on x.dag_run_key = $1 and x.task_id = wanted.task_id and x.map_index = -1 and x.key = wanted.key

-- name: open_requests :many
-- Trigger requests that nobody has dealt with, oldest first.
-- $1 limit int
select
    r.id, r.dag_id, r.run_id, r.conf::text as conf, r.logical_date, r.idempotency_key,
    by_key.key as key_of, by_name.key as name_of, 'sql:' || r.requested_by as actor
from tickless.trigger_request r
left join tickless.dag_run by_key on by_key.idempotency_key = r.idempotency_key
left join tickless.dag_run by_name on by_name.dag_id = r.dag_id and by_name.run_id = r.run_id
where r.handled_at is null
order by r.id
limit $1

-- name: open_commands :many
-- Commands that nobody has dealt with, oldest first.
-- $1 limit int
select
    id, kind, payload::text as payload, cursor::text as cursor, coalesce(actor, 'sql:' || requested_by) as actor
from tickless.command
where handled_at is null
order by id
limit $1

-- name: free_rows :one
-- Which of these requests, and of these commands, nobody else has locked now. The locks are given back at once.
-- $1 ids of trigger requests bigint[] · $2 ids of commands bigint[]
select array(
    select 'r' || r.id from tickless.trigger_request r where r.id = any ($1) for no key update skip locked
) || array(
    select 'c' || c.id from tickless.command c where c.id = any ($2) for no key update skip locked
)

-- name: taken_names :many
-- Which of some names runs have.
-- $1 dag_ids text[] · $2 their run_ids text[]
select r.dag_id, r.run_id
from unnest($1::text[], $2::text[]) as n(dag_id, run_id)
join tickless.dag_run r on r.dag_id = n.dag_id and r.run_id = n.run_id
