"""The transition tables are complete and say what the model says."""

from __future__ import annotations

from itertools import product

import pytest

from tickless.core.machine import (
    RUN_MOVES,
    TASK_MOVES,
    TASK_STALE,
    Happening,
    RunHappening,
    move,
    move_run,
)
from tickless.errors import InvariantBroken
from tickless.model.state import FINISHED_RUN_STATES, FINISHED_TASK_STATES, RunState, TaskState

NOT_YET = {TaskState.UP_FOR_RESCHEDULE, TaskState.DEFERRED}
"""States that users know and that nothing enters in this release."""


@pytest.mark.parametrize(("state", "happening"), list(product(TaskState, Happening)))
def test_each_pair_moves_or_is_stale_or_is_illegal(state: TaskState, happening: Happening) -> None:
    pair = (state, happening)
    assert not (pair in TASK_MOVES and pair in TASK_STALE)
    if pair in TASK_MOVES:
        assert move(*pair) is TASK_MOVES[pair]
        assert move(*pair) is not state
    elif pair in TASK_STALE:
        assert move(*pair) is None
    else:
        with pytest.raises(InvariantBroken, match=f"{state} cannot {happening}"):
            move(*pair)


@pytest.mark.parametrize(("state", "happening"), list(product(RunState, RunHappening)))
def test_each_pair_of_a_run_moves_or_is_illegal(state: RunState, happening: RunHappening) -> None:
    if (state, happening) in RUN_MOVES:
        assert move_run(state, happening) is RUN_MOVES[state, happening]
    else:
        with pytest.raises(InvariantBroken):
            move_run(state, happening)


def test_only_people_take_anything_out_of_a_finished_state() -> None:
    asked = {Happening.CLEAR, Happening.MARK_SUCCESS, Happening.MARK_FAILED}
    assert {happening for state, happening in TASK_MOVES if state in FINISHED_TASK_STATES} == asked
    assert {after for (state, _), after in RUN_MOVES.items() if state in FINISHED_RUN_STATES} == {
        *(RunState.QUEUED, RunState.SUCCESS, RunState.FAILED)
    }


def test_every_state_of_this_release_is_reached_and_left() -> None:
    reached = {TaskState.NONE, *TASK_MOVES.values()}
    assert reached == set(TaskState) - NOT_YET
    assert {state for state, _ in TASK_MOVES} >= reached - FINISHED_TASK_STATES


def test_from_every_state_a_finished_one_can_be_reached() -> None:
    ends = set(FINISHED_TASK_STATES)
    for _ in TaskState:
        ends |= {state for (state, _), after in TASK_MOVES.items() if after in ends}
    assert ends >= set(TaskState) - NOT_YET


def test_late_reports_about_finished_instances_are_stale() -> None:
    reports = (Happening.START, Happening.SUCCEED, Happening.FAIL, Happening.RETRY, Happening.SKIP, Happening.LOSE)
    assert {(state, each) for state in FINISHED_TASK_STATES for each in reports} <= TASK_STALE
