"""What an executor reported, and waiting for more of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from tickless.model.report import Finished, Lost, Report, Started

R = TypeVar("R", bound=Report)


class Recorder:
    """A report sink that remembers."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self._news = asyncio.Event()

    def __call__(self, reports: Sequence[Report]) -> None:
        self.reports += reports
        self._news.set()

    def of(self, attempt_id: int) -> list[Report]:
        """Its reports, in the order in which they came."""
        return [report for report in self.reports if report.attempt_id == attempt_id]

    def ends(self, attempt_id: int) -> list[Finished | Lost]:
        return [report for report in self.of(attempt_id) if isinstance(report, Finished | Lost)]

    async def until(self, is_done: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait for reports until the condition holds."""
        try:
            async with asyncio.timeout(seconds):
                while not is_done():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"never came; reported: {self.reports}") from None

    async def finished(self, attempt_id: int) -> Finished:
        """Wait for its end, which must be a Finished."""
        await self.until(lambda: bool(self.ends(attempt_id)))
        end = self.ends(attempt_id)[-1]
        assert isinstance(end, Finished), end
        return end

    async def lost(self, attempt_id: int) -> Lost:
        """Wait for its end, which must be a Lost."""
        await self.until(lambda: bool(self.ends(attempt_id)))
        end = self.ends(attempt_id)[-1]
        assert isinstance(end, Lost), end
        return end

    async def started(self, attempt_id: int) -> Started:
        """Wait for its Started."""
        await self.until(lambda: bool(self.of(attempt_id)))
        first = self.of(attempt_id)[0]
        assert isinstance(first, Started), first
        return first
