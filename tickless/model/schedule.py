"""ScheduleSpec: what a DAG file says about when its runs are due, as data. `tickless.schedule` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class ScheduleKind(StrEnum):
    """What makes the slots of a schedule."""

    ONCE = "once"  # one run, ever
    CONTINUOUS = "continuous"  # the next run when the last one has ended
    CRON = "cron"  # one or several cron expressions; several are the union of their slots
    DELTA = "delta"  # a fixed distance of real time


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """A schedule as written. Fields that are None are settled by the installation's `ScheduleRules`."""

    kind: ScheduleKind
    text: str
    """As the user wrote it, for people."""
    crons: tuple[str, ...] = ()
    """Expressions of five fields, or of six with the seconds last; presets are resolved."""
    every_seconds: float | None = None
    """Of a delta."""
    has_intervals: bool | None = False
    """True: a run covers the time between two slots and is due at the second one. False: it is due at its slot.
    None: as the installation is configured."""
    interval_seconds: float = 0.0
    """Without `has_intervals`: how far back from its slot a run's data interval reaches."""
    first_within_seconds: float | None = 0.0
    """The first run of a DAG without a start date may be for a slot that passed at most this long ago; None = any."""
    timezone: str | None = None
    """An IANA name or an offset (`+02:00`); None = the configured default."""
    start_at: datetime | None = None
    """No slot before it. Naive: in `timezone`."""
    end_at: datetime | None = None
    """No slot after it. Naive: in `timezone`."""
    catchup: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRules:
    """What the installation settles for schedules and DAGs that do not say it themselves."""

    default_timezone: str = "UTC"
    create_cron_data_intervals: bool = False
    create_delta_data_intervals: bool = False
    dags_are_paused_at_creation: bool = False


class Slot(NamedTuple):
    """One due time of a schedule. The run that it makes has this data interval."""

    run_after: datetime
    start: datetime
    end: datetime


class Interval(NamedTuple):
    """The data interval of the last run that a schedule made: where the schedule goes on from."""

    start: datetime
    end: datetime
