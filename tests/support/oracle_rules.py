"""Airflow's decision table of trigger rules, row by row, for the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

SUCCESS, FAILED, SKIPPED, UPSTREAM_FAILED = "success", "failed", "skipped", "upstream_failed"


@dataclass
class Counts:
    """How many of the direct upstream of a task are in which state: the letters of the decision table."""

    U: int = 0
    s: int = 0
    k: int = 0
    f: int = 0
    u: int = 0
    setups: int = 0
    setups_s: int = 0
    setups_k: int = 0

    @property
    def d(self) -> int:
        """All that are finished."""
        return self.s + self.k + self.f + self.u


RUN = "run"
"""The rule holds. The other decisions are final states."""
Decision = str | None
"""None: wait."""


def all_success(c: Counts) -> Decision:
    if c.f or c.u:
        return UPSTREAM_FAILED
    if c.k:
        return SKIPPED
    return RUN if c.U - c.s <= 0 else None


def all_failed(c: Counts) -> Decision:
    if c.s or c.k:
        return SKIPPED
    return RUN if c.U - c.f - c.u <= 0 else None


def all_done(c: Counts) -> Decision:
    return RUN if c.d >= c.U else None


def all_done_min_one_success(c: Counts) -> Decision:
    if c.k:
        return SKIPPED
    if c.d < c.U:
        return None
    return RUN if c.s >= 1 else UPSTREAM_FAILED


def all_done_setup_success(c: Counts) -> Decision:
    if c.d < c.U:
        return None
    if not c.setups:
        return RUN
    if c.setups_k == c.setups:
        return SKIPPED
    return RUN if c.setups_s >= 1 else UPSTREAM_FAILED


def one_success(c: Counts) -> Decision:
    if c.s >= 1:
        return RUN
    if c.d < c.U:
        return None
    return SKIPPED if c.k == c.U else UPSTREAM_FAILED


def one_failed(c: Counts) -> Decision:
    if c.f or c.u:
        return RUN
    return SKIPPED if c.d >= c.U else None


def one_done(c: Counts) -> Decision:
    if c.s + c.f >= 1:
        return RUN
    return SKIPPED if c.d >= c.U else None


def none_failed(c: Counts) -> Decision:
    if c.f or c.u:
        return UPSTREAM_FAILED
    return RUN if c.U - c.s - c.k <= 0 else None


def none_failed_min_one_success(c: Counts) -> Decision:
    if c.f or c.u:
        return UPSTREAM_FAILED
    if c.k == c.U:
        return SKIPPED
    if c.d < c.U:
        return None
    return RUN if c.s >= 1 else UPSTREAM_FAILED


def none_skipped(c: Counts) -> Decision:
    if c.k:
        return SKIPPED
    return RUN if c.d >= c.U else None


def all_skipped(c: Counts) -> Decision:
    if c.s or c.f or c.u:
        return SKIPPED
    return RUN if c.U - c.k <= 0 else None


def always(_: Counts) -> Decision:
    return RUN


RULES: Mapping[str, Callable[[Counts], Decision]] = {
    rule.__name__: rule
    for rule in (
        all_success, all_failed, all_done, all_done_min_one_success, all_done_setup_success, one_success, one_failed,
        one_done, none_failed, none_failed_min_one_success, none_skipped, all_skipped, always,
    )
}  # fmt: skip
