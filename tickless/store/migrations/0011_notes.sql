-- Notes; runs and DAGs that may be deleted.
-- Locks: ACCESS EXCLUSIVE on shard for the moment of adding two columns without rewriting anything.
-- Duration: milliseconds.
-- Compat: yes (the previous release does not look at any of it; it could give the number of a deleted run again).

alter table shard
    add last_run bigint not null default 0,
    add last_version bigint not null default 0;
comment on column shard.last_run is 'the highest key of a run that was deleted: keys are never given twice';
comment on column shard.last_version is 'the same of versions of DAGs';

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
