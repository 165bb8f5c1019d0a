"""The thirteen trigger rules once more, slowly: from the list of upstream states, row by row as in Airflow's source.

The table is `reference/airflow.md` §1c. It shares nothing with `tickless.core.readiness`, so the two check each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

from tickless.model.state import TaskState, TriggerRule

Counts = dict[str, int]
Line = Callable[[Counts], bool]

FINAL = (TaskState.SUCCESS, TaskState.SKIPPED, TaskState.FAILED, TaskState.UPSTREAM_FAILED, TaskState.REMOVED)

SKIP, FAIL, RUN, WAIT = "skip", "fail_upstream", "run", "wait"

# rule -> what is set at once and when, in order; then when it runs.
TABLE: dict[TriggerRule, tuple[list[tuple[str, Line]], Line]] = {
    TriggerRule.ALL_SUCCESS: (
        [(FAIL, lambda c: c["f"] > 0 or c["u"] > 0), (SKIP, lambda c: c["k"] > 0)],
        lambda c: c["U"] - c["s"] - c["r"] <= 0,
    ),
    TriggerRule.ALL_FAILED: (
        [(SKIP, lambda c: c["s"] > 0 or c["k"] > 0)],
        lambda c: c["U"] - c["f"] - c["u"] - c["r"] <= 0,
    ),
    TriggerRule.ALL_DONE: ([], lambda c: c["d"] >= c["U"]),
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: (
        [(SKIP, lambda c: c["k"] > 0), (FAIL, lambda c: c["d"] >= c["U"] and c["s"] == 0)],
        lambda c: c["k"] == 0 and c["d"] >= c["U"] and c["s"] >= 1,
    ),
    # No task is a setup in this release: "no setups" is always so.
    TriggerRule.ALL_DONE_SETUP_SUCCESS: ([], lambda c: c["d"] >= c["U"]),
    TriggerRule.ONE_SUCCESS: (
        [
            (SKIP, lambda c: c["d"] >= c["U"] and c["k"] == c["d"]),
            (FAIL, lambda c: c["d"] >= c["U"] and c["s"] == 0),
        ],
        lambda c: c["s"] >= 1,
    ),
    TriggerRule.ONE_FAILED: (
        [(SKIP, lambda c: c["d"] >= c["U"] and c["f"] == 0 and c["u"] == 0)],
        lambda c: c["f"] > 0 or c["u"] > 0,
    ),
    TriggerRule.ONE_DONE: (
        [(SKIP, lambda c: c["d"] >= c["U"] and c["s"] == 0 and c["f"] == 0)],
        lambda c: c["s"] + c["f"] >= 1,
    ),
    TriggerRule.NONE_FAILED: (
        [(FAIL, lambda c: c["f"] > 0 or c["u"] > 0)],
        lambda c: c["U"] - c["s"] - c["k"] - c["r"] <= 0,
    ),
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: (
        [
            (FAIL, lambda c: c["f"] > 0 or c["u"] > 0),
            (SKIP, lambda c: c["k"] == c["U"]),
            (FAIL, lambda c: c["d"] >= c["U"] and c["s"] == 0),
        ],
        lambda c: c["U"] - c["s"] - c["k"] - c["r"] <= 0 and c["s"] >= 1,
    ),
    TriggerRule.NONE_SKIPPED: ([(SKIP, lambda c: c["k"] > 0)], lambda c: c["d"] >= c["U"] and c["k"] == 0),
    TriggerRule.ALL_SKIPPED: (
        [(SKIP, lambda c: c["s"] > 0 or c["f"] > 0 or c["u"] > 0)],
        lambda c: c["U"] - c["k"] - c["r"] <= 0,
    ),
    TriggerRule.ALWAYS: ([], lambda c: True),
}


def slow_verdict(rule: TriggerRule, upstream: Sequence[TaskState]) -> str:
    """What becomes of a task whose direct upstream is in these states (finished or not)."""
    if not upstream:
        return RUN
    letters = dict(zip("skfur", FINAL, strict=True))
    counts: Counts = {letter: sum(state is each for each in upstream) for letter, state in letters.items()}
    counts["d"] = sum(counts[letter] for letter in letters)
    counts["U"] = len(upstream)
    at_once, runs = TABLE[rule]
    for verdict, holds in at_once:
        if holds(counts):
            return verdict
    return RUN if runs(counts) else WAIT


def possible_verdicts(rule: TriggerRule, upstream: Sequence[TaskState]) -> set[str]:
    """The verdicts that the rule may have given on the way here, in whichever order the upstream ended."""
    return {slow_verdict(rule, seen) for seen in _pasts(upstream)}


def _pasts(upstream: Sequence[TaskState]) -> Iterator[list[TaskState]]:
    """Which of them had ended does not matter, only how many in each state: a mapped task has many."""
    states = [(state, upstream.count(state)) for state in FINAL]
    for counts in product(*[range(count + 1) for _, count in states]):
        past = [state for (state, _), count in zip(states, counts, strict=True) for _ in range(count)]
        yield past + [TaskState.NONE] * (len(upstream) - len(past))
