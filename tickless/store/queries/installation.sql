-- name: pools :many
-- Pools with the slots that live attempts hold of them.
select
    p.pool, p.slots,
    coalesce(sum(a.pool_slots) filter (where a.state = 'queued'), 0)::int as queued,
    coalesce(sum(a.pool_slots) filter (where a.state = 'running'), 0)::int as running
from tickless.slot_pool p
left join tickless.task_attempt a on a.pool = p.pool and a.state in ('queued', 'running')
group by p.pool, p.slots
order by p.pool

-- name: leader :one
-- Who leads a shard, or led it last.
-- $1 shard int
select epoch, owner, taken_at from tickless.shard where shard_id = $1

-- name: trigger_request :one
-- A trigger request and what became of it.
-- $1 id bigint
select id, dag_id, requested_by, requested_at, handled_at, dag_run_key, error
from tickless.trigger_request
where id = $1

-- name: quarantined :many
-- Quarantined events, newest first.
-- $1 before: id bigint or null · $2 limit int
select id, at, dag_run_key, attempt_id, kind, event, traceback
from tickless.quarantine
where id < coalesce($1, 9223372036854775807)
order by id desc
limit $2
