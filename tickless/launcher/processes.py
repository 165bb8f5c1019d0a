"""What /proc and the kernel know about processes: identities, marks, children, survivors.

A pid alone names nothing for long, so a process is identified by (boot id, pid, start time in ticks). The processes
of an attempt also carry its mark, see wire/mark.py.
"""

from __future__ import annotations

import ctypes
import os
import select
from dataclasses import dataclass

from tickless.wire.mark import mark_of

_PR_SET_CHILD_SUBREAPER = 36
BOOT_ID_ENV = "TICKLESS_TEST_BOOT_ID"
"""Tests pretend a reboot with it."""


@dataclass(frozen=True, slots=True)
class Stat:
    """A line of /proc/PID/stat, the fields that matter here."""

    pid: int
    state: str
    ppid: int
    group: int
    session: int
    ticks: int
    """Start time in clock ticks since boot (field 22)."""

    @property
    def is_dead(self) -> bool:
        return self.state in "ZX"


def boot_id() -> str:
    """Changes with every boot of the machine."""
    if pretended := os.environ.get(BOOT_ID_ENV):
        return pretended
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def become_subreaper() -> None:
    """Descendants whose parent dies become our children, instead of init's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process; a zombie still has one."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    # The name in field 2 may hold spaces and parentheses; what follows its last one is regular.
    fields = line[line.rindex(b")") + 2 :].split()
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def children() -> list[int]:
    """Pids of our own children, zombies included."""
    pid = os.getpid()
    try:
        return [int(child) for child in _read_whole(f"/proc/{pid}/task/{pid}/children").split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [stat.pid for stat in all_processes() if stat.ppid == pid]


def _read_whole(path: str) -> bytes:
    """Without the half a dozen further system calls of `open`: this is read at the end of every attempt."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while more := os.read(fd, 65536):
            data += more
        return data
    finally:
        os.close(fd)


def all_processes() -> list[Stat]:
    """Every process there is, at some moment each."""
    found = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [stat for stat in found if stat is not None]


def survivors(started: dict[int, tuple[int, int]]) -> dict[int, set[int]]:
    """Living processes of these attempts (attempt id -> (pid, ticks)), found by mark and by session."""
    alive = [stat for stat in all_processes() if not stat.is_dead and stat.pid != os.getpid()]
    by_pid = {stat.pid: stat for stat in alive}
    sessions: dict[int, int] = {}
    for attempt_id, (pid, ticks) in started.items():
        leader = by_pid.get(pid)
        # A living process with that pid and another start time means that the pid was free in between, so that
        # nobody of the old session was left.
        if leader is None or leader.ticks == ticks:
            sessions[pid] = attempt_id
    found: dict[int, set[int]] = {attempt_id: set() for attempt_id in started}
    for stat in alive:
        owner = mark_of(stat.pid)
        if owner is None:
            owner = sessions.get(stat.session)
        if owner in found:
            found[owner].add(stat.pid)
    return found


def send_signal(pid: int, number: int) -> None:
    """To one process; a dead one is no error."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # PermissionError: it changed its user; nothing we may do about it


def signal_group(leader: int, number: int) -> None:
    """To a process group; an empty one is no error. The leader must not have been reaped yet: its pid is the name."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        send_signal(leader, number)  # just forked, it may not have made its group yet
    except PermissionError:
        pass


def has_exited(pidfd: int) -> bool:
    """Whether the process is a zombie or gone."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
