"""The transition tables. Nothing else changes a state; the docs' diagrams are drawn from these tables.

A (state, happening) pair either moves, or is *stale* (an expected late or duplicate input: counted, ignored), or is
*illegal*: then the caller has a bug, and `move` raises InvariantBroken.
"""

from __future__ import annotations

from enum import StrEnum

from tickless.errors import InvariantBroken
from tickless.model.state import FINISHED_TASK_STATES, RunState, TaskState


class Happening(StrEnum):
    """What can happen to a task instance."""

    READY = "ready"  # its trigger rule holds, or its retry is due
    PASS = "pass"  # an empty task whose trigger rule holds
    ADMIT = "admit"  # got all its slots
    START = "start"  # its process passed the gate
    SUCCEED = "succeed"
    FAIL = "fail"  # for good; or what it is mapped over is no good
    RETRY = "retry"  # failed with tries left
    SKIP = "skip"  # by trigger rule, its own wish, or that of a branch above
    FAIL_UPSTREAM = "fail_upstream"  # its trigger rule can never hold
    LOSE = "lose"  # its attempt vanished: run it again
    REMOVE = "remove"  # what it is mapped over was made anew, and has no element for it any more
    CANCEL = "cancel"  # its run was cancelled before it started
    CLEAR = "clear"  # somebody wants it to run again
    RESTART = "restart"  # the attempt that was alive when it was cleared has ended
    MARK_SUCCESS = "mark_success"  # somebody says that it is as good as done
    MARK_FAILED = "mark_failed"  # somebody gives it up


class RunHappening(StrEnum):
    """What can happen to a dag run."""

    ADMIT = "admit"  # within max_active_runs
    SUCCEED = "succeed"
    FAIL = "fail"
    CLEAR = "clear"  # some of its tasks are to run again


_S = TaskState
_H = Happening

TASK_MOVES: dict[tuple[TaskState, Happening], TaskState] = {
    (_S.NONE, _H.READY): _S.SCHEDULED,
    (_S.NONE, _H.PASS): _S.SUCCESS,
    (_S.NONE, _H.FAIL): _S.FAILED,
    (_S.NONE, _H.SKIP): _S.SKIPPED,
    (_S.NONE, _H.FAIL_UPSTREAM): _S.UPSTREAM_FAILED,
    (_S.NONE, _H.REMOVE): _S.REMOVED,
    (_S.NONE, _H.CANCEL): _S.SKIPPED,
    (_S.SCHEDULED, _H.ADMIT): _S.QUEUED,
    (_S.SCHEDULED, _H.SKIP): _S.SKIPPED,
    (_S.SCHEDULED, _H.CANCEL): _S.SKIPPED,
    (_S.QUEUED, _H.START): _S.RUNNING,
    (_S.QUEUED, _H.SUCCEED): _S.SUCCESS,
    (_S.QUEUED, _H.FAIL): _S.FAILED,
    (_S.QUEUED, _H.RETRY): _S.UP_FOR_RETRY,
    (_S.QUEUED, _H.SKIP): _S.SKIPPED,
    (_S.QUEUED, _H.LOSE): _S.SCHEDULED,
    (_S.RUNNING, _H.SUCCEED): _S.SUCCESS,
    (_S.RUNNING, _H.FAIL): _S.FAILED,
    (_S.RUNNING, _H.RETRY): _S.UP_FOR_RETRY,
    (_S.RUNNING, _H.SKIP): _S.SKIPPED,
    (_S.RUNNING, _H.LOSE): _S.SCHEDULED,
    (_S.UP_FOR_RETRY, _H.READY): _S.SCHEDULED,
    (_S.UP_FOR_RETRY, _H.SKIP): _S.SKIPPED,
    (_S.UP_FOR_RETRY, _H.CANCEL): _S.SKIPPED,
    (_S.SCHEDULED, _H.CLEAR): _S.NONE,
    (_S.UP_FOR_RETRY, _H.CLEAR): _S.NONE,
    (_S.QUEUED, _H.CLEAR): _S.RESTARTING,
    (_S.RUNNING, _H.CLEAR): _S.RESTARTING,
    (_S.RESTARTING, _H.RESTART): _S.NONE,
    (_S.RESTARTING, _H.SUCCEED): _S.SUCCESS,  # these three only when its run was cancelled after the clear
    (_S.RESTARTING, _H.FAIL): _S.FAILED,
    (_S.RESTARTING, _H.SKIP): _S.SKIPPED,
}
TASK_MOVES |= {(state, _H.CLEAR): _S.NONE for state in FINISHED_TASK_STATES}
TASK_MOVES |= {
    (state, happening): after
    for happening, after in ((_H.MARK_SUCCESS, _S.SUCCESS), (_H.MARK_FAILED, _S.FAILED))
    for state in (*(move[0] for move in TASK_MOVES), *FINISHED_TASK_STATES)
    if state is not after
}

TASK_STALE: frozenset[tuple[TaskState, Happening]] = frozenset(
    {(_S.RUNNING, _H.START)}
    | {
        (state, happening)
        for state in FINISHED_TASK_STATES
        for happening in (_H.START, _H.SUCCEED, _H.FAIL, _H.RETRY, _H.SKIP, _H.LOSE, _H.CANCEL)
    }
)

RUN_MOVES: dict[tuple[RunState, RunHappening], RunState] = {
    (RunState.QUEUED, RunHappening.ADMIT): RunState.RUNNING,
    (RunState.QUEUED, RunHappening.FAIL): RunState.FAILED,  # cancelled before it started
    (RunState.RUNNING, RunHappening.SUCCEED): RunState.SUCCESS,
    (RunState.RUNNING, RunHappening.FAIL): RunState.FAILED,
    (RunState.QUEUED, RunHappening.SUCCEED): RunState.SUCCESS,  # cleared, and then all its tasks were marked
    (RunState.SUCCESS, RunHappening.CLEAR): RunState.QUEUED,
    (RunState.FAILED, RunHappening.CLEAR): RunState.QUEUED,
    (RunState.SUCCESS, RunHappening.FAIL): RunState.FAILED,  # one of its tasks was marked
    (RunState.FAILED, RunHappening.SUCCEED): RunState.SUCCESS,
}


def move(state: TaskState, happening: Happening) -> TaskState | None:
    """The state after it, or None when it is stale. Raises InvariantBroken when it is illegal."""
    after = TASK_MOVES.get((state, happening))
    if after is None and (state, happening) not in TASK_STALE:
        raise InvariantBroken(f"a task instance that is {state} cannot {happening}")
    return after


def move_run(state: RunState, happening: RunHappening) -> RunState:
    """The state after it. Raises InvariantBroken when it is illegal."""
    try:
        return RUN_MOVES[state, happening]
    except KeyError:
        raise InvariantBroken(f"a dag run that is {state} cannot {happening}") from None
