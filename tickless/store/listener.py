"""Hears of rows that others have written. A notification is a hint where to look, never a fact.

Guarantee: whatever was committed before or during the life of a connection that is still good has been hinted at. So
each connection begins with LISTEN, and only then everything is marked dirty: a row is either seen by the scan that
follows, or its notification comes after it. A hole in NOTIFY can only be a lost connection, so losing one must be
noticed: the driver tells of a closed socket at once, keepalives and TCP_USER_TIMEOUT (`store.connect`) close a silent
one, and a *round trip* catches the rest (a stopped backend, a pooler in between, a LISTEN that is no more): one
statement asks whether we still listen and notifies a nonce, which must come back within `PROBE_PATIENCE`.
On any doubt the connection is dropped without a farewell and a new one is made.

The probe is a sign of life, not a search for work. It costs two transactions (the server counts one for handing over
the notification): four a minute by default.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from datetime import timedelta

import anyio
from anyio.abc import TaskStatus

from tickless.errors import Unavailable, UserError
from tickless.store.connect import DRIVER_ERRORS, Connection, connect, map_error
from tickless.store.pool import SEARCH_PATH
from tickless.store.sql import query
from tickless.telemetry.log import get_log

CHANNEL = "tickless"
"""The one channel of a database: request hints, probes, resignations."""
PROBE_PATIENCE = 5.0
"""Seconds in which the round trip must be complete."""
FIRST_BACKOFF = 0.1
LAST_BACKOFF = 5.0

_PROBE = query("probe")
_PROBE_PREFIX = "probe:"
_RESIGNED = "leader_resigned"

log = get_log()


class Listener:
    """One dedicated, direct connection that listens. Run it as a service; it reconnects by itself."""

    def __init__(
        self,
        dsn: str,
        *,
        on_dirty: Callable[[], None],
        on_resigned: Callable[[], None] | None = None,
        probe_seconds: float = 30.0,
        probe_patience: float = PROBE_PATIENCE,
        channel: str = CHANNEL,
    ) -> None:
        """`on_dirty` is called, from the driver's callbacks too, whenever the request tables may have changed: it
        must only set a flag. `on_resigned` the same when a leader has given up the lock."""
        self._dsn = dsn
        self._on_dirty = on_dirty
        self._on_resigned = on_resigned
        self._probe_seconds = probe_seconds
        self._probe_patience = probe_patience
        self._channel = channel
        self._nonce = ""
        self._came_back = anyio.Event()
        self.connections = 0
        """Connections made so far; more than one means that some were lost."""
        self.is_healthy = False
        """Listening, as far as we know."""
        self.retrying_since: float | None = None
        """Since when (event loop's clock) the present attempt to connect is under way; None while listening."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled. Started with the first LISTEN.

        Raises UserError when the first connection is refused for good; later, that is only one more failure.
        """
        backoff = FIRST_BACKOFF
        while True:
            self.retrying_since = anyio.current_time()
            try:
                connection, lost = await self._connect()
            except (Unavailable, UserError) as error:
                if isinstance(error, UserError) and self.connections == 0:
                    raise
                if backoff == FIRST_BACKOFF:
                    log.warning("database.lost", error=error.message)
                await anyio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, LAST_BACKOFF)
                continue
            self.connections += 1
            self.is_healthy, self.retrying_since = True, None
            # What was written while nobody listened was not announced to us.
            self._on_dirty()
            if self.connections == 1:
                task_status.started()
            heard_at = anyio.current_time()
            try:
                await self._listen(connection, lost)
            finally:
                self.is_healthy = False
                connection.terminate()
            if anyio.current_time() - heard_at > LAST_BACKOFF:
                backoff = FIRST_BACKOFF
            else:  # it comes up and breaks at once: not in a tight loop
                await anyio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, LAST_BACKOFF)

    async def _connect(self) -> tuple[Connection, anyio.Event]:
        lost = anyio.Event()  # one for each connection: the last one's farewell must not end this one
        connection = await connect(
            self._dsn,
            application_name="tickless listener",
            statement_timeout=timedelta(seconds=10),
            settings={"search_path": SEARCH_PATH},
        )
        try:
            connection.add_termination_listener(lambda _: lost.set())
            with anyio.fail_after(self._probe_patience):
                await connection.add_listener(self._channel, self._hear)
        except DRIVER_ERRORS as error:
            connection.terminate()
            raise (map_error(error) or error) from error
        except BaseException:
            connection.terminate()
            raise
        return connection, lost

    async def _listen(self, connection: Connection, lost: anyio.Event) -> None:
        """Return as soon as this connection is in doubt."""
        while True:
            with anyio.move_on_after(self._probe_seconds):
                await lost.wait()
                return
            if not await self._is_heard(connection):
                log.warning("database.lost", error="the listening connection gives no sign of life")
                return

    async def _is_heard(self, connection: Connection) -> bool:
        self._nonce = _PROBE_PREFIX + secrets.token_hex(6)
        self._came_back = anyio.Event()
        with anyio.move_on_after(self._probe_patience) as patience:
            try:
                if not await connection.fetchval(_PROBE, self._channel, self._nonce):
                    return False
            except DRIVER_ERRORS:
                return False
            await self._came_back.wait()
        return not patience.cancelled_caught

    # Called by the driver in the loop: it only sets flags.

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == self._nonce:
            self._came_back.set()
        elif payload == _RESIGNED:
            if self._on_resigned is not None:
                self._on_resigned()
        elif not str(payload).startswith(_PROBE_PREFIX):  # another daemon's probe on the same channel
            self._on_dirty()
