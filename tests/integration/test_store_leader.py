"""One leader at a time, a standby that takes over at once, and a lock that comes back after a lost connection."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from functools import partial

import anyio
import pytest

from tests.support.postgres import TestCluster
from tests.support.store import connected, new, opened, run, until, version
from tickless.errors import Conflict
from tickless.store.connect import Connection
from tickless.store.leader import Leader
from tickless.store.listener import Listener
from tickless.store.migrate import migrate

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio

SLICE = timedelta(milliseconds=300)


async def _holder(connection: Connection) -> int | None:
    """The backend that holds the lock."""
    pid: int | None = await connection.fetchval(
        "select pid from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory' and granted"
        " and application_name = 'tickless leader' and datname = current_database()"
    )
    return pid


def _is_back(leader: Leader, lost: list[bool], times: int) -> bool:
    return len(lost) == times and leader.is_leader


async def test_the_second_waits_and_takes_over_when_the_first_resigns(dsn: str) -> None:
    first, second = Leader(dsn, wait_slice=SLICE), Leader(dsn, wait_slice=SLICE)
    await first.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(second.acquire)
        await until(lambda: second.is_waiting)
        await anyio.sleep(2.5 * SLICE.total_seconds())  # over several slices
        assert first.is_leader
        assert not second.is_leader
        await first.resign()
        with anyio.fail_after(0.5):
            await second.wait_held()
    assert not first.is_leader
    assert not second.is_waiting
    await second.resign()
    await second.resign()


async def test_a_standby_is_leader_as_soon_as_the_holder_dies(dsn: str) -> None:
    standby = Leader(dsn)  # with slices of ten seconds: it must not wait for one to end
    async with connected(dsn) as other, anyio.create_task_group() as group:
        leader = Leader(dsn)
        await leader.acquire()
        group.start_soon(standby.acquire)
        await until(lambda: standby.is_waiting)
        await anyio.sleep(0.1)
        began = anyio.current_time()
        os.kill(int(await _holder(other) or 0), signal.SIGTERM)
        with anyio.fail_after(5):
            await standby.wait_held()
        assert anyio.current_time() - began < 2
        await until(lambda: not leader.is_leader)
    await standby.resign()


async def test_whoever_waits_in_slices_pins_no_snapshot_for_longer_than_one(dsn: str) -> None:
    async with Leader(dsn), connected(dsn) as other, anyio.create_task_group() as group:
        standby = Leader(dsn, wait_slice=SLICE)
        group.start_soon(standby.acquire)
        await until(lambda: standby.is_waiting)
        await anyio.sleep(3 * SLICE.total_seconds())
        age = await other.fetchval(
            "select max(extract(epoch from clock_timestamp() - xact_start))::float8 from pg_stat_activity"
            " where application_name = 'tickless leader'"
        )
        assert (age or 0) < 2 * SLICE.total_seconds()
        group.cancel_scope.cancel()


async def test_a_resignation_is_announced(dsn: str) -> None:
    resigned = anyio.Event()
    listener = Listener(dsn, on_dirty=lambda: None, on_resigned=resigned.set)
    async with anyio.create_task_group() as group:
        await group.start(listener.run)
        async with Leader(dsn):
            pass
        with anyio.fail_after(5):
            await resigned.wait()
        group.cancel_scope.cancel()


async def test_a_lost_session_is_told_and_the_lock_taken_back(dsn: str) -> None:
    lost: list[bool] = []
    leader = Leader(dsn, on_lost=lambda: lost.append(leader.is_leader))
    async with connected(dsn) as other, leader, anyio.create_task_group() as group:
        group.start_soon(leader.watch)
        for _ in range(2):
            before, times = await _holder(other), len(lost)
            await other.execute("select pg_terminate_backend($1, 5000)", before)
            await until(partial(_is_back, leader, lost, times + 1))
            assert await _holder(other) not in (None, before)
        assert lost == [False, False], "it is told when it is true"
        group.cancel_scope.cancel()


async def test_our_own_session_that_the_server_still_keeps_is_no_rival(dsn: str) -> None:
    """A half-open connection: we have given it up, the server holds the lock in its name."""
    leader = Leader(dsn, wait_slice=SLICE)
    async with connected(dsn) as other, leader, anyio.create_task_group() as group:
        group.start_soon(leader.watch)
        before = await _holder(other)
        assert leader._connection is not None
        transport = leader._connection._transport  # type: ignore[attr-defined]  # the driver offers no way to it
        kept = os.dup(transport.get_extra_info("socket").fileno())  # so the server sees no end
        try:
            transport.abort()  # as the kernel does after a timeout
            await until(lambda: not leader.is_leader)
            await until(lambda: leader.is_leader)
        finally:
            os.close(kept)
        assert await _holder(other) != before
        group.cancel_scope.cancel()


async def test_another_leader_meanwhile_is_a_conflict(dsn: str) -> None:
    leader, rival = Leader(dsn, wait_slice=SLICE), Leader(dsn)
    await leader.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(rival.acquire)
        await until(lambda: rival.is_waiting)
        await anyio.sleep(0.1)
        async with connected(dsn) as other:
            await other.execute("select pg_terminate_backend($1, 5000)", await _holder(other))
        await rival.wait_held()
        with anyio.fail_after(10), pytest.raises(Conflict, match="another daemon leads"):
            await leader.watch()
    assert not leader.is_leader
    await rival.resign()


async def test_it_outlasts_an_outage() -> None:
    cluster = TestCluster()
    await cluster.start(migrate)
    try:
        dsn = await cluster.create_database()
        async with Leader(dsn) as leader, anyio.create_task_group() as group:
            group.start_soon(leader.watch)
            os.kill(int(cluster.server.server_pid() or 0), signal.SIGINT)
            await until(lambda: not leader.is_leader and not cluster.server.is_running())
            late = Leader(dsn)
            await anyio.sleep(0.5)
            await cluster.server.start()
            await until(lambda: leader.is_leader)
            group.start_soon(late.acquire)
            await until(lambda: late.is_waiting)
            group.cancel_scope.cancel()
    finally:
        await cluster.stop()


async def test_a_standby_that_is_cancelled_leaves_the_queue(dsn: str) -> None:
    async with Leader(dsn), connected(dsn) as other:
        with anyio.move_on_after(0.3):
            await Leader(dsn, wait_slice=SLICE).acquire()
        gone = "select count(*) = 1 from pg_stat_activity where application_name = 'tickless leader'"
        await until(lambda: other.fetchval(f"{gone} and datname = current_database()"))


async def test_lock_and_epoch_together_let_a_second_daemon_take_over(dsn: str) -> None:
    """What a daemon does: lead, take an epoch, write. The one that was killed can write no more."""
    async with opened(dsn) as one, opened(dsn) as two:
        first, second = Leader(dsn, wait_slice=SLICE), Leader(dsn, wait_slice=SLICE)
        await first.acquire()
        old = await one.take_epoch("one:1")
        await one.flush(old, new(version(), run()))
        async with anyio.create_task_group() as group:

            async def take_over() -> None:
                async with second:
                    epoch = await two.take_epoch("two:2")
                    assert [row.key for row in (await two.load()).runs] == [1]
                    await two.flush(epoch, new(run(2)))

            group.start_soon(take_over)
            await until(lambda: second.is_waiting)
            assert first._connection is not None
            first._connection.terminate()  # the process is gone, as far as the server can tell
        with pytest.raises(Conflict):
            await one.flush(old, new(run(3)))
        assert [row.key for row in (await two.load()).runs] == [1, 2]
