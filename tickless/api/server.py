"""Serves an ASGI app on a unix socket, in the loop that is already running.

uvicorn's connection class does HTTP; uvicorn's Server is not used, because its main loop wakes up ten times a second
for ever (to refresh a Date header and to look at a flag). Here nothing runs while nobody is connected.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from pathlib import Path
from typing import Any, cast

import anyio
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from tickless.config.place import socket_address
from tickless.telemetry.log import get_log

_GOODBYE_SECONDS = 2.0
"""How long answers that are under way may take after the stop began; streams are cut then."""

log = get_log()


class ApiServer:
    """A service: `run` in a task group; `started()` means that the socket takes connections, cancel means stop.

    The socket is 0600, in a folder that is made 0700 if it is missing: whoever may open it is the daemon's own user.
    The caller holds the home's lock, so a socket file that is there already is a dead one's.
    """

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._path = path
        self._config = Config(
            cast(Any, app),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=30,
        )
        self._config.load()
        self._state = ServerState()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        loop = asyncio.get_running_loop()
        listener = bind(self._path)
        inode = os.stat(self._path).st_ino
        server = await loop.create_unix_server(self._protocol, sock=listener)
        log.info("api.started", socket=str(self._path))
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            server.close()
            self._unlink(inode)
            with anyio.CancelScope(shield=True):
                await self._say_goodbye()

    def _protocol(self) -> H11Protocol:
        return _Connection(config=self._config, server_state=self._state, app_state={})

    def _unlink(self, inode: int) -> None:
        """Remove our socket file, not that of a successor."""
        try:
            if os.stat(self._path).st_ino == inode:
                os.unlink(self._path)
        except FileNotFoundError:
            pass

    async def _say_goodbye(self) -> None:
        """Let answers that are under way out, then cut the connections."""
        for connection in list(self._state.connections):
            cast(H11Protocol, connection).shutdown()
        if self._state.tasks:
            _, late = await asyncio.wait(self._state.tasks, timeout=_GOODBYE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for connection in list(self._state.connections):
            cast(H11Protocol, connection).transport.abort()


class _Connection(H11Protocol):
    """Knows who called: the kernel says it, nobody can claim to be another."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        credentials = transport.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        pid, uid, _ = struct.unpack("3i", credentials)
        self.client = (f"unix:{name_of(uid)}", pid)


def name_of(uid: int) -> str:
    """The name of a user of this host, or the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def bind(path: Path) -> socket.socket:
    """A listening unix socket at `path`, mode 0600 from its first moment on."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        with socket_address(path) as address:
            listener.bind(address)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(128)
    return listener
