"""What the end of an attempt means, and when the next try may start."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.builders import make_dag
from tests.support.clock import START
from tickless.core.machine import Happening
from tickless.core.retry import judge_end, next_try_at
from tickless.model.state import AttemptState


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
    assert next_try_at(START, make_dag("a", retry_delay=90).tasks[0]) == START + timedelta(seconds=90)


def test_the_delay_is_five_minutes_unless_told_otherwise() -> None:
    assert next_try_at(START, make_dag("a").tasks[0]) == START + timedelta(seconds=300)
