"""A DagSpec compiled for deciding: tasks by index, with their neighbours as indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tickless.model.dag import DagSpec, TaskSpec
from tickless.model.row import VersionRow


@dataclass(frozen=True, slots=True, eq=False)
class TaskPlan:
    """One task of one version. `index` is its place in the topological order."""

    index: int
    spec: TaskSpec
    upstream: tuple[int, ...]
    downstream: tuple[int, ...]
    sources: tuple[int | None, ...] = ()
    """Of a mapped task, for each thing that it is expanded over: the task that returns it, None for a literal."""
    looks_at: tuple[str, ...] = ()
    """Tasks of the previous run that must be done before this one starts: itself, and perhaps those directly below."""
    is_mapped_over: bool = False
    """Some task is expanded over what this one returns, so its length is kept."""


@dataclass(frozen=True, slots=True, eq=False)
class DagPlan:
    """One version of a DAG; shared by all its runs."""

    version: VersionRow
    spec: DagSpec
    tasks: tuple[TaskPlan, ...]
    index_of: dict[str, int]
    leaves: tuple[int, ...]
    """Tasks without downstream: they decide the end state of a run."""
    lookers: Mapping[str, tuple[int, ...]]
    """Task of the previous run -> the tasks of this one that look at it."""


def compile_plan(version: VersionRow, spec: DagSpec) -> DagPlan:
    """Compile a valid spec (its tasks are in topological order)."""
    index_of = {task.task_id: index for index, task in enumerate(spec.tasks)}
    upstream = [tuple(sorted({index_of[name] for name in task.upstream})) for task in spec.tasks]
    downstream: list[list[int]] = [[] for _ in spec.tasks]
    for index, above in enumerate(upstream):
        for each in above:
            downstream[each].append(index)
    sources = [
        tuple(index_of[over.task_id] if over.task_id is not None else None for over in task.mapped)
        for task in spec.tasks
    ]
    mapped_over = {source for each in sources for source in each}
    looks_at = [_looks_at(spec, index, downstream[index]) for index in range(len(spec.tasks))]
    lookers: dict[str, list[int]] = {}
    for index, names in enumerate(looks_at):
        for name in names:
            lookers.setdefault(name, []).append(index)
    return DagPlan(
        version=version,
        spec=spec,
        tasks=tuple(
            TaskPlan(
                *(index, task, upstream[index], tuple(downstream[index]), sources[index]),
                looks_at=looks_at[index],
                is_mapped_over=index in mapped_over,
            )
            for index, task in enumerate(spec.tasks)
        ),
        index_of=index_of,
        leaves=tuple(index for index in range(len(spec.tasks)) if not downstream[index]),
        lookers={name: tuple(indices) for name, indices in lookers.items()},
    )


def _looks_at(spec: DagSpec, index: int, downstream: list[int]) -> tuple[str, ...]:
    task = spec.tasks[index]
    if task.wait_for_downstream:
        return (task.task_id, *(spec.tasks[below].task_id for below in downstream))
    return (task.task_id,) if task.depends_on_past else ()
