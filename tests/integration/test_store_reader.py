"""What the API and the CLI read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from tests.support.store import NOW, attempt, change, connected, instance, new, opened, run, version, xcom
from tickless.errors import Unavailable, UserError
from tickless.model.id import AttemptId, RunKey, TaskId, TaskKey, VersionKey
from tickless.model.row import DagVanishedRow, InstanceRow, PoolRow, RequestDone, RunRow
from tickless.model.state import AttemptState, EndReason, RunState, TaskState
from tickless.store.base import ImportProblem, QuarantinedEvent
from tickless.store.pool import ReadPool
from tickless.store.postgres import PostgresStore
from tickless.store.reader import MAX_PAGE, PoolInfo, Reader, RunInfo

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    async with opened(dsn) as store:
        yield store


@pytest.fixture
def reader(store: PostgresStore) -> Reader:
    return Reader(store.read())


async def test_dags_with_their_version_import_error_and_latest_run(store: PostgresStore, reader: Reader) -> None:
    epoch = await store.take_epoch("host:1")
    newest = run(3, dag_id="etl", state=RunState.QUEUED, version=2)
    await store.flush(
        epoch,
        new(
            version(1, dag_id="etl", number=1),
            version(2, dag_id="etl", number=2, created_at=NOW + timedelta(hours=1)),
            version(3, dag_id="fan", number=1),
            version(4, dag_id="old", number=1),
            DagVanishedRow(dag_id="old", at=NOW + timedelta(days=1)),
            run(1, state=RunState.SUCCESS),
            run(2, state=RunState.RUNNING),
            newest,
        ),
    )
    await store.set_import_problems(epoch, [ImportProblem(folder="dags", file="etl.py", error="boom", line=3)])
    etl, fan = await reader.dags()
    assert (etl.dag_id, etl.version, etl.version_number, etl.hash, etl.file) == ("etl", 2, 2, "hash 2", "etl.py")
    assert (etl.import_error, etl.live_runs, etl.bundle) == ("boom", 2, "/bundle")
    assert etl.changed_at == NOW + timedelta(hours=1)
    assert etl.last_run == RunInfo(row=newest, version_number=2)
    assert (fan.dag_id, fan.import_error, fan.live_runs, fan.last_run) == ("fan", None, 0, None)
    assert await reader.dag("etl") == etl
    assert await reader.dag("no") is None
    assert [dag.dag_id for dag in await reader.dags(after="etl")] == ["fan"]
    assert [dag.dag_id for dag in await reader.dags(limit=1)] == ["etl"]
    old = (await reader.dags(include_vanished=True))[2]
    assert (old.dag_id, old.version, old.version_number, old.file) == ("old", None, None, "old.py")
    assert old.changed_at == NOW + timedelta(days=1)
    assert await reader.dag("old") == old
    assert await reader.version(VersionKey(4)) == version(4, dag_id="old", number=1)
    assert await reader.current_version("fan") == version(3, dag_id="fan", number=1)
    assert await reader.current_version("old") is None
    assert await reader.version(VersionKey(9)) is None


async def test_import_errors(store: PostgresStore, reader: Reader) -> None:
    epoch = await store.take_epoch("host:1")
    problem = ImportProblem(folder="dags", file="a.py", error="no", traceback="T", line=7)
    await store.set_import_problems(epoch, [replace(problem, file="b.py"), problem])
    first, second = await reader.import_errors()
    assert (first.folder, first.file, first.error, first.traceback, first.line) == ("dags", "a.py", "no", "T", 7)
    assert first.at.tzinfo is not None
    assert second.file == "b.py"


async def test_the_run_before_by_logical_date(store: PostgresStore, reader: Reader) -> None:
    """Not by when it was made: a backfill makes runs of long ago."""
    epoch = await store.take_epoch("host:1")

    def at(key: int, day: int | None, state: RunState, dag_id: str = "etl") -> RunRow:
        logical = None if day is None else NOW + timedelta(days=day)
        return run(key, dag_id=dag_id, state=state, logical_date=logical, queued_at=NOW + timedelta(days=3, hours=key))

    rows = [
        at(1, 1, RunState.SUCCESS),
        at(2, 2, RunState.FAILED),
        at(3, 4, RunState.SUCCESS),
        at(4, None, RunState.SUCCESS),  # counts from day 3, 4 h
        at(5, -7, RunState.SUCCESS),
        at(6, 2, RunState.SUCCESS, "other"),
    ]
    await store.flush(epoch, new(version(), *rows))

    async def before(day: float, state: RunState | None = None) -> int | None:
        found = await reader.previous_run("etl", NOW + timedelta(days=day), state)
        return None if found is None else found.row.key

    assert [await before(day) for day in (-7, 1, 2, 3, 4, 9)] == [None, 5, 1, 2, 4, 3]
    assert [await before(day, RunState.SUCCESS) for day in (1, 2, 3, 4)] == [5, 1, 1, 4]
    assert await before(9, RunState.FAILED) == 2
    assert await before(9, RunState.RUNNING) is None


async def test_runs_page_by_page_newest_first(store: PostgresStore, reader: Reader) -> None:
    epoch = await store.take_epoch("host:1")
    states = [RunState.QUEUED, RunState.RUNNING, RunState.SUCCESS, RunState.FAILED]
    rows = [run(key, dag_id=f"dag{key % 2}", state=states[key % 4]) for key in range(1, 41)]
    await store.flush(epoch, new(version(), *rows))
    newest_first = rows[::-1]
    for dag_id in (None, "dag0", "dag1", "no"):
        for wanted in ((), (RunState.FAILED,), (RunState.QUEUED, RunState.RUNNING), (RunState.RUNNING,), tuple(states)):
            expected = [
                row
                for row in newest_first
                if (dag_id is None or row.dag_id == dag_id) and (not wanted or row.state in wanted)
            ]
            found: list[RunInfo] = []
            before = None
            while page := await reader.runs(dag_id=dag_id, states=wanted, before=before, limit=3):
                assert len(page) <= 3
                found += page
                before = page[-1].row.key
            assert [info.row for info in found] == expected
    assert {info.version_number for info in await reader.runs()} == {1}
    assert len(await reader.runs(limit=10**9)) == 40
    assert len(await reader.runs(limit=0)) == 1
    assert MAX_PAGE < 10**9


async def test_a_run_by_each_of_its_names(store: PostgresStore, reader: Reader) -> None:
    epoch = await store.take_epoch("host:1")
    row = run(7, run_id="manual__x", idempotency_key="key", logical_date=NOW, frozen="why", cancel_requested_at=NOW)
    await store.flush(epoch, new(version(), row))
    expected = RunInfo(row=row, version_number=1)
    assert await reader.run(RunKey(7)) == expected
    assert await reader.run_by_id("etl", "manual__x") == expected
    assert await reader.run_by_idempotency_key("key") == expected
    assert await reader.run(RunKey(8)) is None
    assert await reader.run_by_id("other", "manual__x") is None
    assert await reader.run_by_idempotency_key("manual__x") is None


async def test_task_instances_with_their_latest_attempt(store: PostgresStore, reader: Reader) -> None:
    epoch = await store.take_epoch("host:1")
    ended = attempt(1, "a", state=AttemptState.FAILED, reason=EndReason.EXITED, exit_code=1, ended_at=NOW)
    latest = attempt(2, "a", try_number=2, state=AttemptState.RUNNING, started_at=NOW, pid=7, host="h")
    rows = [
        instance("a", state=TaskState.RUNNING, try_number=2, attempt_id=AttemptId(2)),
        *(instance("m", map_index=index, state=TaskState.SUCCESS) for index in range(5)),
        instance("z"),
    ]
    await store.flush(epoch, new(version(), run(), run(2), instance("a", run=2), *rows, ended, latest))
    found = await reader.instances(RunKey(1))
    assert [info.row for info in found] == rows
    assert [info.attempt for info in found] == [latest, None, None, None, None, None, None]
    assert {(info.dag_id, info.run_id) for info in found} == {("etl", "manual__1")}
    assert await reader.instance(rows[0].key) == found[0]
    assert await reader.instance(TaskKey(RunKey(1), TaskId("m"))) is None, "it is mapped"
    assert [info.row for info in await reader.instances(RunKey(1), states=[TaskState.NONE])] == [rows[-1]]
    assert len(await reader.instances(RunKey(1), states=[TaskState.NONE, TaskState.SUCCESS])) == 6
    walked: list[InstanceRow] = []
    after = None
    while page := await reader.instances(RunKey(1), after=after, limit=2):
        walked += [info.row for info in page]
        after = (page[-1].row.task_id, page[-1].row.map_index)
    assert walked == rows
    assert await reader.attempts(rows[0].key) == [latest, ended]
    assert await reader.attempts(rows[0].key, before=AttemptId(2)) == [ended]
    assert await reader.attempts(rows[0].key, limit=1) == [latest]
    assert await reader.attempts(rows[-1].key) == []
    assert await reader.attempt(AttemptId(1)) == ended
    assert await reader.attempt(AttemptId(9)) is None
    assert await reader.instance_counts([RunKey(1), RunKey(2), RunKey(3)]) == {
        1: {TaskState.RUNNING: 1, TaskState.SUCCESS: 5, TaskState.NONE: 1},
        2: {TaskState.NONE: 1},
    }


async def test_xcoms_of_a_task_instance(store: PostgresStore, reader: Reader) -> None:
    epoch = await store.take_epoch("host:1")
    rows = [xcom("a", "[1, 2]", key="b"), xcom("a", '"x"')]
    await store.flush(epoch, new(version(), run(), *rows, xcom("b", "3")))
    assert await reader.xcoms(TaskKey(RunKey(1), TaskId("a"))) == rows


async def test_pools_show_the_slots_that_live_attempts_hold(store: PostgresStore, reader: Reader) -> None:
    epoch = await store.take_epoch("host:1")
    await store.flush(
        epoch,
        new(
            version(),
            run(),
            PoolRow(name="wide", slots=8),
            attempt(1, pool="wide", pool_slots=3),
            attempt(2, pool="wide", pool_slots=2, state=AttemptState.RUNNING),
            attempt(3, pool="wide", pool_slots=2, state=AttemptState.RUNNING),
            attempt(4, pool="wide", pool_slots=2, state=AttemptState.SUCCESS),
        ),
    )
    assert await reader.pools() == [
        PoolInfo(name="default_pool", slots=128, queued=0, running=0),
        PoolInfo(name="wide", slots=8, queued=3, running=4),
    ]


async def test_leader_request_and_quarantine(dsn: str, store: PostgresStore, reader: Reader) -> None:
    nobody = await reader.leader()
    assert (nobody.epoch, nobody.owner, nobody.taken_at) == (0, None, None)
    epoch = await store.take_epoch("host:1")
    leader = await reader.leader()
    assert (leader.epoch, leader.owner) == (epoch, "host:1")
    assert leader.taken_at is not None
    async with connected(dsn) as other:
        number = await other.fetchval("select tickless.trigger_dag('etl')")
    made = await reader.request(number)
    assert made is not None
    assert (made.dag_id, made.requested_by, made.handled_at) == ("etl", "tickless", None)
    await store.flush(epoch, new(version(), run(), RequestDone(table="trigger_request", id=number, run=RunKey(1))))
    done = await reader.request(number)
    assert done is not None
    assert (done.run, done.error) == (1, None)
    assert done.handled_at is not None
    assert await reader.request(number + 1) is None
    event = QuarantinedEvent(run=RunKey(1), attempt_id=None, kind="Started", event="{}", traceback="T", at=NOW)
    entries = [await store.quarantine(epoch, event) for _ in range(3)]
    assert [info.id for info in await reader.quarantine(limit=2)] == [entries[2], entries[1]]
    assert [info.id for info in await reader.quarantine(before=entries[1])] == [entries[0]]
    info = (await reader.quarantine())[0]
    assert (info.run, info.kind, info.event, info.traceback, info.at) == (1, "Started", "{}", "T", NOW)


async def test_the_audit_reads_what_a_rebuild_would_but_no_specs(store: PostgresStore, reader: Reader) -> None:
    epoch = await store.take_epoch("host:1")
    await store.flush(epoch, new(version(), run(), instance(), instance("b", state=TaskState.FAILED), attempt(1)))
    assert await reader.rows_for_audit() == replace(await store.load(), versions=[])


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
async def test_what_no_row_can_be_called_is_the_askers_mistake(store: PostgresStore, reader: Reader, name: str) -> None:
    with pytest.raises(UserError):
        await reader.dag(name)
    with pytest.raises(UserError):
        await reader.run(RunKey(2**70))
    assert await reader.dags() == [], "and the connection is as good as before"


async def test_readers_cannot_write(store: PostgresStore) -> None:
    with pytest.raises(Exception, match="read-only"):
        await store.read().fetch("update shard set owner = 'me'")


async def test_a_reader_needs_no_leader_and_survives_a_lost_connection(dsn: str) -> None:
    pool = ReadPool(dsn)
    with pytest.raises(Unavailable):
        await Reader(pool).dags()
    await pool.open()
    try:
        reader = Reader(pool)
        assert await reader.dags() == []
        async with connected(dsn) as other:
            await other.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where application_name = 'tickless reader' and datname = current_database()"
            )
        assert await reader.dags() == []
    finally:
        await pool.close()


async def test_a_read_given_up_in_a_transaction_is_silent_and_costs_the_next_one_nothing(dsn: str) -> None:
    """The audit is cancelled when its term ends, and the driver warns of a transaction that comes back open."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    pool = ReadPool(dsn, size=1)
    await pool.open()
    is_open = anyio.Event()

    async def read() -> None:
        async with pool.connection() as connection:
            await connection.execute("begin")
            is_open.set()
            await connection.execute("select pg_sleep(60)")

    try:
        async with anyio.create_task_group() as reading:
            reading.start_soon(read)
            await is_open.wait()
            reading.cancel_scope.cancel()
        assert await Reader(pool).dags() == []
        assert complaints == []
    finally:
        await pool.close()


async def test_a_state_changed_by_a_flush_is_read_at_once(store: PostgresStore, reader: Reader) -> None:
    epoch = await store.take_epoch("host:1")
    await store.flush(epoch, new(version(), run(), instance()))
    for number in range(20):
        await store.flush(epoch, [change(instance(try_number=number), TaskState.NONE, 0)])
        found = await reader.instance(instance().key)
        assert found is not None
        assert found.row.try_number == number
