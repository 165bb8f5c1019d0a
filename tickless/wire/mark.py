"""The mark of an attempt: a number that its processes carry through every fork and exec, readable by anyone.

It is the resource limit RLIMIT_LOCKS, which Linux has not enforced since 2.4.25. With it, whatever an attempt leaves
behind can be told from everything else, in whatever session it hides, without cgroups.
"""

from __future__ import annotations

import resource

_RLIMIT_LOCKS = 10


def set_mark(pid: int, attempt_id: int) -> None:
    """Mark a process (0 = ourselves) and all that it will start. Best effort: a sandbox may forbid it."""
    try:
        resource.prlimit(pid, _RLIMIT_LOCKS, (attempt_id, attempt_id))
    except (OSError, ValueError):
        pass  # then only its session leads to what it leaves behind


def mark_of(pid: int) -> int | None:
    """The attempt that this process belongs to, or None."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            for line in file:
                if line.startswith(b"Max file locks"):
                    value = line.split()[3]
                    return int(value) if value.isdigit() else None
    except OSError:
        pass  # it is gone
    return None
