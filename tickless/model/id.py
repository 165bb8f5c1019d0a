"""Identities. Every task instance is (run, task, map index) from the start; an attempt has its own, never reused."""

from __future__ import annotations

from typing import NamedTuple, NewType

DagId = NewType("DagId", str)
TaskId = NewType("TaskId", str)
RunKey = NewType("RunKey", int)
"""The short global number of a dag run, unique over all DAGs; `run_id` is the name that is unique within one DAG."""
VersionKey = NewType("VersionKey", int)
"""The number of one stored version of one DAG, unique over all DAGs."""
Epoch = NewType("Epoch", int)
"""The term of a leader. Each taking of leadership, even from ourselves, makes a higher one."""
AttemptId = NewType("AttemptId", int)
"""`epoch << 40 | counter`: the fence that every order and report carries. Never reused."""

UNMAPPED = -1
"""`map_index` of a task instance that is not mapped (Airflow's convention)."""

_COUNTER_BITS = 40


class TaskKey(NamedTuple):
    """Identity of a task instance."""

    run: RunKey
    task_id: TaskId
    map_index: int = UNMAPPED

    def __str__(self) -> str:
        return f"{self.run}/{self.task_id}" + ("" if self.map_index == UNMAPPED else f"[{self.map_index}]")


def make_attempt_id(epoch: Epoch, counter: int) -> AttemptId:
    """The attempt id for the counter-th attempt (from 1) decided in this epoch."""
    if not 0 < counter < 1 << _COUNTER_BITS:
        raise ValueError(f"attempt counter {counter} does not fit in {_COUNTER_BITS} bits")
    return AttemptId(epoch << _COUNTER_BITS | counter)


def epoch_of(attempt_id: AttemptId) -> Epoch:
    """The epoch in which the attempt was decided."""
    return Epoch(attempt_id >> _COUNTER_BITS)
