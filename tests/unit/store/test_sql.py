"""The query files: their form, that each query is valid and called by somebody, and how the hot ones are executed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import tickless
from tests.support.postgres import TestCluster
from tests.support.store import attempt, change, connected, instance, new, opened, run, version, xcom
from tickless.model.row import RequestDone
from tickless.model.state import AttemptState, RunState, TaskState
from tickless.store.connect import Connection
from tickless.store.migrate import migrate
from tickless.store.postgres import PostgresStore
from tickless.store.sql import Kind, all_queries, parse

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio

SYSTEM = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


# ---- the files ----------------------------------------------------------------------------------------------------


def test_a_block_has_a_name_a_kind_a_purpose_and_names_its_parameters() -> None:
    text = """-- Of the whole file.

-- name: first :one
-- Something.
-- $1 key bigint · $2 state text or null
select a
from t
where key = $1 and ($2::text is null or state = $2);

-- name: second :exec
-- Something else.
delete from t
"""
    first, second = parse(text, "t.sql")
    assert (first.name, first.kind, first.purpose, first.parameters) == ("first", Kind.ONE, "Something.", 2)
    assert first.text.startswith("select a\nfrom t")
    assert first.text.endswith("state = $2)")
    assert (second.kind, second.text, second.parameters) == (Kind.EXEC, "delete from t", 0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: a :one\nselect 1\n", "no purpose"),
        ("-- name: a :one\n-- $1 key int\nselect $1\n", "no purpose"),
        ("-- name: a :one\n-- Purpose.\nselect $1\n", r"does not name \$1"),
        ("-- name: a :some\n-- Purpose.\nselect 1\n", "some"),
    ],
)
def test_a_block_that_explains_too_little_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text, "t.sql")


def test_every_query_is_called_and_no_other() -> None:
    source = "".join(path.read_text() for path in (Path(tickless.__file__).parent / "store").glob("*.py"))
    called = set(re.findall(r'\bquery\("(\w+)"\)', source))
    assert called == set(all_queries()), "left: called but not there; right: there but never called"


# ---- against servers ----------------------------------------------------------------------------------------------


async def _prepare_all(connection: Connection) -> None:
    for query in all_queries().values():
        statement = await connection.prepare(query.text)
        assert len(statement.get_parameters()) == query.parameters, query.name
        if query.kind is not Kind.EXEC:
            assert statement.get_attributes(), f"{query.name} gives nothing back"


async def test_every_query_is_valid(dsn: str) -> None:
    async with connected(dsn, search_path="pg_catalog") as connection:  # names are qualified: no path is needed
        await _prepare_all(connection)


@pytest.mark.skipif(not SYSTEM, reason="no system Postgres beside the wheel's")
def test_the_same_holds_on_the_oldest_server_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKLESS_PG_BIN", str(SYSTEM[0]))
    monkeypatch.delenv("TICKLESS_TEST_CLUSTER", raising=False)

    async def work() -> None:
        cluster = TestCluster()
        await cluster.start(migrate)
        try:
            dsn = await cluster.create_database()
            async with connected(dsn) as connection:
                assert f"/{connection.get_server_version().major}/" in str(SYSTEM[0])
                await _prepare_all(connection)
            async with opened(dsn) as store:
                epoch = await store.take_epoch("host:1")
                await store.flush(epoch, new(version(), run(), instance(), attempt(1), xcom()))
                await store.flush(epoch, [change(instance(state=TaskState.RUNNING), TaskState.NONE, 0)])
                assert (await store.load()).instances == [instance(state=TaskState.RUNNING)]
        finally:
            await cluster.stop()

    asyncio.run(work())


# ---- plans --------------------------------------------------------------------------------------------------------

_FILL = """
insert into dag_version (key, dag_id, number, hash, file, bundle, created_at, spec)
select 1, 'etl', 1, 'h', 'f', 'b', now(), '{}';
insert into dag (dag_id, current_version, file, changed_at) values ('etl', 1, 'f', now());
insert into dag_run (key, dag_id, run_id, state, run_type, queued_at, conf, version, idempotency_key)
select n, 'etl' || n % 50, 'r' || n, case when n > 19990 then 'running' else 'success' end, 'manual', now(), '{}', 1,
    'i' || n
from generate_series(1, 20000) n;
insert into task_instance (dag_run_key, task_id, dag_id, run_id, state, attempt_id)
select r, 't' || n, 'etl', 'r' || r, case when r > 19990 then null else 'success' end, r * 10 + n
from generate_series(1, 20000) r, generate_series(1, 5) n;
insert into task_attempt (
    attempt_id, dag_run_key, task_id, map_index, try_number, state, executor, queue, pool, pool_slots, queued_at,
    log_path
)
select r * 10 + n, r, 't' || n, -1, 1, case when r > 19990 then 'running' else 'success' end, 'l', 'd', 'p', 1, now(),
    ''
from generate_series(1, 20000) r, generate_series(1, 5) n;
insert into xcom (dag_run_key, task_id, map_index, key, dag_id, run_id, value, created_at)
select r, 't1', -1, 'return_value', 'etl', 'r' || r, '1', now() from generate_series(1, 20000) r;
insert into trigger_request (dag_id, handled_at) select 'etl', now() from generate_series(1, 20000);
insert into trigger_request (dag_id) values ('etl');
analyze;
"""

_BIG = r"Seq Scan on (tickless\.)?(dag_run|task_instance|task_attempt|xcom|trigger_request)\b"


@pytest.fixture(scope="module")
def full(migrated_cluster: TestCluster) -> Iterator[str]:
    """A database with history: 20,000 finished runs, ten live ones."""

    async def fill() -> str:
        dsn = await migrated_cluster.create_database()
        async with connected(dsn) as connection:
            await connection.execute(_FILL)
        return dsn

    dsn = asyncio.run(fill())
    yield dsn
    asyncio.run(migrated_cluster.drop_database(dsn))


async def test_no_query_of_a_page_or_a_rebuild_walks_through_history(full: str) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "outputs": (1, ["t1", "t2"]),
        "pushed": (1, ["t1", "t2"], ["k", "k"]),
        "open_requests": (500,),
        "open_commands": (500,),
        "taken_names": (["etl1", "etl2"], ["r1", "r2"]),
        "load_dags": (),
        "load_runs": (),
        "load_instances": (),
        "load_tallies": (),
        "load_attempts": (),
        "load_highest": (),
        "load_versions": (),
        "dags": (None, 100, False),
        "dag": ("etl",),
        "runs": (None, None, 50),
        "live_runs": (None, ["running"], 50),
        "runs_of_dag": ("etl1", None, ["failed"], 50),
        "run": (1,),
        "run_by_id": ("etl1", "r1"),
        "run_by_idempotency_key": ("i1",),
        "instance_counts": ([1, 2, 3],),
        "instances": (1, None, None, None, 500),
        "instance": (1, "t1", -1),
        "attempts": (1, "t1", -1, None, 50),
        "attempt": (11,),
        "xcoms": (1, "t1", -1, 100),
        "pools": (),
        "trigger_request": (1,),
    }
    async with connected(full) as connection:
        for name, values in arguments.items():
            plan = await connection.fetch("explain " + _inlined(all_queries()[name].text, values))
            text = "\n".join(row[0] for row in plan)
            assert not re.search(_BIG, text), f"{name} scans a whole table:\n{text}"


def _inlined(text: str, values: tuple[object, ...]) -> str:
    """EXPLAIN takes no parameters over the wire."""

    def literal(value: object) -> str:
        if value is None:
            return "null"
        if isinstance(value, list):
            return "array[" + ", ".join(literal(each) for each in value) + "]"
        return f"'{value}'" if isinstance(value, str) else str(value)

    return re.sub(r"\$(\d+)", lambda match: literal(values[int(match[1]) - 1]), text)


async def test_a_flush_touches_its_rows_only_however_large_the_tables_were_when_it_was_planned(
    migrated_cluster: TestCluster,
) -> None:
    """The plans are made on empty tables, where a scan looks cheap, and kept: they must not scan what comes later."""
    dsn = await migrated_cluster.create_database()
    live = instance("t1", run=20_000)
    queued, running = attempt(9, "t1", run=20_000), attempt(9, "t1", run=20_000, state=AttemptState.RUNNING)
    try:
        async with opened(dsn) as store:
            epoch = await store.take_epoch("host:1")
            rows = run(30_000), instance(run=30_000), attempt(1, run=30_000), xcom(run=30_000)
            await store.flush(epoch, new(version(2, number=2, dag_id="other"), *rows))
            await store.flush(
                epoch,
                [
                    change(run(30_000, state=RunState.FAILED), RunState.RUNNING),
                    change(instance(run=30_000, state=TaskState.FAILED), TaskState.NONE, 0),
                    change(attempt(1, run=30_000, state=AttemptState.LOST), AttemptState.QUEUED),
                    *new(RequestDone(table="trigger_request", id=1)),
                ],
            )
            async with connected(dsn) as connection:
                await connection.execute(_FILL.replace("analyze;", ""))
                before = await _tuples_read(store, connection)
                queue = change(replace(live, state=TaskState.QUEUED), TaskState.NONE, 200_001)
                await store.flush(epoch, [queue, *new(queued, xcom("t1", run=20_000), run(40_000))])
                start = [change(running, AttemptState.QUEUED), change(run(20_000), RunState.RUNNING)]
                await store.flush(epoch, [*start, *new(RequestDone(table="trigger_request", id=1))])
                read = await _tuples_read(store, connection) - before
            assert 5 < read < 100, f"two flushes of single rows have read {read} tuples"
    finally:
        await migrated_cluster.drop_database(dsn)


async def test_updates_of_task_instances_stay_on_their_page(dsn: str) -> None:
    """HOT: no index entry per update, and no vacuum needed to clean up after it."""
    async with opened(dsn) as store, connected(dsn) as connection:
        epoch = await store.take_epoch("host:1")
        tasks = [f"t{number}" for number in range(50)]
        await store.flush(epoch, new(version(), run(), *(instance(task) for task in tasks)))
        for turn in range(20):
            await store.flush(epoch, [change(instance(task, try_number=turn), TaskState.NONE, 0) for task in tasks])
        await _tuples_read(store, connection)
        query = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'task_instance'"
        row = await connection.fetchrow(query)
        assert row is not None
        assert row["n_tup_upd"] == 1_000
        assert row["n_tup_hot_upd"] > 950


async def _tuples_read(store: PostgresStore, connection: Connection) -> int:
    """Rows that the writer has read so far. Only since 15 can a backend be made to tell at once."""
    assert store._writer is not None
    await store._writer.execute("select pg_stat_force_next_flush()")
    await store._writer.execute("select 1")
    query = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_user_tables"
    return int(await connection.fetchval(query))
