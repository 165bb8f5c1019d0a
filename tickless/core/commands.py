"""What may be asked for, in the imperative. A command that cannot be obeyed raises UserError and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tickless.model.backfill import DEFAULT_MAX_ACTIVE, BackfillKey, Reprocess, SlotRun
from tickless.model.id import RunKey
from tickless.model.row import (
    CommandProgress,
    EventRow,
    InstanceRow,
    InstanceTally,
    MapRow,
    RequestDone,
    RunRow,
    VersionRow,
)
from tickless.model.schedule import Slot
from tickless.model.state import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    """Make a dag run of the current version. The reply is a `RunStarted`.

    With an `idempotency_key` that a live run already has, that run is the reply; the caller looks up finished ones.
    """

    dag_id: str
    run_id: str | None = None
    """None = `manual__<now>`, made unique."""
    conf: str = "{}"
    logical_date: datetime | None = None
    run_type: str = "manual"
    idempotency_key: str | None = None
    request_id: int | None = None
    """The row of `trigger_request` that this comes from; it is marked done in the same commit."""
    actor: str | None = None
    """Who asks, for the audit; None: there is nobody to name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRun:
    """Stop what runs of it, skip the rest, end it as failed."""

    run: RunKey
    request_id: int | None = None
    """The row of `command` that this comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPool:
    """Create a pool or change its size; a smaller size drains, it kills nothing."""

    name: str
    slots: int
    request_id: int | None = None


class TaskVerb(StrEnum):
    """What may be done to task instances that exist."""

    CLEAR = "clear"  # run again what has run; stop what runs, then run it again
    MARK_SUCCESS = "mark_success"
    MARK_FAILED = "mark_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """What the engine has forgotten of a finished run, as committed; read after all earlier alterations are, for
    nothing else changes it, and the engine cannot see that it is old."""

    row: RunRow
    version: VersionRow
    tallies: tuple[InstanceTally, ...]
    maps: tuple[MapRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchChoice:
    """What a branch or a short circuit has chosen, as it was kept (`core.choice`)."""

    task_id: str
    map_index: int
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterTasks:
    """Clear or mark some task instances of one run. One bounded slice: whoever asks for more sends several.

    The engine keeps no finished instances, so their rows come with the command, upstream before downstream. They
    were read after everything decided so far was committed; what was decided since is seen (`RowsBehind`).
    """

    verb: TaskVerb
    run: RunKey
    rows: tuple[InstanceRow, ...]
    finished_run: FinishedRun | None = None
    """None: the run is not finished."""
    choices: tuple[BranchChoice, ...] = ()
    """Of a clear: what the branches of the run have chosen."""
    along: tuple[CommandProgress | RequestDone | EventRow, ...] = ()
    """Rows for the same commit: how far the command has come, and who gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRun:
    """Declare a whole run done or give it up. What runs of it is stopped; tasks that are finished stay as they are."""

    run: RunKey
    state: RunState
    """success or failed."""
    finished: RunRow | None = None
    """Its row, if it is finished, read after everything decided so far was committed. None: it is not."""
    along: tuple[CommandProgress | RequestDone | EventRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRun:
    """Delete a finished run. Its row goes with this commit, its other rows follow: the engine knows none of them."""

    run: RunKey
    is_finished: bool
    """By its row, read after everything decided so far was committed."""
    along: tuple[CommandProgress | RequestDone | EventRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteDag:
    """Delete a DAG. First it is only asked whether that may be; its runs are deleted; `is_last` deletes the rest."""

    dag_id: str
    is_forced: bool
    """Also one that a file defines: it begins anew."""
    is_last: bool
    along: tuple[CommandProgress | RequestDone | EventRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseDag:
    """From now on its schedule makes no runs, no run of it starts, no task of it is sent off. What runs goes on."""

    dag_id: str
    request_id: int | None = None
    """The row of `command` that this comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpauseDag:
    """The opposite of PauseDag. Neither minds when there is nothing to change."""

    dag_id: str
    request_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateBackfill:
    """Run the schedule of a DAG over the past. The reply is a `BackfillCreated`."""

    dag_id: str
    from_at: datetime
    to_at: datetime
    """Both are places of slots (`schedule.span`) and included. Naive: in the time zone of the schedule."""
    reprocess: Reprocess = Reprocess.NONE
    max_active: int = DEFAULT_MAX_ACTIVE
    is_backwards: bool = False
    conf: str = "{}"
    actor: str | None = None
    """Who asks, for the audit; None: it is told with the request's row."""
    request_id: int | None = None
    """The row of `command` that this comes from."""


class BackfillVerb(StrEnum):
    """What may be done to a backfill."""

    PAUSE = "pause"  # it makes no runs, and none of its queued ones starts
    UNPAUSE = "unpause"
    CANCEL = "cancel"  # it makes no more runs, and its queued ones end; what runs goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlBackfill:
    """Pause, unpause or cancel."""

    backfill: BackfillKey
    verb: BackfillVerb
    actor: str | None = None
    request_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FillSlots:
    """Deal with the next slots of a backfill. The engine keeps no finished runs: their rows come with the command."""

    backfill: BackfillKey
    place: datetime | None
    """Where it was when the rows were read."""
    slots: tuple[Slot, ...]
    taken: tuple[SlotRun, ...]
    """Every run that has one of these logical dates, or a name that the runs would get; oldest first."""
    last_run: RunKey
    """The highest run key when the rows began to be read; all up to it were in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAdmitting:
    """The daemon is about to exit: admit nothing more. What runs goes on."""


Command = (
    StartRun
    | CancelRun
    | SetPool
    | PauseDag
    | UnpauseDag
    | AlterTasks
    | MarkRun
    | DeleteRun
    | DeleteDag
    | StopAdmitting
    | CreateBackfill
    | ControlBackfill
    | FillSlots
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Reply to StartRun."""

    run: RunKey
    run_id: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillCreated:
    """Reply to CreateBackfill."""

    backfill: BackfillKey


Reply = RunStarted | BackfillCreated
