-- The previous run of a run is looked up by logical date, among all runs of its DAG. The indexes that were made for it
-- did not fit: they held only runs that have a previous one already.
-- Locks: ACCESS EXCLUSIVE on dag_run while two indexes are dropped, then SHARE while the new one is made.
-- Duration: one scan of dag_run.
-- Compat: yes (the previous release uses none of them).

drop index dag_run_past;
drop index dag_run_past_date;
create index dag_run_dated on dag_run (dag_id, logical_date, key) where logical_date is not null;
comment on column dag_run.previous_run is
    'key of the run that its depends_on_past tasks look at; 0: it is the first; NULL: not known (yet): it has no such task, or no logical date';
