-- name: instances :many
-- Task instances of a run by (task_id, map_index), each with its latest attempt.
-- $1 run bigint · $2 states text[] or null, `none` for NULL · $3 after: task_id text · $4 after: map_index int
-- $5 limit int
select
    t.dag_id, t.run_id, t.dag_run_key, t.task_id, t.map_index, t.state, t.try_number, t.attempt_id,
    t.lost_count, t.tries_cleared, t.scheduled_at, t.queued_at, t.started_at, t.ended_at, t.due_at, t.reason,
    a.attempt_id as a_attempt_id, a.dag_run_key as a_dag_run_key, a.task_id as a_task_id,
    a.map_index as a_map_index, a.try_number as a_try_number, a.state as a_state, a.executor as a_executor,
    a.queue as a_queue, a.pool as a_pool, a.pool_slots as a_pool_slots, a.queued_at as a_queued_at,
    a.log_path as a_log_path, a.started_at as a_started_at, a.ended_at as a_ended_at,
    a.timeout_seconds as a_timeout_seconds, a.stop_requested_at as a_stop_requested_at,
    a.stop_reason as a_stop_reason, a.exit_code as a_exit_code, a.signal as a_signal, a.reason as a_reason,
    a.error as a_error, a.pid as a_pid, a.host as a_host
from tickless.task_instance t
left join tickless.task_attempt a on a.attempt_id = t.attempt_id
where t.dag_run_key = $1 and (t.task_id, t.map_index) > (coalesce($3, ''), coalesce($4, -2))
    and ($2::text[] is null or coalesce(t.state, 'none') = any ($2))
order by t.task_id, t.map_index
limit $5

-- name: instance :one
-- One task instance with its latest attempt.
-- $1 run bigint · $2 task_id text · $3 map_index int
select
    t.dag_id, t.run_id, t.dag_run_key, t.task_id, t.map_index, t.state, t.try_number, t.attempt_id,
    t.lost_count, t.tries_cleared, t.scheduled_at, t.queued_at, t.started_at, t.ended_at, t.due_at, t.reason,
    a.attempt_id as a_attempt_id, a.dag_run_key as a_dag_run_key, a.task_id as a_task_id,
    a.map_index as a_map_index, a.try_number as a_try_number, a.state as a_state, a.executor as a_executor,
    a.queue as a_queue, a.pool as a_pool, a.pool_slots as a_pool_slots, a.queued_at as a_queued_at,
    a.log_path as a_log_path, a.started_at as a_started_at, a.ended_at as a_ended_at,
    a.timeout_seconds as a_timeout_seconds, a.stop_requested_at as a_stop_requested_at,
    a.stop_reason as a_stop_reason, a.exit_code as a_exit_code, a.signal as a_signal, a.reason as a_reason,
    a.error as a_error, a.pid as a_pid, a.host as a_host
from tickless.task_instance t
left join tickless.task_attempt a on a.attempt_id = t.attempt_id
where t.dag_run_key = $1 and t.task_id = $2 and t.map_index = $3

-- name: attempts :many
-- Attempts of a task instance, newest first.
-- $1 run bigint · $2 task_id text · $3 map_index int · $4 before: attempt_id bigint or null · $5 limit int
select
    a.attempt_id, a.dag_run_key, a.task_id, a.map_index, a.try_number, a.state, a.executor, a.queue, a.pool,
    a.pool_slots, a.queued_at, a.log_path, a.started_at, a.ended_at, a.timeout_seconds, a.stop_requested_at,
    a.stop_reason, a.exit_code, a.signal, a.reason, a.error, a.pid, a.host
from tickless.task_attempt a
where a.dag_run_key = $1 and a.task_id = $2 and a.map_index = $3
    and a.attempt_id < coalesce($4, 9223372036854775807)
order by a.attempt_id desc
limit $5

-- name: attempt :one
-- One attempt.
-- $1 attempt_id bigint
select
    a.attempt_id, a.dag_run_key, a.task_id, a.map_index, a.try_number, a.state, a.executor, a.queue, a.pool,
    a.pool_slots, a.queued_at, a.log_path, a.started_at, a.ended_at, a.timeout_seconds, a.stop_requested_at,
    a.stop_reason, a.exit_code, a.signal, a.reason, a.error, a.pid, a.host
from tickless.task_attempt a
where a.attempt_id = $1

-- name: xcoms :many
-- What a task instance handed on, by key.
-- $1 run bigint · $2 task_id text · $3 map_index int · $4 limit int
select dag_run_key, task_id, map_index, key, value, created_at
from tickless.xcom
where dag_run_key = $1 and task_id = $2 and map_index = $3
order by key
limit $4
