-- name: migration_presence :one
-- Whether anything was ever migrated here, and whether somebody made the schema for us.
select
    to_regnamespace('tickless') is not null as has_schema,
    to_regclass('tickless.schema_migration') is not null as has_ledger

-- name: applied_migrations :many
-- What was applied, by name.
select name, checksum, is_compatible from tickless.schema_migration order by name

-- name: record_migration :exec
-- A migration was applied, or a repeatable one again.
-- $1 name text · $2 checksum text · $3 is_compatible boolean
insert into tickless.schema_migration (name, checksum, is_compatible)
values ($1, $2, $3)
on conflict (name) do update set
    checksum = excluded.checksum, is_compatible = excluded.is_compatible, applied_at = now()

-- name: lock_migrations :exec
-- Wait for our turn, at most lock_timeout.
-- $1 class int · $2 lock int
select pg_advisory_lock($1, $2)

-- name: unlock_migrations :exec
-- Let the next one have its turn.
-- $1 class int · $2 lock int
select pg_advisory_unlock($1, $2)

-- name: migration_lock_holder :one
-- The backend that migrates now.
-- $1 class int · $2 lock int
select pid
from pg_locks
where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
    and classid = $1::bigint::oid and objid = $2::bigint::oid and objsubid = 2 and granted
