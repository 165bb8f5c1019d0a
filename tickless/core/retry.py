"""From the end of an attempt to what becomes of its task instance."""

from __future__ import annotations

from datetime import datetime, timedelta

from tickless.core.machine import Happening
from tickless.model.dag import TaskSpec
from tickless.model.state import AttemptState


def judge_end(state: AttemptState, task: TaskSpec, try_number: int, *, may_retry: bool) -> Happening:
    """What a finished attempt means; `try_number` counts from 1, `retries` is how many tries may follow the first."""
    if state is AttemptState.SUCCESS:
        return Happening.SUCCEED
    if state is AttemptState.SKIPPED:
        return Happening.SKIP
    if may_retry and try_number <= task.retries:
        return Happening.RETRY
    return Happening.FAIL


def next_try_at(ended_at: datetime, task: TaskSpec) -> datetime:
    """When the next try may start."""
    return ended_at + timedelta(seconds=task.retry_delay_seconds)
