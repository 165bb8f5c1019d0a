"""From the end of an attempt to what becomes of its task instance."""

from __future__ import annotations

import hashlib
import math
from datetime import datetime, timedelta

from tickless.core.machine import Happening
from tickless.model.dag import TaskSpec
from tickless.model.row import RunRow
from tickless.model.state import AttemptState

LONGEST_DELAY_SECONDS = 86400
"""Of a delay that grows."""


def judge_end(state: AttemptState, task: TaskSpec, try_number: int, *, may_retry: bool) -> Happening:
    """What a finished attempt means; `try_number` counts from 1, `retries` is how many tries may follow the first."""
    if state is AttemptState.SUCCESS:
        return Happening.SUCCEED
    if state is AttemptState.SKIPPED:
        return Happening.SKIP
    if may_retry and try_number <= task.retries:
        return Happening.RETRY
    return Happening.FAIL


def next_try_at(ended_at: datetime, run: RunRow, task: TaskSpec, try_number: int) -> datetime:
    """When the next try may start, after the end of try `try_number`."""
    return ended_at + timedelta(seconds=retry_delay(run, task, try_number))


def retry_delay(run: RunRow, task: TaskSpec, try_number: int) -> float:
    """Seconds between try `try_number` and the next one.

    A delay that grows has jitter: it is spread over [delay, 2 * delay) by a hash of the try, so that what failed
    together does not come back together, and yet anybody who asks again gets the same answer.
    """
    multiplier = task.retry_exponential_backoff
    if multiplier in (0, 1):
        return task.retry_delay_seconds
    try:
        least = max(1, math.ceil(task.retry_delay_seconds * multiplier ** (try_number - 1)))
    except OverflowError:
        least = LONGEST_DELAY_SECONDS
    which = run.logical_date if run.logical_date is not None else run.run_id
    name = f"{run.dag_id}#{task.task_id}#{which}#{try_number}"
    delay = least + int(hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest(), 16) % least
    longest = task.max_retry_delay_seconds
    return min(delay, LONGEST_DELAY_SECONDS, longest if longest is not None else math.inf)
