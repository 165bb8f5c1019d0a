"""How `tickless stop` ends a daemon, and with --all what a dead daemon left running.

The daemon is asked over its API; one that does not answer is sent a signal. Either way its end is the exit of its
process, awaited on a pidfd.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
from pathlib import Path

from tickless.cli.client import Client, ConnectionBroke
from tickless.cli.options import Options
from tickless.cli.problem import NotRunning
from tickless.config.place import socket_address
from tickless.errors import Unavailable


def stop_daemon(options: Options, *, kill_tasks: bool, timeout: float) -> int:
    """Stop the daemon and wait for its end; returns its pid. NotRunning when there is none."""
    client = Client(options.socket)
    try:
        pid = int(client.get("/status")["pid"])
        waiter = _Exit(pid)
        try:
            client.post("/stop", {"kill_tasks": kill_tasks})
        except ConnectionBroke:
            pass  # it was quicker than its answer
    except (NotRunning, Unavailable) as error:
        holder = _holder_of(options.home / "lock")
        if holder is None:
            if isinstance(error, NotRunning):
                raise
            raise NotRunning(error.message, hint=error.hint) from error
        pid, waiter = holder, _Exit(holder)
        os.kill(pid, signal.SIGQUIT if kill_tasks else signal.SIGTERM)
    if not waiter.wait(timeout):
        raise Unavailable(
            f"the daemon (pid {pid}) has not stopped after {timeout:.0f} s",
            hint=f"It goes on stopping; `kill {pid}` makes it leave at once.",
        )
    return pid


def stop_leftovers(options: Options, *, timeout: float) -> list[str]:
    """End a launcher and a private Postgres that run without a daemon; returns what was ended."""
    ended = []
    if _stop_launcher(options.home, timeout):
        ended.append("the launcher")
    if _stop_postgres(options.home, timeout):
        ended.append("the private Postgres")
    return ended


class _Exit:
    """Waits for the exit of a process that is not our child."""

    def __init__(self, pid: int) -> None:
        try:
            self._fd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = None

    def wait(self, timeout: float) -> bool:
        """Whether it has ended in time."""
        if self._fd is None:
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        has_ended = bool(poll.poll(timeout * 1000))
        os.close(self._fd)
        return has_ended


def _holder_of(lock: Path) -> int | None:
    """The pid that holds the home's lock; None when nobody does."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two of us looking at once do not take each other for the daemon.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        try:
            return int(json.loads(os.pread(fd, 4096, 0))["pid"])
        except (ValueError, KeyError, TypeError):
            return None
    finally:
        os.close(fd)


def _stop_launcher(home: Path, timeout: float) -> bool:
    """Ask the home's launcher to end its tasks and exit; its exit closes the connection."""
    from tickless.wire.codec import encode_frame
    from tickless.wire.launcher import Shutdown
    from tickless.wire.layout import SOCKET_NAME, launcher_dir

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            with socket_address(Path(launcher_dir(str(home))) / SOCKET_NAME) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        try:
            connection.sendall(encode_frame(Shutdown(kill=True)))
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError as error:
            raise Unavailable(f"the launcher has not stopped after {timeout:.0f} s") from error
    return True


def _stop_postgres(home: Path, timeout: float) -> bool:
    import anyio

    from tickless.store.embedded import EmbeddedPostgres

    if not home.is_dir():
        return False
    server = EmbeddedPostgres(home)
    if not server.is_running():
        return False

    async def stop() -> bool:
        return await server.stop(timeout=timeout)

    if not anyio.run(stop):
        raise Unavailable("another process uses the private Postgres, so it stays")
    return True
