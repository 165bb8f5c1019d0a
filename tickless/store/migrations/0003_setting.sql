-- Variables and connections, and what requests of running tasks have changed.
-- Locks: none that anybody could wait for, all tables are new.
-- Duration: milliseconds.
-- Compat: yes (the previous release does not look at them).

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
