-- What the leader writes with: one statement per flush, in autocommit. Repeatable: applied again when it changes.
-- A change that an older release could not call needs a function with a new name (flush_v2).
--
-- Every function checks the epoch first and holds the shard's row FOR SHARE until it commits, so that whoever takes
-- the next epoch waits for it (FOR KEY SHARE would not conflict with that UPDATE and fence nothing).
--   TK001  the epoch is over
--   TK002  a guard did not hold: fewer rows than expected; everything rolls back

create or replace function tickless.check_epoch_v1(p_shard int, p_epoch bigint) returns void
language plpgsql as $$
declare
    found_epoch bigint;
    found_owner text;
begin
    perform from tickless.shard s where s.shard_id = p_shard and s.epoch = p_epoch for share;
    if not found then
        select s.epoch, s.owner into found_epoch, found_owner from tickless.shard s where s.shard_id = p_shard;
        raise exception 'epoch % of shard % is over: % leads in epoch %', p_epoch, p_shard, found_owner, found_epoch
            using errcode = 'TK001';
    end if;
end
$$;

create or replace function tickless.expect_rows_v1(p_section text, p_found bigint, p_expected int) returns void
language plpgsql as $$
begin
    if p_found is distinct from p_expected then
        raise exception '% of % rows of the section "%" were as expected', p_found, p_expected, p_section
            using errcode = 'TK002';
    end if;
end
$$;

-- Each section is a JSON array of row images, NULL when it is empty. `was` and `had` are guards: the state and the
-- attempt that the row must have now. p_counts: rows of new_runs, runs, new_instances, instances, new_attempts,
-- attempts, xcoms, dag_states, and of those among the maps that are fully expanded: their row with map_index -1 goes.
--
-- flush_v1 and flush_v2, which older releases called, stay behind in databases that have them.
create or replace function tickless.flush_v3(
    p_shard int, p_epoch bigint, p_counts int[],
    p_versions json, p_dags json, p_dag_states json, p_pools json,
    p_new_runs json, p_runs json, p_new_instances json, p_instances json, p_new_attempts json, p_attempts json,
    p_xcoms json, p_requests json, p_maps json
) returns void
language plpgsql as $$
declare
    n bigint;
    patience text;
begin
    perform from tickless.shard s where s.shard_id = p_shard and s.epoch = p_epoch for share;
    if not found then
        perform tickless.check_epoch_v1(p_shard, p_epoch);  -- raises, saying who leads
    end if;

    if p_versions is not null then
        insert into tickless.dag_version (key, dag_id, number, hash, file, bundle, created_at, spec)
        select r.key, r.dag_id, r.number, r.hash, r.file, r.bundle, r.created_at, r.spec
        from json_to_recordset(p_versions) as r(
            key bigint, dag_id text, number int, hash text, file text, bundle text, created_at timestamptz, spec text
        )
        on conflict (key) do update set
            dag_id = excluded.dag_id, number = excluded.number, hash = excluded.hash, file = excluded.file,
            bundle = excluded.bundle, created_at = excluded.created_at, spec = excluded.spec;
    end if;

    if p_dags is not null then
        insert into tickless.dag (dag_id, current_version, file, changed_at)
        select r.dag_id, r.version, r.file, r.at
        from json_to_recordset(p_dags) as r(dag_id text, version bigint, file text, at timestamptz)
        on conflict (dag_id) do update set
            current_version = excluded.current_version, file = coalesce(excluded.file, dag.file),
            changed_at = excluded.changed_at;
    end if;

    if p_dag_states is not null then
        update tickless.dag d set
            is_paused = r.is_paused, last_interval_start = r.last_interval_start,
            last_interval_end = r.last_interval_end, scheduled_since = r.scheduled_since,
            failed_in_a_row = r.failed_in_a_row
        from json_to_recordset(p_dag_states) as r(
            dag_id text, is_paused boolean, last_interval_start timestamptz, last_interval_end timestamptz,
            scheduled_since timestamptz, failed_in_a_row int
        )
        where d.dag_id = r.dag_id;
        get diagnostics n = row_count;
        if n <> p_counts[8] then perform tickless.expect_rows_v1('dag states', n, p_counts[8]); end if;
    end if;

    if p_pools is not null then
        insert into tickless.slot_pool (pool, slots)
        select r.name, r.slots from json_to_recordset(p_pools) as r(name text, slots int)
        on conflict (pool) do update set slots = excluded.slots;
    end if;

    if p_new_runs is not null then
        insert into tickless.dag_run (
            key, dag_id, run_id, version, state, run_type, conf, logical_date, queued_at, started_at, ended_at,
            created_upto, cancel_requested_at, frozen, idempotency_key, run_after, data_interval_start,
            data_interval_end, cancel_reason, previous_run, backfill, shard_id
        )
        select
            r.key, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.conf::json, r.logical_date, r.queued_at,
            r.started_at, r.ended_at, r.created_upto, r.cancel_requested_at, r.frozen, r.idempotency_key,
            r.run_after, r.data_interval_start, r.data_interval_end, r.cancel_reason, r.previous_run,
            r.backfill, p_shard
        from json_to_recordset(p_new_runs) as r(
            key bigint, dag_id text, run_id text, version bigint, state text, run_type text, conf text,
            logical_date timestamptz, queued_at timestamptz, started_at timestamptz, ended_at timestamptz,
            created_upto int, cancel_requested_at timestamptz, frozen text, idempotency_key text,
            run_after timestamptz, data_interval_start timestamptz, data_interval_end timestamptz,
            cancel_reason text, previous_run bigint, backfill bigint
        )
        on conflict (key) do nothing;
        get diagnostics n = row_count;
        if n <> p_counts[1] then perform tickless.expect_rows_v1('new runs', n, p_counts[1]); end if;
    end if;

    if p_runs is not null then
        update tickless.dag_run d set
            state = r.state, version = r.version, started_at = r.started_at, ended_at = r.ended_at,
            created_upto = r.created_upto, cancel_requested_at = r.cancel_requested_at,
            cancel_reason = r.cancel_reason, frozen = r.frozen, previous_run = r.previous_run
        from json_to_recordset(p_runs) as r(
            was text, key bigint, version bigint, state text, started_at timestamptz, ended_at timestamptz,
            created_upto int, cancel_requested_at timestamptz, cancel_reason text, frozen text, previous_run bigint
        )
        where d.key = r.key and d.state = r.was;
        get diagnostics n = row_count;
        if n <> p_counts[2] then perform tickless.expect_rows_v1('runs', n, p_counts[2]); end if;
    end if;

    if p_new_instances is not null then
        insert into tickless.task_instance (
            dag_run_key, task_id, map_index, dag_id, run_id, state, try_number, attempt_id, lost_count, tries_cleared,
            scheduled_at, queued_at, started_at, ended_at, due_at, reason
        )
        select
            r.run, r.task_id, r.map_index, d.dag_id, d.run_id, nullif(r.state, 'none'), r.try_number, r.attempt_id,
            r.lost_count, coalesce(r.tries_cleared, 0), r.scheduled_at, r.queued_at, r.started_at, r.ended_at,
            r.due_at, r.reason
        from json_to_recordset(p_new_instances) as r(
            run bigint, task_id text, map_index int, state text, try_number int, attempt_id bigint, lost_count int,
            tries_cleared int, scheduled_at timestamptz, queued_at timestamptz, started_at timestamptz, ended_at timestamptz,
            due_at timestamptz, reason text
        )
        join tickless.dag_run d on d.key = r.run
        on conflict (dag_run_key, task_id, map_index) do nothing;
        get diagnostics n = row_count;
        if n <> p_counts[3] then perform tickless.expect_rows_v1('new instances', n, p_counts[3]); end if;
    end if;

    if p_instances is not null then
        update tickless.task_instance t set
            state = nullif(r.state, 'none'), try_number = r.try_number, attempt_id = r.attempt_id,
            lost_count = r.lost_count, tries_cleared = coalesce(r.tries_cleared, 0), scheduled_at = r.scheduled_at, queued_at = r.queued_at,
            started_at = r.started_at, ended_at = r.ended_at, due_at = r.due_at, reason = r.reason
        from json_to_recordset(p_instances) as r(
            was text, had bigint, run bigint, task_id text, map_index int, state text, try_number int,
            attempt_id bigint, lost_count int, tries_cleared int, scheduled_at timestamptz, queued_at timestamptz,
            started_at timestamptz, ended_at timestamptz, due_at timestamptz, reason text
        )
        where t.dag_run_key = r.run and t.task_id = r.task_id and t.map_index = r.map_index
            and t.state is not distinct from nullif(r.was, 'none') and t.attempt_id = r.had;
        get diagnostics n = row_count;
        if n <> p_counts[4] then perform tickless.expect_rows_v1('instances', n, p_counts[4]); end if;
    end if;

    if p_new_attempts is not null then
        insert into tickless.task_attempt (
            attempt_id, dag_run_key, task_id, map_index, try_number, state, executor, queue, pool, pool_slots,
            queued_at, started_at, ended_at, timeout_seconds, stop_requested_at, stop_reason, exit_code, signal,
            reason, error, pid, host, log_path
        )
        select
            r.attempt_id, r.run, r.task_id, r.map_index, r.try_number, r.state, r.executor, r.queue, r.pool,
            r.pool_slots, r.queued_at, r.started_at, r.ended_at, r.timeout_seconds, r.stop_requested_at,
            r.stop_reason, r.exit_code, r.signal, r.reason, r.error, r.pid, r.host, r.log_path
        from json_to_recordset(p_new_attempts) as r(
            attempt_id bigint, run bigint, task_id text, map_index int, try_number int, state text, executor text,
            queue text, pool text, pool_slots int, queued_at timestamptz, started_at timestamptz,
            ended_at timestamptz, timeout_seconds double precision, stop_requested_at timestamptz, stop_reason text,
            exit_code int, signal int, reason text, error text, pid int, host text, log_path text
        )
        on conflict (attempt_id) do nothing;
        get diagnostics n = row_count;
        if n <> p_counts[5] then perform tickless.expect_rows_v1('new attempts', n, p_counts[5]); end if;
    end if;

    if p_attempts is not null then
        update tickless.task_attempt a set
            state = r.state, started_at = r.started_at, ended_at = r.ended_at,
            stop_requested_at = r.stop_requested_at, stop_reason = r.stop_reason, exit_code = r.exit_code,
            signal = r.signal, reason = r.reason, error = r.error, pid = r.pid, host = r.host
        from json_to_recordset(p_attempts) as r(
            was text, attempt_id bigint, state text, started_at timestamptz, ended_at timestamptz,
            stop_requested_at timestamptz, stop_reason text, exit_code int, signal int, reason text, error text,
            pid int, host text
        )
        where a.attempt_id = r.attempt_id and a.state = r.was;
        get diagnostics n = row_count;
        if n <> p_counts[6] then perform tickless.expect_rows_v1('attempts', n, p_counts[6]); end if;
    end if;

    if p_xcoms is not null then
        insert into tickless.xcom (dag_run_key, task_id, map_index, key, dag_id, run_id, value, created_at)
        select r.run, r.task_id, r.map_index, r.key, d.dag_id, d.run_id, r.value::json, r.created_at
        from json_to_recordset(p_xcoms) as r(
            run bigint, task_id text, map_index int, key text, value text, created_at timestamptz
        )
        join tickless.dag_run d on d.key = r.run
        on conflict (dag_run_key, task_id, map_index, key) do update set
            value = excluded.value, created_at = excluded.created_at;
        get diagnostics n = row_count;
        if n <> p_counts[7] then perform tickless.expect_rows_v1('xcoms', n, p_counts[7]); end if;
    end if;

    if p_requests is not null then
        -- Anybody may hold a row of these: that is noticed before it is decided, and waited for no longer than this.
        patience := current_setting('lock_timeout');
        perform set_config('lock_timeout', '50ms', true);
        update tickless.trigger_request q set handled_at = now(), dag_run_key = r.run, error = r.error
        from json_to_recordset(p_requests) as r("table" text, id bigint, run bigint, error text)
        where r."table" = 'trigger_request' and q.id = r.id;
        update tickless.command q set handled_at = now(), dag_run_key = r.run, error = r.error
        from json_to_recordset(p_requests) as r("table" text, id bigint, run bigint, error text)
        where r."table" = 'command' and q.id = r.id;
        perform set_config('lock_timeout', patience, true);
    end if;

    if p_maps is not null then
        insert into tickless.task_map (dag_run_key, task_id, length, expanded_upto)
        select r.run, r.task_id, r.length, r.expanded_upto
        from json_to_recordset(p_maps) as r(run bigint, task_id text, length int, expanded_upto int)
        on conflict (dag_run_key, task_id) do update set
            length = excluded.length, expanded_upto = excluded.expanded_upto;
        delete from tickless.task_instance t
        using json_to_recordset(p_maps) as r(run bigint, task_id text, length int, expanded_upto int)
        where r.expanded_upto = r.length and t.dag_run_key = r.run and t.task_id = r.task_id and t.map_index = -1
            and t.state is null;
        get diagnostics n = row_count;
        if n <> p_counts[9] then perform tickless.expect_rows_v1('expanded', n, p_counts[9]); end if;
    end if;
end
$$;

-- What people's requests bring along: how far commands have come, values that are dropped because they are made anew,
-- the audit. Called in one statement with a flush, before it; apart, so that the hot flush is not the slower for it.
create or replace function tickless.note_requests_v1(p_progress json, p_dropped_xcoms json, p_events json) returns void
language plpgsql as $$
begin
    update tickless.command q set cursor = r.cursor::jsonb
    from json_to_recordset(p_progress) as r(id bigint, cursor text)
    where q.id = r.id;
    delete from tickless.xcom x
    using json_to_recordset(p_dropped_xcoms) as r(run bigint, task_id text, map_index int)
    where x.dag_run_key = r.run and x.task_id = r.task_id and x.map_index = r.map_index;
    insert into tickless.event_log (at, actor, action, dag_id, dag_run_key, task_id, detail)
    select r.at, r.actor, r.action, r.dag_id, r.run, r.task_id, r.detail::jsonb
    from json_to_recordset(p_events) as r(
        at timestamptz, actor text, action text, dag_id text, run bigint, task_id text, detail text
    );
end
$$;

-- Keeps an event that raised and freezes its run; gives the entry's id.
create or replace function tickless.quarantine_v1(
    p_shard int, p_epoch bigint, p_run bigint, p_attempt bigint, p_kind text, p_event text, p_traceback text,
    p_at timestamptz
) returns bigint
language plpgsql as $$
declare
    entry bigint;
begin
    perform tickless.check_epoch_v1(p_shard, p_epoch);
    insert into tickless.quarantine (at, dag_run_key, attempt_id, kind, event, traceback)
    values (p_at, p_run, p_attempt, p_kind, p_event, p_traceback)
    returning id into entry;
    update tickless.dag_run d set frozen = format('internal error, quarantine entry %s: %s', entry, p_kind)
    where d.key = p_run;
    return entry;
end
$$;

-- p_problems: JSON array of import errors; an entry without an error clears the file's.
create or replace function tickless.set_import_problems_v1(p_shard int, p_epoch bigint, p_problems json) returns void
language plpgsql as $$
begin
    perform tickless.check_epoch_v1(p_shard, p_epoch);
    delete from tickless.import_error e
    using json_to_recordset(p_problems) as r(folder text, file text, error text)
    where e.folder = r.folder and e.file = r.file and r.error is null;
    insert into tickless.import_error (folder, file, line, error, traceback, at)
    select r.folder, r.file, r.line, r.error, r.traceback, now()
    from json_to_recordset(p_problems) as r(folder text, file text, line int, error text, traceback text)
    where r.error is not null
    on conflict (folder, file) do update set
        line = excluded.line, error = excluded.error, traceback = excluded.traceback, at = excluded.at;
end
$$;

-- The next epoch for a new leader. Waits for every flush of an older one that is still in flight.
create or replace function tickless.take_epoch_v1(p_shard int, p_owner text) returns bigint
language sql as $$
    update tickless.shard s set
        epoch = s.epoch + 1, owner = p_owner, taken_at = clock_timestamp(), backend_pid = pg_backend_pid(),
        backend_start = (select a.backend_start from pg_stat_activity a where a.pid = pg_backend_pid())
    where s.shard_id = p_shard
    returning s.epoch
$$;

revoke execute on function
    tickless.check_epoch_v1(int, bigint),
    tickless.expect_rows_v1(text, bigint, int),
    tickless.flush_v3(
        int, bigint, int[], json, json, json, json, json, json, json, json, json, json, json, json, json
    ),
    tickless.note_requests_v1(json, json, json),
    tickless.quarantine_v1(int, bigint, bigint, bigint, text, text, text, timestamptz),
    tickless.set_import_problems_v1(int, bigint, json),
    tickless.take_epoch_v1(int, text)
from public;
