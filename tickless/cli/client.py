"""HTTP to the daemon over its unix socket, with the standard library only: a command must start in milliseconds."""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from tickless.cli.problem import NotAllowed, NotRunning, say
from tickless.config.place import socket_address
from tickless.errors import InvariantBroken, NotFound, Refused, TicklessError, Unavailable, UserError

T = TypeVar("T")

_PREFIX = "/api/v1"
_FAMILIES: dict[str, type[TicklessError]] = {
    "not_found": NotFound,
    "refused": Refused,
    "invalid": UserError,
    "bad_config": UserError,
    "unavailable": Unavailable,
    "internal": InvariantBroken,
}


class ConnectionBroke(Unavailable):
    """The connection ended before the answer did: whether the request was carried out is not known."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_address(self._path) as address:
                self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise


class Client:
    """One daemon. A connection per request: they are few, and a kept one may be dead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_lost = False  # and the user was told so

    def get(self, path: str, **query: object) -> Any:
        return self.call("GET", path, query=query)

    def post(self, path: str, body: object = None, **query: object) -> Any:
        return self.call("POST", path, query=query, body=body)

    def put(self, path: str, body: object) -> Any:
        return self.call("PUT", path, body=body)

    def call(self, method: str, path: str, *, query: Mapping[str, object] | None = None, body: object = None) -> Any:
        """The decoded answer. Raises the error's family; NotRunning, or ConnectionBroke."""
        response = self._send(method, path, query or {}, body)
        try:
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _broke(error) from error
        return json.loads(content) if content else None

    def open(self, path: str, **query: object) -> Stream:
        """An answer that comes bit by bit."""
        return Stream(self._send("GET", path, query, None))

    def stream(self, path: str, **query: object) -> Iterator[bytes]:
        """The answer's bytes as they come. Raises ConnectionBroke when it ends before its end."""
        return iter(self.open(path, **query))

    def lines(self, path: str, **query: object) -> Iterator[Any]:
        """A stream of JSON lines, decoded."""
        buffer = b""
        for chunk in self.stream(path, **query):
            buffer += chunk
            *whole, buffer = buffer.split(b"\n")
            yield from (json.loads(line) for line in whole if line)

    def patiently(self, action: Callable[[], T], *, seconds: float, is_known: bool = False) -> T:
        """Do it; when the daemon goes away in the middle, say so and do it again, for so long. It must be idempotent.

        A daemon that is not there at the very first try is not waited for, unless it is known to have been.
        """
        # A client's patience is not a decision of the scheduler: it may read a clock and sleep.
        deadline = None
        pause = 0.05
        while True:
            try:
                return action()
            except Unavailable as error:
                if isinstance(error, NotRunning) and not is_known:
                    raise
                if not self._is_lost or deadline is None:
                    say(f"{error.message}; trying again for {seconds:.0f} s")
                    deadline, pause = time.monotonic() + seconds, 0.05
                elif time.monotonic() > deadline:
                    raise
                self._is_lost = is_known = True
            time.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 1.6, 1.0)

    def _send(self, method: str, path: str, query: Mapping[str, object], body: object) -> http.client.HTTPResponse:
        asked = {key: _text(value) for key, value in query.items() if value is not None}
        target = _PREFIX + path + (f"?{urlencode(asked, doseq=True)}" if asked else "")
        content = None if body is None else json.dumps(body)
        connection = _UnixConnection(self.path)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(
                f"no tickless daemon listens on {self.path}",
                hint="Start one (tickless dev, tickless daemon), or say where it is with --home.",
            ) from error
        except PermissionError as error:
            raise NotAllowed(
                f"you may not open {self.path}", hint="The daemon is another user's: be that user (sudo -u USER …)."
            ) from error
        except OSError as error:
            raise Unavailable(f"cannot connect to {self.path}: {error.strerror}") from error
        try:
            headers = {"Connection": "close", **({"Content-Type": "application/json"} if content else {})}
            try:
                connection.request(method, target, content, headers)
            except BrokenPipeError:
                pass  # the daemon refused before it had read everything: its answer may be there
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise _broke(error) from error
        if response.status >= 400:
            raise _problem(response)
        if self._is_lost:
            self._is_lost = False
            say("connected again")
        return response


class Stream:
    """The bytes of an answer, once, as they come."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def header(self, name: str) -> str | None:
        return self._response.getheader(name)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                chunk = self._response.read1(65536)
            except (OSError, http.client.HTTPException) as error:
                raise _broke(error) from error
            if not chunk:
                # Nothing also comes from a stream that broke off; only its proper end closes the response.
                if not self._response.isclosed():
                    raise _broke(None)
                return
            yield chunk


def path_of(*parts: object) -> str:
    """A path below the API's prefix, each part quoted."""
    return "".join("/" + quote(str(part), safe="") for part in parts)


def _text(value: object) -> str | list[str]:
    if isinstance(value, tuple):
        return [str(part) for part in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _broke(error: Exception | None) -> ConnectionBroke:
    detail = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return ConnectionBroke(f"the connection to the daemon broke{detail}")


def _problem(response: http.client.HTTPResponse) -> TicklessError:
    """The error of an answer with an error status."""
    try:
        body = json.loads(response.read())
        family = _FAMILIES.get(body["code"], InvariantBroken)
        return family(body["detail"], hint=body.get("hint"))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return InvariantBroken(f"the daemon answered {response.status} {response.reason}")
