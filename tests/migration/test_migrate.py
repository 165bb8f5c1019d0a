"""Migrations: forward, once, in turn; and what they add up to."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from importlib.resources import files

import anyio
import asyncpg
import pytest

from tests.support.postgres import TestCluster
from tests.support.store import connected
from tickless.errors import InvariantBroken, Unavailable, UserError
from tickless.store import migrate as subject
from tickless.store.connect import Connection, connect
from tickless.store.migrate import Migration, all_migrations, migrate

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio


@pytest.fixture
async def empty(migrated_cluster: TestCluster) -> AsyncIterator[str]:
    """A database with nothing of ours in it."""
    dsn = await migrated_cluster.create_database()
    async with connected(dsn) as connection:
        await connection.execute("drop schema tickless cascade")
    yield dsn
    await migrated_cluster.drop_database(dsn)


# Everything that tells two schemas apart, as text; functions and triggers come from the repeatable files.
_DESCRIBE = """
select 'column', c.relname, a.attnum::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
    a.attidentity::text, pg_get_expr(d.adbin, d.adrelid), a.attcollation::regcollation::text,
    col_description(c.oid, a.attnum)
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = 'tickless'::regnamespace and c.relkind in ('r', 'p', 'v')
union all
select 'table', c.relname, c.relkind::text, c.relpersistence::text, c.reloptions::text, obj_description(c.oid),
    c.relacl::text, null, null, null
from pg_class c where c.relnamespace = 'tickless'::regnamespace
union all
select 'constraint', conname, conrelid::regclass::text, pg_get_constraintdef(oid), null, null, null, null, null, null
from pg_constraint where connamespace = 'tickless'::regnamespace
union all
select 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), null, null, null, null, null, null, null
from pg_index join pg_class c on c.oid = indexrelid where c.relnamespace = 'tickless'::regnamespace
union all
select 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid), p.proacl::text, null, null, null, null, null,
    null
from pg_proc p where p.pronamespace = 'tickless'::regnamespace
union all
select 'trigger', tgname, pg_get_triggerdef(t.oid), tgenabled::text, null, null, null, null, null, null
from pg_trigger t join pg_class c on c.oid = t.tgrelid
where c.relnamespace = 'tickless'::regnamespace and not tgisinternal
union all
select 'row', 'slot_pool', s::text, null, null, null, null, null, null, null from tickless.slot_pool s
union all
select 'row', 'shard', s::text, null, null, null, null, null, null, null from tickless.shard s
order by 1, 2, 3
"""


async def _describe(connection: Connection) -> list[tuple[str | None, ...]]:
    return [tuple(row) for row in await connection.fetch(_DESCRIBE)]


async def test_the_migrations_add_up_to_schema_sql(empty: str, migrated_cluster: TestCluster) -> None:
    await migrate(empty)
    async with connected(empty) as connection:
        migrated = await _describe(connection)
        await connection.execute("drop schema tickless cascade")
        await connection.execute((files("tickless.store") / "schema.sql").read_text())
        for migration in all_migrations():
            if migration.is_repeatable:
                await connection.execute(migration.text)
        written = await _describe(connection)
    assert written == migrated
    assert len(migrated) > 150, "the comparison looks at nothing"


async def test_a_second_time_there_is_nothing_to_do(empty: str) -> None:
    assert await migrate(empty) == [migration.name for migration in all_migrations()]
    assert await migrate(empty) == []


async def test_daemons_that_start_at_once_take_turns(empty: str) -> None:
    applied: list[str] = []

    async def one() -> None:
        applied.extend(await migrate(empty))

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(one)
    assert sorted(applied) == sorted(migration.name for migration in all_migrations())


async def test_nothing_outside_of_our_schema_is_touched(empty: str) -> None:
    async with connected(empty) as connection:
        count = "select count(*) from pg_class where relnamespace <> 'tickless'::regnamespace and relname !~ '^pg_'"
        await connection.execute("create schema tickless")
        before = await connection.fetchval(count)
        await migrate(empty)
        assert await connection.fetchval(count) == before
        assert await connection.fetchval("select count(*) from pg_db_role_setting") == 0


async def test_the_search_path_of_a_database_that_is_ours_is_set(empty: str) -> None:
    await migrate(empty, owns_database=True)
    plain = await connect(empty, application_name="psql")
    try:
        # The queries of the notes, as they stand there.
        assert await plain.fetch("SELECT * FROM task_instance;") == []
        assert await plain.fetch("SELECT * FROM dag_run;") == []
        assert (
            await plain.fetchval(
                "SELECT COUNT(1) FROM task_instance WHERE state IS NOT NULL AND state NOT IN ('scheduled', 'queued');"
            )
            == 0
        )
    finally:
        plain.terminate()


async def test_a_role_that_was_given_only_the_schema_can_migrate(empty: str) -> None:
    role = "app_" + empty.partition("?")[0].rpartition("_")[2]
    async with connected(empty) as connection:
        await connection.execute(f"create role {role} login; create schema tickless authorization {role}")
    try:
        async with connected(empty) as connection:
            await connection.execute(f"set session authorization {role}")
            done = await subject._apply(connection, all_migrations())
        assert done
    finally:
        async with connected(empty) as connection:
            await connection.execute(f"drop owned by {role} cascade; drop role {role}")


async def test_a_changed_migration_is_refused(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(empty)
    first = all_migrations()[0]
    changed = (replace(first, text=first.text + "\n-- ", checksum="other"), *all_migrations()[1:])
    monkeypatch.setattr(subject, "all_migrations", lambda: changed)
    with pytest.raises(InvariantBroken, match=first.name):
        await migrate(empty)


def _extra(name: str, text: str, *, is_compatible: bool) -> Migration:
    return Migration(
        name=name, text=text, checksum=text, is_repeatable=name.startswith("r_"), is_compatible=is_compatible
    )


async def test_a_repeatable_file_is_applied_again_when_it_differs(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(empty)
    for number in (1, 2):
        text = f"create or replace function tickless.answer() returns int language sql as 'select {number}'"
        more = (*all_migrations(), _extra("r_answer", text, is_compatible=True))
        with monkeypatch.context() as patch:
            patch.setattr(subject, "all_migrations", lambda more=more: more)
            assert await migrate(empty) == ["r_answer"]
    async with connected(empty) as connection:
        assert await connection.fetchval("select tickless.answer()") == 2


async def test_a_migration_that_fails_leaves_nothing_behind(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = _extra("0002_broken", "create table half (a int); select 1/0", is_compatible=True)
    monkeypatch.setattr(subject, "all_migrations", lambda: (all_migrations()[0], broken))
    with pytest.raises(Exception, match="division by zero"):
        await migrate(empty)
    async with connected(empty) as connection:
        assert await connection.fetchval("select to_regclass('half')") is None
        assert await connection.fetchval("select array_agg(name) from schema_migration") == ["0001_first"]
    monkeypatch.undo()
    assert "0001_first" not in await migrate(empty), "it goes on where it stopped"


@pytest.mark.parametrize("is_compatible", [True, False])
async def test_a_database_of_a_newer_release(empty: str, monkeypatch: pytest.MonkeyPatch, is_compatible: bool) -> None:
    newer = _extra("0099_newer", "create table later (a int)", is_compatible=is_compatible)
    *numbered, function = all_migrations()
    theirs = (*numbered, replace(function, checksum="theirs"), newer)
    with monkeypatch.context() as patch:
        patch.setattr(subject, "all_migrations", lambda: theirs)
        await migrate(empty)
    if is_compatible:
        assert await migrate(empty) == [], "its functions are left alone"
    else:
        with pytest.raises(UserError, match="newer release"):
            await migrate(empty)


async def test_who_holds_the_lock_is_named(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_LOCK_SLICE", timedelta(milliseconds=20))
    monkeypatch.setattr(subject, "_LOCK_SLICES", 2)
    async with connected(empty) as connection:
        await connection.execute("select pg_advisory_lock($1, 0)", subject.LOCK_CLASS)
        with pytest.raises(Unavailable, match=str(connection.get_server_pid())):
            await migrate(empty)
    assert await migrate(empty), "the lock goes with its holder"


def test_every_migration_says_what_it_costs() -> None:
    names = [migration.name for migration in all_migrations() if not migration.is_repeatable]
    numbers = [int(name[:4]) for name in names]
    assert numbers == sorted(set(numbers))
    for migration in all_migrations():
        assert "\r" not in migration.text
        if not migration.is_repeatable:
            for line in ("Locks: ", "Duration: ", "Compat: (yes|no)"):
                assert re.search(f"^-- {line}", migration.text, re.MULTILINE), f"{migration.name}: no line {line!r}"


async def test_repeatable_files_can_be_repeated(dsn: str) -> None:
    async with connected(dsn) as connection:
        before = await _describe(connection)
        for migration in all_migrations():
            if migration.is_repeatable:
                await connection.execute(migration.text)
        assert await _describe(connection) == before


# ---- SQL as an API ------------------------------------------------------------------------------------------------


async def test_a_stranger_can_start_runs_only_when_granted_and_touch_nothing_else(dsn: str) -> None:
    async with connected(dsn) as owner:
        role = f"stranger_{owner.get_server_pid()}"
        await owner.execute(f"create role {role}")
        try:
            async with connected(dsn) as stranger:
                await stranger.execute(f"set session authorization {role}")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await stranger.fetchval("select tickless.trigger_dag('etl')")
                await owner.execute(f"grant usage on schema tickless to {role}")
                for refused in (
                    "select tickless.trigger_dag('etl')",
                    "select tickless.pause_dag('etl')",
                    "select tickless.unpause_dag('etl')",
                    "select tickless.request_command('pause_dag', '{}')",
                    "select tickless.set_import_problems_v1(1, 1, '[]')",
                    "select tickless.take_epoch_v1(1, 'me')",
                ):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await stranger.fetchval(refused)
                await owner.execute(f"grant execute on function tickless.trigger_dag to {role}")
                await owner.execute(f"grant execute on function tickless.pause_dag to {role}")
                paused = await stranger.fetchval("select tickless.pause_dag('etl')")
                # A table of the caller's that poses as ours is not written to.
                await stranger.execute("create temporary table trigger_request (like pg_class)")
                number = await stranger.fetchval(
                    "select tickless.trigger_dag('etl', conf => '{\"day\": \"2026-11-22\"}')"
                )
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await stranger.fetch("select * from tickless.trigger_request")
            asked = await owner.fetchrow("select * from command where id = $1", paused)
            assert asked is not None
            assert (asked["kind"], asked["payload"], asked["requested_by"]) == ("pause_dag", '{"dag_id": "etl"}', role)
            row = await owner.fetchrow("select * from trigger_request")
            assert row is not None
            assert (row["id"], row["dag_id"], row["conf"], row["requested_by"]) == (
                number,
                "etl",
                '{"day": "2026-11-22"}',
                role,
            )
        finally:
            await owner.execute(f"drop owned by {role} cascade; drop role {role}")


@pytest.mark.parametrize(
    "arguments", ["''", "null", "'etl', '[1]'", "'etl', run_id => ''", "'etl', idempotency_key => repeat('x', 251)"]
)
async def test_a_request_that_can_never_work_is_refused_to_its_author(dsn: str, arguments: str) -> None:
    async with connected(dsn) as connection:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await connection.fetchval(f"select tickless.trigger_dag({arguments})")


async def test_a_request_is_announced_at_its_commit_once_per_statement_and_not_when_handled(dsn: str) -> None:
    heard: list[object] = []
    async with connected(dsn) as listening, connected(dsn) as other:
        await listening.add_listener("tickless", lambda *message: heard.append(message[-1]))
        async with other.transaction():
            await other.execute("select tickless.trigger_dag('etl') from generate_series(1, 50)")
            await listening.execute("select 1")
            assert heard == []
        await other.execute("update trigger_request set handled_at = now()")
        await other.execute("insert into command (kind) values ('cancel')")
        await other.execute("select pg_notify('tickless', 'end')")
        with anyio.fail_after(5):
            while "end" not in heard:
                await listening.execute("select 1")
    assert heard == ["trigger_request", "command", "end"]
    assert all(len(str(payload).encode()) <= 60 for payload in heard)
