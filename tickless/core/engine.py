"""The engine: live runs in RAM; `step(event, now)` decides what to write, what to release after the commit, and when
to wake up. No clock, no I/O, no randomness, no logging. See README.md in this folder for the theory of operation.

This module is the front: it hands each event to the part that it concerns. The parts stand on each other in this
order, and none calls upwards: `changes`, `quota`, `runs`, `attempts`, `stopping`, `control`, `revision`, `deletion`,
`schedules`, `backfills`, `versions`, `restore`.

The work of a step is proportional to what changed. What could be larger (making the instances of a wide DAG,
cancelling them, telling thousands of downstream tasks) is put on the agenda as a generator that touches one instance
at a time; a step takes a bounded slice of it and reports `more`. An agenda needs no rows of its own: each item follows
from committed rows, and `restore` puts it there again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import assert_never

from tickless.core import commands, events
from tickless.core.attempts import Attempts
from tickless.core.backfills import Backfills
from tickless.core.changes import Changes
from tickless.core.commands import Reply
from tickless.core.control import Control
from tickless.core.decision import Decision
from tickless.core.deletion import Deletion
from tickless.core.quota import Quota
from tickless.core.record import Instance, Run
from tickless.core.restore import Restore
from tickless.core.revision import Revision
from tickless.core.runs import Runs
from tickless.core.schedules import Schedules
from tickless.core.snapshot import Snapshot
from tickless.core.stopping import Stopping
from tickless.core.timers import RetryDue, RunTimeoutDue, SlotDue, TimeoutDue, Timer, TimerHeap
from tickless.core.versions import Versions
from tickless.model.dag import DagSpec
from tickless.model.id import Epoch, RunKey, TaskKey
from tickless.model.limit import Limits, Routing
from tickless.model.report import Finished, Lost, Started
from tickless.model.schedule import ScheduleRules
from tickless.model.state import EndReason, TaskState

AGENDA_SLICE = 300
ADMISSION_SLICE = 200
"""Together the most instances that one step touches; the loop gets its turn between steps."""


class Engine:
    """All scheduling state of one leader. Built empty for an epoch, filled by `restore`, driven by `step`."""

    def __init__(
        self,
        *,
        epoch: Epoch,
        limits: Limits,
        routing: Routing,
        decode_spec: Callable[[str], DagSpec],
        schedule_rules: ScheduleRules | None = None,
    ) -> None:
        self.epoch = epoch
        self.timers = TimerHeap()
        self._changes = Changes()
        self._quota = Quota(limits, routing)
        self._runs = Runs(self._changes, self._quota)
        self._attempts = Attempts(epoch, self._changes, self._quota, self._runs, self.timers)
        self._stopping = Stopping(self._changes, self._quota, self._runs, self._attempts, self.timers)
        self._control = Control(self._changes, self._quota, self._runs, self._stopping)
        self._revision = Revision(self._changes, self._quota, self._runs, self._attempts, self._stopping, decode_spec)
        self._deletion = Deletion(self._changes, self._quota, self._runs, self._attempts)
        self.schedules = Schedules(
            self._changes, self._quota, self._runs, self.timers, schedule_rules or ScheduleRules()
        )
        self.backfills = Backfills(self._changes, self._quota, self._runs, self._stopping, self.schedules.rules)
        self._versions = Versions(self._changes, self._quota, self._runs, self.schedules)
        self._decode_spec = decode_spec
        # For those who look.
        self.current = self._quota.current
        self.dags = self._quota.dags
        self.pools = self._quota.pools
        self.executors = self._quota.executors
        self.parallelism = self._quota.parallelism
        self.admission = self._quota.admission
        self.runs = self._runs.runs
        self.past = self._runs.past
        self.attempts = self._attempts.attempts

    @property
    def limits(self) -> Limits:
        return self._quota.limits

    @property
    def routing(self) -> Routing:
        return self._quota.routing

    @property
    def is_stopping(self) -> bool:
        """Nothing more is admitted."""
        return self._quota.is_stopping

    @is_stopping.setter
    def is_stopping(self, value: bool) -> None:
        self._quota.is_stopping = value

    @property
    def focus(self) -> Run | None:
        """The run that was worked on last: the one to blame when a step raises."""
        return self._changes.focus

    @property
    def last_run(self) -> RunKey:
        """The highest run key ever given."""
        return self._runs.last_run

    def instance(self, key: TaskKey) -> Instance | None:
        """An unfinished task instance."""
        return self._runs.instance(key)

    def restore(self, snapshot: Snapshot, now: datetime) -> Decision:
        """Fill an empty engine from committed rows; the effects that these rows still owe are in the decision.

        Launches of queued attempts and stops that were requested are released again: executors know both by
        attempt id. Work that was cut off half-way (instances not yet made, a cancel, trigger rules not yet looked
        at) is on the agenda again.
        """
        self._changes.begin(now)
        parts = Restore(
            changes=self._changes,
            quota=self._quota,
            runs=self._runs,
            attempts=self._attempts,
            stopping=self._stopping,
            versions=self._versions,
            schedules=self.schedules,
            backfills=self.backfills,
            timers=self.timers,
        )
        parts.fill(snapshot, self._decode_spec)
        return self._conclude()

    def step(self, event: events.Event | commands.Command, now: datetime) -> Decision:
        """Decide what follows from one event or command.

        Raises UserError when a command cannot be obeyed; nothing has changed then. Any other exception is a bug, and
        the engine must be thrown away and restored from rows.
        """
        self._changes.begin(now)
        reply: Reply | None = None
        match event:
            case Started():
                self._attempts.on_started(event)
            case Finished() | Lost():
                self._attempts.on_ended(event)
            case commands.StartRun():
                reply = self._runs.start_run(event, self.schedules.manual_interval(event))
            case events.WorkContinued():
                pass
            case events.PastFound():
                self._runs.past_found(event)
            case events.TimePassed():
                self._runs.agenda.append(self._ring())
            case events.DagParsed():
                self._versions.on_dag_parsed(event)
            case events.DagVanished():
                self._versions.on_dag_vanished(event)
            case events.LimitsChanged():
                self._control.on_limits_changed(event)
                self.schedules.look_at_all()
            case commands.CancelRun():
                self._control.cancel_run(event)
            case commands.SetPool():
                self._control.set_pool(event)
            case commands.PauseDag() | commands.UnpauseDag():
                self.schedules.pause(event)
            case commands.AlterTasks():
                self._revision.alter_tasks(event)
            case commands.MarkRun():
                self._revision.mark_run(event)
            case commands.DeleteRun():
                self._deletion.delete_run(event)
            case commands.DeleteDag():
                self._deletion.delete_dag(event)
            case commands.CreateBackfill():
                reply = self.backfills.create(event)
            case commands.ControlBackfill():
                self.backfills.control(event)
            case commands.FillSlots():
                self.backfills.fill(event)
            case commands.StopAdmitting():
                self.is_stopping = True
            case _:
                assert_never(event)
        return self._conclude(reply)

    def _conclude(self, reply: Reply | None = None) -> Decision:
        self._work_agenda()
        self._admit_waiting()
        more = bool(self._runs.agenda) or (self.admission.has_work() and not self.is_stopping)
        return self._changes.into(Decision(wake_at=self.timers.next_due_at(), more=more, reply=reply))

    def _work_agenda(self) -> None:
        agenda = self._runs.agenda
        left = AGENDA_SLICE
        while agenda and left > 0:
            item = agenda.popleft()
            for _ in item:
                left -= 1
                if left <= 0:
                    agenda.append(item)  # to the back: others have their turn first
                    break

    def _admit_waiting(self) -> None:
        if self.is_stopping:
            return
        for _ in range(ADMISSION_SLICE):
            admitted = self.admission.next_admitted(self._changes.now, self.limits.pool_ageing_seconds)
            if admitted is None:
                return
            self._attempts.launch(*admitted)

    # ---- timers ---------------------------------------------------------------------------------------------------

    def _ring(self) -> Iterator[None]:
        # By the clock of each step: set back meanwhile, what is armed anew by then must not be taken out again.
        while (timer := next(self.timers.pop_due(self._changes.now), None)) is not None:
            self._on_timer(timer)
            yield

    def _on_timer(self, timer: Timer) -> None:
        match timer:
            case RetryDue(key, try_number):
                instance = self.instance(key)
                if (
                    instance is not None
                    and instance.state is TaskState.UP_FOR_RETRY
                    and instance.try_number == try_number
                    and instance.run.may_schedule
                ):
                    self._runs.schedule(instance)
            case TimeoutDue(attempt_id):
                attempt = self.attempts.get(attempt_id)
                if attempt is not None:
                    self._attempts.stop(attempt, EndReason.TIMEOUT)
            case RunTimeoutDue():
                self._stopping.timeout_due(timer)
            case SlotDue():
                self.schedules.slot_due(timer)
            case _:
                assert_never(timer)
