-- name: probe :one
-- Proof that we are heard: false when we listen no more, else the payload comes back as a notification.
-- $1 channel text · $2 payload text
select exists (select from pg_listening_channels() as c where c = $1) and pg_notify($1, $2) is not null

-- name: try_lead :one
-- The lock of a shard, if nobody has it.
-- $1 class int · $2 shard int
select pg_try_advisory_lock($1, $2)

-- name: wait_to_lead :exec
-- The lock of a shard; waits for at most lock_timeout.
-- $1 class int · $2 shard int
select pg_advisory_lock($1, $2)

-- name: resign :exec
-- Give the lock of a shard back, and say so.
-- $1 class int · $2 shard int · $3 channel text
select pg_advisory_unlock($1, $2), pg_notify($3, 'leader_resigned')

-- name: lock_holder :one
-- Who has the lock of a shard.
-- $1 class int · $2 shard int
select l.pid, a.backend_start, a.client_addr::text as address, s.owner
from pg_locks l
left join pg_stat_activity a using (pid)
left join tickless.shard s on s.shard_id = $2
where l.locktype = 'advisory' and l.database = (select oid from pg_database where datname = current_database())
    and l.classid = $1::bigint::oid and l.objid = $2::bigint::oid and l.objsubid = 2 and l.granted

-- name: end_own_backend :exec
-- End a backend that served us and may not know yet that we are gone.
-- $1 backend int · $2 backend_start timestamptz
select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and backend_start = $2

-- name: own_backend :one
-- The backend that serves us.
select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()
