-- Backfills: schedules run over the past.
-- Locks: ACCESS EXCLUSIVE on dag_run while its indexes are made.
-- Duration: one scan of dag_run for each index.
-- Compat: yes (the previous release does not look at any of it; it keeps the backfill of a run).

create table backfill (
    key bigint primary key,
    dag_id text collate "C" not null,
    schedule json not null,
    from_at timestamptz not null,
    to_at timestamptz not null,
    reprocess text not null check (reprocess in ('none', 'failed', 'completed')),
    max_active int not null check (max_active > 0),
    is_backwards boolean not null,
    conf json not null check (conf::jsonb is not null and octet_length(conf::text) <= 16777216),
    created_at timestamptz not null,
    place timestamptz,
    made int not null,
    passed int not null,
    is_paused boolean not null,
    cancelled_at timestamptz,
    completed_at timestamptz
);
comment on column backfill.place is
    'of the last slot that is dealt with; NULL: none. Written in one commit with the runs that are made';
comment on column backfill.completed_at is 'when no slot and no unfinished run was left';
create index backfill_of_dag on backfill (dag_id, key);
create index backfill_open on backfill (key) where completed_at is null;

alter table dag_run add backfill bigint;
comment on column dag_run.backfill is 'key of the backfill that made it';
create index dag_run_of_backfill on dag_run (backfill, key) where backfill is not null;
create index dag_run_of_slot on dag_run (dag_id, logical_date) where logical_date is not null;

alter table shard add last_backfill bigint not null default 0;
comment on column shard.last_backfill is 'the highest key of a backfill that was deleted with its DAG';
