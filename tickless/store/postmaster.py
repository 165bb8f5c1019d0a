"""Recognising the main process of a Postgres server from outside: by postmaster.pid and /proc.

A pid in a file proves nothing. After a crash it names nobody, a zombie, or (soon, in a container, where pids restart
at 1) a stranger. It counts when the process with it lives and was started as a postgres of the same data directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import anyio


@dataclass(frozen=True, slots=True, kw_only=True)
class PidFile:
    """postmaster.pid as far as it has been written. The server writes it in steps while it starts."""

    pid: int
    port: int | None  # which is in the socket's name
    sockets: str | None  # the folder


def read_pid_file(data: Path) -> PidFile | None:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return PidFile(
            pid=int(lines[0]),
            port=int(lines[3]) if len(lines) > 3 else None,
            sockets=lines[4] or None if len(lines) > 4 else None,
        )
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None


def first_pid(lock_file: Path) -> int | None:
    """The process that a lock file of a server names in its first line: postmaster.pid, or the one of its socket."""
    try:
        return int(lock_file.read_text().partition("\n")[0])
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def is_postmaster(pid: int, data: Path) -> bool:
    """Whether `pid` is a live server process for exactly this data directory."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    # A zombie has none, and its children overwrite theirs with a title ("postgres: checkpointer").
    return os.path.basename(arguments[0]) in (b"postgres", b"postmaster") and os.fsencode(data) in arguments


def processes_in(data: Path) -> list[int]:
    """Live processes whose working directory is `data`, as that of every process of its server is."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            is_inside = os.readlink(entry / "cwd") == str(data)
        except OSError:
            continue  # gone, a zombie, or another user's and so not of our server
        if is_inside:
            found.append(int(entry.name))
    return sorted(found)


def exists(pid: int) -> bool:
    """Whether the pid is taken: by anything, a zombie included."""
    return Path(f"/proc/{pid}").exists()


async def wait_for_end(pid: int) -> None:
    """Wait until the process has ended, without polling; it need not be our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await anyio.wait_readable(fd)
    finally:
        os.close(fd)
