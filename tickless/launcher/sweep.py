"""After an attempt's exit: find what it has left alive, kill it, and only then let its end be reported.

Its leftovers have lost their parents, so they are our own children now (we are the subreaper), and they carry the
attempt's mark. When one of them dies, its own children come to us in turn; so the sweep goes on until none is left.
What an attempt leaves behind at its own end is killed at once. After a stop it has until the end of the grace: a shell
dies of its TERM at once, while the program that it ran is still saving its work.

Attempts of a former launcher are hunted instead: their leftovers went to init, so all of /proc is searched.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

from tickless.launcher import processes
from tickless.launcher.attempt import Attempt
from tickless.launcher.loop import READ, Loop
from tickless.wire.mark import mark_of

_PATIENCE_SECONDS = 10.0
"""A process in uninterruptible sleep cannot be killed; after this its attempt is reported all the same."""


class Sweeper:
    """Calls `done` once for each attempt, when nothing of it is alive."""

    def __init__(
        self,
        loop: Loop,
        known_pids: Callable[[], set[int]],
        done: Callable[[Attempt], None],
        log: Callable[..., None],
    ) -> None:
        self._loop = loop
        self._known_pids = known_pids
        self._done = done
        self._log = log
        self._sweeping: dict[int, Attempt] = {}
        self._orphans: dict[int, int | None] = {}  # child of ours that is nobody's -> whose mark it carries
        self._asked: set[int] = set()  # orphans of stopped attempts that have had their TERM
        self._is_due = False
        self._hunted: dict[int, Attempt] = {}
        self._prey: dict[int, int] = {}  # pidfd -> pid

    def sweep(self, attempt: Attempt) -> None:
        """Its process has exited; look for the rest in the next `run_once`."""
        self._sweeping[attempt.id] = attempt
        self._is_due = True

    def reaped(self, pid: int) -> None:
        """A child that was no attempt has been reaped."""
        self._orphans.pop(pid, None)
        self._asked.discard(pid)
        self._is_due = bool(self._sweeping)

    def run_once(self) -> None:
        """One look at our children, for all attempts that have ended."""
        if not self._is_due:
            return
        self._is_due = False
        left: dict[int, list[int]] = {}
        known = self._known_pids()
        for pid in processes.children():
            if pid in known:
                continue
            if self._orphans.get(pid) is None:
                self._orphans[pid] = self._owner_of(pid)
            owner = self._orphans[pid]
            if owner in self._sweeping:
                left.setdefault(owner, []).append(pid)
        for attempt in list(self._sweeping.values()):
            if attempt.id not in left:
                self._finish(attempt)
                continue
            grace = attempt.kill_at - time.monotonic()
            if attempt.stop_reason is not None and grace > 0:
                self._ask(attempt, left[attempt.id])
                if attempt.timer is None:
                    attempt.timer = self._loop.call_later(grace, partial(self._grace_over, attempt))
                continue
            for pid in left[attempt.id]:
                processes.send_signal(pid, signal.SIGKILL)
            if attempt.timer is None:
                attempt.timer = self._loop.call_later(_PATIENCE_SECONDS, partial(self._give_up, attempt))

    def _owner_of(self, pid: int) -> int | None:
        """By its mark; where marks are forbidden, by the session that it may still be in."""
        mark = mark_of(pid)
        if mark is None and (stat := processes.read_stat(pid)):
            return next((a.id for a in self._sweeping.values() if a.pid == stat.session), None)
        return mark

    def _ask(self, attempt: Attempt, pids: list[int]) -> None:
        """The group has had its TERM; those outside of it get theirs now, once."""
        for pid in pids:
            stat = processes.read_stat(pid)
            if pid not in self._asked and stat is not None and stat.group != attempt.pid:
                processes.send_signal(pid, signal.SIGTERM)
                processes.send_signal(pid, signal.SIGCONT)
            self._asked.add(pid)

    def _grace_over(self, attempt: Attempt) -> None:
        attempt.timer = None
        attempt.kill_at = 0.0
        self._is_due = True

    def _give_up(self, attempt: Attempt) -> None:
        if attempt.id in self._sweeping:
            self._log("sweep.gave_up", attempt_id=attempt.id)
            attempt.is_unswept = True
            self._finish(attempt)

    def _finish(self, attempt: Attempt) -> None:
        del self._sweeping[attempt.id]
        attempt.cancel_timer()
        self._done(attempt)

    def hunt(self, attempts: list[Attempt]) -> None:
        """Kill whatever is alive of these attempts of a former launcher. Once per launcher."""
        self._hunted = {attempt.id: attempt for attempt in attempts}
        self._hunt_once()

    def _hunt_once(self) -> None:
        if not self._hunted:
            return
        found = processes.survivors({a.id: (a.pid, a.ticks) for a in self._hunted.values()})
        for attempt_id, pids in found.items():
            if not pids:
                self._done(self._hunted.pop(attempt_id))
        for pid in {pid for pids in found.values() for pid in pids}:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            self._prey[pidfd] = pid
            self._loop.add(pidfd, READ, partial(self._on_prey, pidfd))
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        if self._hunted and not self._prey:
            self._loop.call_later(0.05, self._hunt_once)  # they died while we were looking

    def _on_prey(self, pidfd: int, _mask: int) -> None:
        if self._prey.pop(pidfd, None) is None:
            return
        self._loop.remove(pidfd)
        os.close(pidfd)
        if not self._prey:
            self._hunt_once()
