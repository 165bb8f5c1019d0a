"""The launcher itself: what it does with orders, exits and its spool.

Everything happens in rounds. While descriptors are served, records are appended and work is noted; then `settle`
writes the spool once and does what that write has made safe: after *accepted* a process is made, after *started* its
gate is opened, after *finished* the report leaves. So at each kill -9 the spool says at least what has been done:

    nothing in the spool          the daemon sends the order again
    accepted                      nothing has run: started by the next launcher
    started, no outcome record    it may have run: what is left of it is killed, then it is lost
    started, outcome record       it has run: finished from the record
    finished, lost                reported until acknowledged

A further order of a task whose former attempt is still alive here waits for its end, whatever the daemon believes.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tickless import failpoint
from tickless.launcher import processes
from tickless.launcher.attempt import Attempt, Phase
from tickless.launcher.channels import Channels
from tickless.launcher.log_file import last_line, open_log
from tickless.launcher.loop import READ, Loop, now
from tickless.launcher.oom import is_oom_victim
from tickless.launcher.spawn import GATE_OPEN, CannotSpawn, Spawner
from tickless.launcher.spool import (
    AcceptedRecord,
    AckedRecord,
    FinishedRecord,
    ForgottenRecord,
    LostRecord,
    Spool,
    StartedRecord,
)
from tickless.launcher.sweep import Sweeper
from tickless.launcher.verdict import Evidence, Exit, judge, not_started
from tickless.launcher.workspace import Workspaces
from tickless.launcher.zygotes import Zygotes, order_file
from tickless.model.dag import TaskKind
from tickless.model.id import TaskKey
from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished, Lost, Started
from tickless.model.state import AttemptState, EndReason

_START_PATIENCE_SECONDS = 0.01
"""Nobody waits for the news of a start, and the report of an end repeats it: of a task that is shorter than this only
the end is told."""
_ZYGOTE_PATIENCE_SECONDS = 5.0
"""Between the exit of an attempt and the killing of the zygote that has not told of it."""


@dataclass(slots=True)
class Outbox:
    """What one round has to say to the daemon."""

    accepted: list[int] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.accepted or self.started or self.finished or self.lost)


@dataclass(slots=True, kw_only=True)
class Place:
    """Where a launcher is."""

    folder: str
    host: str
    boot_id: str
    log_root: int
    """Descriptor of the folder of all attempts' logs."""


class Launcher:
    """Owns every attempt between its acceptance and its acknowledgement."""

    def __init__(self, loop: Loop, spool: Spool, spawner: Spawner, place: Place, log: Callable[..., None]) -> None:
        self.spool = spool
        self.place = place
        self.send: Callable[[Outbox], None] = lambda _outbox: None
        """Set by the server; where reports go."""
        self.workspaces = Workspaces(place.folder, spawner, log)
        self.zygotes = Zygotes(loop, spawner, self, log)
        self.channels = Channels(loop, log)
        self._loop = loop
        self._spawner = spawner
        self._log = log
        self._attempts: dict[int, Attempt] = {}
        self._by_pid: dict[int, Attempt] = {}
        self._by_task: dict[TaskKey, list[Attempt]] = {}  # the first may live, the others wait for its end
        self._sweeper = Sweeper(loop, self._known_pids, self._conclude, log)
        self._to_start: list[Attempt] = []
        self._to_release: list[Attempt] = []
        self._to_free: list[str] = []
        self._outbox = Outbox()
        self._untold: dict[int, Started] = {}
        self.is_stopping = False

    # What the daemon asks for

    def submit(self, orders: Iterable[Order]) -> None:
        """Accept orders; those whose id is known, or was, are left alone."""
        contents = self.spool.contents
        for order in orders:
            if order.attempt_id in contents.attempts or order.attempt_id in contents.acked:
                continue
            failpoint.hit("launcher.before_accept")
            self.spool.append(AcceptedRecord(order, self.place.boot_id))
            self._outbox.accepted.append(order.attempt_id)
            self.adopt(Attempt(order))

    def stop(self, stops: Iterable[StopOrder]) -> None:
        """TERM now, KILL after the grace; an attempt without a process ends at once."""
        for stop in stops:
            if attempt := self._attempts.get(stop.attempt_id):
                self._stop(attempt, EndReason(stop.reason))

    def forget(self, attempt_ids: Iterable[int]) -> None:
        """No database knows them: kill without grace, because another attempt of the task may be on its way."""
        ids = list(attempt_ids)
        self.spool.append(ForgottenRecord(ids))
        over = []
        for attempt_id in ids:
            attempt = self._attempts.get(attempt_id)
            if attempt is None:
                over.append(attempt_id)
                continue
            attempt.is_forgotten = True
            attempt.kill_at = 0.0
            if attempt.phase is Phase.WAITING:
                self._end(attempt)
            elif attempt.phase is Phase.RUNNING:
                self._signal(attempt, signal.SIGKILL)
            elif not attempt.is_recovered:
                self._sweeper.sweep(attempt)  # it may have been given a grace that is over now
        if over:
            self.spool.append(AckedRecord(over))

    def ack(self, attempt_ids: Iterable[int]) -> None:
        """Their ends are committed."""
        over = [attempt_id for attempt_id in attempt_ids if attempt_id not in self._attempts]
        if over:
            self.spool.append(AckedRecord(over))

    def stop_all(self) -> None:
        """Start nothing more and stop what runs; what has not started stays in the spool for the next launcher."""
        self.is_stopping = True
        for attempt in list(self._attempts.values()):
            if attempt.phase is Phase.RUNNING:
                self._stop(attempt, EndReason.STOPPED)

    def alive(self) -> int:
        """Attempts that have a process, or had one that is still being swept."""
        return sum(attempt.phase is not Phase.WAITING for attempt in self._attempts.values())

    # Rounds

    def settle(self) -> None:
        """Write the spool, then do what has become safe, until nothing is left to do."""
        while True:
            self.spool.flush()
            if self._to_start and not self.is_stopping:
                starting, self._to_start = self._to_start, []
                for attempt in starting:
                    self._start(attempt)
            elif self._to_release:
                self._release()
            else:
                self._sweeper.run_once()
                if not self.spool.is_pending:
                    break
        if self._outbox:
            if self._outbox.finished:
                failpoint.hit("launcher.before_report")
            outbox, self._outbox = self._outbox, Outbox()
            self.send(outbox)
        for workspace in self._to_free:  # only now: until the end was in the spool, the record was all there was
            self.workspaces.give_back(workspace)
        self._to_free.clear()

    def drop_unsent(self) -> None:
        """A new leader gets everything from the spool's contents; what this round had noted would come twice."""
        self._outbox = Outbox()
        self._untold.clear()

    def hunt(self, attempts: list[Attempt]) -> None:
        """Kill what is left of attempts of a former launcher, then end them."""
        self._sweeper.hunt(attempts)

    def adopt(self, attempt: Attempt) -> None:
        """Take charge of an attempt that is in the spool; it starts when it has not, and when no other is alive."""
        self._attempts[attempt.id] = attempt
        rivals = self._by_task.setdefault(attempt.key, [])
        rivals.append(attempt)
        if attempt.phase is Phase.WAITING and rivals[0] is attempt:
            self._to_start.append(attempt)

    def _start(self, attempt: Attempt) -> None:
        if attempt.phase is not Phase.WAITING:
            return  # it was stopped or forgotten since
        failpoint.hit("launcher.before_fork")
        try:
            if attempt.order.kind is TaskKind.PYTHON or attempt.order.needs_runner:
                self.zygotes.start(attempt)
            else:
                self._spawn(
                    attempt, lambda log, gate: self._spawner.command(attempt.order, attempt.workspace, log, gate)
                )
        except Exception as error:
            # Our own bug, met by this order: it must end, and the others must not wait for it.
            self._log("launcher.error", attempt_id=attempt.id, error=repr(error))
            self.cannot_start(attempt, f"internal error of the launcher: {error!r}")

    def start_fresh(self, attempt: Attempt) -> None:
        """A task of a runner in an interpreter of its own."""
        payload = order_file(attempt.order)
        try:
            self._spawn(attempt, lambda log, gate: self._spawner.fresh_python(attempt.workspace, log, gate, payload))
        finally:
            os.close(payload)

    def _spawn(self, attempt: Attempt, make: Callable[[int, int], int]) -> None:
        channels = self.open_channels(attempt)
        if channels is None:
            return
        log, gate = channels
        try:
            pid = make(log, gate)
        except (CannotSpawn, OSError) as error:
            self.cannot_start(attempt, str(error))
        else:
            self.forked(attempt, pid)
        finally:
            os.close(log)
            os.close(gate)

    def open_channels(self, attempt: Attempt) -> tuple[int, int] | None:
        """Open the attempt's log, and a gate of which it keeps one end."""
        try:
            log = open_log(self.place.log_root, attempt.order.log_path)
        except (OSError, ValueError) as error:
            self.cannot_start(attempt, f"cannot open the log {attempt.order.log_path!r}: {error}")
            return None
        try:
            attempt.log_start = os.fstat(log).st_size
            attempt.workspace = self.workspaces.take()
            gate = self._make_gate(attempt)
            if attempt.order.kind is TaskKind.BASH and attempt.order.do_xcom_push:
                attempt.log = os.dup(log)  # its last line is the output
        except OSError as error:
            os.close(log)
            self.cannot_start(attempt, f"cannot make a pipe or a working folder: {error}")
            return None
        return log, gate

    def _make_gate(self, attempt: Attempt) -> int:
        """The attempt's end of a new gate. A command's shell reads its gate with `read`, and has nothing to ask."""
        if attempt.order.kind is TaskKind.PYTHON or attempt.order.needs_runner:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            attempt.gate, attempt.far_end = ours.detach(), theirs.detach()
            return os.dup(attempt.far_end)
        gate, attempt.gate = os.pipe2(os.O_CLOEXEC)
        return gate

    def close_channels(self, attempt: Attempt) -> None:
        """Somebody may be at the gate; he exits, but until then he may write to the workspace."""
        attempt.close_gate()
        attempt.close_log()
        if attempt.workspace:
            self.workspaces.discard(attempt.workspace)
            attempt.workspace = ""

    def forked(self, attempt: Attempt, pid: int) -> None:
        """Its process stands at the gate: note the start."""
        if attempt.phase is not Phase.WAITING:
            return  # stopped meanwhile; its gate is closed
        if self.is_stopping:
            self.close_channels(attempt)  # it exits; the next launcher starts it again
            return
        attempt.phase = Phase.RUNNING
        attempt.pid = pid
        self._by_pid[pid] = attempt
        stat = processes.read_stat(pid)
        attempt.ticks = stat.ticks if stat else 0
        attempt.started_monotonic = time.monotonic()
        if stat is not None and stat.ppid != os.getpid():
            self._watch(attempt, stat.ppid)
        attempt.started = Started(attempt_id=attempt.id, at=now(), pid=pid, host=self.place.host)
        self.spool.append(StartedRecord(attempt.started, attempt.ticks, self.place.boot_id, attempt.workspace))
        self._to_release.append(attempt)

    def _release(self) -> None:
        releasing, self._to_release = self._to_release, []
        for attempt in releasing:
            failpoint.hit("launcher.at_gate")
            attempt.open_gate(GATE_OPEN)
            if attempt.far_end >= 0 and attempt.phase is Phase.RUNNING:
                self.channels.open(attempt.id, *attempt.take_gate())
            else:
                attempt.close_gate()
            if attempt.started is not None and not attempt.is_forgotten:
                if not self._untold:
                    self._loop.call_later(_START_PATIENCE_SECONDS, self._tell_starts)
                self._untold[attempt.id] = attempt.started

    def _tell_starts(self) -> None:
        self._outbox.started.extend(self._untold.values())
        self._untold.clear()

    def cannot_start(self, attempt: Attempt, error: str) -> None:
        """It ends without ever having had a process; its log says so too."""
        if attempt.phase is Phase.WAITING:
            self._note_in_log(attempt, error)
            self._end(attempt, not_started(attempt.order, now(), self.place.host, error))

    # Exits

    def child_exited(self) -> None:
        """SIGCHLD. What is not an attempt is a zygote, a helper, or something an attempt has left behind."""
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if seen is None:
                return
            pid = seen.si_pid
            if pid in self._by_pid:
                os.waitpid(pid, 0)
                is_exit = seen.si_code == os.CLD_EXITED
                how = Exit(code=seen.si_status) if is_exit else Exit(signal=seen.si_status)
                self.exited(self._by_pid[pid].id, pid, how)
            else:
                os.waitpid(pid, 0)
                self.zygotes.child_exited(pid)
                self._sweeper.reaped(pid)

    def exited(self, attempt_id: int, pid: int, how: Exit) -> None:
        """Its process is dead."""
        attempt = self._by_pid.get(pid)
        if attempt is None or attempt.id != attempt_id:
            return  # told twice: by its zygote, and as our own child after the zygote's death
        failpoint.hit("launcher.before_outcome")
        del self._by_pid[pid]
        attempt.phase = Phase.ENDING
        attempt.exit = how
        self._unwatch(attempt)
        self.channels.close(attempt.id)
        attempt.cancel_timer()
        self._sweeper.sweep(attempt)

    def _watch(self, attempt: Attempt, zygote: int) -> None:
        """See the exit ourselves; the zygote tells more, but it may hang."""
        try:
            attempt.pidfd = os.pidfd_open(attempt.pid)
        except OSError:
            return
        self._loop.add(attempt.pidfd, READ, lambda _mask: self._on_pidfd(attempt, zygote))

    def _unwatch(self, attempt: Attempt) -> None:
        if attempt.pidfd >= 0:
            self._loop.remove(attempt.pidfd)
            os.close(attempt.pidfd)
            attempt.pidfd = -1

    def _on_pidfd(self, attempt: Attempt, zygote: int) -> None:
        if attempt.pidfd < 0 or attempt.phase is not Phase.RUNNING or not processes.has_exited(attempt.pidfd):
            return
        attempt.outcome = self.workspaces.read_outcome(attempt.workspace, attempt.id)
        if attempt.outcome is not None:
            self.exited(attempt.id, attempt.pid, Exit())  # that says it all, and its zygote may be busy
            return
        self._unwatch(attempt)
        attempt.cancel_timer()
        attempt.timer = self._loop.call_later(_ZYGOTE_PATIENCE_SECONDS, lambda: self.zygotes.kill_zygote_of(zygote))

    def _conclude(self, attempt: Attempt) -> None:
        """Nothing of it is alive: judge and report."""
        order, started = attempt.order, attempt.started
        assert started is not None
        outcome = attempt.outcome
        if outcome is None and (order.kind is TaskKind.PYTHON or order.needs_runner):
            outcome = self.workspaces.read_outcome(attempt.workspace, attempt.id)
        if attempt.is_recovered and outcome is None:
            why = "the launcher was killed while it ran; what was left of it has been killed too"
            self._end(attempt, Lost(attempt_id=attempt.id, at=now(), why=why))
            return
        line, line_error = None, None
        if attempt.log >= 0 and attempt.exit.code == 0:
            try:
                line = last_line(attempt.log, attempt.log_start)
            except (OSError, ValueError) as error:
                line_error = str(error)
        was_killed = attempt.exit.signal == signal.SIGKILL and attempt.stop_reason is None and outcome is None
        evidence = Evidence(
            order=order,
            at=now(),
            started=started,
            exit=attempt.exit,
            stop_reason=attempt.stop_reason,
            is_oom=was_killed and is_oom_victim(attempt.pid, attempt.started_monotonic),
            outcome=outcome,
            last_line=line,
            last_line_error=line_error,
        )
        self._end(attempt, judge(evidence))

    def _end(self, attempt: Attempt, report: Finished | Lost | None = None) -> None:
        """Note the end, free what it held, let the next attempt of its task go. A forgotten one has no report."""
        self._untold.pop(attempt.id, None)
        if attempt.is_forgotten or report is None:
            self.spool.append(AckedRecord([attempt.id]))
        elif isinstance(report, Finished):
            self.spool.append(FinishedRecord(report, attempt.order.executor))
            self._outbox.finished.append(report)
        else:
            self.spool.append(LostRecord(report, attempt.order.executor))
            self._outbox.lost.append(report)
        if attempt.phase is Phase.WAITING:
            self.zygotes.cancel(attempt)
            self.close_channels(attempt)
        attempt.phase = Phase.ENDED
        attempt.cancel_timer()
        attempt.close_log()
        if attempt.workspace and not attempt.is_unswept:
            self._to_free.append(attempt.workspace)
        del self._attempts[attempt.id]
        rivals = self._by_task[attempt.key]
        rivals.remove(attempt)
        if not rivals:
            del self._by_task[attempt.key]
        elif rivals[0].phase is Phase.WAITING and rivals[0] not in self._to_start:
            self._to_start.append(rivals[0])

    # Stopping

    def _stop(self, attempt: Attempt, reason: EndReason) -> None:
        if attempt.phase is Phase.WAITING:
            error = f"{reason.value} before it started"
            report = not_started(attempt.order, now(), self.place.host, error)
            self._note_in_log(attempt, error)
            self._end(attempt, _with_reason(report, reason))
            return
        if attempt.phase is not Phase.RUNNING or attempt.stop_reason is not None:
            return
        stat = processes.read_stat(attempt.pid)
        if stat is None or stat.is_dead:
            return  # it has ended by itself, and that is about to be heard
        attempt.stop_reason = reason
        attempt.kill_at = time.monotonic() + attempt.order.kill_grace_seconds
        self._signal(attempt, signal.SIGTERM)
        self._signal(attempt, signal.SIGCONT)  # a stopped process would not act on it
        attempt.timer = self._loop.call_later(
            attempt.order.kill_grace_seconds, lambda: self._signal(attempt, signal.SIGKILL)
        )

    def _signal(self, attempt: Attempt, number: int) -> None:
        """To its whole group, if the pid is still its own."""
        stat = processes.read_stat(attempt.pid)
        if stat is not None and stat.ticks == attempt.ticks and not stat.is_dead:
            processes.signal_group(attempt.pid, number)

    # Files

    def _note_in_log(self, attempt: Attempt, text: str) -> None:
        try:
            fd = open_log(self.place.log_root, attempt.order.log_path)
        except (OSError, ValueError):
            return  # the report says it too
        try:
            os.write(fd, f"tickless: {text.rstrip()}\n".encode("utf-8", "replace"))
        except OSError:
            pass
        finally:
            os.close(fd)

    def _known_pids(self) -> set[int]:
        return self.zygotes.pids() | self._by_pid.keys()


def _with_reason(report: Finished, reason: EndReason) -> Finished:
    return Finished(
        attempt_id=report.attempt_id,
        at=report.at,
        state=AttemptState.FAILED,
        reason=reason,
        error=report.error,
        host=report.host,
    )
