"""Dependencies between tasks: `>>`, `<<`, lists on either side, `chain`, `set_upstream` and `set_downstream`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from tickless.authoring.place import DagError

if TYPE_CHECKING:
    from tickless.authoring.operators import Operator

T = TypeVar("T")


class Relative:
    """What can stand on a side of `>>`: operators, and the XComArgs that `@task` calls return."""

    def operators(self) -> list[Operator]:
        """The tasks that it stands for."""
        raise NotImplementedError

    def set_downstream(self, others: Any) -> None:
        """Make every one of `others` (a task or nested lists of them) wait for this."""
        _connect(self.operators(), tasks_of(others))

    def set_upstream(self, others: Any) -> None:
        """Make this wait for every one of `others`."""
        _connect(tasks_of(others), self.operators())

    def __rshift__(self, other: T) -> T:
        self.set_downstream(other)
        return other

    def __lshift__(self, other: T) -> T:
        self.set_upstream(other)
        return other

    def __rrshift__(self, other: Any) -> Relative:
        """`[a, b] >> self`."""
        self.set_upstream(other)
        return self

    def __rlshift__(self, other: Any) -> Relative:
        """`[a, b] << self`."""
        self.set_downstream(other)
        return self


def chain(*steps: Any) -> None:
    """Make each step wait for the one before it. Two lists in a row are joined pairwise, so they need equal lengths.

    `chain(a, [b, c], [d, e], f)` is `a >> [b, c]`, `b >> d`, `c >> e`, `[d, e] >> f`.
    """
    for before, after in pairwise(steps):
        if _is_list(before) and _is_list(after):
            if len(before) != len(after):
                raise DagError(
                    f"chain() joins lists pairwise, so it cannot join one of {len(before)} with one of {len(after)}.",
                    hint="Use lists of one length, or put a single task between them.",
                )
            for one_before, one_after in zip(before, after, strict=True):
                _connect(tasks_of(one_before), tasks_of(one_after))
        else:
            _connect(tasks_of(before), tasks_of(after))


def tasks_of(thing: Any) -> list[Operator]:
    """The tasks in a task, an XComArg or nested lists of them; DagError for anything else."""
    if isinstance(thing, Relative):
        return thing.operators()
    if _is_list(thing):
        return [operator for item in thing for operator in tasks_of(item)]
    if getattr(type(thing), "is_task_factory", False):
        raise DagError(f"{thing!r} is used as a task, but was not called.", hint="Write it with parentheses.")
    raise DagError(f"{thing!r} ({type(thing).__name__}) is not a task, so nothing can depend on it.")


def _is_list(thing: Any) -> bool:
    return isinstance(thing, Sequence) and not isinstance(thing, str | bytes)


def _connect(before: list[Operator], after: list[Operator]) -> None:
    for upstream in before:
        for downstream in after:
            if upstream is downstream:
                raise DagError(f"task {upstream.task_id!r} cannot wait for itself.")
            if upstream.dag is not downstream.dag:
                raise DagError(
                    f"task {downstream.task_id!r} of DAG {downstream.dag.dag_id!r} cannot wait for "
                    f"task {upstream.task_id!r} of another DAG, {upstream.dag.dag_id!r}."
                )
            downstream.upstream[upstream.task_id] = None
