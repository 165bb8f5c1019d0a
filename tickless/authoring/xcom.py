"""XComArg: the return value of a task before the task has run. Passing it on makes a dependency and an input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from tickless.authoring.lazy import LazyXComs
from tickless.authoring.place import DagError
from tickless.authoring.relation import Relative
from tickless.exceptions import AirflowException

if TYPE_CHECKING:
    from tickless.authoring.operators import Operator

RETURN_KEY = "return_value"


class XComArg(Relative):
    """Stands for what `operator` will return. `arg["key"]` stands for one item of it, or what is pushed as `key`."""

    def __init__(self, operator: Operator, path: tuple[Any, ...] = ()) -> None:
        self.operator = operator
        self.path = path

    def heads(self) -> list[Operator]:
        return [self.operator]

    def tails(self) -> list[Operator]:
        return [self.operator]

    def reads(self) -> Iterator[tuple[str, str]]:
        """What an order must carry for it: (task id, key)."""
        task_id = self.operator.task_id
        if self.operator.mapped:
            return  # it asks for them when it uses them; there may be very many
        if self.path and isinstance(self.path[0], str) and self.operator.needs_runner:
            yield task_id, self.path[0]  # it may be pushed under its own key
            if self.operator.multiple_outputs:
                return
        yield task_id, RETURN_KEY

    def value(self, inputs: Mapping[Any, Any]) -> Any:
        """The value itself, once it is there; None when the task returned nothing.

        `inputs` holds return values by task id, and what was pushed under other keys by (task id, key).
        """
        task_id = self.operator.task_id
        path = self.path
        if self.operator.mapped:
            is_key = bool(path) and self.operator.multiple_outputs
            return LazyXComs(task_id, path[0], path[1:]) if is_key else LazyXComs(task_id, RETURN_KEY, path)
        if path and (task_id, path[0]) in inputs:
            value, path = inputs[task_id, path[0]], path[1:]
        elif path and self.operator.multiple_outputs:
            raise AirflowException(f"task {task_id!r} has handed on nothing under the key {path[0]!r}")
        else:
            value = inputs.get(task_id)
        for key in path:
            value = value[key]
        return value

    def __getitem__(self, key: Any) -> XComArg:
        return XComArg(self.operator, (*self.path, key))

    def __iter__(self) -> Iterator[Any]:
        self._refuse("looped over")

    def __len__(self) -> int:
        self._refuse("measured")

    def __bool__(self) -> bool:
        self._refuse("tested")

    def __str__(self) -> str:
        """The template that stands for it, as in Airflow: for a command that is put together by hand."""
        task_id, *rest = self.operator.task_id, *self.path
        if rest and self.operator.multiple_outputs:
            template = f"ti.xcom_pull(task_ids={task_id!r}, key={rest.pop(0)!r})"
        else:
            template = f"ti.xcom_pull(task_ids={task_id!r})"
        return "{{ " + template + "".join(f"[{key!r}]" for key in rest) + " }}"

    def __repr__(self) -> str:
        return f"<return value of task {self.operator.task_id!r}>"

    def _refuse(self, done: str) -> NoReturn:
        raise DagError(
            f"the return value of task {self.operator.task_id!r} is {done} while the DAG is built, "
            "but it only exists once the task has run.",
            hint="Do it inside a @task function.",
        )
