"""What the engine keeps in RAM of unfinished runs: mutable twins of the row images, with what is derived from them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from tickless.core.machine import Happening
from tickless.core.plan import DagPlan, TaskPlan
from tickless.core.readiness import UpstreamCounts
from tickless.model.backfill import BackfillKey, BackfillRow
from tickless.model.id import UNMAPPED, AttemptId, RunKey, TaskId, TaskKey
from tickless.model.row import UNKNOWN_LENGTH, AttemptRow, DagRow, InstanceRow, MapRow, RunRow
from tickless.model.schedule import Interval
from tickless.model.state import EndReason, RunState, TaskState
from tickless.schedule.span import Span

if TYPE_CHECKING:
    from tickless.core.admission import Group, Semaphore, Signature


MARKED_RUN_SUCCESS = "marked_success: somebody declared the run done"
MARKED_RUN_FAILED = "marked_failed: somebody gave the run up"
MARKED_RUN = (MARKED_RUN_SUCCESS, MARKED_RUN_FAILED)
"""`cancel_reason` of a run that was marked."""


class Run:
    """An unfinished dag run. Finished instances are only counted here, not kept."""

    __slots__ = (
        "cancel_reason",
        "cancel_requested_at",
        "counts",
        "created_upto",
        "ended_at",
        "expansions",
        "frozen",
        "groups",
        "instances",
        "lengths",
        "plan",
        "previous_run",
        "returned",
        "row",
        "sizes",
        "slots",
        "started_at",
        "state",
        "tallies",
        "task_slots",
        "upstream",
        "waiting",
    )

    def __init__(self, row: RunRow, plan: DagPlan, slots: Semaphore) -> None:
        self.row = row  # as last read or written; the fields below are ahead of it within a step
        self.plan = plan
        self.state = row.state
        self.started_at = row.started_at
        self.ended_at = row.ended_at
        self.created_upto = row.created_upto
        self.cancel_requested_at = row.cancel_requested_at
        self.cancel_reason = row.cancel_reason
        self.frozen = row.frozen
        self.previous_run = row.previous_run
        self.slots = slots  # the semaphore of dag_concurrency
        self.instances: dict[tuple[int, int], Instance] = {}  # unfinished, by (task index, map index)
        self.counts = [UpstreamCounts() for _ in plan.tasks]  # finished direct upstream, per task
        self.tallies: dict[int, dict[TaskState, int]] = {}  # finished instances, per task
        self.groups: dict[Signature, Group] = {}  # waiting groups
        self.task_slots: dict[str, Semaphore] = {}  # max_active_tis_per_dagrun, by task
        self.upstream = [len(task.upstream) for task in plan.tasks]  # direct upstream instances, per task
        self.sizes: dict[int, int] = {}  # instances of a mapped task, once that is known; one until then
        self.expansions: dict[int, Expansion] = {}  # of mapped tasks, from the first instance on
        self.waiting: dict[int, set[int]] = {}  # map indexes of instances that were reopened and wait for upstream
        self.lengths: dict[int, int] = {}  # of what tasks returned that others are mapped over
        self.returned: dict[int, int] = {}  # instances of mapped tasks with a value, when others are mapped over them

    @property
    def key(self) -> RunKey:
        return self.row.key

    @property
    def is_complete(self) -> bool:
        """All instances are created and finished."""
        return not self.instances and self.created_upto == len(self.plan.tasks)

    @property
    def may_schedule(self) -> bool:
        """Whether trigger rules and retries of this run are acted upon."""
        return self.state is RunState.RUNNING and self.cancel_requested_at is None and self.frozen is None

    @property
    def is_marked_success(self) -> bool:
        """Somebody has declared it done, while it was running or afterwards."""
        return self.cancel_reason == MARKED_RUN_SUCCESS

    @property
    def ending(self) -> Happening:
        """Of a run that is ended before its time: what happens to its tasks without a process."""
        return Happening.MARK_SUCCESS if self.is_marked_success else Happening.CANCEL

    @property
    def why_cancelled(self) -> str:
        return self.cancel_reason or "the run was cancelled"

    def tally(self, index: int, state: TaskState, count: int = 1, *, returned: int = 0) -> None:
        """Count finished instances of a task, for itself and for its downstream; so many of them with a value."""
        task = self.plan.tasks[index]
        if returned and task.spec.mapped and task.is_mapped_over:
            self.returned[index] = self.returned.get(index, 0) + returned
        per_task = self.tallies.setdefault(index, {})
        per_task[state] = per_task.get(state, 0) + count
        for below in task.downstream:
            self.counts[below].add(state, count)

    def untally(self, index: int, row: InstanceRow) -> None:
        """The opposite of `tally` for one instance: it is not finished any more, or in another state."""
        state, per_task = row.state, self.tallies[index]
        if row.has_returned and index in self.returned:
            self.returned[index] -= 1
            if not self.returned[index]:
                del self.returned[index]
        per_task[state] -= 1
        if not per_task[state]:
            del per_task[state]
        for below in self.plan.tasks[index].downstream:
            self.counts[below].add(state, -1)

    def resize(self, index: int, size: int) -> None:
        """A mapped task has this many instances: to its downstream each is one upstream."""
        change = size - self.sizes.get(index, 1)
        self.sizes[index] = size
        for below in self.plan.tasks[index].downstream:
            self.upstream[below] += change

    def is_expanding(self, index: int) -> bool:
        """More instances of a mapped task are to come, whatever happens above it."""
        expansion = self.expansions.get(index)
        return expansion is not None and expansion.length != UNKNOWN_LENGTH and (index, UNMAPPED) in self.instances

    def wait(self, instance: Instance) -> None:
        """An instance was reopened. Of a mapped task there may be many: those are looked for here."""
        if instance.map_index != UNMAPPED:
            self.waiting.setdefault(instance.task.index, set()).add(instance.map_index)

    def wait_no_more(self, instance: Instance) -> None:
        indexes = self.waiting.get(instance.task.index)
        if indexes is not None:
            indexes.discard(instance.map_index)
            if not indexes:
                del self.waiting[instance.task.index]

    def take_map(self, row: MapRow) -> None:
        """What was known of a mapped task, or of one that others are mapped over; after its instances are there."""
        index = self.plan.index_of[row.task_id]
        if row.expanded_upto is None:
            self.lengths[index] = row.length
            return
        self.expansions[index] = Expansion(row.length, row.expanded_upto)
        is_whole = row.is_expanded or self.is_expanding(index)
        # Of a stopped expansion no more instances come; the one without an index stands for them.
        self.resize(index, row.length if is_whole else row.expanded_upto + 1)

    def of_task(self, index: int) -> list[Instance]:
        """The unfinished instances of a task."""
        expansion = self.expansions.get(index)
        indexes = range(UNMAPPED, expansion.upto if expansion is not None else 0)
        found = (self.instances.get((index, map_index)) for map_index in indexes)
        return [instance for instance in found if instance is not None]

    def map_image(self, index: int) -> MapRow:
        expansion = self.expansions.get(index)
        return MapRow(
            run=self.row.key,
            task_id=TaskId(self.plan.tasks[index].spec.task_id),
            length=expansion.length if expansion is not None else self.lengths[index],
            expanded_upto=expansion.upto if expansion is not None else None,
        )

    def image(self) -> RunRow:
        row = self.row
        return RunRow(
            key=row.key,
            dag_id=row.dag_id,
            run_id=row.run_id,
            version=row.version,
            state=self.state,
            run_type=row.run_type,
            conf=row.conf,
            logical_date=row.logical_date,
            queued_at=row.queued_at,
            started_at=self.started_at,
            ended_at=self.ended_at,
            created_upto=self.created_upto,
            cancel_requested_at=self.cancel_requested_at,
            frozen=self.frozen,
            idempotency_key=row.idempotency_key,
            run_after=row.run_after,
            data_interval_start=row.data_interval_start,
            data_interval_end=row.data_interval_end,
            cancel_reason=self.cancel_reason,
            previous_run=self.previous_run,
            backfill=row.backfill,
        )


class Expansion:
    """How far a mapped task is expanded. Until it is done, its instance without a map index stays, undecided.

    Cleared before it was done, its length is UNKNOWN_LENGTH until its trigger rule holds again.
    """

    __slots__ = ("length", "upto")

    def __init__(self, length: int, upto: int = 0) -> None:
        self.length = length
        self.upto = upto


class Instance:
    """An unfinished task instance."""

    __slots__ = (
        "attempt_id",
        "due_at",
        "ended_at",
        "group",
        "lost_count",
        "map_index",
        "queued_at",
        "reason",
        "run",
        "scheduled_at",
        "started_at",
        "state",
        "task",
        "tries_cleared",
        "try_number",
    )

    def __init__(self, run: Run, task: TaskPlan, map_index: int = UNMAPPED) -> None:
        self.run = run
        self.task = task
        self.map_index = map_index
        self.state = TaskState.NONE
        self.try_number = 0
        self.tries_cleared = 0
        self.attempt_id = AttemptId(0)
        self.lost_count = 0
        self.scheduled_at: datetime | None = None
        self.queued_at: datetime | None = None
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.due_at: datetime | None = None
        self.reason: str | None = None
        self.group: Group | None = None  # where it waits; None unless it is scheduled

    @staticmethod
    def of(run: Run, row: InstanceRow) -> Instance:
        """The record of a row that was read back."""
        instance = Instance(run, run.plan.tasks[run.plan.index_of[row.task_id]], row.map_index)
        instance.state = row.state
        instance.try_number = row.try_number
        instance.attempt_id = row.attempt_id
        instance.lost_count = row.lost_count
        instance.tries_cleared = row.tries_cleared
        instance.scheduled_at = row.scheduled_at
        instance.queued_at = row.queued_at
        instance.started_at = row.started_at
        instance.ended_at = row.ended_at
        instance.due_at = row.due_at
        instance.reason = row.reason
        return instance

    @property
    def key(self) -> TaskKey:
        return TaskKey(self.run.key, TaskId(self.task.spec.task_id), self.map_index)

    def image(self) -> InstanceRow:
        return InstanceRow(
            run=self.run.row.key,
            task_id=TaskId(self.task.spec.task_id),
            map_index=self.map_index,
            state=self.state,
            try_number=self.try_number,
            attempt_id=self.attempt_id,
            lost_count=self.lost_count,
            tries_cleared=self.tries_cleared,
            scheduled_at=self.scheduled_at,
            queued_at=self.queued_at,
            started_at=self.started_at,
            ended_at=self.ended_at,
            due_at=self.due_at,
            reason=self.reason,
        )


class Attempt:
    """A live attempt: it holds its slots until the end of its process is decided."""

    __slots__ = (
        "ended_at",
        "error",
        "exit_code",
        "holds",
        "host",
        "instance",
        "pid",
        "reason",
        "row",
        "signal",
        "started_at",
        "state",
        "stop_reason",
        "stop_requested_at",
    )

    def __init__(self, row: AttemptRow, instance: Instance | None, holds: tuple[tuple[Semaphore, int], ...]) -> None:
        self.row = row  # as first written; the fields below change
        self.instance = instance  # None: its run is over or unknown; only its slots still count
        self.holds = holds
        self.state = row.state
        self.started_at = row.started_at
        self.ended_at = row.ended_at
        self.stop_requested_at = row.stop_requested_at
        self.stop_reason: EndReason | None = row.stop_reason
        self.exit_code = row.exit_code
        self.signal = row.signal
        self.reason = row.reason
        self.error = row.error
        self.pid = row.pid
        self.host = row.host

    @property
    def id(self) -> AttemptId:
        return self.row.attempt_id

    def image(self) -> AttemptRow:
        row = self.row
        return AttemptRow(
            attempt_id=row.attempt_id,
            run=row.run,
            task_id=row.task_id,
            map_index=row.map_index,
            try_number=row.try_number,
            state=self.state,
            executor=row.executor,
            queue=row.queue,
            pool=row.pool,
            pool_slots=row.pool_slots,
            queued_at=row.queued_at,
            log_path=row.log_path,
            started_at=self.started_at,
            ended_at=self.ended_at,
            timeout_seconds=row.timeout_seconds,
            stop_requested_at=self.stop_requested_at,
            stop_reason=self.stop_reason,
            exit_code=self.exit_code,
            signal=self.signal,
            reason=self.reason,
            error=self.error,
            pid=self.pid,
            host=self.host,
        )


class DagState:
    """What outlives the versions and runs of one DAG: its limits, the queued runs that wait for their turn, and how
    far its schedule has come (`core.schedules`)."""

    __slots__ = (
        "active_runs",
        "armed_at",
        "backfills",
        "dag_id",
        "failed_in_a_row",
        "is_looked_at",
        "is_paused",
        "last",
        "last_number",
        "live",
        "newest_ended",
        "past_backfills",
        "queued",
        "queued_again",
        "schedule_problem",
        "scheduled_since",
        "task_slots",
        "total",
    )

    def __init__(self, dag_id: str, active_runs: Semaphore, total: Semaphore) -> None:
        self.dag_id = dag_id
        self.active_runs = active_runs
        self.total = total  # max_active_tasks_per_dag_total
        self.task_slots: dict[str, Semaphore] = {}  # max_active_tis_per_dag, by task
        self.live: dict[RunKey, Run] = {}  # its unfinished runs
        self.queued: deque[Run] = deque()  # oldest first
        self.queued_again: dict[RunKey, Run] = {}  # those among them that were finished, and cleared
        self.backfills: dict[BackfillKey, Backfill] = {}  # those that are not completed
        self.past_backfills: list[Backfill] = []  # completed ones that the schedule may not be past yet
        self.newest_ended = RunKey(0)  # the highest key of a run that has ended since the restore
        self.last_number = 0  # number of its newest version
        self.is_paused = False
        self.last: Interval | None = None  # of the last run that its schedule made
        self.scheduled_since: datetime | None = None
        self.failed_in_a_row = 0
        self.armed_at: datetime | None = None  # the one entry in the heap of timers that counts
        self.is_looked_at = False  # a generator on the agenda makes what is due
        self.schedule_problem: str | None = None  # why nobody can say what comes next

    def forget(self) -> None:
        """It was deleted. Its semaphores stay: lanes know them, and nobody holds anything of them."""
        self.last_number = 0
        self.is_paused = False
        self.last = None
        self.scheduled_since = None
        self.failed_in_a_row = 0
        self.armed_at = None
        self.schedule_problem = None
        self.past_backfills.clear()

    def image(self) -> DagRow:
        return DagRow(
            dag_id=self.dag_id,
            is_paused=self.is_paused,
            last_interval_start=self.last.start if self.last is not None else None,
            last_interval_end=self.last.end if self.last is not None else None,
            scheduled_since=self.scheduled_since,
            failed_in_a_row=self.failed_in_a_row,
        )


class Backfill:
    """A backfill that is not completed, or one whose slots the schedule may still come to. Its runs have their turns
    apart from those of the DAG: `active_runs` and `queued` are as in DagState."""

    __slots__ = (
        "active_runs",
        "cancelled_at",
        "completed_at",
        "is_filled",
        "is_paused",
        "made",
        "passed",
        "place",
        "queued",
        "row",
        "span",
    )

    def __init__(self, row: BackfillRow, active_runs: Semaphore) -> None:
        self.row = row  # as first written; the fields below change
        self.active_runs = active_runs
        self.queued: deque[Run] = deque()
        self.span = Span(row.schedule, row.from_at, row.to_at, due_until=row.created_at, is_backwards=row.is_backwards)
        self.place = row.place
        self.made = row.made
        self.passed = row.passed
        self.is_paused = row.is_paused
        self.cancelled_at = row.cancelled_at
        self.completed_at = row.completed_at
        self.is_filled = self.span.next(row.place) is None  # every slot is dealt with

    @property
    def unfinished(self) -> int:
        """Runs of it that are queued or running."""
        return self.active_runs.used + len(self.queued)

    def is_ahead_of(self, last: Interval | None) -> bool:
        """Whether it has a slot that the schedule has not passed yet."""
        return last is None or min(self.row.to_at, self.row.created_at) >= last.start

    def image(self) -> BackfillRow:
        return replace(
            self.row,
            place=self.place,
            made=self.made,
            passed=self.passed,
            is_paused=self.is_paused,
            cancelled_at=self.cancelled_at,
            completed_at=self.completed_at,
        )
