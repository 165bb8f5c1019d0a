"""Cron expressions: the instants at which one is due. The only file that knows the cron library.

The language is Airflow's (croniter's): five fields, or six with the *seconds last*; names of months and weekdays,
ranges that wrap around (`fri-mon`), `L` (last day of the month), `L5` or `5L` (last Friday), `5#2` (second Friday).
When day of month and day of week are both restricted, either may match. The library reads Debian's, so expressions are
rewritten for it.

Summer time. An expression with every hour in it (`*/5 * * * *`) is about real time: it is due whenever a clock on the
wall shows a match, so twice in a doubled hour and never in a skipped one. Any other expression is about the time of
day: each match of a calendar is due once, a doubled time the second time, a skipped one moved forward by the gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache

from cronsim import CronSim, CronSimError

from tickless.errors import UserError
from tickless.schedule.zone import is_gap, offset_at, shift_near, shown_at, to_instant, wall_time

PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Airflow's names for common expressions."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS = (  # name, lowest, highest; in the library's order
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 6),
)
_HOUR, _DAY_OF_MONTH, _MONTH, _DAY_OF_WEEK = 2, 3, 4, 5
_RANGE = re.compile(r"(\w+)-(\w+)(?:/(\d+))?")
_LAST_WEEKDAY = re.compile(r"L(\w+)")
_SECOND = timedelta(seconds=1)
_ALL_DAY = frozenset(range(24))
_SOME_DAY = datetime(2000, 1, 1)  # noqa: DTZ001  # of a calendar without zones


class Cron:
    """One expression in one time zone. `after` and `until` are aware instants."""

    __slots__ = ("_is_dense", "_spec", "_tz", "text")

    def __init__(self, text: str, tz: tzinfo) -> None:
        """Raises UserError when the expression cannot be read, or can never be due."""
        self.text = text
        self._tz = tz
        self._spec, self._is_dense = _read(text)

    def first_after(self, instant: datetime) -> datetime | None:
        """The earliest due time later than the instant; None when the calendar has no more."""
        shift = shift_near(instant, self._tz)
        local = wall_time(instant, self._tz)
        if self._is_dense:
            # Clocks run evenly from here to a match that they show under the same offset: nothing can lie between.
            near = next(_matches(self._spec, local), None)
            if near is not None and near - local <= timedelta(days=1):
                found = instant + (near - local)
                if offset_at(found, self._tz) == offset_at(instant, self._tz):
                    return found
        best: datetime | None = None
        for naive in _matches(self._spec, local - shift):
            if best is not None and naive > max(local + shift, wall_time(best, self._tz)):
                break
            later = [each for each in self._instants(naive) if each > instant]
            best = min([*later, best] if best is not None else later, default=None)
            if best is not None and not shift and not is_gap(naive, self._tz):
                break
        return best

    def last_until(self, instant: datetime) -> datetime | None:
        """The latest due time that is not later than the instant."""
        shift = shift_near(instant, self._tz)
        local = wall_time(instant, self._tz)
        best: datetime | None = None
        lowest = local - shift
        for naive in _matches(self._spec, local + shift + _SECOND, backward=True):
            if best is not None and naive < lowest:
                break
            past = [each for each in self._instants(naive) if each <= instant]
            best = max([*past, best] if best is not None else past, default=None)
            if best is not None:
                near = shift_near(best, self._tz)
                if not shift and not near:
                    break
                lowest = min(local - shift, wall_time(best, self._tz) - near)
        return best

    def _instants(self, naive: datetime) -> list[datetime]:
        return shown_at(naive, self._tz) if self._is_dense else [to_instant(naive, self._tz)]


def _matches(spec: str, start: datetime, *, backward: bool = False) -> Iterator[datetime]:
    """Matching times of a calendar without zones, from (but not at) the start on."""
    try:
        yield from CronSim(spec, start, reverse=backward)
    except (OverflowError, ValueError):
        return  # the calendar of Python ends in the year 9999


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[str, bool]:
    """The expression as the library reads it, and whether every hour is in it."""
    parts = text.upper().split()
    if len(parts) == 5:
        parts.insert(0, "0")
    elif len(parts) == 6:
        parts.insert(0, parts.pop())
    else:
        raise UserError(
            f"the cron expression {text!r} has {len(parts)} fields",
            hint="Write five (minute hour day-of-month month day-of-week), or six: the seconds come last.",
        )
    for index, part in enumerate(parts):
        parts[index] = _rewrite(index, part)
        try:
            CronSim(" ".join(parts[index] if each == index else "*" for each in range(6)), _SOME_DAY)
        except (CronSimError, ValueError, AssertionError):
            name, low, high = _FIELDS[index]
            raise UserError(
                f"the cron expression {text!r} has {part!r} as its {name}",
                hint=f"Use *, numbers from {low} to {high}, ranges (a-b), steps (*/n) and lists (a,b).",
            ) from None
    spec = " ".join(parts)
    try:
        found = CronSim(spec, _SOME_DAY)
        is_dense = found.hours >= _ALL_DAY
        next(found)
    except (CronSimError, StopIteration):
        raise UserError(
            f"the cron expression {text!r} is never due", hint="No month that it allows has such a day."
        ) from None
    return spec, is_dense


def _rewrite(index: int, part: str) -> str:
    _, low, high = _FIELDS[index]
    part = "*" if part == "?" and index in (_DAY_OF_MONTH, _DAY_OF_WEEK) else part
    if index == _DAY_OF_WEEK:
        part = _LAST_WEEKDAY.sub(r"\1L", part) if "L" in part and not part.endswith("L") else part
    terms = []
    for term in part.split(","):
        if term.startswith("*/"):
            term = f"{low}-{high}{term[1:]}"  # the library would take the star for "any day", and want both to match
        wrapped = _RANGE.fullmatch(term)
        if wrapped is not None:
            first, last = _number(index, wrapped[1]), _number(index, wrapped[2])
            step = int(wrapped[3] or 1)
            if first is not None and last is not None and step and high >= first > last >= low:
                around = [*range(first, high + 1), *range(low, last + 1)]
                term = ",".join(str(each) for each in around[::step])
        terms.append(term)
    return ",".join(terms)


def _number(index: int, word: str) -> int | None:
    if index == _MONTH and word in _MONTHS:
        return _MONTHS.index(word) + 1
    if index == _DAY_OF_WEEK and word in _DAYS:
        return _DAYS.index(word)
    return int(word) if word.isdigit() and len(word) < 4 else None
