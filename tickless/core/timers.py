"""The one heap of everything that has a due time.

Deletion is lazy: an entry whose reason is gone stays until it is due, and its reader finds nothing to do. That keeps
arming at O(log n) with no bookkeeping, and a stale entry costs at most one early wake-up.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from tickless.model.id import AttemptId, RunKey, TaskKey


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The retry delay of this try is over."""

    key: TaskKey
    try_number: int


@dataclass(frozen=True, slots=True)
class TimeoutDue:
    """The attempt's execution_timeout has passed."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class RunTimeoutDue:
    """The run's dagrun_timeout has passed."""

    run: RunKey


@dataclass(frozen=True, slots=True)
class SlotDue:
    """The next slot of the DAG's schedule is due."""

    dag_id: str
    due_at: datetime


Timer = RetryDue | TimeoutDue | RunTimeoutDue | SlotDue


class TimerHeap:
    """Entries by due time; equal times come out in the order they were armed."""

    __slots__ = ("_heap", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, Timer]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._heap)

    def arm(self, due_at: datetime, timer: Timer) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (due_at, self._sequence, timer))

    def next_due_at(self) -> datetime | None:
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: datetime) -> Iterator[Timer]:
        """Take what is due out of the heap, earliest first; a caller may stop half-way."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]

    def entries(self) -> list[tuple[datetime, Timer]]:
        """All entries in order of due time, for dumps and checks."""
        return [(due_at, timer) for due_at, _, timer in sorted(self._heap, key=lambda entry: entry[:2])]
