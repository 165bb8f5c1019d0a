"""A clock that stands still until a test moves it. Sleepers wake, in order of their time, when it passes them."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
"""Where every virtual clock begins, unless told otherwise."""


class VirtualClock:
    """Answers to `tickless.clock.Clock`."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._passed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._sequence = 0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sequence += 1
        heapq.heappush(self._sleepers, (self._passed + seconds, self._sequence, woken))
        await woken.wait()

    def advance(self, seconds: float) -> datetime:
        """Let time pass; returns the new now."""
        self._now += timedelta(seconds=seconds)
        self._passed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._passed:
            heapq.heappop(self._sleepers)[2].set()
        return self._now

    def jump(self, seconds: float) -> datetime:
        """Set the wall clock, forward or back; monotonic time does not notice."""
        self._now += timedelta(seconds=seconds)
        return self._now
