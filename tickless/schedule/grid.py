"""Due times at a fixed distance of real time, counted from an anchor."""

from __future__ import annotations

from datetime import datetime, timedelta


class Grid:
    """anchor, anchor ± every, anchor ± 2 every …"""

    __slots__ = ("_anchor", "_every")

    def __init__(self, anchor: datetime, every: timedelta) -> None:
        self._anchor = anchor
        self._every = every

    def first_after(self, instant: datetime) -> datetime | None:
        return self._at((instant - self._anchor) // self._every + 1)

    def last_until(self, instant: datetime) -> datetime | None:
        return self._at((instant - self._anchor) // self._every)

    def _at(self, number: int) -> datetime | None:
        try:
            return self._anchor + number * self._every
        except OverflowError:
            return None
