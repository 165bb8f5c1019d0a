-- SQL as an API: what anybody may call inside a transaction of their own. Repeatable: applied again when it changes.
-- docs/howto/sql.md says who may call what, and which grants that takes.

create or replace function tickless.hint_request() returns trigger
language plpgsql as $$
begin
    -- The same payload from many statements folds into one: it says where to look, not what is there.
    perform pg_notify('tickless', tg_table_name);
    return null;
end
$$;

-- Only on INSERT: the flusher's own UPDATE must not wake it.
create or replace trigger trigger_request_hint after insert on tickless.trigger_request
for each statement execute function tickless.hint_request();
create or replace trigger command_hint after insert on tickless.command
for each statement execute function tickless.hint_request();

-- Asks for a run of a DAG; it starts when, and only when, the calling transaction commits. Gives the id of the
-- request: SELECT * FROM trigger_request WHERE id = … says what became of it.
-- SECURITY DEFINER: the caller needs no right on any table. pg_temp last, or a temporary table could pose as ours.
create or replace function tickless.trigger_dag(
    dag_id text,
    conf jsonb default '{}',
    run_id text default null,
    logical_date timestamptz default null,
    idempotency_key text default null
) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into tickless.trigger_request (dag_id, conf, run_id, logical_date, idempotency_key)
    values (
        trigger_dag.dag_id, coalesce(trigger_dag.conf, '{}'), trigger_dag.run_id, trigger_dag.logical_date,
        trigger_dag.idempotency_key
    )
    returning id
$$;

-- Asks for something else. Others call the functions below, which know what a command of theirs must say.
create or replace function tickless.request_command(kind text, payload jsonb) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into tickless.command (kind, payload) values (request_command.kind, request_command.payload) returning id
$$;

-- While a DAG is paused its schedule makes no runs, none of its runs starts, and none of its tasks is sent off; what
-- runs goes on. Give the id of the request: SELECT * FROM command WHERE id = … says what became of it.
create or replace function tickless.pause_dag(dag_id text) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command('pause_dag', jsonb_build_object('dag_id', pause_dag.dag_id))
$$;
create or replace function tickless.unpause_dag(dag_id text) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command('unpause_dag', jsonb_build_object('dag_id', unpause_dag.dag_id))
$$;

-- Stop a run: what runs of it is ended, the rest is skipped.
create or replace function tickless.cancel_run(run bigint) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command('cancel', jsonb_build_object('run', cancel_run.run))
$$;

-- Run the schedule of a DAG over the past: every slot from from_at to to_at. reprocess says which
-- slots that have a run already get another: 'none', those where it has 'failed', all where it is 'completed'.
create or replace function tickless.create_backfill(
    dag_id text,
    from_at timestamptz,
    to_at timestamptz,
    reprocess text default 'none',
    max_active int default 10,
    backwards boolean default false,
    conf jsonb default '{}'
) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command(
        'create_backfill',
        jsonb_build_object(
            'dag_id', create_backfill.dag_id, 'from_at', create_backfill.from_at, 'to_at', create_backfill.to_at,
            'reprocess', create_backfill.reprocess, 'max_active', create_backfill.max_active,
            'backwards', create_backfill.backwards, 'conf', coalesce(create_backfill.conf, '{}')
        )
    )
$$;

-- Pause or unpause a backfill, or cancel it: its queued runs end, and it makes no more.
create or replace function tickless.pause_backfill(backfill bigint) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command('pause_backfill', jsonb_build_object('backfill', pause_backfill.backfill))
$$;
create or replace function tickless.unpause_backfill(backfill bigint) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command('unpause_backfill', jsonb_build_object('backfill', unpause_backfill.backfill))
$$;
create or replace function tickless.cancel_backfill(backfill bigint) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command('cancel_backfill', jsonb_build_object('backfill', cancel_backfill.backfill))
$$;

-- Delete a finished run, with its tasks, attempts, XComs, notes and logs.
create or replace function tickless.delete_run(run bigint) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command('delete_run', jsonb_build_object('run', delete_run.run))
$$;

-- Run tasks of a run again (none named: all of them); what runs is stopped first.
create or replace function tickless.clear_task(
    run bigint, variadic tasks text[] default '{}'
) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command(
        'clear', jsonb_build_object('run', clear_task.run, 'tasks', to_jsonb(clear_task.tasks))
    )
$$;

-- Declare a whole run done ('success') or give it up ('failed'); what runs is stopped first.
create or replace function tickless.mark_run(run bigint, state text) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command('mark_run', jsonb_build_object('run', mark_run.run, 'state', mark_run.state))
$$;

-- Declare tasks of a run done ('success') or give them up ('failed'); what runs is stopped first.
create or replace function tickless.mark_task(
    run bigint, state text, variadic tasks text[]
) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select tickless.request_command(
        'mark',
        jsonb_build_object('run', mark_task.run, 'state', mark_task.state, 'tasks', to_jsonb(mark_task.tasks))
    )
$$;

revoke execute on function
    tickless.hint_request(),
    tickless.delete_run(bigint),
    tickless.create_backfill(text, timestamptz, timestamptz, text, int, boolean, jsonb),
    tickless.pause_backfill(bigint),
    tickless.unpause_backfill(bigint),
    tickless.cancel_backfill(bigint),
    tickless.mark_run(bigint, text),
    tickless.cancel_run(bigint),
    tickless.clear_task(bigint, text[]),
    tickless.mark_task(bigint, text, text[]),
    tickless.trigger_dag(text, jsonb, text, timestamptz, text),
    tickless.request_command(text, jsonb),
    tickless.pause_dag(text),
    tickless.unpause_dag(text)
from public;
