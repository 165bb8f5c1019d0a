-- Why a run was ended before its time, and which run is the previous one of a run with tasks that depend on the past.
-- Locks: ACCESS EXCLUSIVE on dag_run while columns are added without rewriting anything, then SHARE for the indexes.
-- Duration: milliseconds, and one scan of dag_run for the two indexes.
-- Compat: yes (the previous release leaves both columns empty).

alter table dag_run
    add cancel_reason text,
    add previous_run bigint;
comment on column dag_run.cancel_reason is
    'of a run with cancel_requested_at: dagrun_timeout or fail_fast, in a sentence; NULL: somebody asked for it';
comment on column dag_run.previous_run is
    'key of the run that its depends_on_past tasks look at; 0: it is the first; NULL: it has no such task';
create index dag_run_past on dag_run (dag_id, key) where previous_run is not null;
create index dag_run_past_date on dag_run (dag_id, logical_date, key) where previous_run is not null;
