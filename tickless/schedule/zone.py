"""Time zones: names to zones, and from the wall clock to instants where a zone changes its offset."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tickless.errors import UserError

_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)(?::(\d\d))?")


@cache
def zone(name: str) -> tzinfo:
    """The zone of an IANA name (`Europe/Berlin`) or an offset (`+02:00`). Raises UserError for an unknown one."""
    if name.upper() == "UTC":
        return UTC
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        sign, hours, minutes, seconds = offset.groups()
        distance = timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds or 0))
        if distance < timedelta(days=1):
            return timezone(-distance if sign == "-" else distance)
    else:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass  # a folder of the zone data, a path, a name that nobody knows
    raise UserError(
        f"there is no time zone {name!r}", hint="Use a name such as 'Europe/Berlin', 'UTC', or an offset: '+02:00'."
    )


def is_gap(naive: datetime, tz: tzinfo) -> bool:
    """Whether clocks of the zone never show this time: it was skipped."""
    early, late = _offset(naive, tz, fold=0), _offset(naive, tz, fold=1)
    return early < late


def is_doubled(naive: datetime, tz: tzinfo) -> bool:
    """Whether clocks of the zone show this time twice."""
    return _offset(naive, tz, fold=0) > _offset(naive, tz, fold=1)


def to_instant(naive: datetime, tz: tzinfo) -> datetime:
    """The one instant that a wall-clock time stands for: of a doubled one the second, a skipped one moves forward
    by the width of the gap (Airflow's rule)."""
    return _instant(naive, tz, fold=0 if is_gap(naive, tz) else 1)


def shown_at(naive: datetime, tz: tzinfo) -> list[datetime]:
    """Every instant at which clocks of the zone show this time: none, one or two."""
    if is_gap(naive, tz):
        return []
    first = _instant(naive, tz, fold=0)
    return [first, _instant(naive, tz, fold=1)] if is_doubled(naive, tz) else [first]


def wall_time(instant: datetime, tz: tzinfo) -> datetime:
    """What a clock of the zone shows, naive."""
    return instant.astimezone(tz).replace(tzinfo=None, fold=0)


def shift_near(instant: datetime, tz: tzinfo) -> timedelta:
    """By how much the clocks of the zone are set at a moment so near that it matters here; mostly zero."""
    day = timedelta(days=1)
    shift = abs(_offset_at(instant + day, tz) - _offset_at(instant - day, tz))
    if shift and _offset_at(instant + shift, tz) != _offset_at(instant - shift, tz):
        return shift
    return timedelta(0)


def offset_at(instant: datetime, tz: tzinfo) -> timedelta:
    return _offset_at(instant, tz)


def _offset_at(instant: datetime, tz: tzinfo) -> timedelta:
    offset = instant.astimezone(tz).utcoffset()
    assert offset is not None
    return offset


def _offset(naive: datetime, tz: tzinfo, *, fold: int) -> timedelta:
    offset = naive.replace(tzinfo=tz, fold=fold).utcoffset()
    assert offset is not None
    return offset


def _instant(naive: datetime, tz: tzinfo, *, fold: int) -> datetime:
    return naive.replace(tzinfo=tz, fold=fold).astimezone(UTC)
