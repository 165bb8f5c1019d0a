"""The home: the folder that holds everything one installation of `tickless dev` has on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
from pathlib import Path
from types import TracebackType

from tickless.errors import Refused


def make_home(home: Path) -> None:
    """Create the home when it is missing; one that exists keeps its mode.

    Root makes it 0711 instead of 0700: the user who runs Postgres for root must be able to walk through it to its own
    folder, or the data could not lie inside the home (and a container that mounts the home would lose it). 0711 lets
    nobody list it, and every file in it has a mode of its own.
    """
    if home.is_dir():
        return
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        home.chmod(0o711)  # not in mkdir, where the umask would take it away


class HomeLock:
    """At most one daemon per home. The kernel drops the lock when its holder dies, however it dies.

    The file says who holds it (pid, folder, command), for the message to whoever comes second. It is never removed:
    a lock on a removed file excludes nobody.
    """

    def __init__(self, home: Path, *, folder: Path, command: str | None = None) -> None:
        self._home = home
        self._path = home / "lock"
        self._folder = folder
        self._command = command if command is not None else shlex.join(sys.argv)
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `Refused` with the holder's pid and folder. Taking it twice is fine."""
        if self._fd is not None:
            return
        make_home(self._home)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            holder = os.pread(fd, 4096, 0)
            os.close(fd)
            raise self._refusal(holder) from taken
        content = json.dumps({"pid": os.getpid(), "folder": str(self._folder), "command": self._command})
        os.ftruncate(fd, 0)
        os.pwrite(fd, content.encode() + b"\n", 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock back; without it, do nothing."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> HomeLock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _refusal(self, content: bytes) -> Refused:
        try:
            holder = json.loads(content)
            who = f"process {holder['pid']} ({holder['command']}), which serves the folder {holder['folder']}"
            stop = f"Stop it (kill {holder['pid']})"
        except (ValueError, KeyError, TypeError):
            # It has locked the file and not yet written it, or just emptied it on its way out.
            who, stop = "another tickless process", "Stop it"
        return Refused(
            f"the home {self._home} is in use by {who}",
            hint=f"{stop}, or give this one a home of its own: --home ANOTHER_FOLDER",
        )
