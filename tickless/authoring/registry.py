"""The DAGs that have been made in this process. A process imports one DAG file, so this is what that file says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tickless.authoring.place import DagError, Place
from tickless.errors import NotFound
from tickless.model.dag import DagSpec

if TYPE_CHECKING:
    from tickless.authoring.dag import DAG


@dataclass(slots=True)
class Factory:
    """A function under `@dag`; one that is never called makes no DAG, which is worth a warning."""

    name: str
    place: Place
    is_called: bool = False


dags: dict[str, DAG] = {}
factories: list[Factory] = []


def register(dag: DAG) -> None:
    """Called by each new DAG."""
    if other := dags.get(dag.dag_id):
        raise DagError(
            f"DAG {dag.dag_id!r} is defined twice: at {other.place} and at {dag.place}.",
            place=dag.place,
            hint="Give one of them another dag_id.",
        )
    dags[dag.dag_id] = dag


def collect(file: str | None = None) -> list[DagSpec]:
    """Every DAG as data, in the order of definition; with `file` only those that this file (absolute) defines."""
    return [dag.to_spec() for dag in dags.values() if file is None or dag.file == file]


def prepare() -> None:
    """In a process that is to be forked for tasks: load what their templates need, once for all."""
    for dag in dags.values():
        if any(task.templates for task in dag.tasks.values()):
            _ = dag.templates


def callables(dag_id: str) -> Mapping[str, Callable[..., Any]]:
    """task_id -> its `Operator.call`, for those of the DAG's tasks that a runner carries out.

    Raises NotFound when no such DAG has been made. A missing input is None to the function that reads it.
    """
    dag = dags.get(dag_id)
    if dag is None:
        raise NotFound(f"DAG {dag_id!r} is not defined; the file defines {', '.join(map(repr, dags)) or 'none'}")
    return _Callables(dag)


class _Callables(Mapping[str, Callable[..., Any]]):
    """A view, not a copy: whoever forks for one task must not touch, and so duplicate, the pages of all the others."""

    def __init__(self, dag: DAG) -> None:
        self._tasks = dag.tasks

    def __getitem__(self, task_id: str) -> Callable[..., Any]:
        task = self._tasks[task_id]
        if not task.needs_runner:
            raise KeyError(task_id)
        return task.call

    def __iter__(self) -> Iterator[str]:
        return (task_id for task_id, task in self._tasks.items() if task.needs_runner)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def warnings(file: str | None = None) -> list[str]:
    """What looks like a mistake but is allowed."""
    found = [
        f"line {factory.place.line}: the @dag function {factory.name!r} is never called, so it makes no DAG. "
        f"Call it at the end of the file: {factory.name}()"
        for factory in factories
        if not factory.is_called and file in (None, factory.place.file)
    ]
    found += [f"DAG {dag.dag_id!r} has no tasks" for dag in dags.values() if not dag.tasks and file in (None, dag.file)]
    return found


def reset() -> None:
    """Forget everything, for tests."""
    dags.clear()
    factories.clear()
