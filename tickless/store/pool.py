"""The connections for reading. Opened when needed, closed after five idle minutes, silent in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from tickless.errors import Unavailable, Unstorable, UserError
from tickless.store.connect import DRIVER_ERRORS, Connection, connect, map_error

if TYPE_CHECKING:
    Record = asyncpg.Record
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Record = asyncpg.Record
    Pool = asyncpg.Pool

SEARCH_PATH = "tickless, public"
"""What every connection of ours resolves table names with, and what `db shell` sets."""

_IDLE_SECONDS = 300.0


class ReadPool:
    """A few read-only connections. Errors of the driver come out as ours."""

    def __init__(self, dsn: str, *, size: int = 4, statement_timeout: timedelta = timedelta(seconds=10)) -> None:
        self._dsn = dsn
        self._size = size
        self._statement_timeout = statement_timeout
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Make the pool; it connects at the first use."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=self._size,
                max_inactive_connection_lifetime=_IDLE_SECONDS,
                connect=self._connect,
                # We never change the state of these sessions, and the driver's reset costs a round trip per read.
                reset=_leave_as_it_is,
            )

    async def close(self) -> None:
        """Break the connections; a read that is under way fails with Unavailable."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection for several statements."""
        if self._pool is None:
            raise Unavailable("the pool of reading connections is not open")
        try:
            async with self._pool.acquire() as connection:
                try:
                    yield connection  # type: ignore[misc]  # a proxy of the driver's with the same methods
                except asyncio.CancelledError:
                    # Whatever was under way, perhaps in a transaction: a new connection is cheaper than to find out.
                    connection.terminate()
                    raise
        except DRIVER_ERRORS as error:
            ours = map_error(error)
            if isinstance(ours, Unstorable) and ours.sqlstate[:2] == "22":
                # A NUL in a name, a number of 70 bits: whoever asks for it asks in vain.
                raise UserError("nothing can have such a name or number") from error
            raise (ours or error) from error

    async def fetch(self, query: str, *arguments: Any) -> list[Record]:
        async with self.connection() as connection:
            return await connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> Record | None:
        async with self.connection() as connection:
            return await connection.fetchrow(query, *arguments)

    async def _connect(self, *_: Any, **__: Any) -> Connection:
        return await connect(
            self._dsn,
            application_name="tickless reader",
            statement_timeout=self._statement_timeout,
            settings={
                "search_path": SEARCH_PATH,
                "default_transaction_read_only": "on",
                "idle_in_transaction_session_timeout": "60s",
                "jit": "off",
            },
        )


async def _leave_as_it_is(_: Any) -> None:
    return
