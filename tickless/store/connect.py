"""Opening connections to Postgres, and saying in our words what went wrong.

Every asyncpg connection of tickless is opened here, so that each one notices a dead peer within seconds, and every
exception of the driver is turned into one of ours here (`map_error`): the class says who has to act, the message what
was tried (never with a password), the hint what to do.

tickless needs *sessions*: LISTEN, advisory locks and prepared statements belong to one server process. A pooler in
transaction mode breaks all three, the first one silently. So a connection whose settings a pooler would not keep, and
every server at start (`check_server`), is tested for it and refused.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import asyncpg

from tickless.errors import TicklessError, Unavailable, Unstorable, UserError
from tickless.store.binaries import OLDEST_MAJOR

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

SCHEMA = "tickless"

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Whatever the driver raises; `map_error` says what of it is ours."""

_CONNECT_TIMEOUT = timedelta(seconds=10)
_SELF_TEST_SECONDS = 2.0

# A silent peer is dead after 5 + 3 x 2 s of nothing, or after 10 s in which what we sent was not acknowledged.
# The kernel's own defaults are two hours and a quarter of one.
_DEAD_PEER_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000),
)

_POOLER_MESSAGE = "a connection pooler in transaction mode stands before the server, and tickless needs sessions"
_POOLER_HINT = (
    "Give tickless a DSN that leads to the server itself (mostly port 5432), "
    "or let the pooler keep sessions for this database (PgBouncer: pool_mode = session)."
)

# SQLSTATEs that say more than their class. The class table below is for the rest.
_STATEMENT_LOST = {"26000", "42P05"}  # a prepared statement unknown, or there already: only a transaction pooler
_RETRY_STATES = {
    "25006",  # read only: a standby, as after a failover until the address has moved
    "55P03",  # lock_timeout
    "55006",  # object in use
}
_RETRY_CLASSES = {
    "08",  # connection
    "40",  # serialization failure, deadlock
    "53",  # out of connections, memory, disk
    "57",  # shutdown, crash, starting up, statement_timeout
    "58",  # I/O error of the server
}
_REFUSED_CLASSES = {
    "22",  # data
    "23",  # constraint
    "42",  # syntax, names
    "54",  # a limit of Postgres
}
_LOGIN_CLASS = "28"
_HINTS = {
    "53100": "The disk of the Postgres server is full.",
    "53300": "Raise max_connections of the server, or close other clients.",
    "25006": "If the DSN names several hosts, add target_session_attrs=read-write to it.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What `check_server` found behind a DSN that is good for us."""

    version: str
    role: str
    database: str
    is_pooled: bool  # a pooler in session mode


async def connect(
    dsn: str,
    *,
    application_name: str,
    statement_timeout: timedelta | None = None,
    lock_timeout: timedelta | None = None,
    settings: Mapping[str, str] | None = None,
    timeout: timedelta = _CONNECT_TIMEOUT,
) -> Connection:
    """Open a connection that notices a dead peer and has the given session settings.

    Raises `UserError` when trying again is useless (login, database, DSN, pooler mode) and `Unavailable` when not.

    `timeout` bounds the opening. Settings travel with the login, so they hold from the first statement and survive
    RESET; a pooler that refuses or drops them gets them in a statement, if it keeps sessions.
    """
    wanted = dict(settings or {})
    for setting, limit in (("statement_timeout", statement_timeout), ("lock_timeout", lock_timeout)):
        if limit is not None:
            wanted[setting] = str(round(limit / timedelta(milliseconds=1)))
    named = {"application_name": application_name}
    try:
        connection = await _open(dsn, named | wanted, timeout)
    except _StartupParameterRefused:
        connection = await _open(dsn, named, timeout)
    if wanted:
        try:
            await _keep_settings(connection, dsn, wanted, timeout)
        except BaseException:
            connection.terminate()
            raise
    return connection


async def check_server(connection: Connection, *, dsn: str, schema: str = SCHEMA) -> Server:
    """Refuse, before anything is written, a server that tickless cannot work with; say what to change.

    `dsn` is the one that `connection` was opened with: whether it leads to sessions shows only between two.
    """
    major = connection.get_server_version().major
    if major < OLDEST_MAJOR:
        raise UserError(
            f"the server at {mask_dsn(dsn)} is PostgreSQL {major}; tickless needs {OLDEST_MAJOR} or newer",
            hint="Upgrade it, or leave the DSN out: tickless then runs a private server.",
        )
    try:
        is_pooled = await _require_sessions(connection, dsn)
        facts = await connection.fetchrow(_FACTS, schema)
    except DRIVER_ERRORS as error:
        raise _explain(error, dsn) from error
    assert facts is not None
    if facts["encoding"] != "UTF8":
        raise UserError(
            f"database {facts['database']} is encoded in {facts['encoding']}; tickless needs UTF8",
            hint=f"createdb --template=template0 --encoding=UTF8 {facts['database']}",
        )
    if facts["is_standby"]:
        raise Unavailable(f"the server at {mask_dsn(dsn)} is a read-only standby", hint=_HINTS["25006"])
    if not facts["may_create"]:
        raise _no_right(schema, facts)
    return Server(version=facts["version"], role=facts["role"], database=facts["database"], is_pooled=is_pooled)


_FACTS = """
select current_setting('server_version') as version,
       current_setting('server_encoding') as encoding,
       current_user::text as role,
       current_database()::text as database,
       pg_is_in_recovery() as is_standby,
       to_regnamespace($1) is not null as has_schema,
       case when to_regnamespace($1) is null
            then has_database_privilege(current_database(), 'CREATE')
            else has_schema_privilege(to_regnamespace($1), 'CREATE, USAGE')
       end as may_create
"""


def _no_right(schema: str, facts: asyncpg.Record) -> UserError:
    role, database = _quote(facts["role"]), _quote(facts["database"])
    if facts["has_schema"]:
        return UserError(
            f"role {facts['role']} may not create tables in the schema {schema} of database {facts['database']}",
            hint=f"As its owner: GRANT USAGE, CREATE ON SCHEMA {_quote(schema)} TO {role};",
        )
    return UserError(
        f"role {facts['role']} may not create the schema {schema} in database {facts['database']}",
        hint=f"As the database's owner: GRANT CREATE ON DATABASE {database} TO {role}; "
        f"or: CREATE SCHEMA {_quote(schema)} AUTHORIZATION {role};",
    )


def mask_dsn(dsn: str) -> str:
    """The DSN without its passwords, for messages and logs. Works on malformed ones, where it may hide too much."""
    masked = re.sub(r"(://[^:@/?#]*:).*@", r"\1***@", dsn, flags=re.DOTALL)
    return re.sub(r"((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^&\s]*)", r"\1***", masked, flags=re.IGNORECASE)


def map_error(error: BaseException) -> TicklessError | None:
    """Ours for one of the driver's, to be raised `from` it; None for what is a bug or none of the driver's.

    `Unavailable`: back off and try again. `Unstorable`: the data itself is refused. `UserError`: somebody has to
    change the set-up. The message never holds row data, which Postgres puts into DETAIL.
    """
    match error:
        case asyncpg.InvalidCachedStatementError() | asyncpg.OutdatedSchemaCacheError():
            return Unavailable("the schema changed under a prepared statement")
        case asyncpg.PostgresError():
            return _map_state(error)
        case asyncpg.ClientConfigurationError():
            return UserError("the DSN is malformed", hint="postgresql://user:password@host:5432/database")
        case asyncpg.InterfaceError() if isinstance(error, ValueError):
            # The driver could not encode an argument: a number out of range, a lone surrogate.
            return Unstorable(_first_line(error), sqlstate="22000")
        case asyncpg.InterfaceError() if "clos" in str(error):  # "connection is closed", "… was closed in the middle …"
            return Unavailable("the connection to Postgres is closed")
        case asyncpg.InternalClientError():
            # "cannot switch to state …": the server's farewell came unasked, just before our next statement.
            return Unavailable(f"the connection to Postgres is out of step: {_first_line(error)}")
        case ssl.SSLCertVerificationError():
            return UserError(
                f"the certificate of the Postgres server is not trusted: {_first_line(error)}",
                hint="Name the authority in the DSN: sslrootcert=/path/to/ca.crt",
            )
        case OSError():
            return _map_os_error(error)
        case _:
            return None


def _map_state(error: asyncpg.PostgresError) -> TicklessError | None:
    state = error.sqlstate or ""
    message = f"Postgres: {_first_line(error)} ({state})"
    if state in _STATEMENT_LOST:
        return UserError(_POOLER_MESSAGE, hint=_POOLER_HINT)
    if state == "42501":
        # A right that was taken away is nobody's data: an operator has to give it back.
        return UserError(message, hint="Give tickless' role the right back, and start again.")
    if state[:2] == _LOGIN_CLASS:
        return UserError(message, hint="Check user and password in the DSN, and the server's pg_hba.conf.")
    if state == "3D000":
        return UserError(message, hint="Create it: createdb NAME, or correct the name in the DSN.")
    if state in _RETRY_STATES or state[:2] in _RETRY_CLASSES:
        return Unavailable(message, hint=_HINTS.get(state))
    if state[:2] in _REFUSED_CLASSES:
        return Unstorable(message, sqlstate=state)
    return None


def _map_os_error(error: OSError) -> TicklessError:
    match error:
        case socket.gaierror():
            return Unavailable(
                f"the host name of the Postgres server cannot be resolved ({error.strerror})",
                hint="Check the host in the DSN, and this machine's name service.",
            )
        case FileNotFoundError():
            return Unavailable("there is no Postgres socket there", hint="Is the server running, and in that folder?")
        case PermissionError():
            return UserError("the socket of Postgres may not be opened by this user", hint="Run tickless as its owner.")
        case ConnectionRefusedError():
            return Unavailable("nothing listens there", hint="Is Postgres running, and on that host and port?")
        case TimeoutError():
            return Unavailable("Postgres does not answer in time", hint="Is there a firewall, or an overloaded server?")
        case _:
            return Unavailable(f"the connection to Postgres failed: {error.strerror or error}")


def detect_dead_peer(transport: asyncio.BaseTransport) -> bool:
    """Let the kernel break this connection soon after its peer fell silent. False: a unix socket, which needs none."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    for level, option, value in _DEAD_PEER_OPTIONS:
        sock.setsockopt(level, option, value)
    return True


class _StartupParameterRefused(Exception):
    """A pooler knows only some of the settings that a login may carry."""


async def _open(dsn: str, settings: dict[str, str], timeout: timedelta) -> Connection:
    try:
        connection: Connection = await asyncpg.connect(dsn, server_settings=settings, timeout=timeout.total_seconds())
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" in str(error) and len(settings) > 1:
            raise _StartupParameterRefused from error
        raise _explain(error, dsn) from error
    except (
        asyncpg.PostgresError,
        OSError,
        asyncpg.InternalClientError,
        asyncpg.TargetServerAttributeNotMatched,
    ) as error:
        raise _explain(error, dsn) from error
    except (asyncpg.InterfaceError, ValueError):
        # A malformed DSN. `from None`, because the driver's message quotes what it could not read: maybe a password.
        raise UserError(
            f"the DSN {mask_dsn(dsn)} cannot be read",
            hint="Its form: postgresql://user:password@host:5432/database; "
            "escape other characters than letters and digits in the password (@ is %40, / is %2F).",
        ) from None
    # The driver offers no way to its socket.
    detect_dead_peer(connection._transport)  # type: ignore[attr-defined]
    return connection


def _explain(error: BaseException, dsn: str) -> TicklessError:
    """Like `map_error`, for the opening of a connection: says to what, and knows what poolers answer."""
    where = mask_dsn(dsn)
    if isinstance(error, asyncpg.ProtocolViolationError):
        said = _first_line(error)
        if "startup parameter" in said:
            return UserError(
                f"{where}: the connection pooler refuses a setting of the login: {said}",
                hint="Take it out of the DSN, or list it in the pooler's ignore_startup_parameters.",
            )
        if "no such" in said:  # PgBouncer: "no such database: x", "no such user"
            return UserError(f"{where}: {said}", hint="Check user and database in the DSN.")
    mapped = map_error(error)
    if mapped is None:
        return UserError(f"{where}: {_first_line(error)}")
    mapped.message = f"{where}: {mapped.message}"
    mapped.args = (mapped.message,)  # what str() says
    return mapped


async def _keep_settings(connection: Connection, dsn: str, wanted: Mapping[str, str], timeout: timedelta) -> None:
    """Behind a pooler, which may have dropped the settings, set them again, if it keeps sessions."""
    try:
        with anyio.fail_after(timeout.total_seconds()):
            # Through a pooler the process that serves us is not the one that the login named.
            backend = await connection.fetchval("select pg_backend_pid()")
            if backend == connection.get_server_pid():
                return
            await _require_sessions(connection, dsn)
            for name, value in wanted.items():
                await connection.execute("select set_config($1, $2, false)", name, value)
    except DRIVER_ERRORS as error:
        raise _explain(error, dsn) from error


async def _require_sessions(connection: Connection, dsn: str) -> bool:
    """Raise unless `connection` keeps its server process and hears notifications. True: a pooler is between."""
    mode = UserError(f"{mask_dsn(dsn)}: {_POOLER_MESSAGE}", hint=_POOLER_HINT)
    channel = f"tickless_self_test_{secrets.token_hex(8)}"
    heard = anyio.Event()

    def hear(*_: object) -> None:
        heard.set()

    second = await _open(dsn, {"application_name": "tickless self-test"}, _CONNECT_TIMEOUT)
    try:
        with anyio.move_on_after(_SELF_TEST_SECONDS) as waiting:
            before = await connection.fetchval("select pg_backend_pid()")
            await connection.add_listener(channel, hear)
            # A transaction pooler lends the process that served us last to whoever begins next.
            async with second.transaction():
                other = await second.fetchval("select pg_backend_pid()")
                if other == before or await connection.fetchval("select pg_backend_pid()") != before:
                    raise mode
            # From the other connection: our own would be told along with its own commit, even through such a pooler.
            await second.execute(f"notify {channel}")
            await heard.wait()
            await connection.remove_listener(channel, hear)
        if waiting.cancelled_caught:
            raise mode
    except asyncpg.PostgresError as error:
        mapped = _map_state(error)
        raise (mode if isinstance(mapped, UserError) else _explain(error, dsn)) from error
    finally:
        second.terminate()
    return bool(before != connection.get_server_pid())


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
