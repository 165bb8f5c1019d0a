-- name: add_command :one
-- A command on somebody's behalf; gives its id.
-- $1 kind text · $2 payload text · $3 actor text
insert into tickless.command (kind, payload, actor) values ($1, $2::text::jsonb, $3) returning id

-- name: command_outcomes :many
-- Those of these commands that are dealt with.
-- $1 ids bigint[]
select id, error, cursor::text as cursor from tickless.command where id = any ($1) and handled_at is not null

-- name: run_tallies :many
-- Finished instances of a run, counted.
-- $1 run bigint
select
    dag_run_key, task_id, state, count(*) as count,
    count(*) filter (where state = 'success' and reason = 'exited') as returned
from tickless.task_instance
where dag_run_key = $1 and state in ('success', 'failed', 'skipped', 'upstream_failed', 'removed')
group by dag_run_key, task_id, state

-- name: run_maps :many
-- Of a run: lengths of what is mapped over, and how far mapped tasks are expanded.
-- $1 run bigint
select dag_run_key, task_id, length, expanded_upto from tickless.task_map where dag_run_key = $1 order by task_id

-- name: chosen_instances :many
-- Instances of some tasks of a run, in the order of those tasks.
-- $1 run bigint · $2 task_ids text[] · $3 after: place int, from 0 · $4 after: map_index int
-- $5 states text[] or null, `none` for NULL · $6 limit int · $7 task_ids text[], $8 map_indexes int[]: pairs; of a task
-- in them only these instances
select
    t.dag_run_key, t.task_id, t.map_index, t.state, t.try_number, t.attempt_id, t.lost_count, t.tries_cleared,
    t.scheduled_at, t.queued_at, t.started_at, t.ended_at, t.due_at, t.reason
from unnest($2::text[]) with ordinality as w(task_id, place)
join tickless.task_instance t on t.dag_run_key = $1 and t.task_id = w.task_id
where (w.place - 1, t.map_index) > ($3::bigint, $4::int)
    and ($5::text[] is null or coalesce(t.state, 'none') = any ($5))
    and (
        not t.task_id = any ($7::text[])
        or exists (select from unnest($7::text[], $8::int[]) as s(task_id, map_index)
            where s.task_id = t.task_id and s.map_index = t.map_index)
    )
order by w.place, t.map_index
limit $6

-- name: next_run :one
-- The next run of a DAG, by key, that fits.
-- $1 dag_id text · $2 after: key bigint · $3 states text[] or null · $4 queued since timestamptz or null
-- $5 queued before timestamptz or null
select key
from tickless.dag_run
where dag_id = $1 and key > $2 and ($3::text[] is null or state = any ($3))
    and ($4::timestamptz is null or queued_at >= $4) and ($5::timestamptz is null or queued_at < $5)
order by key
limit 1

-- name: events :many
-- The audit, newest first.
-- $1 before: id bigint or null · $2 limit int · $3 dag_id text or null · $4 run bigint or null · $5 actor text or null
-- $6 surface text or null: what stands before the name of an actor · $7 action text or null
-- $8 since timestamptz or null · $9 until timestamptz or null
select id, at, actor, action, dag_id, dag_run_key, task_id, detail::text as detail
from tickless.event_log
where id < coalesce($1, 9223372036854775807)
    and ($3::text is null or dag_id = $3) and ($4::bigint is null or dag_run_key = $4)
    and ($5::text is null or actor = $5) and ($6::text is null or split_part(actor, ':', 1) = $6)
    and ($7::text is null or action = $7)
    and ($8::timestamptz is null or at >= $8) and ($9::timestamptz is null or at < $9)
order by id desc
limit $2
