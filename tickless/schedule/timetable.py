"""Timetables: which slot of a schedule comes next. Pure: the last interval and the present moment are arguments.

    next_slot(last, now) -> Slot(run_after, start, end) | None

A slot is due at `run_after`; the answer may lie in the past (then it is due at once) or in the future. It depends on
nothing but the schedule, the data interval of the last run that it made (before there is one: when the schedule was
first seen), and `now`; and it is always later than that last run. So a slot that was acted upon never comes again,
whatever the clock does, and nothing else has to be kept.

Catchup: every slot since the last run (or `start_date`), one after the other. Without it: the latest one that has
passed, if it is newer than the last run, else the next one. Slots in between are skipped for good.

Two conventions, Airflow's. *Trigger* (the default of Airflow 3): a run is due at its slot, its data interval is empty
or reaches back from there. *Data interval* (that of Airflow 2): a run covers the time between two neighbouring slots
and is due at the second one; start_date and end_date bound the first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
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
FIRST_YEAR, LAST_YEAR = 1900, 9000
"""Dates beyond are typing errors, and would leave the calendar of Python here or there."""
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
        since: datetime,
        interval: timedelta = ZERO,
        first_within: timedelta | None = ZERO,
    ) -> None:
        self._ticks = ticks
        self._earliest = earliest
        self._latest = latest
        self._catchup = catchup
        self._since = since
        self._interval = interval
        self._first_within = first_within

    def next_slot(self, last: Interval | None, now: datetime) -> Slot | None:
        candidates: list[datetime | None] = []
        if last is not None:
            candidates.append(self._ticks.first_after(last.end))
        elif self._earliest is None:
            candidates.append(self._first_run())
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

    def _first_run(self) -> datetime | None:
        before, after = self._ticks.last_until(self._since), first_from(self._ticks, self._since)
        if before is not None and (self._first_within is None or self._since - before <= self._first_within):
            return before
        return after


class Covering:
    """A run covers the time from one tick to the next one and is due at the second."""

    def __init__(
        self, ticks: Ticks, *, earliest: datetime | None, latest: datetime | None, catchup: bool, since: datetime
    ) -> None:
        self._ticks = ticks
        self._since = since
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
            complete = self._complete_interval(self._since if self._catchup else now)
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

    def __init__(self, *, earliest: datetime | None, latest: datetime | None, since: datetime) -> None:
        self._at = earliest if earliest is not None else since
        self._latest = latest

    def next_slot(self, last: Interval | None, now: datetime) -> Slot | None:
        at = self._at
        if last is not None or (self._latest is not None and at > self._latest):
            return None
        return Slot(at, at, at)

    def interval_of_manual(self, at: datetime) -> Interval:
        return Interval(at, at)


class Continuous:
    """The next run as soon as the last one has ended (its DAG has max_active_runs = 1), but at most one a second."""

    def __init__(self, *, earliest: datetime | None, latest: datetime | None, since: datetime) -> None:
        self._start = earliest if earliest is not None else since
        self._latest = latest

    def next_slot(self, last: Interval | None, now: datetime) -> Slot | None:
        start = last.end if last is not None else self._start
        end = max(now, start + CONTINUOUS_GAP if last is not None else start)
        if self._latest is not None and end > self._latest:
            return None
        return Slot(end, start, end)

    def interval_of_manual(self, at: datetime) -> Interval:
        return Interval(at, at)


def first_from(ticks: Ticks, instant: datetime) -> datetime | None:
    """The earliest tick that is not before the instant."""
    return ticks.first_after(instant - timedelta(microseconds=1))


def make_timetable(spec: ScheduleSpec, rules: ScheduleRules, last: Interval | None, since: datetime) -> Timetable:
    """The timetable of a schedule; `since`: where it counts from without a last run and without start_date.

    A delta has no calendar: its slots are counted from the last run, else from start_date, else from `since`.
    Raises UserError for what cannot be read (it was checked when the DAG file was parsed).
    """
    tz = zone(spec.timezone or rules.default_timezone)
    earliest, latest = bounds(spec, rules)
    match spec.kind:
        case ScheduleKind.ONCE:
            return Once(earliest=earliest, latest=latest, since=since)
        case ScheduleKind.CONTINUOUS:
            return Continuous(earliest=earliest, latest=latest, since=since)
        case ScheduleKind.CRON:
            ticks = ticks_of(spec, tz, since)
            first_within = _first_within(spec, ticks, since)
        case ScheduleKind.DELTA:
            anchor = (
                last.end if last is not None else earliest if earliest is not None else since.replace(microsecond=0)
            )
            ticks = ticks_of(spec, tz, anchor)
            first_within = None  # without a start date the first run is due at once
    if covers(spec, rules):
        return Covering(ticks, earliest=earliest, latest=latest, catchup=spec.catchup, since=since)
    return Triggered(
        ticks,
        earliest=earliest,
        latest=latest,
        catchup=spec.catchup,
        since=since,
        interval=timedelta(seconds=spec.interval_seconds),
        first_within=first_within,
    )


def ticks_of(spec: ScheduleSpec, tz: tzinfo, anchor: datetime) -> Ticks:
    """The due times of a schedule of crons or of a delta, which counts from `anchor`."""
    if spec.kind is ScheduleKind.CRON:
        crons = tuple(Cron(text, tz) for text in spec.crons)
        return crons[0] if len(crons) == 1 else Union(crons)
    assert spec.every_seconds is not None
    return Grid(anchor, timedelta(seconds=spec.every_seconds))


def covers(spec: ScheduleSpec, rules: ScheduleRules) -> bool:
    """Whether a run covers the time between two ticks."""
    if spec.has_intervals is not None:
        return spec.has_intervals
    is_cron = spec.kind is ScheduleKind.CRON
    return rules.create_cron_data_intervals if is_cron else rules.create_delta_data_intervals


def next_slot(
    spec: ScheduleSpec, rules: ScheduleRules, last: Interval | None, now: datetime, since: datetime | None = None
) -> Slot | None:
    """The slot that comes after the last run's. `since` None: the schedule is seen for the first time."""
    return make_timetable(spec, rules, last, since if since is not None else now).next_slot(last, now)


def upcoming(
    spec: ScheduleSpec, rules: ScheduleRules, last: Interval | None, now: datetime, since: datetime | None = None
) -> Iterator[Slot]:
    """The slots to come, each as if the daemon were there when it is due; what was missed is the first."""
    while (slot := next_slot(spec, rules, last, now, since)) is not None:
        yield slot
        now, last = max(now, slot.run_after), Interval(slot.start, slot.end)


def first_skipped(spec: ScheduleSpec, rules: ScheduleRules, last: Interval | None, slot: Slot) -> datetime | None:
    """The first due time between the last run and this slot; None when the slot follows the last run."""
    if last is None or spec.kind is ScheduleKind.CONTINUOUS:
        return None
    follows = make_timetable(replace(spec, catchup=True), rules, last, last.end).next_slot(last, slot.run_after)
    return follows.run_after if follows is not None and follows.run_after < slot.run_after else None


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
    for name, at in (("start_date", spec.start_at), ("end_date", spec.end_at)):
        if at is not None and not FIRST_YEAR <= at.year <= LAST_YEAR:
            raise UserError(f"{name} {at} is not between the years {FIRST_YEAR} and {LAST_YEAR}")
    earliest, latest = bounds(spec, rules)
    if earliest is not None and latest is not None and earliest > latest:
        raise UserError(f"start_date {spec.start_at} is after end_date {spec.end_at}")
    make_timetable(spec, rules, None, datetime(2000, 1, 1, tzinfo=UTC))


def _first_within(spec: ScheduleSpec, ticks: Ticks, since: datetime) -> timedelta | None:
    if spec.first_within_seconds is None:
        return None
    if spec.first_within_seconds >= 0:
        return timedelta(seconds=spec.first_within_seconds)
    before, after = ticks.last_until(since), ticks.first_after(since)
    if before is None or after is None:
        return _SHORT_WHILE
    return max((after - before) / FIRST_RUN_SHARE, _SHORT_WHILE)
