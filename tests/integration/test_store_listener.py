"""The listener hears everything, whatever happens to its connection."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest

from tests.support.postgres import TestCluster
from tests.support.store import connected, until
from tickless.errors import UserError
from tickless.store.connect import Connection
from tickless.store.listener import Listener
from tickless.store.migrate import migrate

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio


class Dirty:
    """What `on_dirty` is for: a flag, and how often it was set."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1

    async def soon(self, more_than: int) -> None:
        await until(lambda: self.times > more_than)


@asynccontextmanager
async def _listening(dsn: str, dirty: Dirty, *, probe: float = 60.0, patience: float = 0.3) -> AsyncIterator[Listener]:
    listener = Listener(dsn, on_dirty=dirty, probe_seconds=probe, probe_patience=patience)
    async with anyio.create_task_group() as group:
        with anyio.fail_after(10):
            await group.start(listener.run)
        yield listener
        group.cancel_scope.cancel()


async def _backend(connection: Connection) -> int:
    return int(
        await connection.fetchval(
            "select pid from pg_stat_activity where application_name = 'tickless listener'"
            " and datname = current_database() order by backend_start desc limit 1"
        )
    )


async def test_the_first_connection_marks_everything_dirty_and_each_hint_does(dsn: str) -> None:
    dirty = Dirty()
    async with _listening(dsn, dirty) as listener, connected(dsn) as other:
        assert (dirty.times, listener.connections, listener.is_healthy) == (1, 1, True)
        await other.execute("select tickless.trigger_dag('etl')")
        await dirty.soon(1)
        await other.execute("insert into command (kind) values ('cancel')")
        await dirty.soon(2)


async def test_it_listens_before_the_scan_so_that_nothing_falls_in_between(dsn: str) -> None:
    """When everything is marked dirty, the server already sends notifications: shown by one sent at that moment."""
    async with connected(dsn) as other:
        channels: list[bool] = []
        dirty = Dirty()
        listener = Listener(dsn, on_dirty=dirty)
        real = listener._connect

        async def slowly() -> tuple[Connection, anyio.Event]:
            made = await real()
            channels.append(await made[0].fetchval("select 'tickless' in (select pg_listening_channels())"))
            await other.execute("select tickless.trigger_dag('etl')")  # after LISTEN, before the scan
            return made

        listener._connect = slowly  # type: ignore[method-assign]  # to stand between the two
        async with anyio.create_task_group() as group:
            await group.start(listener.run)
            await dirty.soon(1)
            group.cancel_scope.cancel()
        assert channels == [True]


async def test_a_terminated_backend_is_noticed_at_once_and_everything_is_dirty_again(dsn: str) -> None:
    dirty = Dirty()
    async with _listening(dsn, dirty) as listener, connected(dsn) as other:
        before = dirty.times
        await other.execute("select pg_terminate_backend($1, 5000)", await _backend(other))
        await other.execute("select tickless.trigger_dag('etl')")  # nobody listens now, perhaps
        await until(lambda: listener.connections == 2 and listener.is_healthy)
        assert dirty.times > before
        now = dirty.times
        await other.execute("select tickless.trigger_dag('etl')")
        await dirty.soon(now)


async def test_a_backend_that_is_stopped_is_given_up_by_the_probe(dsn: str) -> None:
    """A half-open connection: the socket stands, but nobody answers. Only the round trip shows it."""
    dirty = Dirty()
    async with _listening(dsn, dirty, probe=0.1) as listener, connected(dsn) as other:
        stopped = await _backend(other)
        os.kill(stopped, signal.SIGSTOP)
        try:
            before = dirty.times
            await other.execute("select tickless.trigger_dag('etl')")
            await until(lambda: listener.connections >= 2 and listener.is_healthy)
            assert dirty.times > before, "what was missed is looked for"
            now = dirty.times
            await other.execute("select tickless.trigger_dag('etl')")
            await dirty.soon(now)
        finally:
            os.kill(stopped, signal.SIGCONT)


async def test_a_connection_that_has_forgotten_to_listen_is_given_up(dsn: str) -> None:
    """As after a pooler's RESET, or a driver's UNLISTEN: the round trip alone would be enough to be lied to."""
    dirty = Dirty()
    async with _listening(dsn, dirty, probe=0.1) as listener, connected(dsn) as other:
        deaf = await _backend(other)
        # A process cannot make another one UNLISTEN, so take the server's word away instead.
        await other.execute("alter table trigger_request disable trigger all")
        real = listener._is_heard

        async def after_unlisten(connection: Connection) -> bool:
            await connection.execute("unlisten *")
            listener._is_heard = real  # type: ignore[method-assign]  # only once
            return await real(connection)

        listener._is_heard = after_unlisten  # type: ignore[method-assign]  # to break the connection from within
        await until(lambda: listener.connections == 2 and listener.is_healthy)
        assert await _backend(other) != deaf


async def test_notifications_that_do_not_come_back_are_a_lost_connection(dsn: str) -> None:
    """The statement is answered, the nonce never arrives: the hole that a half-working pooler makes."""
    dirty = Dirty()
    async with _listening(dsn, dirty, probe=0.05, patience=0.1) as listener:
        listener._hear = lambda *_: None  # type: ignore[method-assign]  # of the next connection
        first = listener.connections
        async with connected(dsn) as other:
            await other.execute("select pg_terminate_backend($1, 5000)", await _backend(other))
        await until(lambda: listener.connections >= first + 3)


async def test_a_healthy_connection_is_kept(dsn: str) -> None:
    dirty = Dirty()
    async with _listening(dsn, dirty, probe=0.02, patience=5) as listener:
        await anyio.sleep(0.5)
        assert listener.connections == 1
        assert dirty.times == 1, "a probe is not a hint"


async def test_probes_of_another_daemon_are_no_hints(dsn: str) -> None:
    mine, theirs = Dirty(), Dirty()
    async with _listening(dsn, mine), _listening(dsn, theirs, probe=0.02, patience=5):
        await anyio.sleep(0.3)
        assert (mine.times, theirs.times) == (1, 1)


async def test_an_idle_listener_costs_two_transactions_per_probe_and_nothing_else(dsn: str) -> None:
    """So four a minute by default. The second one is the server's own, for handing over the notification."""
    commits = "select xact_commit from pg_stat_database where datname = current_database()"
    async with connected(dsn) as other, _listening(dsn, Dirty(), probe=0.05, patience=5) as listener:
        probes = 0
        real = listener._is_heard

        async def counted(connection: Connection) -> bool:
            nonlocal probes
            probes += 1
            return await real(connection)

        listener._is_heard = counted  # type: ignore[method-assign]  # to count
        await anyio.sleep(1.2)  # a backend reports at most once a second
        before, first = await other.fetchval(commits), probes
        await anyio.sleep(2.4)
        grown = await other.fetchval(commits) - before
        assert 10 < grown <= 2.5 * (probes - first) + 20, f"{grown} transactions for {probes - first} probes"


async def test_a_restart_of_the_server_is_survived() -> None:
    cluster = TestCluster()
    await cluster.start(migrate)
    try:
        dsn = await cluster.create_database()
        dirty = Dirty()
        async with _listening(dsn, dirty) as listener:
            pid = cluster.server.server_pid()
            assert pid is not None
            os.kill(pid, signal.SIGINT)
            await until(lambda: not listener.is_healthy)
            await until(lambda: not cluster.server.is_running())
            await until(lambda: listener.retrying_since is not None)
            before = dirty.times
            await cluster.server.start()
            await until(lambda: listener.is_healthy)
            assert dirty.times > before
            async with connected(dsn) as other:
                now = dirty.times
                await other.execute("select tickless.trigger_dag('etl')")
                await dirty.soon(now)
    finally:
        await cluster.stop()


async def test_a_login_that_is_refused_for_good_is_said_at_the_start(dsn: str) -> None:
    with pytest.raises(UserError, match="does not exist"):
        await Listener(dsn.replace("/test_", "/no_such_"), on_dirty=Dirty()).run()


async def test_cancelling_ends_the_connection(dsn: str) -> None:
    async with connected(dsn) as other:
        async with _listening(dsn, Dirty()):
            pid = await _backend(other)
        gone = "select not exists (select from pg_stat_activity where pid = $1)"
        await until(lambda: other.fetchval(gone, pid))


async def test_the_callback_runs_in_the_loop_and_nothing_is_lost_in_a_storm(dsn: str) -> None:
    """Every hint sets the flag; whoever clears it before reading sees each row. Fewer reads than hints is the point."""
    dirty = anyio.Event()
    seen: set[int] = set()

    def set_flag() -> None:
        dirty.set()

    listener = Listener(dsn, on_dirty=set_flag)
    async with connected(dsn) as reading, connected(dsn) as writing, anyio.create_task_group() as group:
        await group.start(listener.run)

        async def scan() -> None:
            nonlocal dirty
            while len(seen) < 300:
                await dirty.wait()
                dirty = anyio.Event()  # cleared before the read: a hint during it is remembered
                rows: list[asyncpg.Record] = await reading.fetch(
                    "select id from trigger_request where handled_at is null"
                )
                seen.update(row["id"] for row in rows)

        group.start_soon(scan)
        for _ in range(300):
            await writing.execute("select tickless.trigger_dag('etl')")
        await until(lambda: len(seen) == 300)
        group.cancel_scope.cancel()
