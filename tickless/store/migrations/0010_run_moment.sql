-- The run before a run, for tasks that ask: by logical date, or by when it was made.
-- Locks: SHARE on dag_run (nothing is written to it) while the index is built.
-- Duration: a second for a million runs.
-- Compat: yes (the previous release does not use it; what it is built on never changes, so updates stay on their page).

create index dag_run_moment on dag_run (dag_id, coalesce(logical_date, queued_at));
