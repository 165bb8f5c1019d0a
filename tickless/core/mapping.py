"""Dynamic task mapping: what a mapped task is expanded over, how many instances come of it, and which element of each
source an instance gets.

`expand` is the cross product of its arguments in the order in which they were written, the last one varying fastest;
`expand_kwargs` has one source. Literals are known by their length only: a runner imports the DAG file and has the
values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tickless.core.plan import TaskPlan
from tickless.core.readiness import Verdict
from tickless.core.record import Run
from tickless.model.row import UNKNOWN_LENGTH
from tickless.model.state import TaskState


@dataclass(frozen=True, slots=True)
class Extent:
    """What can be said of a mapped task whose trigger rule holds.

    RUN: `lengths` of its sources are known. SKIP: there is nothing to do. FAIL_UPSTREAM: a source is not there and
    never will be. With `is_fault` it fails itself. `reason` is for people.
    """

    verdict: Verdict
    lengths: tuple[int, ...] = ()
    reason: str | None = None
    is_fault: bool = False

    @property
    def count(self) -> int:
        """How many instances it has."""
        return math.prod(self.lengths)


def extent_of(run: Run, task: TaskPlan, most: int) -> Extent:
    """Look at the sources of a mapped task; `most` is max_map_length."""
    lengths: list[int] = []
    for source, over in zip(task.sources, task.spec.mapped, strict=True):
        length = over.length if source is None else _length(run, source)
        if length is None:
            return Extent(Verdict.WAIT)
        if isinstance(length, Extent):
            return length
        lengths.append(length)
    extent = Extent(Verdict.RUN, tuple(lengths))
    if extent.count == 0:
        empty = task.spec.mapped[lengths.index(0)]
        what = f"{empty.task_id} has handed on nothing" if empty.task_id is not None else "its list is empty"
        return Extent(Verdict.SKIP, reason=f"there is nothing to map over: {what}")
    if extent.count > most:
        each = " x ".join(f"{length:,}" for length in lengths)
        product = f" ({each})" if len(lengths) > 1 else ""
        return _fault(f"it would have {extent.count:,} instances{product}; max_map_length is {most:,}")
    return extent


def lengths_of(run: Run, task: TaskPlan) -> tuple[int, ...] | None:
    """Of the sources of a mapped task, as they are now; None if one of them is not there any more."""
    lengths = []
    for source, over in zip(task.sources, task.spec.mapped, strict=True):
        length = over.length if source is None else _length(run, source)
        if not isinstance(length, int):
            return None
        lengths.append(length)
    return tuple(lengths)


def _length(run: Run, source: int) -> int | Extent | None:
    """How much another task gives to map over; None = that is not known yet."""
    above, tally = run.plan.tasks[source], run.tallies.get(source, {})
    task_id = above.spec.task_id
    if sum(tally.values()) < run.sizes.get(source, 1):
        return None
    if above.spec.mapped:
        return run.returned.get(source, 0)
    if TaskState.SUCCESS not in tally:
        state = next(iter(tally))
        return Extent(Verdict.FAIL_UPSTREAM, reason=f"{task_id}, which it is mapped over, is {state}")
    length = run.lengths.get(source, UNKNOWN_LENGTH)
    if length == UNKNOWN_LENGTH:
        return _fault(f"{task_id} has returned neither a list nor a dict to map over")
    return length


def _fault(reason: str) -> Extent:
    return Extent(Verdict.WAIT, reason=reason, is_fault=True)


def picks(lengths: Sequence[int], map_index: int) -> tuple[int, ...]:
    """For each source, which of its elements the instance gets."""
    found = []
    for length in reversed(lengths):
        map_index, index = divmod(map_index, length)
        found.append(index)
    return tuple(reversed(found))
