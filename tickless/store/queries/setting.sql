-- name: write_settings :one
-- Writes variables and connections.
-- $1 shard int · $2 epoch bigint · $3 attempt bigint or null · $4 number int · $5 rows json · $6 events json or null
select tickless.write_settings_v2($1, $2, $3, $4, $5, $6) as value

-- name: variable :one
-- One variable.
-- $1 key text
select key, val, description, changed_at from tickless.variable where key = $1

-- name: variables :many
-- Variables by key.
-- $1 after: key text or null · $2 limit int
select key, val, description, changed_at
from tickless.variable
where key > coalesce($1, '')
order by key
limit $2

-- name: connection :one
-- One connection.
-- $1 conn_id text
select conn_id, conn_type, description, host, schema, login, password, port, extra, changed_at
from tickless.connection
where conn_id = $1

-- name: connections :many
-- Connections by id.
-- $1 after: conn_id text or null · $2 limit int
select conn_id, conn_type, description, host, schema, login, password, port, extra, changed_at
from tickless.connection
where conn_id > coalesce($1, '')
order by conn_id
limit $2

-- name: pull_xcoms :many
-- What tasks of a run have handed on under one key, with the bytes of all of it; values only while these are few enough.
-- $1 run bigint · $2 key text · $3 task_ids text[] or null · $4 map_indexes int[] or null · $5 most bytes bigint
select
    x.task_id, x.map_index, sum(octet_length(x.value::text)) over () as bytes,
    case when sum(octet_length(x.value::text)) over () <= $5 then x.value::text end as value
from tickless.xcom x
where x.dag_run_key = $1 and x.key = $2
    and ($3::text[] is null or x.task_id = any ($3)) and ($4::int[] is null or x.map_index = any ($4))
order by x.task_id, x.map_index

-- name: page_xcoms :many
-- What the instances of one task have handed on under one key, in the order of their map indexes: the first ones after
-- a map index, as many as have at most so many bytes together, but at least one.
-- $1 run bigint · $2 key text · $3 task_id text · $4 after: map_index int · $5 most bytes bigint · $6 most rows int
select task_id, map_index, value
from (
    select
        task_id, map_index, value, sum(octet_length(value)) over (order by map_index) as bytes,
        row_number() over (order by map_index) as place
    from (
        select x.task_id, x.map_index, x.value::text as value
        from tickless.xcom x
        where x.dag_run_key = $1 and x.key = $2 and x.task_id = $3 and x.map_index > $4
        order by x.map_index
        limit $6
    ) first
) counted
where bytes <= $5 or place = 1
order by map_index
