"""What a step decides: row images to commit, effects to release after that commit, and when to wake up."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tickless.core.commands import Reply
from tickless.model.backfill import BackfillKey, BackfillRow
from tickless.model.id import AttemptId, RunKey, TaskKey
from tickless.model.order import StopOrder
from tickless.model.row import (
    AttemptRow,
    CommandProgress,
    DagGone,
    DagRow,
    DagVanishedRow,
    EventRow,
    InstanceRow,
    MapRow,
    NoteRow,
    PoolRow,
    RequestDone,
    RunGone,
    RunRemains,
    RunRow,
    VersionRow,
    XComRow,
    XComsDropped,
)
from tickless.model.state import RunState, TaskState


@dataclass(frozen=True, slots=True)
class Write:
    """One row image with its guard.

    `expected` None = the row must not exist yet (insert); else the values its guarded columns must have now:
    runs: (state,) · instances: (state, attempt_id) · attempts: (state,). A flush in which a guard does not hold
    rolls back whole and raises Conflict. XComs, maps, pools, DAGs, versions and request rows have no guard: upserts by
    key; a map that is fully expanded wants its instance with map_index -1 to be undecided.
    """

    row: (
        RunRow
        | InstanceRow
        | AttemptRow
        | XComRow
        | MapRow
        | XComsDropped
        | PoolRow
        | VersionRow
        | DagRow
        | DagVanishedRow
        | RequestDone
        | CommandProgress
        | EventRow
        | RunGone
        | RunRemains
        | DagGone
        | NoteRow
        | BackfillRow
    )
    expected: tuple[object, ...] | None = None
    is_insert: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Effect: send the order of this committed, queued attempt. The shell builds the order from rows."""

    attempt_id: AttemptId
    key: TaskKey
    executor: str
    try_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAttempt:
    """Effect: ask the executor to end this attempt."""

    executor: str
    stop: StopOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class AckReport:
    """Effect: the attempt's end is committed (or known to be stale); its sender may forget it."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """Effect: the canonical line of a finished attempt, for the log and the metrics."""

    attempt: AttemptRow
    dag_id: str
    run_id: str
    task_state: TaskState
    due_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChanged:
    """Effect: a run was made, started or ended; for the log and for whoever waits for it."""

    run: int
    dag_id: str
    run_id: str
    state: RunState
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DagPaused:
    """Effect: a DAG was paused or unpaused."""

    dag_id: str
    is_paused: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsSkipped:
    """Effect: a schedule without catchup has passed over what was due from `first` until just before `before`."""

    dag_id: str
    first: datetime
    before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PastWanted:
    """Effect: find the previous run of this one among the rows, with its finished instances, and tell (`PastFound`).

    That is the one with the latest logical date before this one's, among the runs of the DAG that were made before.
    """

    number: int
    """Of the question; it comes back with the answer."""
    run: RunKey
    dag_id: str
    logical_date: datetime
    only_scheduled: bool
    """With catchup: runs that somebody started do not count."""


class BackfillStep(StrEnum):
    """What can become of a backfill."""

    CREATED = "created"
    PAUSED = "paused"
    UNPAUSED = "unpaused"
    CANCELLED = "cancelled"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillChanged:
    """Effect: something has become of a backfill."""

    backfill: BackfillKey
    dag_id: str
    step: BackfillStep
    made: int
    passed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsWanted:
    """Effect: a backfill can make runs; whoever reads rows is to bring what there is of its next slots."""

    backfill: BackfillKey


Effect = (
    Launch
    | StopAttempt
    | AckReport
    | AttemptEnded
    | RunChanged
    | DagPaused
    | SlotsSkipped
    | BackfillChanged
    | SlotsWanted
    | PastWanted
)


@dataclass(slots=True)
class Decision:
    """The outcome of one step. Effects leave only after the COMMIT of `writes`, in order."""

    writes: list[Write] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    wake_at: datetime | None = None
    """When the earliest timer is due; None = never."""
    more: bool = False
    """Work is left over: step with WorkContinued when others have had their turn."""
    reply: Reply | None = None
    stale: int = 0
    """Late or duplicate inputs that were ignored."""
