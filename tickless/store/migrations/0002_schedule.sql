-- Schedules: how far each DAG's has come, whether it is paused, and what time its runs are about.
-- Locks: ACCESS EXCLUSIVE on dag and dag_run, for the moment of adding columns without rewriting anything.
-- Duration: milliseconds.
-- Compat: yes (flush_v1, which knows none of these columns, goes on working in a database that has it).

alter table dag
    add is_paused boolean not null default false,
    add last_interval_start timestamptz,
    add last_interval_end timestamptz,
    add scheduled_since timestamptz,
    add failed_in_a_row int not null default 0;
comment on column dag.last_interval_end is
    'of the last run that the schedule has made: written in one commit with that run, so no slot comes twice';

comment on column dag.scheduled_since is
    'a schedule without a start date counts from here, until it has made a run';

alter table dag_run
    add run_after timestamptz,
    add data_interval_start timestamptz,
    add data_interval_end timestamptz;
comment on column dag_run.run_after is 'when its slot was due; NULL: somebody started it';
