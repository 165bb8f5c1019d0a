"""Who leads: the holder of an advisory lock. It elects; it does not fence (that is the epoch's work, see `postgres`).

The lock belongs to a session of its own, so it is free as soon as its holder's process dies. A standby waits in the
lock's own queue and is the leader the moment the lock is free, after a crash as after a resignation; it waits in
slices of 10 s, because a statement that waits for ever would hold a snapshot and keep every dead row of the database.

Losing that session (Postgres was restarted, the network broke) is not yet losing the lead: nobody can have written in
our name meanwhile, the epoch sees to that. `watch` ends our old session, should the server still keep it, and takes
the lock again; only when another daemon has it are we out, and `watch` raises Conflict.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import anyio
import asyncpg
from anyio.abc import TaskStatus

from tickless.errors import Conflict, Unavailable
from tickless.store.connect import DRIVER_ERRORS, Connection, connect, map_error
from tickless.store.listener import CHANNEL, FIRST_BACKOFF, LAST_BACKOFF
from tickless.store.migrate import LOCK_CLASS
from tickless.store.pool import SEARCH_PATH
from tickless.store.sql import query
from tickless.telemetry.log import get_log

SLICE = timedelta(seconds=10)

_TRY_LEAD = query("try_lead")
_WAIT_TO_LEAD = query("wait_to_lead")
_RESIGN = query("resign")
_LOCK_HOLDER = query("lock_holder")
_OWN_BACKEND = query("own_backend")
_END_OWN_BACKEND = query("end_own_backend")

# The server drops the session of a host that vanished, and with it the lock, within about ten seconds. All three are
# needed: keepalives for an idle session, the user timeout for unacknowledged data, and the check for a running
# statement (`_connect`: half a slice), or a standby that is gone would stay in the queue to the end of its slice.
# (Unix sockets ignore the first two; they break at once.)
_SETTINGS = {
    "search_path": SEARCH_PATH,
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

log = get_log()


class Leader:
    """The lock of one shard. `async with Leader(dsn) as leader:` waits for the lead, and resigns at the end."""

    def __init__(
        self,
        dsn: str,
        *,
        shard_id: int = 1,
        on_lost: Callable[[], None] | None = None,
        wait_slice: timedelta = SLICE,
    ) -> None:
        """`on_lost` is called when the lock's session breaks; it must only set a flag."""
        self._dsn = dsn
        self._shard_id = shard_id
        self._on_lost = on_lost
        self._slice = wait_slice
        self._connection: Connection | None = None
        self._backend: tuple[int, datetime] | None = None
        self._lost = anyio.Event()
        self._held = anyio.Event()
        self.is_waiting = False
        """Standing by: another daemon leads."""

    @property
    def is_leader(self) -> bool:
        """Whether the lock is held, as far as we know."""
        return self._held.is_set()

    async def wait_held(self) -> None:
        """Return when the lock is held: at once, or when `watch` has taken it back. Take no epoch without it."""
        await self._held.wait()

    async def acquire(self) -> None:
        """Wait until we lead, however long that takes; an unreachable database is waited for, too.

        Raises UserError when the connection is refused for good.
        """
        backoff = FIRST_BACKOFF
        is_said = False
        while True:
            try:
                await self._connect()
                if not await self._try():
                    if not is_said:
                        self.is_waiting = is_said = True
                        log.info("leader.waiting", holder=await self._holder())
                    while not await self._wait_slice():
                        pass
                self._begin()
                return
            except Unavailable:
                await anyio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, LAST_BACKOFF)
            finally:
                if not self._held.is_set():
                    self._drop()

    async def resign(self) -> None:
        """Give the lead to whoever waits. Resigning twice, or without the lead, is fine."""
        connection, was_held = self._connection, self._held.is_set()
        self._connection, self._held, self._backend = None, anyio.Event(), None
        if connection is None:
            return
        connection.remove_termination_listener(self._hear_end)
        try:
            if was_held:
                with anyio.move_on_after(5):
                    await connection.execute(_RESIGN, LOCK_CLASS, self._shard_id, CHANNEL)
        except DRIVER_ERRORS:
            pass  # the session is gone, and the lock with it
        finally:
            connection.terminate()

    async def watch(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the lead that `acquire` got: take the lock again whenever its session breaks.

        Raises Conflict when another daemon has taken it.
        """
        task_status.started()
        while True:
            await self._lost.wait()
            await self._reacquire()

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.resign()

    async def _reacquire(self) -> None:
        before, backoff = self._backend, FIRST_BACKOFF
        self._drop()
        while True:
            try:
                await self._connect()
                if before is not None:
                    # To the server our old session may look alive: it would keep us from our own lock.
                    await self._execute(_END_OWN_BACKEND, *before)
                if await self._try() or (not await self._is_taken_by_other(before) and await self._wait_slice()):
                    self._begin()
                    return
                holder = await self._holder()
                raise Conflict(f"another daemon leads now: {holder}")
            except Unavailable:
                self._drop()
                await anyio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, LAST_BACKOFF)

    async def _is_taken_by_other(self, before: tuple[int, datetime] | None) -> bool:
        row = await self._fetchrow(_LOCK_HOLDER, LOCK_CLASS, self._shard_id)
        return row is not None and before is not None and row["pid"] != before[0]

    def _begin(self) -> None:
        self._lost = anyio.Event()
        self.is_waiting = False
        self._held.set()
        assert self._connection is not None
        if self._connection.is_closed():  # between the answer and now
            self._hear_end(self._connection)

    async def _connect(self) -> None:
        self._connection = await connect(
            self._dsn,
            application_name="tickless leader",
            lock_timeout=self._slice,
            settings=_SETTINGS
            | {"client_connection_check_interval": str(round(self._slice / timedelta(milliseconds=2)))},
        )
        self._connection.add_termination_listener(self._hear_end)
        row = await self._fetchrow(_OWN_BACKEND)
        self._backend = (row["pid"], row["backend_start"]) if row is not None else None

    async def _try(self) -> bool:
        row = await self._fetchrow(_TRY_LEAD, LOCK_CLASS, self._shard_id)
        return row is not None and row[0] is True

    async def _wait_slice(self) -> bool:
        try:
            await self._execute(_WAIT_TO_LEAD, LOCK_CLASS, self._shard_id)
        except Unavailable as error:
            if isinstance(error.__cause__, asyncpg.LockNotAvailableError):
                return False
            raise
        return True

    async def _holder(self) -> str | None:
        row = await self._fetchrow(_LOCK_HOLDER, LOCK_CLASS, self._shard_id)
        return None if row is None else f"{row['owner'] or 'a daemon that has not begun'} (backend {row['pid']})"

    async def _fetchrow(self, statement: str, *arguments: object) -> asyncpg.Record | None:
        assert self._connection is not None
        patience = self._slice.total_seconds() + 10
        try:
            with anyio.fail_after(patience):
                return await self._connection.fetchrow(statement, *arguments)
        except DRIVER_ERRORS as error:  # TimeoutError is an OSError
            raise (map_error(error) or error) from error

    async def _execute(self, statement: str, *arguments: object) -> None:
        await self._fetchrow(statement, *arguments)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.remove_termination_listener(self._hear_end)
            self._connection.terminate()
            self._connection = None

    def _hear_end(self, _connection: object) -> None:
        if self._held.is_set():
            self._held = anyio.Event()
            self._lost.set()
            if self._on_lost is not None:
                self._on_lost()
