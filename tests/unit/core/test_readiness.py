"""The thirteen trigger rules: single rows of Airflow's table by hand, and every small case against a slow evaluator."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest

from tests.support.trigger_rules import FINAL, TABLE, possible_verdicts, slow_verdict
from tickless.core.readiness import UpstreamCounts, judge
from tickless.model.state import TaskState, TriggerRule

S, K, F, U, R = FINAL
W = TaskState.NONE

# rule, states of the upstream, verdict: from reference/airflow.md §1c, at least one line per clause of the table.
CASES = [
    ("all_success", (S, S), "run"),
    ("all_success", (S, R), "run"),
    ("all_success", (S, W), "wait"),
    ("all_success", (F, W), "fail_upstream"),
    ("all_success", (U, S), "fail_upstream"),
    ("all_success", (K, W), "skip"),
    ("all_success", (K, F), "fail_upstream"),
    ("all_failed", (F, U), "run"),
    ("all_failed", (F, W), "wait"),
    ("all_failed", (S, W), "skip"),
    ("all_failed", (K, W), "skip"),
    ("all_done", (F, K), "run"),
    ("all_done", (S, W), "wait"),
    ("all_done_min_one_success", (S, F), "run"),
    ("all_done_min_one_success", (F, U), "fail_upstream"),
    ("all_done_min_one_success", (K, W), "skip"),
    ("all_done_min_one_success", (S, W), "wait"),
    ("all_done_setup_success", (F, F), "run"),
    ("all_done_setup_success", (F, W), "wait"),
    ("one_success", (S, W), "run"),
    ("one_success", (F, W), "wait"),
    ("one_success", (K, K), "skip"),
    ("one_success", (K, F), "fail_upstream"),
    ("one_failed", (F, W), "run"),
    ("one_failed", (U, W), "run"),
    ("one_failed", (S, W), "wait"),
    ("one_failed", (S, K), "skip"),
    ("one_done", (S, W), "run"),
    ("one_done", (F, W), "run"),
    ("one_done", (K, W), "wait"),
    ("one_done", (K, U), "skip"),
    ("none_failed", (S, K), "run"),
    ("none_failed", (K, K), "run"),
    ("none_failed", (F, W), "fail_upstream"),
    ("none_failed", (S, W), "wait"),
    ("none_failed_min_one_success", (S, K), "run"),
    ("none_failed_min_one_success", (K, K), "skip"),
    ("none_failed_min_one_success", (K, R), "fail_upstream"),
    ("none_failed_min_one_success", (U, W), "fail_upstream"),
    ("none_failed_min_one_success", (S, W), "wait"),
    ("none_skipped", (S, F), "run"),
    ("none_skipped", (K, W), "skip"),
    ("none_skipped", (S, W), "wait"),
    ("all_skipped", (K, K), "run"),
    ("all_skipped", (S, W), "skip"),
    ("all_skipped", (F, W), "skip"),
    ("all_skipped", (U, W), "skip"),
    ("all_skipped", (K, W), "wait"),
    ("always", (W, W), "run"),
]


def _judge(rule: TriggerRule, upstream: tuple[TaskState, ...]) -> str:
    counts = UpstreamCounts()
    for state in upstream:
        if state is not W:
            counts.add(state)
    return judge(rule, counts, len(upstream)).value


@pytest.mark.parametrize(("rule", "upstream", "verdict"), CASES)
def test_a_line_of_the_table(rule: str, upstream: tuple[TaskState, ...], verdict: str) -> None:
    assert _judge(TriggerRule(rule), upstream) == verdict


@pytest.mark.parametrize("rule", TriggerRule)
def test_a_rule_agrees_with_the_slow_evaluator_on_every_small_upstream(rule: TriggerRule) -> None:
    for size in range(6):
        for upstream in combinations_with_replacement((*FINAL, W), size):
            assert _judge(rule, upstream) == slow_verdict(rule, upstream), upstream


@pytest.mark.parametrize("rule", TriggerRule)
def test_a_rule_never_waits_once_all_upstream_is_finished(rule: TriggerRule) -> None:
    for size in range(1, 5):
        for upstream in combinations_with_replacement(FINAL, size):
            assert _judge(rule, upstream) != "wait", f"{upstream} would wait for ever"


@pytest.mark.parametrize("rule", TriggerRule)
def test_what_may_run_may_still_run_when_more_upstream_has_ended(rule: TriggerRule) -> None:
    """So it does not matter how long after the event the rule is looked at."""
    for upstream in combinations_with_replacement((*FINAL, W), 3):
        if _judge(rule, upstream) == "run" and W in upstream:
            index = upstream.index(W)
            for state in FINAL:
                assert _judge(rule, (*upstream[:index], state, *upstream[index + 1 :])) == "run"


def test_every_rule_is_in_both_tables() -> None:
    assert {TriggerRule(rule) for rule, _, _ in CASES} == set(TriggerRule) == set(TABLE)


def test_possible_verdicts_are_those_of_some_order_of_ends() -> None:
    assert possible_verdicts(TriggerRule.ALL_SUCCESS, (K, F)) == {"wait", "skip", "fail_upstream"}
