"""`@task`: a function becomes a task each time it is called inside a DAG; the call returns an XComArg."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, get_origin, overload

from tickless.authoring.arguments import TaskArguments, check_task_arguments
from tickless.authoring.bash import BashTask
from tickless.authoring.branch import BranchPythonOperator, ShortCircuitOperator
from tickless.authoring.context import CONTEXT_KEYS
from tickless.authoring.dag import DAG, current_dag
from tickless.authoring.mapping import KeywordsElement, Partial
from tickless.authoring.operators import PythonOperator, no_choice, owner_of
from tickless.authoring.place import DagError
from tickless.authoring.xcom import XComArg

if TYPE_CHECKING:
    from tickless.authoring.group import TaskGroup

P = ParamSpec("P")
R = TypeVar("R")
_MAPPING = re.compile(r"(typing\.|t\.|collections\.abc\.)?([Dd]ict|Mapping)(\[|\Z)")
_SUFFIX = re.compile(r"__\d+\Z")


class Task(Generic[P, R]):
    """A function under `@task`. `function` is the function itself, for tests and for calls inside other functions."""

    is_task_factory = True

    def __init__(self, function: Callable[P, R], task_id: str | None, args: TaskArguments, kind: _Kind) -> None:
        self.function = function
        self.task_id = task_id or function.__name__
        self.args = args
        self.kind = kind
        functools.update_wrapper(self, function)
        own = {"dag", "task_group", *kind.operator.own_arguments}
        given = {name: value for name, value in args.items() if name not in own}
        _check_parameters(kind, function)
        check_task_arguments(f"{kind.name} {self.task_id!r}", given)  # at the decorator's line, not the first call's

    def __call__(self, *args: Any, **kwargs: Any) -> XComArg:
        """Add a task to the DAG; arguments may hold other tasks' results. A second call gets the id `name__1`."""
        return self._add(args, kwargs)

    def _add(self, args: tuple[Any, ...], kwargs: Any) -> XComArg:
        dag = self.args.get("dag") or current_dag()
        if dag is None:
            raise DagError(
                f"the @task function {self.function.__name__!r} is called outside of any DAG.",
                hint="Call it inside a function with @dag or inside `with DAG(...):`. "
                f"To run it as a plain function, call {self.function.__name__}.function(...).",
            )
        given: Any = {
            "doc_md": self.function.__doc__,
            "multiple_outputs": self.kind.operator is PythonOperator and _returns_mapping(self.function),
            **self.args,
        }
        return self.kind.operator(
            task_id=_free_id(dag, self.args.get("task_group") or dag.current_group(), self.task_id),
            python_callable=self.function,
            op_args=args,
            op_kwargs=kwargs,
            _name=self.kind.name,
            **given,
        ).output

    def partial(self, **kwargs: Any) -> TaskPartial:
        """Arguments that are the same for every instance of a mapped task; `.expand(...)` gives the others."""
        return TaskPartial(self, kwargs)

    def expand(self, **mapped: Any) -> XComArg:
        """A mapped task: one instance for each element of the cross product of these lists."""
        return self.partial().expand(**mapped)

    def expand_kwargs(self, mapped: Any) -> XComArg:
        """A mapped task: one instance for each dict of arguments in a list."""
        return self.partial().expand_kwargs(mapped)

    def add_mapped(self, op_kwargs: Any) -> XComArg:
        """Add the mapped task to the DAG."""
        return self._add((), op_kwargs)

    def override(self, *, task_id: str | None = None, **args: Any) -> Task[P, R]:
        """The same function with some arguments changed: `add.override(task_id="sum", retries=3)(1, 2)`."""
        merged: Any = {**self.args, **args}
        return Task(self.function, task_id or self.task_id, merged, self.kind)

    def __getattr__(self, name: str) -> NoReturn:
        if name == "output":
            raise DagError(f"the @task function {self.task_id!r} has no output before it is called.")
        raise AttributeError(name)

    def __rshift__(self, other: Any) -> NoReturn:
        self._refuse()

    __lshift__ = __rrshift__ = __rlshift__ = __rshift__

    def _refuse(self) -> NoReturn:
        raise DagError(
            f"{self!r} is used as a task, but was not called.", hint=f"Write {self.function.__name__}() instead."
        )

    def __repr__(self) -> str:
        return f"<@task function {self.function.__name__!r}>"


class TaskPartial(Partial):
    """Some arguments of a @task function, to be expanded over others."""

    def __init__(self, task: Task[Any, Any], kwargs: Mapping[str, Any]) -> None:
        super().__init__(f"{task.kind.name} {task.task_id!r}", kwargs, owner_of(task.args))
        self._task = task
        if task.kind.operator.chooses:
            raise no_choice(self.what)

    def expand(self, **mapped: Any) -> XComArg:
        """One instance for each element of the cross product of these lists, the last one varying fastest."""
        return self._task.add_mapped({**self.args, **self.expansion(mapped).elements()})

    def expand_kwargs(self, mapped: Any) -> XComArg:
        """One instance for each dict of arguments in a list."""
        return self._task.add_mapped(KeywordsElement(self.expansion({"": mapped}), self.args))


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of the decorators."""

    name: str
    operator: type[PythonOperator]


class Decorator:
    """`@task` or one of its kinds, bare or with arguments: `@task.bash(cwd="/srv")`."""

    def __init__(self, name: str, operator: type[PythonOperator]) -> None:
        self._kind = _Kind(name, operator)

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, /, *, task_id: str | None = None, **args: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def __call__(self, /, *positional: Any, task_id: str | None = None, **args: Any) -> Any:
        given: Any = args
        if positional:
            if len(positional) > 1 or not callable(positional[0]) or args or task_id:
                name = self._kind.name
                raise DagError(f"{name} takes keyword arguments only.", hint=f"Write {name}(task_id=..., retries=...).")
            return Task(positional[0], None, {}, self._kind)
        return lambda function: Task(function, task_id, given, self._kind)


class TaskDecorator(Decorator):
    """`@task`, which is `@task.python`, and the other kinds."""

    def __init__(self) -> None:
        super().__init__("@task", PythonOperator)
        self.bash = Decorator("@task.bash", BashTask)
        """The function returns a command for bash."""
        self.branch = Decorator("@task.branch", BranchPythonOperator)
        """The function returns the ids of the tasks to follow; see `BranchPythonOperator`."""
        self.short_circuit = Decorator("@task.short_circuit", ShortCircuitOperator)
        """When the function returns something false, what is below is skipped; see `ShortCircuitOperator`."""

    @property
    def python(self) -> TaskDecorator:
        return self

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise DagError(f"@task.{name} does not exist in this release of tickless.", hint="Use @task or an operator.")


task = TaskDecorator()


def _check_parameters(kind: _Kind, function: Callable[..., Any]) -> None:
    """A parameter named like a key of the context is filled from it, so a default of its own would be lost."""
    code, defaults = getattr(function, "__code__", None), getattr(function, "__defaults__", None) or ()
    named: Mapping[str, Any] = dict(getattr(function, "__kwdefaults__", None) or {})
    if code is not None and defaults:
        last = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
        named = {**named, **dict(zip(last, defaults, strict=True))}
    for name, default in named.items():
        if name in CONTEXT_KEYS and default is not None:
            raise DagError(
                f"{kind.name} {function.__name__!r} has the parameter {name}={default!r}, which is filled from the "
                "context of the task; it can have no default but None.",
                hint="Give it another name.",
            )


def _returns_mapping(function: Callable[..., Any]) -> bool:
    """As in Airflow: a function that is annotated to return a dict has multiple outputs."""
    returned = getattr(function, "__annotations__", {}).get("return")
    if isinstance(returned, str):
        return _MAPPING.match(returned) is not None
    kind = get_origin(returned) or returned
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _free_id(dag: DAG, group: TaskGroup | None, task_id: str) -> str:
    """The id, or with a number (`__1`, `__2` …) when the DAG has it already. It is relative to the group."""
    full = (lambda name: name) if group is None else group.child_id
    if full(task_id) not in dag.tasks:
        return task_id
    stem = _SUFFIX.sub("", task_id)
    number = 1
    while full(f"{stem}__{number}") in dag.tasks:
        number += 1
    return f"{stem}__{number}"
