"""What only a real server shows: races for the epoch, lost connections, foreign locks, a server that is silent."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import anyio.lowlevel
import pytest

from tests.support.store import SHORT, attempt, change, connected, instance, new, opened, run, until, version, xcom
from tickless import failpoint
from tickless.errors import Conflict, TicklessError, Unavailable
from tickless.model.id import Epoch, RunKey
from tickless.model.state import RunState, TaskState
from tickless.store.connect import Connection
from tickless.store.postgres import PostgresStore

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    async with opened(dsn) as store:
        yield store


@pytest.fixture
async def epoch(store: PostgresStore) -> Epoch:
    epoch = await store.take_epoch("first:1")
    await store.flush(epoch, new(version(), run(), instance()))
    return epoch


@asynccontextmanager
async def _watcher(dsn: str) -> AsyncIterator[Watcher]:
    async with connected(dsn) as connection:
        yield Watcher(connection)


class Watcher:
    """Looks on. Not from within a transaction: there pg_stat_activity would stand still."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def writers(self) -> list[int]:
        """Backends that a store writes with, oldest first."""
        rows = await self._connection.fetch(
            "select pid from pg_stat_activity where application_name = 'tickless writer'"
            " and datname = current_database() order by backend_start"
        )
        return [row["pid"] for row in rows]

    async def blockers(self, pid: int) -> list[int]:
        return list(await self._connection.fetchval("select pg_blocking_pids($1)", pid))

    async def until_blocked(self, pid: int) -> list[int]:
        await until(lambda: self.blockers(pid))
        return await self.blockers(pid)


@asynccontextmanager
async def _holding(
    dsn: str, statement: str = "select from dag_run where key = 1 for update"
) -> AsyncIterator[Connection]:
    """An operator whose transaction holds locks until the end of the block."""
    async with connected(dsn) as operator, operator.transaction():
        await operator.execute(statement)
        yield operator


@asynccontextmanager
async def _stopped(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# ---- fencing ------------------------------------------------------------------------------------------------------


async def test_two_leaders_that_race_never_write_in_each_others_term(dsn: str) -> None:
    """Each adds runs under its epoch until it is refused; a taker's snapshot must hold all that can ever be there."""
    seen: list[tuple[int, set[int]]] = []
    wrote: dict[int, set[int]] = {}

    async def lead(store: PostgresStore, name: str, offset: int) -> None:
        for term in range(6):
            epoch = await store.take_epoch(name)
            seen.append((epoch, {row.key for row in (await store.load()).runs}))
            wrote[epoch] = set()
            for number in range(40):
                key = offset + term * 100 + number
                try:
                    await store.flush(epoch, new(run(key, version=1)))
                except Conflict:
                    break
                wrote[epoch].add(key)
                await anyio.lowlevel.checkpoint()

    async with opened(dsn) as one, opened(dsn) as two:
        async with anyio.create_task_group() as group:
            group.start_soon(lead, one, "one:1", 10_000)
            group.start_soon(lead, two, "two:2", 20_000)
        final = {row.key for row in (await one.load()).runs}
    assert final == set().union(*wrote.values()), "what was answered is there, and nothing else"
    assert sum(len(keys) < 40 for keys in wrote.values()) >= 3, "they hardly met"
    for epoch, picture in seen:
        earlier = set().union(*(keys for other, keys in wrote.items() if other < epoch))
        assert picture >= earlier, f"a write of a term before {epoch} came after its end"


async def test_taking_the_epoch_waits_for_a_flush_in_flight(dsn: str, epoch: Epoch) -> None:
    """FOR SHARE must conflict with the taker's UPDATE (FOR KEY SHARE would not)."""
    patience = timedelta(seconds=20)
    happened: list[str] = []
    async with opened(dsn, lock_timeout=patience) as old, opened(dsn, lock_timeout=patience) as other:
        old_epoch = await old.take_epoch("old:1")

        async def flush() -> None:
            await old.flush(old_epoch, [change(run(created_upto=1), RunState.RUNNING)])
            happened.append("flushed")

        async def take() -> None:
            await other.take_epoch("other:2")
            happened.append("taken")

        async with _watcher(dsn) as watcher, anyio.create_task_group() as group, _holding(dsn) as operator:
            writer = (await watcher.writers())[-1]
            group.start_soon(flush)
            assert await watcher.until_blocked(writer) == [operator.get_server_pid()]
            group.start_soon(take)
            await until(lambda: other.is_writable)
            taker = (await watcher.writers())[-1]
            assert await watcher.until_blocked(taker) == [writer]
            assert happened == []
        assert sorted(happened) == ["flushed", "taken"]
        assert (await other.load()).runs == [run(created_upto=1)], "the old flush is in the new leader's picture"


async def test_an_old_writer_that_hangs_is_terminated_and_its_flush_never_commits(dsn: str, epoch: Epoch) -> None:
    outcome: list[TicklessError | None] = []
    second = timedelta(seconds=1)
    async with opened(dsn, lock_timeout=30 * second) as old, opened(dsn, lock_timeout=second) as other:
        old_epoch = await old.take_epoch("old:1")

        async def flush() -> None:
            try:
                await old.flush(old_epoch, [change(run(frozen="late"), RunState.RUNNING)])
            except TicklessError as error:
                outcome.append(error)
            else:
                outcome.append(None)

        async with _watcher(dsn) as watcher, anyio.create_task_group() as group, _holding(dsn):
            writer = (await watcher.writers())[-1]
            group.start_soon(flush)
            await watcher.until_blocked(writer)
            assert await other.take_epoch("new:2") > old_epoch
            assert writer not in await watcher.writers()
        assert isinstance(outcome[0], Unavailable)
        assert (await other.load()).runs == [run()]


async def test_only_the_recorded_backend_is_terminated(dsn: str, store: PostgresStore, epoch: Epoch) -> None:
    """Somebody else holds the shard's row: nobody is killed for it, and the message says who it is."""
    async with _holding(dsn, "select from shard for update") as operator:
        with pytest.raises(Unavailable, match=f"backend {operator.get_server_pid()}.*operator"):
            await store.take_epoch("again:1")
        assert await operator.fetchval("select true")
    assert await store.take_epoch("again:1") > epoch


async def test_a_backend_that_only_has_the_recorded_number_is_left_alone(
    dsn: str, store: PostgresStore, epoch: Epoch
) -> None:
    """Process numbers come again: the recorded one may be anybody's by now."""
    async with connected(dsn) as bystander:
        await bystander.execute("update shard set backend_pid = pg_backend_pid(), backend_start = '2000-01-01'")
        async with _holding(dsn, "select from shard for update"):
            with pytest.raises(Unavailable):
                await store.take_epoch("again:1")
        assert await bystander.fetchval("select true")


# ---- unknown outcomes ---------------------------------------------------------------------------------------------


async def test_a_backend_terminated_in_the_middle_of_a_flush_leaves_nothing(dsn: str, epoch: Epoch) -> None:
    failures: list[TicklessError] = []
    async with opened(dsn, lock_timeout=timedelta(seconds=30)) as store, _watcher(dsn) as watcher:
        mine = await store.take_epoch("mine:1")
        writer = (await watcher.writers())[-1]

        async def flush() -> None:
            try:
                await store.flush(mine, [*new(run(2)), change(run(created_upto=1), RunState.RUNNING)])
            except TicklessError as error:
                failures.append(error)

        async with anyio.create_task_group() as group, _holding(dsn) as operator:
            group.start_soon(flush)
            await watcher.until_blocked(writer)
            await operator.execute("select pg_terminate_backend($1)", writer)
        assert isinstance(failures[0], Unavailable)
        assert not store.is_writable
        with pytest.raises(Unavailable):  # writing is over until the next epoch
            await store.flush(mine, [])
        again = await store.take_epoch("mine:1")
        assert [row.key for row in (await store.load()).runs] == [1]
        await store.flush(again, new(run(2)))


async def test_after_unavailable_there_is_no_writing_until_the_next_epoch(dsn: str, epoch: Epoch) -> None:
    """Also where the connection would still be good, as after a statement_timeout."""
    late = {"lock_timeout": timedelta(seconds=30), "statement_timeout": timedelta(milliseconds=100)}
    async with opened(dsn, **late) as store:
        mine = await store.take_epoch("mine:1")
        async with _holding(dsn):
            with pytest.raises(Unavailable, match="statement timeout"):
                await store.flush(mine, [change(run(created_upto=1), RunState.RUNNING)])
        assert not store.is_writable
        again = await store.take_epoch("mine:1")
        await store.flush(again, [change(run(created_upto=1), RunState.RUNNING)])


async def test_a_committed_flush_whose_answer_is_lost_is_in_the_rows(
    store: PostgresStore, epoch: Epoch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoint, "_armed", failpoint._parse("store.after_flush=raise"))
    with pytest.raises(failpoint.FailpointHit):
        await store.flush(epoch, new(run(2)))
    assert [row.key for row in (await store.load()).runs] == [1, 2]


@pytest.mark.parametrize("name", ["store.before_flush", "store.after_flush", "store.before_epoch", "store.after_epoch"])
async def test_the_failpoints_are_where_they_say(
    store: PostgresStore, epoch: Epoch, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(failpoint, "_armed", failpoint._parse(f"{name}=raise"))
    monkeypatch.setattr(failpoint, "_hits", {})
    work = store.flush(epoch, new(run(2))) if name.endswith("flush") else store.take_epoch("again:1")
    with pytest.raises(failpoint.FailpointHit):
        await work
    assert len((await store.load()).runs) == (2 if name == "store.after_flush" else 1)
    if name == "store.after_epoch":
        with pytest.raises(Conflict):
            await store.flush(epoch, [])
    else:
        await store.flush(epoch, [])


async def test_a_cancelled_flush_ends_the_term_of_its_connection(dsn: str, store: PostgresStore, epoch: Epoch) -> None:
    async with _holding(dsn):
        with anyio.move_on_after(0.05) as scope:
            await store.flush(epoch, [change(run(created_upto=1), RunState.RUNNING)])
        assert scope.cancelled_caught
        assert not store.is_writable
    again = await store.take_epoch("first:1")
    # Its outcome was unknown until then; from then on it is settled.
    settled = (await store.load()).runs
    await store.flush(again, new(run(2)))
    assert (await store.load()).runs == [*settled, run(2)]


async def test_a_server_that_does_not_answer_is_given_up(dsn: str) -> None:
    async with opened(dsn, statement_timeout=timedelta(milliseconds=200)) as store, _watcher(dsn) as watcher:
        store._patience = 0.3
        epoch = await store.take_epoch("first:1")
        [writer] = await watcher.writers()
        async with _stopped(writer):
            with anyio.fail_after(5), pytest.raises(Unavailable):
                await store.flush(epoch, [])
            # The stopped backend holds no lock: leading goes on without it.
            again = await store.take_epoch("first:1")
            await store.flush(again, new(version()))


async def test_writes_of_several_callers_take_turns(store: PostgresStore, epoch: Epoch) -> None:
    async def flush(key: int) -> None:
        await store.flush(epoch, new(run(key)))

    async with anyio.create_task_group() as group:
        for key in range(2, 12):
            group.start_soon(flush, key)
            group.start_soon(store.set_import_problems, epoch, [])
    assert len((await store.load()).runs) == 11


# ---- foreign locks ------------------------------------------------------------------------------------------------


async def test_somebodys_open_transaction_on_the_request_tables_stalls_nothing(
    dsn: str, store: PostgresStore, epoch: Epoch
) -> None:
    async with connected(dsn) as foreign, foreign.transaction():
        number = await foreign.fetchval(
            "select tickless.trigger_dag('etl', run_id => 'theirs', idempotency_key => 'k')"
        )
        await foreign.execute("insert into command (kind) values ('cancel')")
        with anyio.fail_after(5):
            row = run(2, run_id="theirs", idempotency_key="k")
            await store.flush(epoch, new(version(2, number=2), row, attempt(1), xcom()))
            assert await store.open_requests() == [], "it is not there before it commits"
            await store.take_epoch("first:1")
        await foreign.execute("commit; begin")
        assert [request.id for request in await store.open_requests()] == [number]


async def test_whoever_holds_a_lock_of_ours_is_named(dsn: str, store: PostgresStore, epoch: Epoch) -> None:
    schedule = [change(instance(state=TaskState.SCHEDULED), TaskState.NONE, 0)]
    async with _holding(dsn, "update task_instance set reason = 'by hand'") as operator:
        with pytest.raises(Unavailable) as refusal:
            await store.flush(epoch, schedule)
        for part in (f"backend {operator.get_server_pid()}", "operator", "idle in transaction", "by hand"):
            assert part in refusal.value.message
        assert f"pg_terminate_backend({operator.get_server_pid()})" in (refusal.value.hint or "")
        await operator.execute("rollback; begin")
    # It was rolled back for certain, so the epoch goes on.
    await store.flush(epoch, schedule)


async def test_a_lock_that_is_given_up_soon_costs_only_the_wait(dsn: str, store: PostgresStore, epoch: Epoch) -> None:
    async with connected(dsn) as operator, anyio.create_task_group() as group:
        await operator.execute("begin; update task_instance set reason = 'by hand'")

        async def commit_later() -> None:
            await anyio.sleep(1.4 * SHORT.total_seconds())
            await operator.execute("commit")

        group.start_soon(commit_later)
        await store.flush(epoch, [change(instance(state=TaskState.SCHEDULED), TaskState.NONE, 0)])


# ---- loading, closing ---------------------------------------------------------------------------------------------


async def test_a_load_is_one_picture_while_flushes_go_on(dsn: str, store: PostgresStore, epoch: Epoch) -> None:
    """Each flush moves one run and its instance together; no picture may show one without the other."""
    stop = anyio.Event()
    torn: list[int] = []

    async def write() -> None:
        for upto in range(1, 200):
            await store.flush(
                epoch,
                [
                    change(run(created_upto=upto), RunState.RUNNING),
                    change(instance(try_number=upto), TaskState.NONE, 0),
                ],
            )
        stop.set()

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        pictures = 0
        while not stop.is_set():
            found = await store.load()
            pictures += 1
            if found.runs[0].created_upto != found.instances[0].try_number:
                torn.append(found.runs[0].created_upto)
    assert not torn
    assert pictures > 3


async def test_the_loop_turns_while_a_large_state_is_loaded(dsn: str, store: PostgresStore, epoch: Epoch) -> None:
    for start in range(0, 20_000, 2_000):
        await store.flush(epoch, new(*(instance(f"t{number}") for number in range(start, start + 2_000))))
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        assert len((await store.load()).instances) == 20_001
        group.cancel_scope.cancel()
    assert turns > 20_001 / 500, "at least one for each batch of rows"


async def test_closing_is_quick_and_repeatable_and_ends_all_connections(dsn: str) -> None:
    async with connected(dsn) as operator:
        store = PostgresStore(dsn)
        await store.open()
        await store.take_epoch("first:1")
        await store.outputs(RunKey(1), ["a"])
        await store.close()
        await store.close()
        ours = (
            "select count(*) from pg_stat_activity where application_name ~ 'tickless' and datname = current_database()"
        )
        await until(lambda: operator.fetchval(f"select ({ours}) = 0"))
    for call in (store.load(), store.flush(Epoch(1), []), store.open_requests()):
        with pytest.raises(Unavailable):
            await call
