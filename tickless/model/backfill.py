"""A backfill: a schedule run over the past."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

from tickless.model.schedule import ScheduleSpec, Slot

BackfillKey = NewType("BackfillKey", int)
"""The number of a backfill, unique over all DAGs."""

DEFAULT_MAX_ACTIVE = 10
MOST_ACTIVE = 500
"""A cancel ends the queued runs of a backfill in one step."""


class Reprocess(StrEnum):
    """What becomes of a slot that has a run already. One whose run is unfinished is always passed over."""

    NONE = "none"  # it is passed over
    FAILED = "failed"  # it gets another run if its latest one has failed
    COMPLETED = "completed"  # it gets another run


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRow:
    """`backfill`. What it is to do never changes; how far it has come is written in one commit with its runs."""

    key: BackfillKey
    dag_id: str
    schedule: ScheduleSpec
    """Of the DAG when it was asked for, with nothing left open (`schedule.span.settle`)."""
    from_at: datetime
    to_at: datetime
    reprocess: Reprocess
    max_active: int
    """How many of its runs may run at once; they do not count among the DAG's own."""
    is_backwards: bool
    conf: str
    """A JSON object, for each of its runs."""
    created_at: datetime
    """Slots that were not due by then are left to the schedule."""
    place: datetime | None = None
    """Of the last slot that is dealt with (`schedule.span`): it has its run, or was passed over."""
    made: int = 0
    """Runs."""
    passed: int = 0
    """Slots that were passed over because they have a run already."""
    is_paused: bool = False
    cancelled_at: datetime | None = None
    completed_at: datetime | None = None
    """Nothing is left of it to do: no slot, and no unfinished run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRun:
    """A run that is in the way of a slot: it has its logical date, or the name that the slot's run would get."""

    key: int
    run_id: str
    logical_date: datetime | None
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPlan:
    """What a backfill would do with a slot, as it is now."""

    slot: Slot
    place: datetime
    run: SlotRun | None
    """The latest run that it has already."""
    is_run: bool
    """It gets a run; else it is passed over."""
