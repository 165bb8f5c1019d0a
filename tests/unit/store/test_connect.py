"""What connect does without a server: hiding passwords, judging errors, socket options."""

from __future__ import annotations

import asyncio
import socket
import ssl

import asyncpg
import pytest

from tickless.errors import TicklessError, Unavailable, Unstorable, UserError
from tickless.store.connect import detect_dead_peer, map_error, mask_dsn


@pytest.mark.parametrize(
    ("dsn", "masked"),
    [
        ("postgresql://u:secret@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:s%40cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:se@c/r?et@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:secret@h/d", "postgresql://:***@h/d"),
        ("postgresql://u@/d?host=/run/a&port=1", "postgresql://u@/d?host=/run/a&port=1"),
        ("postgresql://u@h/d?password=secret&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
        ("postgresql://h/d?sslpassword=secret", "postgresql://h/d?sslpassword=***"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        ("host=h password=secret dbname=d", "host=h password=*** dbname=d"),
        ("host=h PASSWORD = 'se cr\\'et' dbname=d", "host=h PASSWORD = *** dbname=d"),
        ("", ""),
    ],
)
def test_a_masked_dsn_has_everything_but_the_password(dsn: str, masked: str) -> None:
    assert mask_dsn(dsn) == masked


def of_state(sqlstate: str, message: str = "said") -> asyncpg.PostgresError:
    """What the driver raises for an ErrorResponse with this code."""
    error = asyncpg.PostgresError.new({"C": sqlstate, "M": message, "S": "ERROR"})
    assert isinstance(error, asyncpg.PostgresError)
    return error


@pytest.mark.parametrize(
    ("ours", "states"),
    [
        (Unavailable, "08000 08006 08P01 40001 40P01 53000 53100 53200 53300 57014 57P01 57P02 57P03 58000 58030"),
        (Unavailable, "25006 55P03 55006"),
        (Unstorable, "22001 22003 22021 22P02 22P05 23502 23503 23505 23514 42601 42703 42883 54000 54001"),
        (UserError, "28000 28P01 3D000 42501 26000 42P05"),
        (type(None), "P0001 TK001 XX000 0A000 25P02"),
    ],
)
def test_the_sqlstate_says_whose_fault_it_is(ours: type[object], states: str) -> None:
    assert {state: type(map_error(of_state(state))) for state in states.split()} == dict.fromkeys(states.split(), ours)


def test_a_refused_value_keeps_its_sqlstate_and_shows_no_row() -> None:
    error = of_state("23505", "duplicate key value")
    error.detail = "Key (token)=(hidden) already exists."
    mapped = map_error(error)
    assert isinstance(mapped, Unstorable)
    assert mapped.sqlstate == "23505"
    assert "hidden" not in f"{mapped} {mapped.hint}"


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (asyncpg.InterfaceError("connection is closed"), Unavailable),
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), Unavailable),
        (asyncpg.InvalidCachedStatementError("cached plan must not change result type"), Unavailable),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), type(None)),
        (socket.gaierror(-2, "Name or service not known"), Unavailable),
        (ConnectionRefusedError(), Unavailable),
        (ConnectionResetError(), Unavailable),
        (FileNotFoundError(), Unavailable),
        (TimeoutError(), Unavailable),
        (PermissionError(), UserError),
        (ssl.SSLCertVerificationError(), UserError),
        (ssl.SSLError(), Unavailable),
        (asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"), Unavailable),
        (KeyError("a bug of ours"), type(None)),
        (asyncio.CancelledError(), type(None)),
    ],
)
def test_errors_without_a_sqlstate_are_judged_by_their_kind(error: BaseException, ours: type[object]) -> None:
    mapped = map_error(error)
    assert type(mapped) is ours
    assert mapped is None or isinstance(mapped, TicklessError)


class FakeTransport(asyncio.BaseTransport):
    def __init__(self, sock: socket.socket | None) -> None:
        super().__init__({"socket": sock})


def test_a_tcp_socket_gets_keepalive_and_a_user_timeout() -> None:
    with socket.socket(socket.AF_INET) as sock:
        assert detect_dead_peer(FakeTransport(sock))
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [5, 2, 3, 10_000]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_a_unix_socket_is_left_alone() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert not detect_dead_peer(FakeTransport(sock))
    assert not detect_dead_peer(FakeTransport(None))
