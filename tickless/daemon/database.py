"""The database that a daemon works on: a server that the configuration names, or a private Postgres at home."""

from __future__ import annotations

import random
from pathlib import Path

import anyio

from tickless.config.schema import Settings
from tickless.errors import TicklessError, Unavailable
from tickless.store.connect import check_server, connect, mask_dsn
from tickless.store.embedded import EmbeddedPostgres
from tickless.store.migrate import migrate
from tickless.store.postmaster import wait_for_end
from tickless.telemetry.log import get_log

log = get_log()

FIRST_BACKOFF_SECONDS = 0.1
LAST_BACKOFF_SECONDS = 5.0


class Database:
    """Makes sure that there is a server with our schema, at the start and after each loss."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self._url = settings.database.url
        self._embedded = EmbeddedPostgres(home) if self._url is None else None
        self._home = home
        self._is_held = False
        self._reviving = anyio.Lock()
        self.about = mask_dsn(self._url) if self._url is not None else "embedded"
        """One line for people, without password."""

    @property
    def is_embedded(self) -> bool:
        return self._embedded is not None

    @property
    def dsn(self) -> str:
        """Raises Unavailable while the private server is not running."""
        return self._url if self._url is not None else self._private.dsn

    @property
    def _private(self) -> EmbeddedPostgres:
        assert self._embedded is not None
        return self._embedded

    async def open(self) -> None:
        """Start or adopt the private server, refuse a server that we cannot work with, bring the schema up to date."""
        await self.revive()
        connection = await connect(self.dsn, application_name="tickless check")
        try:
            server = await check_server(connection, dsn=self.dsn)
        finally:
            connection.terminate()  # a farewell can fail
        kind = "embedded PostgreSQL" if self.is_embedded else "PostgreSQL"
        self.about = f"{kind} {server.version}, database {server.database}"
        await migrate(self.dsn, owns_database=self.is_embedded)

    async def revive(self) -> None:
        """Start the private server again if it has died. Does nothing for a server that is not ours.

        The first time also when it is running: it is adopted then, which waits until it answers (it may be recovering
        from the crash that killed our predecessor) and keeps others from stopping it.
        """
        if self._embedded is None:
            return
        async with self._reviving:
            if self._is_held and self._embedded.is_running():
                return
            found = await self._embedded.start()
            self._is_held = True
        event = "database.adopted" if found.is_adopted else "database.started"
        log.info(event, folder=str(self._embedded.data), version=found.version, pid=found.pid)

    async def keep(self) -> None:
        """Start the private server again whenever it ends, until cancelled; return at once for one that is not ours.

        On its own, not only before a rebuild: whoever waits there for the lead waits for the server.
        """
        backoff = FIRST_BACKOFF_SECONDS
        while self._embedded is not None:
            pid = self._embedded.server_pid()
            if pid is not None:
                await wait_for_end(pid)
            try:
                await self.revive()
                backoff = FIRST_BACKOFF_SECONDS
            except TicklessError as error:
                log.warning("database.lost", error=error.message)
                await anyio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)

    async def stop(self) -> bool:
        """Stop the private server; False when another process still uses it. Others are left alone."""
        if self._embedded is None:
            return True
        try:
            return await self._embedded.stop()
        except Unavailable as error:
            log.warning("database.lost", error=error.message)
            return False

    def leave(self) -> None:
        """Go on without it: the private server stays, for the next start to adopt."""
        if self._embedded is not None:
            self._embedded.leave()
