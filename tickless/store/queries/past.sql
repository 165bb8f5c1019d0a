-- name: run_before :one
-- The run of a DAG with the latest logical date before this one's, among those that were made before it.
-- $1 dag_id text · $2 logical_date timestamptz · $3 key bigint · $4 only those of the schedule boolean
select key
from tickless.dag_run
where dag_id = $1 and logical_date < $2 and key < $3
    and (not $4::boolean or run_type in ('scheduled', 'backfill'))
order by logical_date desc, key desc
limit 1
