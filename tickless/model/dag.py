"""DagSpec: what a DAG file says, as data. Built by `authoring` in a child process; the daemon only ever sees this.

A `DagSpec` that exists is valid: `DagSpec.build` checks names, references and cycles and puts the tasks into a
topological order, so no later code checks them again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tickless.errors import UserError
from tickless.model.schedule import ScheduleSpec
from tickless.model.state import TriggerRule

DEFAULT_POOL = "default_pool"
DEFAULT_QUEUE = "default"
DEFAULT_RETRY_DELAY_SECONDS = 300.0
DEFAULT_PRIORITY_WEIGHT = 1
SKIP_EXIT_CODE = 99

MIN_PRIORITY, MAX_PRIORITY = -(2**31), 2**31 - 1
_ID_PATTERN = re.compile(r"[A-Za-z0-9_.\-]{1,250}")


class TaskKind(StrEnum):
    """How an attempt of the task is carried out."""

    EMPTY = "empty"  # nothing runs: success as soon as its trigger rule holds
    PYTHON = "python"  # a callable in the DAG file, called in a runner
    BASH = "bash"  # a command; exec'ed without any Python unless it must be made first (`needs_runner`)


class Isolation(StrEnum):
    """What stands between an attempt and its neighbours."""

    FORK = "fork"  # a process of its own, forked from a zygote that has imported the DAG file


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedOver:
    """One thing that a mapped task is expanded over: a literal, known by its length, or what a task returns."""

    argument: str
    """Which argument its elements are for; empty: each element is a dict of arguments (`expand_kwargs`)."""
    length: int | None = None
    task_id: str | None = None
    """Directly above in the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One task as written. `command`, `env`, `cwd` are for bash; `inputs` names whose outputs its order must carry."""

    task_id: str
    kind: TaskKind
    upstream: tuple[str, ...] = ()
    trigger_rule: TriggerRule = TriggerRule.ALL_SUCCESS
    retries: int = 0
    retry_delay_seconds: float = DEFAULT_RETRY_DELAY_SECONDS
    retry_exponential_backoff: float = 0.0
    """What the delay is multiplied with after each further try; 0 = it stays the same."""
    max_retry_delay_seconds: float | None = None
    """Of a delay that grows."""
    execution_timeout_seconds: float | None = None
    pool: str = DEFAULT_POOL
    pool_slots: int = 1
    max_active_tis_per_dag: int | None = None
    """Instances of this task at once, over all runs of its DAG; None = no limit."""
    max_active_tis_per_dagrun: int | None = None
    depends_on_past: bool = False
    """It starts only when the same task of the previous run was successful or skipped."""
    wait_for_downstream: bool = False
    """The same, and those directly below it in the previous run too; it implies depends_on_past."""
    ignore_first_depends_on_past: bool = True
    """It need not wait where the previous run has no such task."""
    priority_weight: int = DEFAULT_PRIORITY_WEIGHT
    queue: str = DEFAULT_QUEUE
    isolation: Isolation = Isolation.FORK
    inputs: tuple[str, ...] = ()
    """Task ids whose return values this task is given; each is above it in the graph."""
    input_keys: tuple[tuple[str, str], ...] = ()
    """(task id, key) of what other tasks push, and this task is given; the same holds of these."""
    mapped: tuple[MappedOver, ...] = ()
    """Not empty: a mapped task, with an instance for each element of the cross product of these, in this order."""
    command: str | None = None
    needs_runner: bool = False
    """Of a bash task: the DAG file makes its command when it runs (templates, `@task.bash`); else `command` is it."""
    env: Mapping[str, str] | None = None
    append_env: bool = False
    cwd: str | None = None
    skip_on_exit_code: int | None = SKIP_EXIT_CODE
    do_xcom_push: bool = True
    group: str | None = None
    """The task group that it is directly in."""
    operator: str = ""
    """Class name as the user wrote it, for people: BashOperator, @task …"""
    doc: str | None = None
    lineno: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamSpec:
    """What a run can be started with; a value comes from the run's conf, under this name."""

    name: str
    default: Any = None
    is_required: bool = False
    """There is no default."""
    description: str | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON schema of the value; empty = anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """A task group, for the graph; it has no part in what runs when."""

    group_id: str
    parent: str | None = None
    tooltip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLabel:
    """The text on an edge, for the graph."""

    upstream: str
    downstream: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DagSpec:
    """One DAG as written; `tasks` is in topological order. Make one with `build`."""

    dag_id: str
    tasks: tuple[TaskSpec, ...]
    description: str | None = None
    tags: tuple[str, ...] = ()
    max_active_tasks: int | None = None
    """Per dag run (config key `dag_concurrency`); None = the configured default."""
    max_active_runs: int | None = None
    dagrun_timeout_seconds: float | None = None
    """A run that has been running for so long fails."""
    fail_fast: bool = False
    """The first task that fails for good ends its run."""
    params: tuple[ParamSpec, ...] = ()
    groups: tuple[GroupSpec, ...] = ()
    """Outer ones before those in them."""
    edge_labels: tuple[EdgeLabel, ...] = ()
    schedule: ScheduleSpec | None = None
    """None: runs are made only when somebody asks."""
    is_paused_upon_creation: bool | None = None
    """None = the configured default."""
    max_consecutive_failed_dag_runs: int | None = None
    """0 = never pause it; None = the configured default."""
    doc: str | None = None
    lineno: int | None = None

    @staticmethod
    def build(*, dag_id: str, tasks: Iterable[TaskSpec], **rest: Any) -> DagSpec:
        """Check and order the tasks.

        Raises UserError for a bad or doubled id, an unknown upstream, or a cycle (named task by task).
        """
        check_id("dag_id", dag_id)
        by_id: dict[str, TaskSpec] = {}
        for task in tasks:
            check_id("task_id", task.task_id)
            if task.task_id in by_id:
                raise UserError(
                    f"DAG {dag_id!r} has two tasks with the id {task.task_id!r}",
                    hint="Give one of them another task_id.",
                )
            _check_task(dag_id, task)
            by_id[task.task_id] = task
        for task in by_id.values():
            for upstream in task.upstream:
                if upstream not in by_id:
                    raise UserError(
                        f"task {task.task_id!r} of DAG {dag_id!r} waits for {upstream!r}, which is not in it"
                    )
            for source in {*task.inputs, *(source for source, _ in task.input_keys)}:
                if source not in task.upstream and not _is_above(by_id, source, task):
                    raise UserError(f"task {task.task_id!r} of DAG {dag_id!r} reads {source!r} without waiting for it")
        spec = DagSpec(dag_id=dag_id, tasks=tuple(_topological(dag_id, by_id)), **rest)
        _check_ends(spec)
        return spec


def check_id(what: str, value: object) -> None:
    """Raise UserError unless value is an identifier that is safe in paths, URLs and logs."""
    if not isinstance(value, str) or not _ID_PATTERN.fullmatch(value) or value in {".", ".."}:
        raise UserError(
            f"{what} {value!r} is not allowed",
            hint="Use 1 to 250 letters, digits, dashes, dots and underscores.",
        )


def _check_task(dag_id: str, task: TaskSpec) -> None:
    where = f"task {task.task_id!r} of DAG {dag_id!r}"
    for name, value, least in (
        ("retries", task.retries, 0),
        ("retry_delay", task.retry_delay_seconds, 0),
        ("retry_exponential_backoff", task.retry_exponential_backoff, 0),
        ("pool_slots", task.pool_slots, 1),
    ):
        if value < least:
            raise UserError(f"{where}: {name} is {value}, but must be at least {least}")
    if task.execution_timeout_seconds is not None and task.execution_timeout_seconds <= 0:
        raise UserError(f"{where}: execution_timeout is {task.execution_timeout_seconds} s, but must be above 0")
    for name, limit in (
        ("max_active_tis_per_dag", task.max_active_tis_per_dag),
        ("max_active_tis_per_dagrun", task.max_active_tis_per_dagrun),
    ):
        if limit is not None and limit < 1:
            raise UserError(f"{where}: {name} is {limit}, but must be at least 1")
    if task.max_retry_delay_seconds is not None and task.max_retry_delay_seconds <= 0:
        raise UserError(f"{where}: max_retry_delay is {task.max_retry_delay_seconds} s, but must be above 0")
    if not MIN_PRIORITY <= task.priority_weight <= MAX_PRIORITY:
        raise UserError(f"{where}: priority_weight {task.priority_weight} does not fit in 32 bits")
    for over in task.mapped:
        if (over.length is None) == (over.task_id is None) or over.task_id not in (None, *task.upstream):
            raise UserError(f"{where}: it is mapped over {over}, which is neither a literal nor directly above it")
    if (task.kind is TaskKind.BASH) != (task.command is not None or task.needs_runner):
        raise UserError(f"{where}: a command goes with a bash task, and only with one")


def _check_ends(spec: DagSpec) -> None:
    where = f"DAG {spec.dag_id!r}"
    if spec.dagrun_timeout_seconds is not None and spec.dagrun_timeout_seconds <= 0:
        raise UserError(f"{where}: dagrun_timeout is {spec.dagrun_timeout_seconds} s, but must be above 0")
    other = next((task for task in spec.tasks if task.trigger_rule is not TriggerRule.ALL_SUCCESS), None)
    if spec.fail_fast and other is not None:
        raise UserError(
            f"task {other.task_id!r} of {where} has the trigger rule {other.trigger_rule}, but the DAG has fail_fast",
            hint="With fail_fast every task must have the trigger rule all_success: nothing starts after a failure.",
        )


def _is_above(by_id: Mapping[str, TaskSpec], task_id: str, task: TaskSpec) -> bool:
    todo, seen = list(task.upstream), set(task.upstream)
    for above in todo:  # grows while it is walked
        if above == task_id:
            return True
        new = set(by_id[above].upstream) - seen if above in by_id else ()
        seen.update(new)
        todo += new
    return False


def _topological(dag_id: str, by_id: Mapping[str, TaskSpec]) -> list[TaskSpec]:
    """Kahn's algorithm; ties keep the order in which the tasks were written."""
    missing = {task_id: len(set(task.upstream)) for task_id, task in by_id.items()}
    downstream: dict[str, list[str]] = {task_id: [] for task_id in by_id}
    for task in by_id.values():
        for upstream in set(task.upstream):
            downstream[upstream].append(task.task_id)
    ready = [task_id for task_id, count in missing.items() if count == 0]
    order: list[TaskSpec] = []
    for task_id in ready:  # grows while it is walked
        order.append(by_id[task_id])
        for below in downstream[task_id]:
            missing[below] -= 1
            if missing[below] == 0:
                ready.append(below)
    if len(order) < len(by_id):
        raise UserError(
            f"DAG {dag_id!r} has a cycle: {' -> '.join(_find_cycle(by_id, missing))}",
            hint="Remove one of these dependencies.",
        )
    return order


def _find_cycle(by_id: Mapping[str, TaskSpec], missing: Mapping[str, int]) -> list[str]:
    """One cycle, in the order of execution, among the tasks that the topological order could not reach."""
    left = {task_id for task_id, count in missing.items() if count > 0}
    trail: list[str] = []
    at = next(task_id for task_id in by_id if task_id in left)
    while at not in trail:
        trail.append(at)
        at = next(upstream for upstream in by_id[at].upstream if upstream in left)
    return [at, *reversed(trail[trail.index(at) + 1 :]), at]
