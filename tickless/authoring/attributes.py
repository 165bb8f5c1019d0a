"""What is written of a task after it was made (`t1.doc_md = …`), and what its code reads of it (`task.retries`).

Airflow's arguments are attributes there, so DAG files set and read them: here they are looked up in `fields`, where the
checked arguments are, and checked again when they are set. Nothing that is set is silently dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tickless.authoring.arguments import (
    ABSENT_DAG_ARGUMENTS,
    ABSENT_TASK_ARGUMENTS,
    TASK_FIELDS,
    check_task_arguments,
    document,
)
from tickless.authoring.place import DagError
from tickless.model.dag import TaskSpec

if TYPE_CHECKING:
    from tickless.authoring.dag import DAG
    from tickless.authoring.operators import Operator

_OWN = frozenset({"weight_rule", "params", "multiple_outputs"})
"""Arguments that an operator keeps itself."""


class TaskAttributes:
    """Mixed into Operator."""

    dag: DAG
    fields: dict[str, Any]
    name: str
    task_id: str
    upstream: dict[str, None]

    def __getattr__(self, name: str) -> Any:
        field = TASK_FIELDS.get(name)
        fields = self.__dict__.get("fields")
        if field is None or fields is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = fields[field] if field in fields else _default(field)
        return timedelta(seconds=value) if field.endswith("_seconds") and value is not None else value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ABSENT_TASK_ARGUMENTS or (name in TASK_FIELDS and name not in _OWN):
            self.fields.update(check_task_arguments(f"{self!r}", {name: value}))
        else:
            super().__setattr__(name, value)

    @property
    def operator_name(self) -> str:
        """As it is written in the DAG file."""
        return self.name

    task_type = operator_name

    @property
    def dag_id(self) -> str:
        return self.dag.dag_id

    @property
    def upstream_task_ids(self) -> set[str]:
        return set(self.upstream)

    @property
    def downstream_task_ids(self) -> set[str]:
        return {task_id for task_id, task in self.dag.tasks.items() if self.task_id in task.upstream}

    @property
    def upstream_list(self) -> list[Operator]:
        return [self.dag.tasks[task_id] for task_id in self.upstream]

    @property
    def downstream_list(self) -> list[Operator]:
        return [task for task in self.dag.tasks.values() if self.task_id in task.upstream]


class DagAttributes:
    """Mixed into DAG. `given` is what was written."""

    dag_id: str
    fields: dict[str, Any]
    given: Mapping[str, Any]
    tasks: dict[str, Operator]

    def __getattr__(self, name: str) -> Any:
        if name in {"test", "cli"}:
            raise DagError(
                f"dag.{name}() is not there.", hint="`tickless dag test FILE` runs a DAG file once, without a daemon."
            )
        if name in _dag_arguments():
            return self.__dict__.get("given", {}).get(name, _DAG_DEFAULTS.get(name))
        raise AttributeError(f"DAG has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "doc_md":
            self.fields["doc"] = document(f"doc_md of {self!r}", value)
        if name in ABSENT_DAG_ARGUMENTS or (name in _dag_arguments() and name not in {"params", "doc_md"}):
            raise DagError(f"{name} of {self!r} is set after it was made.", hint=f"Write DAG(..., {name}=...).")
        object.__setattr__(self, name, value)

    @property
    def task_dict(self) -> dict[str, Operator]:
        return self.tasks

    @property
    def task_ids(self) -> list[str]:
        return list(self.tasks)

    def has_task(self, task_id: str) -> bool:
        return task_id in self.tasks

    def get_task(self, task_id: str) -> Operator:
        """Raises DagError."""
        if task_id not in self.tasks:
            raise DagError(f"DAG {self.dag_id!r} has no task {task_id!r}.", hint=f"It has {', '.join(self.tasks)}.")
        return self.tasks[task_id]


_DAG_DEFAULTS: Mapping[str, Any] = {"catchup": False, "fail_fast": False, "tags": (), "default_args": {}}


def _dag_arguments() -> Mapping[str, Any]:
    from tickless.authoring.dag import DagArguments

    return DagArguments.__annotations__


def _default(field: str) -> Any:
    return TaskSpec.__dataclass_fields__[field].default
