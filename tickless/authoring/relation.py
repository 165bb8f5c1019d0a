"""Dependencies between tasks: `>>`, `<<`, lists on either side, `chain` and its kin, and labels on edges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from tickless.authoring.place import DagError

if TYPE_CHECKING:
    from tickless.authoring.operators import Operator

T = TypeVar("T")


class Relative:
    """What can stand on a side of `>>`: operators, the XComArgs that `@task` calls return, task groups, labels."""

    def heads(self) -> list[Operator]:
        """The tasks that wait when this is to wait for something."""
        raise NotImplementedError

    def tails(self) -> list[Operator]:
        """The tasks that are waited for when something is to wait for this."""
        raise NotImplementedError

    def set_downstream(self, others: Any, edge_modifier: Label | None = None) -> None:
        """Make every one of `others` (a task, a group or nested lists of them) wait for this."""
        self._relate(others, edge_modifier, is_downstream=True)

    def set_upstream(self, others: Any, edge_modifier: Label | None = None) -> None:
        """Make this wait for every one of `others`."""
        self._relate(others, edge_modifier, is_downstream=False)

    def _relate(self, others: Any, label: Label | None, *, is_downstream: bool) -> None:
        if label is not None:
            label.relate(self, is_downstream=not is_downstream)
            label.relate(others, is_downstream=is_downstream)
            return
        for other in _flat(others):
            if isinstance(other, Label):
                other.relate(self, is_downstream=not is_downstream)
            elif is_downstream:
                _connect(self.tails(), heads_of(other))
            else:
                _connect(tails_of(other), self.heads())

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


class Label(Relative):
    """A text on an edge of the graph: `check >> Label("all is well") >> publish`. It changes nothing about the run."""

    def __init__(self, label: str) -> None:
        if not isinstance(label, str):
            raise DagError(f"a Label is given {label!r}, but must be given a string.")
        self.label = label
        self._before: list[Operator] = []
        self._after: list[Operator] = []

    def heads(self) -> list[Operator]:
        return self._after

    def tails(self) -> list[Operator]:
        return self._before

    def relate(self, others: Any, *, is_downstream: bool) -> None:
        """Take others on one of its sides; edges are made to all that stand on the other one."""
        if is_downstream:
            new = heads_of(others)
            self._after += new
            _connect(self._before, new, self.label)
        else:
            new = tails_of(others)
            self._before += new
            _connect(new, self._after, self.label)

    def _relate(self, others: Any, label: Label | None, *, is_downstream: bool) -> None:
        self.relate(others, is_downstream=is_downstream)

    def __repr__(self) -> str:
        return f"<Label {self.label!r}>"


def chain(*steps: Any) -> None:
    """Make each step wait for the one before it. Two lists in a row are joined pairwise, so they need equal lengths.

    `chain(a, [b, c], [d, e], f)` is `a >> [b, c]`, `b >> d`, `c >> e`, `[d, e] >> f`.
    """
    for before, after in pairwise(steps):
        if _is_list(before) and _is_list(after):
            if len(before) != len(after):
                raise DagError(
                    f"chain() joins lists pairwise, so it cannot join one of {len(before)} with one of {len(after)}.",
                    hint="Use lists of one length, put a single task between them, or use chain_linear().",
                )
            for one_before, one_after in zip(before, after, strict=True):
                _join(one_before, one_after)
        else:
            _join(before, after)


def chain_linear(*steps: Any) -> None:
    """Like `chain`, but of two lists in a row each of the second waits for all of the first. Empty lists are left out.

    `chain_linear(a, [b, c], [d, e], f)` is `a >> [b, c]`, `b >> [d, e]`, `c >> [d, e]`, `[d, e] >> f`.
    """
    present = [step for step in steps if not (_is_list(step) and not step)]
    if len(present) < 2:
        raise DagError(
            "chain_linear() is given fewer than two steps, so it sets no dependency.",
            hint="Did you forget to expand a list with `*`?",
        )
    for before, after in pairwise(present):
        _join(before, after)


def cross_downstream(from_tasks: Any, to_tasks: Any) -> None:
    """Make each of `to_tasks` wait for each of `from_tasks`."""
    _join(from_tasks, to_tasks)


def heads_of(thing: Any) -> list[Operator]:
    """The tasks that wait when `thing` is to wait: a task, an XComArg, a group, or nested lists of them."""
    return [operator for relative in _flat(thing) for operator in relative.heads()]


def tails_of(thing: Any) -> list[Operator]:
    """The tasks that are waited for when `thing` is waited for."""
    return [operator for relative in _flat(thing) for operator in relative.tails()]


def _join(before: Any, after: Any) -> None:
    for one in _flat(before):
        one.set_downstream(after)


def _flat(thing: Any) -> list[Relative]:
    """What stands in nested lists; DagError for anything that cannot have dependencies."""
    if isinstance(thing, Relative):
        return [thing]
    if _is_list(thing):
        return [relative for item in thing for relative in _flat(item)]
    if getattr(type(thing), "is_task_factory", False):
        way_out = getattr(type(thing), "way_out", "Write it with parentheses.")
        raise DagError(f"{thing!r} is used as a task, but was not called.", hint=way_out)
    raise DagError(f"{thing!r} ({type(thing).__name__}) is not a task, so nothing can depend on it.")


def _is_list(thing: Any) -> bool:
    return isinstance(thing, Sequence) and not isinstance(thing, str | bytes)


def _connect(before: list[Operator], after: list[Operator], label: str | None = None) -> None:
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
            if label is not None:
                downstream.dag.edge_labels[upstream.task_id, downstream.task_id] = label
