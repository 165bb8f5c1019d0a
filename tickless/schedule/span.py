"""The slots of a schedule in a stretch of the past, from either end: what a backfill goes through.

    Span(spec, first, last, due_until=...).next(place) -> Slot | None

A slot is placed by its tick: the start of its data interval where runs cover the time between two ticks, else the
moment at which it is due. The slots of a span are those with a tick from `first` to `last`, both included, that were
due at `due_until`. Which they are depends on nothing else: not on runs that there are, nor on the clock.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tickless.model.schedule import ScheduleKind, ScheduleRules, ScheduleSpec, Slot
from tickless.schedule.timetable import bounds, covers, first_from, ticks_of
from tickless.schedule.zone import to_instant, zone

_MOMENT = timedelta(microseconds=1)


class Span:
    """See the module's docstring. `spec` is settled (`settle`)."""

    def __init__(
        self, spec: ScheduleSpec, first: datetime, last: datetime, *, due_until: datetime, is_backwards: bool = False
    ) -> None:
        assert spec.start_at is not None and spec.timezone is not None
        self._ticks = ticks_of(spec, zone(spec.timezone), spec.start_at)
        self._covers = bool(spec.has_intervals)
        self._interval = timedelta(seconds=spec.interval_seconds)
        self._first = first
        self._last = min(last, due_until)  # no slot is due before its tick
        self._due_until = due_until
        self._is_backwards = is_backwards

    def next(self, place: datetime | None) -> Slot | None:
        """The slot that follows the one at this place; None: from the beginning, which for a backward span is its
        end."""
        while True:
            if self._is_backwards:
                tick = self._ticks.last_until(self._last if place is None else place - _MOMENT)
            else:
                tick = first_from(self._ticks, self._first) if place is None else self._ticks.first_after(place)
            if tick is None or not self._first <= tick <= self._last:
                return None
            slot = self._slot(tick)
            if slot is not None and slot.run_after <= self._due_until:
                return slot
            if not self._is_backwards:
                return None
            place = tick  # the newest one is not over yet

    def place_of(self, slot: Slot) -> datetime:
        """Its tick."""
        return slot.start if self._covers else slot.run_after

    def has_passed(self, slot: Slot, place: datetime | None) -> bool:
        """Whether this very slot is one of the span's, and not behind the place: none of them is before None."""
        tick = self.place_of(slot)
        if place is None or not self._first <= tick <= self._last or slot.run_after > self._due_until:
            return False
        is_passed = tick >= place if self._is_backwards else tick <= place
        return is_passed and first_from(self._ticks, tick) == tick and self._slot(tick) == slot

    def _slot(self, tick: datetime) -> Slot | None:
        if not self._covers:
            return Slot(tick, tick - self._interval, tick)
        end = self._ticks.first_after(tick)
        return Slot(end, tick, end) if end is not None else None


def settle(spec: ScheduleSpec, rules: ScheduleRules, anchor: datetime | None, otherwise: datetime) -> ScheduleSpec:
    """The schedule with nothing left open, so that it means the same for ever. A delta counts from `anchor` (the end
    of a run that it has made), else from its start_date, else from `otherwise`. Crons and deltas only."""
    assert spec.kind in (ScheduleKind.CRON, ScheduleKind.DELTA)
    earliest, _ = bounds(spec, rules)
    return replace(
        spec,
        timezone=spec.timezone or rules.default_timezone,
        has_intervals=covers(spec, rules),
        start_at=anchor or earliest or otherwise,
        end_at=None,
    )


def as_instant(at: datetime, spec: ScheduleSpec, rules: ScheduleRules) -> datetime:
    """A date as somebody wrote it; without a time zone it is in that of the schedule."""
    return (
        at.astimezone(UTC) if at.tzinfo is not None else to_instant(at, zone(spec.timezone or rules.default_timezone))
    )
