"""A private Postgres for tests: one cluster per session, one database per test, cloned from a template.

    pytest_plugins = ["tests.support.postgres"]     in conftest.py, for the fixtures `cluster` and `database`

    cluster = TestCluster()                         or by hand
    await cluster.start(prepare=migrate)            `prepare(dsn)` fills the template, once
    dsn = await cluster.create_database()
    ...
    await cluster.stop()

Works as root (the server then runs as an unprivileged user) and as anyone else. A guard process stops the cluster when
the test process dies without doing so.

`TICKLESS_TEST_CLUSTER=FOLDER` keeps the cluster there running between sessions: saves half a second each time.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tickless.store.connect import connect
from tickless.store.embedded import EmbeddedPostgres

Prepare = Callable[[str], Awaitable[object]]

# Tests kill processes, never the machine: what fsync protects against cannot happen.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "100", "max_wal_size": "128MB"}

# Memory, when there is plenty: copying a template takes 6 ms there, and 30 to 280 ms on a disk.
_FAST_ROOT = Path("/dev/shm")
_FAST_ROOT_BYTES = 2 * 1024**3

# Reads until the test process is gone, or has said that it stopped the cluster itself.
_GUARD = """
read -r said
[ "$said" = stopped ] && exit
tr '\\0' '\\n' < "/proc/$1/cmdline" 2>/dev/null | grep -qxF "$2" && kill -INT "$1"
while [ -d "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; do sleep 0.1; done
rm -rf "$3"
"""


class TestCluster:
    """One private cluster. Its methods may be called from different event loops: it keeps no connection open."""

    __test__ = False  # not a test, whatever its name

    def __init__(self, folder: Path | None = None) -> None:
        kept = folder or (Path(kept) if (kept := os.environ.get("TICKLESS_TEST_CLUSTER")) else None)
        self._is_kept = kept is not None
        self.folder = kept or make_temporary_home(is_fast=True)
        self._server = EmbeddedPostgres(self.folder, settings=_SETTINGS, shared_root=self.folder / "shared")
        self._prefix = f"test_{os.getpid()}_{secrets.token_hex(3)}"
        self._guard: subprocess.Popen[bytes] | None = None
        self._strategy = ""

    @property
    def dsn(self) -> str:
        """The empty database `tickless`, as superuser."""
        return self._server.dsn

    @property
    def server(self) -> EmbeddedPostgres:
        return self._server

    async def start(self, prepare: Prepare | None = None) -> None:
        """Start the cluster and make the template, which `prepare(dsn)` fills."""
        started = await self._server.start()
        if int(started.version.partition(".")[0]) >= 15:
            self._strategy = "strategy file_copy"  # the default since 15 writes every page to the WAL, too
        if not self._is_kept and self._guard is None:
            self._guard = self._start_guard(started.pid)
        await self._execute(f'create database "{self._prefix}_template"')
        if prepare is not None:
            await prepare(self._dsn(f"{self._prefix}_template"))

    async def create_database(self) -> str:
        """The DSN of a new copy of the template."""
        name = f"{self._prefix}_{secrets.token_hex(4)}"
        await self._execute(f'create database "{name}" template "{self._prefix}_template" {self._strategy}')
        return self._dsn(name)

    async def drop_database(self, dsn: str) -> None:
        """Remove a database, whoever is still connected to it."""
        await self._execute(f'drop database if exists "{urlsplit(dsn).path[1:]}" with (force)')

    async def stop(self) -> None:
        """Stop the cluster and remove its files; a kept one only loses this session's template."""
        if self._is_kept:
            await self.drop_database(self._dsn(f"{self._prefix}_template"))
            self._server.leave()
            return
        await self._server.stop()
        if self._guard is not None:
            self._guard.communicate(b"stopped\n")
        shutil.rmtree(self.folder)

    def _dsn(self, database: str) -> str:
        return urlunsplit(urlsplit(self._server.dsn)._replace(path=f"/{database}"))

    async def _execute(self, statement: str) -> None:
        connection = await connect(self._dsn("postgres"), application_name="tests")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _start_guard(self, pid: int) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C is for pytest.
        return subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(pid), str(self._server.data), str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )


def make_temporary_home(*, is_fast: bool = False) -> Path:
    """A new folder for a home. Unlike pytest's tmp_path, root's lets the user who runs Postgres for root through.

    `is_fast` puts it in memory, where there is enough.
    """
    is_in_memory = is_fast and os.access(_FAST_ROOT, os.W_OK) and shutil.disk_usage(_FAST_ROOT).free > _FAST_ROOT_BYTES
    home = Path(tempfile.mkdtemp(prefix="tickless-", dir=_FAST_ROOT if is_in_memory else None))
    if os.geteuid() == 0:
        home.chmod(0o711)
    return home


@pytest.fixture(scope="session")
def cluster_prepare() -> Prepare | None:
    """Override it in conftest.py to fill the template, e.g. with the migrations."""
    return None


@pytest.fixture(scope="session")
def cluster(cluster_prepare: Prepare | None) -> Iterator[TestCluster]:
    cluster = TestCluster()
    asyncio.run(cluster.start(cluster_prepare))
    yield cluster
    asyncio.run(cluster.stop())


@pytest.fixture
async def database(cluster: TestCluster) -> AsyncIterator[str]:
    """The DSN of a fresh database, removed after the test."""
    dsn = await cluster.create_database()
    yield dsn
    await cluster.drop_database(dsn)
