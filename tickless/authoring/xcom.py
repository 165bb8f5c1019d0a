"""XComArg: the return value of a task before the task has run. Passing it on makes a dependency and an input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from tickless.authoring.place import DagError
from tickless.authoring.relation import Relative

if TYPE_CHECKING:
    from tickless.authoring.operators import Operator

_LATER = "Templates come in a later release; pass the value to a @task function instead."


class XComArg(Relative):
    """Stands for what `operator` will return. `arg["key"]` stands for one item of it."""

    def __init__(self, operator: Operator, path: tuple[Any, ...] = ()) -> None:
        self.operator = operator
        self.path = path

    def heads(self) -> list[Operator]:
        return [self.operator]

    def tails(self) -> list[Operator]:
        return [self.operator]

    def value(self, inputs: Mapping[str, Any]) -> Any:
        """The value itself, once it is there; None when the task returned nothing."""
        value: Any = inputs.get(self.operator.task_id)
        for key in self.path:
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

    def __format__(self, format_spec: str) -> str:
        self._refuse("put into a string")

    def __str__(self) -> str:
        # Airflow's way to say it; BashOperator recognises it in a command that was put together by hand.
        return f"{{{{ ti.xcom_pull(task_ids='{self.operator.task_id}') }}}}"

    def __repr__(self) -> str:
        return f"<return value of task {self.operator.task_id!r}>"

    def _refuse(self, done: str) -> NoReturn:
        raise DagError(
            f"the return value of task {self.operator.task_id!r} is {done} while the DAG is built, "
            "but it only exists once the task has run.",
            hint=_LATER if done == "put into a string" else "Do it inside a @task function.",
        )


def find(value: Any) -> Iterator[XComArg]:
    """Every XComArg in the value: itself, or nested in lists, tuples and dicts."""
    if isinstance(value, XComArg):
        yield value
    elif isinstance(value, Relative) or getattr(type(value), "is_task_factory", False):
        raise DagError(
            f"{value!r} is passed to a task as a value.",
            hint="Pass what it returns: `.output` of an operator, or the result of calling a @task function.",
        )
    elif type(value) in (list, tuple):
        for item in value:
            yield from find(item)
    elif type(value) is dict:
        for item in value.values():
            yield from find(item)


def resolve(value: Any, inputs: Mapping[str, Any]) -> Any:
    """The value with every XComArg in it replaced by what its task returned."""
    if isinstance(value, XComArg):
        return value.value(inputs)
    if type(value) is list:
        return [resolve(item, inputs) for item in value]
    if type(value) is tuple:
        return tuple(resolve(item, inputs) for item in value)
    if type(value) is dict:
        return {key: resolve(item, inputs) for key, item in value.items()}
    return value
