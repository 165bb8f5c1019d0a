"""Trigger rules: from the states of the direct upstream to what becomes of a task instance.

The rules are Airflow's thirteen; the table of reference is tests/unit/core/test_readiness.py. Counting instead of
looking at each upstream keeps the cost of a finished task proportional to its out-degree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from tickless.model.state import TaskState, TriggerRule


class Verdict(StrEnum):
    """What the trigger rule says now."""

    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"
    FAIL_UPSTREAM = "fail_upstream"


@dataclass(slots=True)
class UpstreamCounts:
    """Finished direct upstream instances of one task in one run, by state."""

    success: int = 0
    skipped: int = 0
    failed: int = 0
    upstream_failed: int = 0
    removed: int = 0

    @property
    def done(self) -> int:
        return self.success + self.skipped + self.failed + self.upstream_failed + self.removed

    def add(self, state: TaskState, count: int = 1) -> None:
        """Count finished instances; `state` must be a finished one."""
        name = state.value
        setattr(self, name, getattr(self, name) + count)


def judge(rule: TriggerRule, counts: UpstreamCounts, upstream: int) -> Verdict:
    """Apply the rule; `upstream` is how many direct upstream instances there are."""
    if upstream == 0:
        return Verdict.RUN
    success, skipped, removed = counts.success, counts.skipped, counts.removed
    bad = counts.failed + counts.upstream_failed
    done = counts.done
    all_done = done >= upstream
    match rule:
        case TriggerRule.ALL_SUCCESS:
            if bad:
                return Verdict.FAIL_UPSTREAM
            if skipped:
                return Verdict.SKIP
            return Verdict.RUN if upstream - success - removed <= 0 else Verdict.WAIT
        case TriggerRule.ALL_FAILED:
            if success or skipped:
                return Verdict.SKIP
            return Verdict.RUN if upstream - bad - removed <= 0 else Verdict.WAIT
        case TriggerRule.ALL_DONE:
            return Verdict.RUN if all_done else Verdict.WAIT
        case TriggerRule.ALL_DONE_MIN_ONE_SUCCESS:
            if skipped:
                return Verdict.SKIP
            if not all_done:
                return Verdict.WAIT
            return Verdict.RUN if success else Verdict.FAIL_UPSTREAM
        case TriggerRule.ALL_DONE_SETUP_SUCCESS:
            # Setups come in a later release; without one the rule asks only that all are done.
            return Verdict.RUN if all_done else Verdict.WAIT
        case TriggerRule.ONE_SUCCESS:
            if success:
                return Verdict.RUN
            if not all_done:
                return Verdict.WAIT
            return Verdict.SKIP if skipped == done else Verdict.FAIL_UPSTREAM
        case TriggerRule.ONE_FAILED:
            if bad:
                return Verdict.RUN
            return Verdict.SKIP if all_done else Verdict.WAIT
        case TriggerRule.ONE_DONE:
            if success + counts.failed:
                return Verdict.RUN
            return Verdict.SKIP if all_done else Verdict.WAIT
        case TriggerRule.NONE_FAILED:
            if bad:
                return Verdict.FAIL_UPSTREAM
            return Verdict.RUN if upstream - success - skipped - removed <= 0 else Verdict.WAIT
        case TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS:
            if bad:
                return Verdict.FAIL_UPSTREAM
            if skipped == upstream:
                return Verdict.SKIP
            if not all_done:
                return Verdict.WAIT
            return Verdict.RUN if success else Verdict.FAIL_UPSTREAM
        case TriggerRule.NONE_SKIPPED:
            if skipped:
                return Verdict.SKIP
            return Verdict.RUN if all_done else Verdict.WAIT
        case TriggerRule.ALL_SKIPPED:
            if success or bad:
                return Verdict.SKIP
            return Verdict.RUN if upstream - skipped - removed <= 0 else Verdict.WAIT
        case TriggerRule.ALWAYS:
            return Verdict.RUN
        case _:
            assert_never(rule)
