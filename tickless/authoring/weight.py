"""Effective priority weights: what a task's `weight_rule` makes of the weights around it (Airflow's three rules)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tickless.model.dag import MAX_PRIORITY, MIN_PRIORITY, DagSpec, TaskSpec


def with_effective_weights(spec: DagSpec, rules: Mapping[str, str]) -> DagSpec:
    """The spec with every task's own weight replaced by its effective one, kept within 32 bits.

    downstream: own + all distinct tasks below; upstream: own + all distinct tasks above; absolute: own.
    """
    below = _reachable(spec.tasks, forward=False) if "downstream" in rules.values() else {}
    above = _reachable(spec.tasks, forward=True) if "upstream" in rules.values() else {}
    masks: dict[int, int] = {}  # weight -> the set of tasks that have it, as bits: sums become a few bit counts
    for bit, task in enumerate(spec.tasks):
        masks[task.priority_weight] = masks.get(task.priority_weight, 0) | 1 << bit
    tasks = []
    for task in spec.tasks:
        rule = rules[task.task_id]
        others = {"downstream": below, "upstream": above}.get(rule, {}).get(task.task_id, 0)
        total = task.priority_weight + sum(weight * (others & mask).bit_count() for weight, mask in masks.items())
        tasks.append(replace(task, priority_weight=max(MIN_PRIORITY, min(MAX_PRIORITY, total))))
    return replace(spec, tasks=tuple(tasks))


def _reachable(tasks: tuple[TaskSpec, ...], *, forward: bool) -> dict[str, int]:
    """For each task the set, as bits, of all tasks above it (forward) or below it; `tasks` is in topological order."""
    bits = {task.task_id: 1 << bit for bit, task in enumerate(tasks)}
    found = dict.fromkeys(bits, 0)
    for task in tasks if forward else reversed(tasks):
        for upstream in task.upstream:
            near, far = (task.task_id, upstream) if forward else (upstream, task.task_id)
            found[near] |= bits[far] | found[far]
    return found
