-- What the numbered migrations add up to: to read, not to run. Change it together with a new migration;
-- tests/migration holds the two equal. The functions are in migrations/r_*.sql.

create schema tickless;
set search_path = tickless;

create table schema_migration (
    name text primary key,
    checksum text not null,
    is_compatible boolean not null,
    applied_at timestamptz not null default now()
);

-- Identifiers sort by code point, as they do in Python: pages and batches are in the same order on both sides.
-- There are no foreign keys between the tables of the flusher. It is their only writer, and a check per row would
-- cost more than the row (and lock its parent).

create table shard (
    shard_id int primary key,
    epoch bigint not null default 0,
    owner text,
    backend_pid int,
    backend_start timestamptz,
    taken_at timestamptz,
    last_backfill bigint not null default 0,
    last_run bigint not null default 0,
    last_version bigint not null default 0
) with (fillfactor = 50);
comment on column shard.last_run is 'the highest key of a run that was deleted: keys are never given twice';
comment on column shard.last_version is 'the same of versions of DAGs';
comment on column shard.last_backfill is 'the highest key of a backfill that was deleted with its DAG';
comment on table shard is 'Who leads. Each flush holds its row FOR SHARE and checks the epoch; taking the lead raises it.';
insert into shard (shard_id) values (1);

create table dag (
    dag_id text collate "C" primary key check (length(dag_id) between 1 and 250),
    current_version bigint,
    file text,
    changed_at timestamptz not null,
    is_paused boolean not null default false,
    last_interval_start timestamptz,
    last_interval_end timestamptz,
    scheduled_since timestamptz,
    failed_in_a_row int not null default 0
);
comment on column dag.current_version is 'key of dag_version; NULL: no file defines the DAG any more';
comment on column dag.last_interval_end is
    'of the last run that the schedule has made: written in one commit with that run, so no slot comes twice';
comment on column dag.scheduled_since is
    'a schedule without a start date counts from here, until it has made a run';

create table dag_version (
    key bigint primary key,
    dag_id text collate "C" not null,
    number int not null,
    hash text not null,
    file text not null,
    bundle text not null,
    created_at timestamptz not null,
    spec text not null,
    unique (dag_id, number)
);

create table dag_run (
    dag_id text collate "C" not null check (length(dag_id) between 1 and 250),
    run_id text collate "C" not null check (length(run_id) between 1 and 250),
    state text not null check (state in ('queued', 'running', 'success', 'failed')),
    run_type text not null,
    logical_date timestamptz,
    queued_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    -- Kept as written (json, not jsonb), and usable with every jsonb operator: the check refuses what jsonb does.
    conf json not null check (conf::jsonb is not null and octet_length(conf::text) <= 16777216),
    key bigint primary key,
    version bigint not null,
    shard_id int not null default 1,
    created_upto int not null default 0,
    cancel_requested_at timestamptz,
    frozen text,
    idempotency_key text collate "C" unique,
    run_after timestamptz,
    data_interval_start timestamptz,
    data_interval_end timestamptz,
    cancel_reason text,
    previous_run bigint,
    backfill bigint,
    unique (dag_id, run_id)
) with (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200,
    autovacuum_analyze_scale_factor = 0.05
);
comment on column dag_run.run_after is 'when its slot was due; NULL: somebody started it';
comment on column dag_run.cancel_reason is
    'of a run with cancel_requested_at: dagrun_timeout or fail_fast, in a sentence; NULL: somebody asked for it';
comment on column dag_run.previous_run is
    'key of the run that its depends_on_past tasks look at; 0: it is the first; NULL: not known (yet): it has no such task, or no logical date';
comment on column dag_run.backfill is 'key of the backfill that made it';
create index dag_run_live on dag_run (key) where state in ('queued', 'running');
create index dag_run_of_dag on dag_run (dag_id, key);
create index dag_run_moment on dag_run (dag_id, coalesce(logical_date, queued_at));
create index dag_run_dated on dag_run (dag_id, logical_date, key) where logical_date is not null;
create index dag_run_of_backfill on dag_run (backfill, key) where backfill is not null;
create index dag_run_of_slot on dag_run (dag_id, logical_date) where logical_date is not null;

create table backfill (
    key bigint primary key,
    dag_id text collate "C" not null,
    schedule json not null,
    from_at timestamptz not null,
    to_at timestamptz not null,
    reprocess text not null check (reprocess in ('none', 'failed', 'completed')),
    max_active int not null check (max_active > 0),
    is_backwards boolean not null,
    conf json not null check (conf::jsonb is not null and octet_length(conf::text) <= 16777216),
    created_at timestamptz not null,
    place timestamptz,
    made int not null,
    passed int not null,
    is_paused boolean not null,
    cancelled_at timestamptz,
    completed_at timestamptz
);
comment on column backfill.place is
    'of the last slot that is dealt with; NULL: none. Written in one commit with the runs that are made';
comment on column backfill.completed_at is 'when no slot and no unfinished run was left';
create index backfill_of_dag on backfill (dag_id, key);
create index backfill_open on backfill (key) where completed_at is null;

-- No index on anything that changes: updates stay on their page (HOT).
create table task_instance (
    dag_id text collate "C" not null,
    task_id text collate "C" not null check (length(task_id) between 1 and 250),
    run_id text collate "C" not null,
    map_index int not null default -1,
    state text check (
        state in (
            'scheduled', 'queued', 'running', 'restarting', 'success', 'failed', 'skipped', 'upstream_failed',
            'removed', 'up_for_retry', 'up_for_reschedule', 'deferred'
        )
    ),
    try_number int not null default 0,
    scheduled_at timestamptz,
    queued_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    due_at timestamptz,
    reason text,
    dag_run_key bigint not null,
    attempt_id bigint not null default 0,
    lost_count int not null default 0,
    tries_cleared int not null default 0,
    primary key (dag_run_key, task_id, map_index)
) with (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.05
);
comment on column task_instance.state is 'NULL: nothing decided yet, it waits for its upstream';
comment on column task_instance.attempt_id is 'the latest attempt; 0: there was none';
comment on column task_instance.tries_cleared is 'its try_number when it was last cleared: retries count from there';

create table task_attempt (
    attempt_id bigint primary key,
    dag_run_key bigint not null,
    task_id text collate "C" not null,
    map_index int not null,
    try_number int not null,
    state text not null check (state in ('queued', 'running', 'success', 'failed', 'skipped', 'lost')),
    executor text not null,
    queue text not null,
    pool text not null,
    pool_slots int not null,
    queued_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    timeout_seconds double precision,
    stop_requested_at timestamptz,
    stop_reason text,
    exit_code int,
    signal int,
    reason text,
    error text,
    pid int,
    host text,
    log_path text not null
) with (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.05
);
create index task_attempt_live on task_attempt (attempt_id) where state in ('queued', 'running');
create index task_attempt_of_instance on task_attempt (dag_run_key, task_id, map_index, attempt_id);

create table task_map (
    dag_run_key bigint not null,
    task_id text collate "C" not null check (length(task_id) between 1 and 250),
    length int not null check (length >= 0),
    expanded_upto int check (expanded_upto between 0 and length),
    primary key (dag_run_key, task_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
comment on table task_map is
'Of a task that others are mapped over: the length of what it returned. Of a mapped task: how many instances it has.';
comment on column task_map.expanded_upto is
'of a mapped task: how many of its instances have rows; when all have, that with map_index -1 is deleted';

create table xcom (
    dag_id text collate "C" not null,
    task_id text collate "C" not null,
    run_id text collate "C" not null,
    map_index int not null,
    key text collate "C" not null check (length(key) between 1 and 250),
    value json not null check (value::jsonb is not null and octet_length(value::text) <= 16777216),
    created_at timestamptz not null,
    dag_run_key bigint not null,
    primary key (dag_run_key, task_id, map_index, key)
);

create table slot_pool (
    pool text collate "C" primary key check (length(pool) between 1 and 250),
    slots int not null check (slots >= 0)
);
insert into slot_pool (pool, slots) values ('default_pool', 128);

-- Written by anybody, through the functions in r_request.sql. They share no key with the flusher's tables, so that
-- somebody's open transaction can stall nothing.
create table trigger_request (
    id bigint generated always as identity primary key,
    dag_id text collate "C" not null check (length(dag_id) between 1 and 250),
    run_id text collate "C" check (length(run_id) between 1 and 250),
    conf jsonb not null default '{}' check (jsonb_typeof(conf) = 'object' and octet_length(conf::text) <= 16777216),
    logical_date timestamptz,
    idempotency_key text collate "C" check (length(idempotency_key) between 1 and 250),
    requested_by text not null default session_user,
    requested_at timestamptz not null default now(),
    handled_at timestamptz,
    dag_run_key bigint,
    error text
);
create index trigger_request_open on trigger_request (id) where handled_at is null;

create table command (
    id bigint generated always as identity primary key,
    kind text not null,
    payload jsonb not null default '{}' check (jsonb_typeof(payload) = 'object'),
    requested_by text not null default session_user,
    requested_at timestamptz not null default now(),
    handled_at timestamptz,
    dag_run_key bigint,
    error text,
    cursor jsonb,
    actor text
);
create index command_open on command (id) where handled_at is null;
comment on column command.cursor is 'how far a command has come that takes several commits, and what it has done';
comment on column command.actor is 'on whose behalf the daemon wrote it; NULL: requested_by wrote it';

create table import_error (
    folder text collate "C" not null,
    file text collate "C" not null,
    line int,
    error text not null,
    traceback text,
    at timestamptz not null,
    primary key (folder, file)
);

create table quarantine (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    dag_run_key bigint,
    attempt_id bigint,
    kind text not null,
    event text not null,
    traceback text not null
);

create table event_log (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    actor text not null,
    action text not null,
    dag_id text collate "C",
    dag_run_key bigint,
    task_id text collate "C",
    detail jsonb not null default '{}'
);
comment on table event_log is 'The audit: who asked for what.';
create index event_log_of_dag on event_log (dag_id, id) where dag_id is not null;
create index event_log_of_run on event_log (dag_run_key, id) where dag_run_key is not null;

create table variable (
    key text collate "C" primary key check (length(key) between 1 and 250),
    val text not null,
    description text,
    changed_at timestamptz not null
);
comment on column variable.val is 'sealed with a key that is not in the database';

create table connection (
    conn_id text collate "C" primary key check (length(conn_id) between 1 and 250),
    conn_type text not null,
    description text,
    host text,
    schema text,
    login text,
    password text,
    port int,
    extra text,
    changed_at timestamptz not null
);
comment on column connection.password is 'sealed, as extra is, with a key that is not in the database';

create table attempt_request (
    attempt_id bigint primary key,
    number int not null,
    value text not null
);
comment on table attempt_request is
'The last request of each running attempt that has changed something, and its answer: asked again, it changes nothing.';

create table note (
    dag_run_key bigint not null,
    task_id text collate "C" not null check (length(task_id) <= 250),
    map_index int not null,
    text text not null check (length(text) between 1 and 1000),
    author text not null,
    changed_at timestamptz not null,
    primary key (dag_run_key, task_id, map_index)
);
comment on column note.task_id is 'empty: the note is about the run';
