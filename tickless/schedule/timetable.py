"""Timetables: which slot of a schedule comes next. Pure: the last interval and the present moment are arguments.

    next_slot(last, now) -> Slot(run_after, start, end) | None

A slot is due at `run_after`; the answer may lie in the past (then it is due at once) or in the future. It depends on
nothing but the schedule, the data interval of the last run that it made, and `now`; and it is always later than that
last run. So a slot that was acted upon never comes again, whatever the clock does, and nothing but the last interval
has to be kept.

Catchup: every slot since the last run (or `start_date`), one after the other. Without it: the latest one that has
passed, if it is newer than the last run, else the next one. Slots in between are skipped for good.

Two conventions, Airflow's. *Trigger* (the default of Airflow 3): a run is due at its slot, its data interval is empty
or reaches back from there. *Data interval* (that of Airflow 2): a run covers the time between two neighbouring slots
and is due at the second one; start_date and end_date bound the first one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from tickless.errors import UserError
from tickless.model.schedule import Interval, ScheduleKind, ScheduleRules, ScheduleSpec, Slot
from tickless.schedule.cron import Cron
from tickless.schedule.grid import Grid
from tickless.schedule.zone import to_instant, zone

CONTINUOUS_GAP = timedelta(seconds=1)
"""Least distance of two runs of @continuous: a DAG that ends at once must not fill the database."""
FIRST_RUN_SHARE = 10
"""`run_immediately=None`: the first run may be for a slot that passed a tenth of the distance ago, or five minutes."""
ZERO = timedelta(0)
_SHORT_WHILE = timedelta(minutes=5)


class Ticks(Protocol):
    """The due times of a schedule, an endless ordered set of instants."""

    def first_after(self, instant: datetime) -> datetime | None: ...

    def last_until(self, instant: datetime) -> datetime | None: ...


class Timetable(Protocol):
    """See the module's docstring."""

    def next_slot(self, last: Interval | None, now: datetime) -> Slot | None:
        """The slot after the last run's; None when there is none any more."""
        ...

    def interval_of_manual(self, at: datetime) -> Interval:
        """The data interval of a run that somebody starts for this moment."""
        ...


class Union:
    """The due times of several crons; a moment at which two are due is one slot."""

    def __init__(self, members: tuple[Ticks, ...]) -> None:
        self._members = members

    def first_after(self, instant: datetime) -> datetime | None:
        return min((tick for each in self._members if (tick := each.first_after(instant)) is not None), default=None)

    def last_until(self, instant: datetime) -> datetime | None:
        return max((tick for each in self._members if (tick := each.last_until(instant)) is not None), default=None)


class Triggered:
    """A run is due at each tick."""

    def __init__(
        self,
        ticks: Ticks,
        *,
        earliest: datetime | None,
        latest: datetime | None,
        catchup: bool,
        interval: timedelta = ZERO,
        first_within: timedelta | None = ZERO,
    ) -> None:
        self._ticks = ticks
        self._earliest = earliest
        self._latest = latest
        self._catchup = catchup
        self._interval = interval
        self._first_within = first_within

    def next_slot(self, last: Interval | None, now: datetime) -> Slot | None:
        candidates: list[datetime | None] = []
        if last is not None:
            candidates.append(self._ticks.first_after(last.end))
        elif self._earliest is None:
            candidates.append(self._first_run(now))
        if self._earliest is not None and (last is None or not self._catchup):
            candidates.append(first_from(self._ticks, self._earliest))
        if None in candidates:
            return None  # the calendar has no more
        if not self._catchup:
            candidates.append(self._ticks.last_until(now))
        at = max(each for each in candidates if each is not None)
        if self._latest is not None and at > self._latest:
            return None
        return Slot(at, at - self._interval, at)

    def interval_of_manual(self, at: datetime) -> Interval:
        return Interval(at - self._interval, at)

    def _first_run(self, now: datetime) -> datetime | None:
        before, after = self._ticks.last_until(now), first_from(self._ticks, now)
        if before is not None and (self._first_within is None or now - before <= self._first_within):
            return before
        return after


class Covering:
    """A run covers the time from one tick to the next one and is due at the second."""

    def __init__(self, ticks: Ticks, *, earliest: datetime | None, latest: datetime | None, catchup: bool) -> None:
        self._ticks = ticks
        self._earliest = earliest
        self._latest = latest
        self._catchup = catchup

    def next_slot(self, last: Interval | None, now: datetime) -> Slot | None:
        candidates: list[datetime | None] = []
        if last is not None:
            # Aligned: the schedule may be another one than that which made the last run.
            candidates.append(self._ticks.last_until(last.end) or last.end)
        if self._earliest is not None and (last is None or not self._catchup):
            candidates.append(first_from(self._ticks, self._earliest))
        if None in candidates:
            return None
        if not self._catchup or not candidates:  # also when nothing says where to begin
            complete = self._complete_interval(now)
            if complete is not None:
                candidates.append(complete.start)
        start = max((each for each in candidates if each is not None), default=None)
        if start is None or (self._latest is not None and start > self._latest):
            return None
        end = self._ticks.first_after(start)
        return Slot(end, start, end) if end is not None else None

    def interval_of_manual(self, at: datetime) -> Interval:
        return self._complete_interval(at) or Interval(at, at)

    def _complete_interval(self, now: datetime) -> Interval | None:
        """The latest one that is over."""
        end = self._ticks.last_until(now)
        start = self._ticks.last_until(end - timedelta(microseconds=1)) if end is not None else None
        return Interval(start, end) if start is not None and end is not None else None


class Once:
    """One run, at start_date or at once."""

    def __init__(self, *, earliest: datetime | None, latest: datetime | None) -> None:
        self._earliest = earliest
        self._latest = latest

    def next_slot(self, last: Interval | None, now: datetime) -> Slot | None:
        at = self._earliest if self._earliest is not None else now
        if last is not None or (self._latest is not None and at > self._latest):
            return None
        return Slot(at, at, at)

    def interval_of_manual(self, at: datetime) -> Interval:
        return Interval(at, at)


class Continuous:
    """The next run as soon as the last one has ended (its DAG has max_active_runs = 1), but at most one a second."""

    def __init__(self, *, earliest: datetime | None, latest: datetime | None) -> None:
        self._earliest = earliest
        self._latest = latest

    def next_slot(self, last: Interval | None, now: datetime) -> Slot | None:
        start = last.end if last is not None else self._earliest if self._earliest is not None else now
        end = max(now, start + CONTINUOUS_GAP if last is not None else start)
        if self._latest is not None and end > self._latest:
            return None
        return Slot(end, start, end)

    def interval_of_manual(self, at: datetime) -> Interval:
        return Interval(at, at)


def first_from(ticks: Ticks, instant: datetime) -> datetime | None:
    """The earliest tick that is not before the instant."""
    return ticks.first_after(instant - timedelta(microseconds=1))


def make_timetable(spec: ScheduleSpec, rules: ScheduleRules, last: Interval | None, now: datetime) -> Timetable:
    """The timetable of a schedule.

    A delta has no calendar: its slots are counted from the last run, else from start_date, else from `now`.
    Raises UserError for what cannot be read (it was checked when the DAG file was parsed).
    """
    tz = zone(spec.timezone or rules.default_timezone)
    earliest, latest = bounds(spec, rules)
    match spec.kind:
        case ScheduleKind.ONCE:
            return Once(earliest=earliest, latest=latest)
        case ScheduleKind.CONTINUOUS:
            return Continuous(earliest=earliest, latest=latest)
        case ScheduleKind.CRON:
            crons = tuple(Cron(text, tz) for text in spec.crons)
            ticks: Ticks = crons[0] if len(crons) == 1 else Union(crons)
            has_intervals = spec.has_intervals if spec.has_intervals is not None else rules.create_cron_data_intervals
            first_within = _first_within(spec, ticks, now)
        case ScheduleKind.DELTA:
            assert spec.every_seconds is not None
            anchor = last.end if last is not None else earliest if earliest is not None else now.replace(microsecond=0)
            ticks = Grid(anchor, timedelta(seconds=spec.every_seconds))
            has_intervals = spec.has_intervals if spec.has_intervals is not None else rules.create_delta_data_intervals
            first_within = None  # without a start date the first run is due at once
    if has_intervals:
        return Covering(ticks, earliest=earliest, latest=latest, catchup=spec.catchup)
    return Triggered(
        ticks,
        earliest=earliest,
        latest=latest,
        catchup=spec.catchup,
        interval=timedelta(seconds=spec.interval_seconds),
        first_within=first_within,
    )


def next_slot(spec: ScheduleSpec, rules: ScheduleRules, last: Interval | None, now: datetime) -> Slot | None:
    """The slot that comes after the last run's."""
    return make_timetable(spec, rules, last, now).next_slot(last, now)


def bounds(spec: ScheduleSpec, rules: ScheduleRules) -> tuple[datetime | None, datetime | None]:
    """start_date and end_date as instants."""
    tz = zone(spec.timezone or rules.default_timezone)

    def instant(at: datetime | None) -> datetime | None:
        if at is None:
            return None
        return to_instant(at, tz) if at.tzinfo is None else at.astimezone(UTC)

    return instant(spec.start_at), instant(spec.end_at)


def check_schedule(spec: ScheduleSpec, rules: ScheduleRules) -> None:
    """Raise UserError for a schedule that cannot be, as far as its DAG file can tell."""
    earliest, latest = bounds(spec, rules)
    if earliest is not None and latest is not None and earliest > latest:
        raise UserError(f"start_date {spec.start_at} is after end_date {spec.end_at}")
    make_timetable(spec, rules, None, datetime(2000, 1, 1, tzinfo=UTC))


def _first_within(spec: ScheduleSpec, ticks: Ticks, now: datetime) -> timedelta | None:
    if spec.first_within_seconds is None:
        return None
    if spec.first_within_seconds >= 0:
        return timedelta(seconds=spec.first_within_seconds)
    before, after = ticks.last_until(now), ticks.first_after(now)
    if before is None or after is None:
        return _SHORT_WHILE
    return max((after - before) / FIRST_RUN_SHARE, _SHORT_WHILE)
