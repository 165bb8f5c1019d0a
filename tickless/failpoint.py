"""Named places at which a test may kill, stop or break a process. They cost a dict look-up when none is armed.

Armed through the environment, so that they work in processes which a test does not start itself:

    TICKLESS_FAILPOINTS="launcher.at_gate=kill,runner.before_outcome=kill@3"
    TICKLESS_FAILPOINTS_LOG=/tmp/hits

Actions: `kill` (SIGKILL to itself), `stop` (SIGSTOP to itself), `raise` (FailpointHit). `@N` fires at the Nth hit
only, `@*` at each; without it, at the first. Hits are counted over all processes that share the log (each hit adds
a byte to a file beside it), so a process that is restarted with the same environment is not killed again. Each hit
that fires appends its name to the log: a test whose failpoint was never reached must fail, see
`tests/support/failpoints.py`.
"""

from __future__ import annotations

import os
import signal

NAMES = frozenset(
    {
        "launcher.before_accept",  # an order has been read, nothing of it is in the spool
        "launcher.before_fork",  # accepted is in the spool, no process exists
        "launcher.at_gate",  # the start record is in the spool, the gate is still closed
        "launcher.before_outcome",  # the exit was seen, the end is not in the spool
        "launcher.before_report",  # the end is in the spool, the daemon has not heard of it
        "zygote.before_fork",  # the DAG zygote holds an order, no process exists
        "runner.before_outcome",  # user code has returned, its outcome is not on disk
        "runner.after_outcome",  # the outcome is on disk, the process has not exited
        "daemon.before_flush",  # decided, nothing of it has been sent to Postgres
        "daemon.after_flush",  # committed, and the daemon knows
        "daemon.before_release",  # committed, no effect has left
        "daemon.before_ack",  # effects have left, callers are answered, no report is acknowledged
        "daemon.after_slice",  # a slice of a clear or mark is committed, more may follow
        "daemon.after_backfill_slice",  # slots of a backfill are dealt with, more may follow
        "daemon.before_past",  # a run is committed, its previous run has not been looked for
        "daemon.before_answer",  # what a task asked for is committed, it has not been told
        "store.before_epoch",  # about to take the lead
        "store.after_epoch",  # the epoch is ours, nothing has been read
        "store.before_flush",  # the rows are encoded, the statement has not been sent
        "store.after_flush",  # the statement has been answered
    }
)
"""Every failpoint there is; arming an unknown name is refused."""

ENV = "TICKLESS_FAILPOINTS"
ENV_LOG = "TICKLESS_FAILPOINTS_LOG"


class FailpointHit(Exception):
    """Raised at a failpoint that is armed with `raise`."""


def _parse(text: str) -> dict[str, tuple[str, int | None]]:
    armed: dict[str, tuple[str, int | None]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, how = item.partition("=")
        action, _, nth = how.partition("@")
        if name not in NAMES or action not in {"kill", "stop", "raise"}:
            raise ValueError(f"{ENV}: {item!r} is not NAME=kill|stop|raise[@N|@*] with a known name")
        armed[name] = (action, None if nth == "*" else int(nth or 1))
    return armed


_armed = _parse(os.environ.get(ENV, ""))
_log = os.environ.get(ENV_LOG, "")  # read once: the environment of a task no longer names it
_hits: dict[str, int] = {}


def hit(name: str) -> None:
    """Pass the failpoint; what is armed there happens."""
    if _armed and name in _armed:
        _fire(name, *_armed[name])


def _fire(name: str, action: str, nth: int | None) -> None:
    if _log:
        count = _append(f"{_log}.{name}", b".")
    else:
        count = _hits[name] = _hits.get(name, 0) + 1
    if nth is not None and count != nth:
        return
    if _log:
        _append(_log, f"{name}\n".encode())
    if action == "raise":
        raise FailpointHit(name)
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)


def _append(path: str, data: bytes) -> int:
    """Append in one write; the position after it, which no other process gets too."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        return os.lseek(fd, 0, os.SEEK_CUR)
    finally:
        os.close(fd)
