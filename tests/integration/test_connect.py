"""Connections to real servers, and the words in which they are refused."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import anyio
import asyncpg
import pytest

from tests.support.postgres import TestCluster, make_temporary_home
from tickless.errors import TicklessError, Unavailable, Unstorable, UserError
from tickless.store import connect as subject
from tickless.store.connect import Connection, check_server, connect, map_error
from tickless.store.embedded import EmbeddedPostgres
from tickless.store.place import find_base

pytest_plugins = ["tests.support.postgres"]
pytestmark = pytest.mark.anyio

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
PASSWORD = "p@ss/w:rd"
ESCAPED = "p%40ss%2Fw%3Ard"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpServer:
    """A server that asks for a password on 127.0.0.1; role `app` has one, and no rights in `tickless`."""

    server: EmbeddedPostgres
    home: Path
    port: int

    def dsn(self, user: str = "app", password: str = ESCAPED, database: str = "tickless") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def tcp_server() -> Iterator[TcpServer]:
    home, port = make_temporary_home(is_fast=True), free_port()
    hba = home / "hba.conf"
    hba.write_text("local all all peer map=tickless\nhost all all 127.0.0.1/32 scram-sha-256\n")
    hba.chmod(0o644)
    settings = {"listen_addresses": "127.0.0.1", "port": str(port), "hba_file": str(hba), "fsync": "off"}
    server = EmbeddedPostgres(home, settings=settings, shared_root=home / "shared")

    async def start() -> None:
        await server.start()
        async with connected(server.dsn) as owner:
            await owner.execute(
                f"create role app login password '{PASSWORD}'; create role owner login password '{PASSWORD}'"
            )
            await owner.execute("create database owned owner owner")

    async def stop() -> None:
        assert await server.stop()

    try:
        asyncio.run(start())
        yield TcpServer(server=server, home=home, port=port)
    finally:
        asyncio.run(stop())
        shutil.rmtree(home)


@asynccontextmanager
async def connected(dsn: str, **options: timedelta) -> AsyncIterator[Connection]:
    connection = await connect(dsn, application_name="test", **options)  # type: ignore[arg-type]  # timedeltas only
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def refusal_of(dsn: str) -> TicklessError:
    with pytest.raises(TicklessError) as refused:
        await connect(dsn, application_name="test", timeout=timedelta(seconds=5))
    for secret in (PASSWORD, ESCAPED, "secret"):
        assert secret not in f"{refused.value} {refused.value.hint}"
    return refused.value


# What a good connection has


async def test_a_connection_carries_its_name_and_limits_and_keeps_them_over_a_reset(database: str) -> None:
    limits = {"statement_timeout": timedelta(seconds=7), "lock_timeout": timedelta(milliseconds=1500)}
    async with connected(database, **limits) as connection:
        await connection.execute("set statement_timeout = 0; reset all")
        shown = [
            await connection.fetchval(f"show {name}")
            for name in ("application_name", "statement_timeout", "lock_timeout")
        ]
    assert shown == ["test", "7s", "1500ms"]


async def test_a_tcp_connection_notices_a_dead_peer(tcp_server: TcpServer) -> None:
    async with connected(tcp_server.dsn()) as connection:
        sock = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # as in connect
        options = [(level, option) for level, option, _ in subject._DEAD_PEER_OPTIONS]
        assert [sock.getsockopt(*option) for option in options] == [1, 5, 2, 3, 10_000]


async def test_a_good_server_passes_the_check(tcp_server: TcpServer, database: str) -> None:
    for dsn, role in ((database, "tickless"), (tcp_server.dsn("owner", database="owned"), "owner")):
        async with connected(dsn) as connection:
            facts = await check_server(connection, dsn=dsn)
            assert (facts.role, facts.is_pooled) == (role, False)
            assert await connection.fetchval("select count(*) from pg_listening_channels()") == 0


# Refusals


async def test_a_wrong_password_or_user_is_refused_as_a_login(tcp_server: TcpServer) -> None:
    for dsn in (tcp_server.dsn(password="secret"), tcp_server.dsn(user="stranger")):
        refused = await refusal_of(dsn)
        assert isinstance(refused, UserError)
        assert "password authentication failed" in str(refused)
        assert "pg_hba.conf" in str(refused.hint)


async def test_an_unknown_database_is_refused_by_name(tcp_server: TcpServer) -> None:
    refused = await refusal_of(tcp_server.dsn(database="elsewhere"))
    assert isinstance(refused, UserError)
    assert 'database "elsewhere" does not exist' in str(refused)


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://app:secret@127.0.0.1:{free}/x", "nothing listens there"),
        ("postgresql://app:secret@no-such-host.invalid/x", "cannot be resolved"),
        ("postgresql://app:secret@/x?host=/nowhere", "no Postgres socket there"),
    ],
)
async def test_a_server_that_is_not_there_is_unavailable(dsn: str, words: str) -> None:
    refused = await refusal_of(dsn.format(free=free_port()))
    assert isinstance(refused, Unavailable)
    assert words in str(refused)
    assert refused.hint


async def test_a_server_that_never_answers_is_unavailable() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Unavailable, match="does not answer in time"):
            await connect(
                f"postgresql://app:secret@127.0.0.1:{silent.getsockname()[1]}/x?sslmode=disable",
                application_name="test",
                timeout=timedelta(milliseconds=100),
            )


@pytest.mark.parametrize(
    "dsn", ["mysql://app:secret@host/x", "postgresql://app:se/cret@host/x", "postgresql://app:secret@host:port/x"]
)
async def test_a_malformed_dsn_is_refused_without_its_password(dsn: str) -> None:
    refused = await refusal_of(dsn)
    assert isinstance(refused, UserError)
    assert "cannot be read" in str(refused)
    assert "cret" not in str(refused)
    assert refused.__suppress_context__


async def test_a_role_without_the_right_to_create_the_schema_is_told_the_grant(tcp_server: TcpServer) -> None:
    async with connected(tcp_server.dsn()) as connection:
        with pytest.raises(UserError, match="app may not create the schema tickless in database tickless") as refused:
            await check_server(connection, dsn=tcp_server.dsn())
        assert 'GRANT CREATE ON DATABASE "tickless" TO "app";' in str(refused.value.hint)
        async with connected(tcp_server.server.dsn) as owner:
            await owner.execute("create schema reserved")
        with pytest.raises(UserError, match="may not create tables in the schema reserved") as refused:
            await check_server(connection, dsn=tcp_server.dsn(), schema="reserved")
        assert 'GRANT USAGE, CREATE ON SCHEMA "reserved" TO "app";' in str(refused.value.hint)


async def test_an_old_server_is_refused_by_version(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(database) as connection:
        monkeypatch.setattr(subject, "OLDEST_MAJOR", connection.get_server_version().major + 1)
        with pytest.raises(UserError, match=r"is PostgreSQL \d+; tickless needs \d+ or newer"):
            await check_server(connection, dsn=database)


async def test_a_database_that_is_not_unicode_is_refused(cluster: TestCluster) -> None:
    async with connected(cluster.dsn) as owner:
        await owner.execute(
            "create database latin template template0 encoding 'LATIN1' locale 'C' locale_provider libc"
        )
    dsn = cluster.dsn.replace("@/tickless", "@/latin")
    try:
        async with connected(dsn) as connection:
            with pytest.raises(UserError, match="encoded in LATIN1; tickless needs UTF8"):
                await check_server(connection, dsn=dsn)
    finally:
        await cluster.drop_database(dsn)


# The error map, on errors that a server really sent


@pytest.mark.parametrize(
    ("statement", "ours", "words"),
    [
        ("select 1/0", Unstorable, "division by zero (22012)"),
        ("insert into taken values (1)", Unstorable, "(23505)"),
        ("insert into taken values ($1)", Unstorable, "invalid input"),
        ("select nothing", Unstorable, "(42703)"),
        ("select pg_sleep(9)", Unavailable, "(57014)"),
        ("lock table taken nowait", Unavailable, "(55P03)"),
        ("set transaction read only; insert into taken values (2)", Unavailable, "(25006)"),
        ("set role nobody_at_all", Unstorable, "(22023)"),
        ("do $$ begin raise 'ours' using errcode = 'TK001'; end $$", type(None), ""),
    ],
)
async def test_an_error_of_the_server_becomes_one_of_ours(
    database: str, statement: str, ours: type[object], words: str
) -> None:
    async with (
        connected(database) as other,
        connected(database, statement_timeout=timedelta(seconds=0.2)) as connection,
    ):
        await other.execute("create table taken (n int primary key); insert into taken values (1)")
        arguments = [2**80] if "$1" in statement else []
        async with other.transaction():
            if "lock table" in statement:
                await other.execute("lock table taken")
            transaction = connection.transaction()
            await transaction.start()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as raised:
                await connection.execute(statement, *arguments)
            await transaction.rollback()
        mapped = map_error(raised.value)
        assert type(mapped) is ours
        assert words in str(mapped)
        if isinstance(mapped, Unstorable) and "(" in words:
            assert mapped.sqlstate == words.rpartition("(")[2].rstrip(")")


async def test_a_lost_connection_is_unavailable_in_the_middle_and_after(database: str) -> None:
    async with connected(database) as other:
        connection = await connect(database, application_name="victim")
        lost: list[Exception] = []

        async def wait_in_the_server() -> None:
            try:
                await connection.execute("select pg_sleep(30)")
            except Exception as error:
                lost.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(wait_in_the_server)
            await anyio.wait_all_tasks_blocked()
            await other.execute("select pg_terminate_backend($1)", connection.get_server_pid())
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as after:
            await connection.execute("select 1")
    assert isinstance(map_error(lost[0]), Unavailable)
    assert isinstance(map_error(after.value), Unavailable)


# Poolers


@asynccontextmanager
async def pgbouncer(server: TcpServer, mode: str, *extra: str) -> AsyncIterator[str]:
    """PgBouncer before the server's socket, in the given pool_mode; yields the DSN of role `owner` through it."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
    port = free_port()
    folder = make_temporary_home()
    lines = [
        "[databases]",
        f"owned = host=127.0.0.1 port={server.port}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = trust",
        f"auth_file = {folder / 'users'}",
        f"pool_mode = {mode}",
        f"logfile = {folder / 'log'}",
        *extra,
    ]
    for name, text in (("pgbouncer.ini", "\n".join(lines) + "\n"), ("users", f'"owner" "{PASSWORD}"\n'), ("log", "")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o666)
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # it refuses to run as root
    process = await anyio.open_process(
        [PGBOUNCER, "-q", str(folder / "pgbouncer.ini")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=nobody.pw_uid if nobody else None,
        group=nobody.pw_gid if nobody else None,
        extra_groups=[] if nobody else None,
    )
    try:
        with anyio.fail_after(10):
            while True:
                try:
                    await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    assert process.returncode is None, (folder / "log").read_text()
                    await anyio.sleep(0.02)
        yield f"postgresql://owner@127.0.0.1:{port}/owned"
    finally:
        process.send_signal(signal.SIGINT)
        with anyio.CancelScope(shield=True):
            await process.wait()
        shutil.rmtree(folder)


async def test_a_pooler_in_session_mode_is_good_and_gets_the_settings_that_it_refused(tcp_server: TcpServer) -> None:
    async with (
        pgbouncer(tcp_server, "session") as dsn,
        connected(dsn, statement_timeout=timedelta(seconds=7)) as connection,
    ):
        assert await connection.fetchval("show statement_timeout") == "7s"
        assert (await check_server(connection, dsn=dsn)).is_pooled


async def test_a_pooler_that_drops_settings_silently_gets_them_too(tcp_server: TcpServer) -> None:
    ignoring = "ignore_startup_parameters = statement_timeout"
    async with (
        pgbouncer(tcp_server, "session", ignoring) as dsn,
        connected(dsn, statement_timeout=timedelta(seconds=7)) as connection,
    ):
        assert await connection.fetchval("show statement_timeout") == "7s"


@pytest.mark.parametrize("round_robin", [0, 1])
async def test_a_pooler_in_transaction_mode_is_refused(tcp_server: TcpServer, round_robin: int) -> None:
    async with pgbouncer(tcp_server, "transaction", f"server_round_robin = {round_robin}") as dsn:
        async with connected(dsn) as connection:
            with pytest.raises(UserError, match="pooler in transaction mode") as refused:
                await check_server(connection, dsn=dsn)
            assert "pool_mode = session" in str(refused.value.hint)
        # Settings would leak to other clients of such a pooler, so none may be set before it is found out.
        with pytest.raises(UserError, match="pooler in transaction mode"):
            await connect(dsn, application_name="test", statement_timeout=timedelta(seconds=7))


async def test_a_statement_that_a_transaction_pooler_lost_is_explained(tcp_server: TcpServer) -> None:
    async with pgbouncer(tcp_server, "transaction") as dsn, connected(dsn) as one, connected(dsn) as other:
        assert await one.fetchval("select $1::int", 1) == 1  # prepared in the one server process so far
        async with other.transaction():  # which serves this client now
            await other.execute("select 1")
            with pytest.raises(asyncpg.PostgresError) as raised:
                await one.fetchval("select $1::int", 2)
        mapped = map_error(raised.value)
        assert type(mapped) is UserError
        assert "transaction mode" in str(mapped)


async def test_an_unknown_database_behind_a_pooler_is_refused_by_name(tcp_server: TcpServer) -> None:
    async with pgbouncer(tcp_server, "session") as dsn:
        refused = await refusal_of(dsn.replace("/owned", "/elsewhere"))
    assert isinstance(refused, UserError)
    assert "elsewhere" in str(refused)


def test_the_server_of_these_tests_lies_in_its_home(tcp_server: TcpServer) -> None:
    assert find_base(tcp_server.home).is_relative_to(tcp_server.home)
