"""What clear, mark and delete may ask for, and which tasks of a DAG version they mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

from tickless.core.commands import TaskVerb
from tickless.errors import NotFound, UserError, did_you_mean
from tickless.model.dag import DagSpec
from tickless.model.row import InstanceRow
from tickless.model.state import FINISHED_RUN_STATES, RunState, TaskState
from tickless.store.base import RunQuery

CLEAR = "clear"
MARK = "mark"
ALTERATIONS = frozenset({CLEAR, MARK})
"""Kinds of commands that change task instances."""
DELETE_RUN = "delete_run"
DELETE_DAG = "delete_dag"
DELETIONS = frozenset({DELETE_RUN, DELETE_DAG})
MARK_RUN = "mark_run"
CANCEL_RUNS = "cancel_runs"
RUN_VERDICTS = frozenset({MARK_RUN, CANCEL_RUNS})
"""Kinds of commands that end whole runs."""
AT_THE_DESK = ALTERATIONS | DELETIONS | RUN_VERDICTS
"""Kinds of commands that need rows, or more than one commit."""
_SELECTOR = re.compile(r"(.+)\[([0-9]{1,9})\]")
BAD_STATES = (TaskState.FAILED, TaskState.UPSTREAM_FAILED)


class RunFilter(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Which runs, instead of one by its number."""

    dag_id: str
    states: list[RunState] = []
    since: datetime | None = None
    """Queued at or after this moment."""
    until: datetime | None = None
    """Queued before it."""

    def query(self) -> RunQuery:
        return RunQuery(dag_id=self.dag_id, states=tuple(self.states), since=self.since, until=self.until)


class Alteration(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The payload of `clear` and `mark`. Either `run` or `runs`; no tasks = all of them."""

    run: int | None = None
    runs: RunFilter | None = None
    tasks: list[str] = []
    upstream: bool = False
    downstream: bool = False
    only_failed: bool = False
    state: TaskState | None = None
    """Of `mark`: success or failed."""

    def phases(self, spec: DagSpec) -> list[Phase]:
        """What is to be done to the tasks of this version, in order. Raises UserError for a task that it lacks."""
        whole, single = split_selectors(spec, self.tasks)
        chosen = choose(spec, [*whole, *single], upstream=self.upstream, downstream=self.downstream)
        if whole:
            both = choose(spec, whole, upstream=self.upstream, downstream=self.downstream)
            single = {task_id: indexes for task_id, indexes in single.items() if task_id not in both}
        states = BAD_STATES if self.only_failed else ()
        if self.state is None:
            return [Phase(TaskVerb.CLEAR, chosen, states, single)]
        if self.state is TaskState.FAILED:
            return [Phase(TaskVerb.MARK_FAILED, chosen, states, single)]
        # What failed below for want of these has its chance again.
        below = [each for each in choose(spec, chosen, downstream=True) if each not in set(chosen)]
        return [Phase(TaskVerb.MARK_SUCCESS, chosen, states, single), Phase(TaskVerb.CLEAR, below, BAD_STATES)]


@dataclass(frozen=True, slots=True)
class Phase:
    """One verb, and whom it concerns: tasks in topological order, instances of them in these states (none = any)."""

    verb: TaskVerb
    task_ids: list[str]
    states: tuple[TaskState, ...]
    single: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Of these mapped tasks only the instances with these map indexes."""

    def changes(self, row: InstanceRow) -> bool:
        """Whether there is anything to change of an instance."""
        if self.verb is TaskVerb.CLEAR:
            return row.state is not TaskState.NONE
        return row.state is not (TaskState.SUCCESS if self.verb is TaskVerb.MARK_SUCCESS else TaskState.FAILED)


def read_alteration(kind: str, payload: str) -> Alteration:
    """The payload of a command. Raises UserError."""
    try:
        order = msgspec.json.decode(payload, type=Alteration)
    except msgspec.ValidationError as error:
        raise UserError(f"the payload of {kind} cannot be read: {error}") from None
    if (order.run is None) == (order.runs is None):
        raise UserError(f"{kind} needs a run or a filter of runs, one of them")
    if kind == MARK and order.state not in (TaskState.SUCCESS, TaskState.FAILED):
        raise UserError(f"a task can be marked success or failed, not {order.state}")
    if kind == CLEAR and order.state is not None:
        raise UserError("clear takes no state")
    if order.runs is not None:
        check_moments(order.runs)
    return order


class DeletionOrder(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The payload of `delete_run` (either `run` or `runs`) and `delete_dag` (`dag_id`)."""

    run: int | None = None
    runs: RunFilter | None = None
    dag_id: str | None = None
    force: bool = False
    """Also a DAG that a file defines: it begins anew."""

    def query(self) -> RunQuery:
        """Which runs, unless it is one by its number."""
        if self.dag_id is not None:
            return RunQuery(dag_id=self.dag_id)
        assert self.runs is not None
        asked = self.runs.query()
        return asked if asked.states else replace(asked, states=tuple(sorted(FINISHED_RUN_STATES)))


def read_deletion(kind: str, payload: str) -> DeletionOrder:
    """The payload of a command. Raises UserError."""
    try:
        order = msgspec.json.decode(payload, type=DeletionOrder)
    except msgspec.ValidationError as error:
        raise UserError(f"the payload of {kind} cannot be read: {error}") from None
    given = [name for name in ("run", "runs", "dag_id") if getattr(order, name) is not None]
    if kind == DELETE_RUN and given not in (["run"], ["runs"]):
        raise UserError(f"{kind} needs a run or a filter of runs, one of them")
    if kind == DELETE_DAG and given != ["dag_id"]:
        raise UserError(f"{kind} needs the id of a DAG, and nothing else")
    if order.runs is not None:
        check_moments(order.runs)
    return order


def check_moments(runs: RunFilter) -> None:
    """Raise UserError for a moment without a time zone."""
    if any(at and at.tzinfo is None for at in (runs.since, runs.until)):
        raise UserError("since and until need a time zone", hint="Write them as 2026-11-22T00:00:00Z.")


def split_selectors(spec: DagSpec, tasks: Iterable[str]) -> tuple[list[str], dict[str, frozenset[int]]]:
    """`load` means all instances of a task, `load[3]` one of a mapped task. Raises UserError for one of another task."""
    mapped = {task.task_id for task in spec.tasks if task.mapped}
    whole: list[str] = []
    single: dict[str, frozenset[int]] = {}
    for text in tasks:
        found = _SELECTOR.fullmatch(text)
        if found is None:
            whole.append(text)
        elif found[1] in mapped:
            single[found[1]] = single.get(found[1], frozenset()) | {int(found[2])}
        else:
            raise UserError(
                f"{text!r} is no task instance of DAG {spec.dag_id!r}: {found[1]!r} is not a mapped task of it",
                hint=f"The mapped ones are: {', '.join(sorted(mapped)) or 'none'}.",
            )
    return whole, {task_id: indexes for task_id, indexes in single.items() if task_id not in whole}


def choose(spec: DagSpec, tasks: Iterable[str], *, upstream: bool = False, downstream: bool = False) -> list[str]:
    """These tasks (none = all), with all above and below them as asked, in topological order."""
    order = [task.task_id for task in spec.tasks]
    wanted = set(tasks)
    unknown = sorted(wanted.difference(order))
    if unknown:
        raise NotFound(
            f"DAG {spec.dag_id!r} has no task {unknown[0]!r} in the version of this run",
            hint=did_you_mean(unknown[0], order)
            or f"It has: {', '.join(order[:10])}{', …' if len(order) > 10 else ''}.",
        )
    if not wanted:
        return order
    chosen = set(wanted)
    if downstream:
        below = set(wanted)
        for task in spec.tasks:
            if not below.isdisjoint(task.upstream):
                below.add(task.task_id)
        chosen |= below
    if upstream:
        above = set(wanted)
        for task in reversed(spec.tasks):
            if task.task_id in above:
                above.update(task.upstream)
        chosen |= above
    return [each for each in order if each in chosen]
