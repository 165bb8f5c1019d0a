-- The audit is asked by DAG and by run.
-- Locks: SHARE on event_log while its indexes are made; nobody waits but who changes something.
-- Duration: one scan of event_log for each index.
-- Compat: yes (the previous release does not look at them).

create index event_log_of_dag on event_log (dag_id, id) where dag_id is not null;
create index event_log_of_run on event_log (dag_run_key, id) where dag_run_key is not null;
