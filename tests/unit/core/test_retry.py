"""What the end of an attempt means, and when the next try may start."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.builders import make_dag
from tests.support.clock import START
from tickless.core.machine import Happening
from tickless.core.retry import judge_end, next_try_at, retry_delay
from tickless.model.id import RunKey, VersionKey
from tickless.model.row import RunRow
from tickless.model.state import AttemptState, RunState

RUN = RunRow(
    key=RunKey(7),
    dag_id="dag",
    run_id="manual__1",
    version=VersionKey(1),
    state=RunState.RUNNING,
    run_type="manual",
    conf="{}",
    logical_date=datetime(2026, 1, 1, tzinfo=UTC),
    queued_at=START,
)


@pytest.mark.parametrize(
    ("state", "try_number", "may_retry", "expected"),
    [
        (AttemptState.SUCCESS, 1, True, Happening.SUCCEED),
        (AttemptState.SUCCESS, 9, False, Happening.SUCCEED),
        (AttemptState.SKIPPED, 1, True, Happening.SKIP),
        (AttemptState.FAILED, 1, True, Happening.RETRY),
        (AttemptState.FAILED, 2, True, Happening.RETRY),
        (AttemptState.FAILED, 3, True, Happening.FAIL),
        (AttemptState.FAILED, 1, False, Happening.FAIL),
        (AttemptState.LOST, 1, True, Happening.RETRY),
        (AttemptState.LOST, 3, True, Happening.FAIL),
    ],
)
def test_two_retries_are_three_tries(
    state: AttemptState, try_number: int, may_retry: bool, expected: Happening
) -> None:
    task = make_dag("a", retries=2).tasks[0]
    assert judge_end(state, task, try_number, may_retry=may_retry) is expected


def test_the_next_try_is_retry_delay_after_the_end() -> None:
    assert next_try_at(START, RUN, make_dag("a", retry_delay=90).tasks[0], 1) == START + timedelta(seconds=90)


def test_the_delay_is_five_minutes_unless_told_otherwise() -> None:
    assert next_try_at(START, RUN, make_dag("a").tasks[0], 3) == START + timedelta(seconds=300)


DAY = 86_400


@pytest.mark.parametrize(
    ("delay", "backoff", "longest", "try_number", "low", "high"),
    [
        # Without a backoff the delay is what it says, without jitter, whatever the cap: it does not grow.
        (90, 0.0, None, 1, 90, 90),
        (90, 0.0, None, 5, 90, 90),
        (90, 0.0, 10, 5, 90, 90),
        (90, 1.0, 10, 5, 90, 90),
        (0.25, 0.0, None, 1, 0.25, 0.25),
        (2 * DAY, 0.0, None, 1, 2 * DAY, 2 * DAY),
        # With one it is in [delay * backoff ** (try - 1), twice that).
        (300, 2.0, None, 1, 300, 599),
        (300, 2.0, None, 2, 600, 1199),
        (300, 2.0, None, 4, 2400, 4799),
        (10, 3.0, None, 3, 90, 179),
        (100, 1.5, None, 2, 150, 299),
        (100, 0.5, None, 2, 50, 99),  # one that shrinks is allowed
        # Rounded up to whole seconds, and never nothing: many would come back at once.
        (0.3, 2.0, None, 1, 1, 1),
        (1.1, 2.0, None, 1, 2, 3),
        (0, 2.0, None, 3, 1, 1),
        # Never more than the cap, nor than a day.
        (300, 2.0, 700, 4, 700, 700),
        (300, 2.0, 0.5, 1, 0.5, 0.5),
        (300, 2.0, None, 12, DAY, DAY),
        (300, 2.0, 3 * DAY, 12, DAY, DAY),
        (300, 2.0, None, 5_000, DAY, DAY),  # more than a float can hold
    ],
)
def test_the_delay_of_a_try(
    delay: float, backoff: float, longest: float | None, try_number: int, low: float, high: float
) -> None:
    options: dict[str, Any] = {"retry_exponential_backoff": backoff, "max_retry_delay_seconds": longest}
    task = make_dag("a", retry_delay=delay, **options).tasks[0]
    assert low <= retry_delay(RUN, task, try_number) <= high


def test_the_jitter_is_the_documented_hash_of_the_try() -> None:
    task = make_dag("a", retry_delay=300, retry_exponential_backoff=2.0).tasks[0]
    # sha1("dag#a#2026-01-01 00:00:00+00:00#2"), as sha1sum says, modulo 600
    assert retry_delay(RUN, task, 2) == 600 + int("11164d7be76658c25dee3e9df45d06520c009e32", 16) % 600
    assert retry_delay(RUN, task, 2) == retry_delay(replace(RUN, key=RunKey(8), run_id="other"), task, 2)


def test_runs_without_a_logical_date_do_not_come_back_together() -> None:
    task = make_dag("a", retry_delay=3000, retry_exponential_backoff=2.0).tasks[0]
    runs = [replace(RUN, logical_date=None, run_id=f"manual__{number}") for number in range(20)]
    assert len({retry_delay(run, task, 1) for run in runs}) > 15
