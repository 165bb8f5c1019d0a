"""Was a SIGKILL that nobody here sent the kernel's, for want of memory? Best effort; no evidence means no.

The kernel log names its victims, and root (or CAP_SYSLOG) may read it. Inside a pid namespace its pids are not ours,
so a victim's attempt would be missed there: it is then reported as killed by a signal, which is also true.
"""

from __future__ import annotations

import os
import re

_VICTIM = re.compile(rb"(?:Killed process|Memory cgroup out of memory: Killed process) (\d+)\b")


def is_oom_victim(pid: int, since_seconds: float, device: str = "/dev/kmsg") -> bool:
    """Whether the kernel says that it killed this pid at or after `since_seconds` of CLOCK_MONOTONIC."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return any(_names(record, pid, since_seconds) for record in _records(fd))
    finally:
        os.close(fd)


def _records(fd: int) -> list[bytes]:
    """One read(2) gives one record; EPIPE means that records were overwritten meanwhile."""
    records: list[bytes] = []
    while True:
        try:
            record = os.read(fd, 8192)
        except BrokenPipeError:
            continue
        except OSError:  # EAGAIN: that was the last one
            return records
        if not record:
            return records
        records += record.split(b"\n") if record.count(b";") > 1 else [record]


def _names(record: bytes, pid: int, since_seconds: float) -> bool:
    """A record is `priority,sequence,microseconds,flags;text`."""
    head, _, text = record.partition(b";")
    victim = _VICTIM.search(text)
    if victim is None or int(victim.group(1)) != pid:
        return False
    try:
        return int(head.split(b",")[2]) / 1e6 >= since_seconds
    except (IndexError, ValueError):
        return False
