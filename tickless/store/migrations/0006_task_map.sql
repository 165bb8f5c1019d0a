-- Mapped tasks: how long the values are that tasks are mapped over, and how far each expansion has come.
-- Locks: none that anybody could wait for, the table is new.
-- Duration: milliseconds.
-- Compat: yes (the previous release does not look at it; it does not understand the mapped tasks of a newer one).

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
