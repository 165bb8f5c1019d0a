"""Operators: the tasks of a DAG as objects. Making one adds it to its DAG; none of them does any work here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from tickless.authoring.arguments import TaskArguments, check_task_arguments
from tickless.authoring.dag import DAG, current_dag
from tickless.authoring.place import DagError, caller, line_in
from tickless.authoring.relation import Relative
from tickless.authoring.xcom import XComArg, find, resolve
from tickless.errors import UserError
from tickless.model.dag import TaskKind, TaskSpec, check_id

if TYPE_CHECKING:
    from tickless.authoring.context import TaskInstance
    from tickless.authoring.group import TaskGroup


class Operator(Relative):
    """A task of a DAG. `upstream` are the ids of the tasks that it waits for, in the order they were given."""

    kind: ClassVar[TaskKind]
    own_arguments: ClassVar[frozenset[str]] = frozenset()
    """What a `@task` decorator of this operator takes beside the arguments of every task."""

    def __init__(self, task_id: str, given: TaskArguments, *, name: str | None = None) -> None:
        self.place = caller()
        self.name = name or type(self).__name__
        own: dict[str, Any] = {**given}
        group: TaskGroup | None = own.pop("task_group", None)
        dag = own.pop("dag", None) or (group.dag if group is not None else None) or current_dag()
        if dag is None:
            raise DagError(
                f"task {task_id!r} is made outside of any DAG.",
                hint="Make it inside a function with @dag, inside `with DAG(...):`, or give it dag=...",
            )
        if not isinstance(dag, DAG):
            raise DagError(f"dag of task {task_id!r} is {dag!r}, but must be a DAG.")
        self.dag: DAG = dag
        self.group = group = group or dag.current_group()
        try:
            check_id("task_id", task_id)
            self.task_id = task_id if group is None else group.child_id(task_id)
            check_id("task_id", self.task_id)
        except UserError as error:
            raise DagError(error.message, hint=error.hint) from None
        defaults = dag.default_fields if group is None else group.default_fields
        self.fields = {**defaults, **check_task_arguments(f"{self.name} {task_id!r}", own)}
        self.weight_rule: str = self.fields.pop("weight_rule", "downstream")
        self.lineno = line_in(dag.file)
        self.upstream: dict[str, None] = {}
        self.inputs: dict[str, None] = {}
        dag.add(self)
        if group is not None:
            group.add(self)

    @property
    def output(self) -> XComArg:
        """What the task will return, to be passed to other tasks."""
        return XComArg(self)

    @property
    def needs_runner(self) -> bool:
        """Whether the DAG file has a part in its execution."""
        return self.kind is TaskKind.PYTHON

    def heads(self) -> list[Operator]:
        return [self]

    def tails(self) -> list[Operator]:
        return [self]

    def call(self, inputs: Mapping[str, Any], instance: TaskInstance | None = None) -> Any:
        """Do its work, given the return values of the tasks in `inputs`. In a runner only, if `needs_runner`."""
        raise NotImplementedError

    def to_spec(self) -> TaskSpec:
        """The task as data; its weight is still its own one."""
        return TaskSpec(
            task_id=self.task_id,
            kind=self.kind,
            upstream=tuple(self.upstream),
            inputs=tuple(self.inputs),
            group=self.group.group_id if self.group is not None else None,
            operator=self.name,
            lineno=self.lineno,
            **self.fields,
            **self._own_fields(),
        )

    def _own_fields(self) -> dict[str, Any]:
        return {}

    def _read(self, *values: Any) -> None:
        """Depend on every task whose return value is somewhere in the values."""
        for arg in find(values):
            self.set_upstream(arg)
            self.inputs[arg.operator.task_id] = None

    def __repr__(self) -> str:
        return f"<{self.name} {self.task_id!r}>"


class EmptyOperator(Operator):
    """Does nothing: a joint in the graph. It succeeds as soon as its trigger rule holds; no process is started."""

    kind = TaskKind.EMPTY

    def __init__(self, *, task_id: str, **args: Unpack[TaskArguments]) -> None:
        super().__init__(task_id, args)


class PythonOperator(Operator):
    """Calls a function of the DAG file with `op_args` and `op_kwargs`, which may hold other tasks' `.output`."""

    kind = TaskKind.PYTHON

    def __init__(
        self,
        *,
        task_id: str,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        _name: str | None = None,
        **args: Unpack[TaskArguments],
    ) -> None:
        if getattr(type(python_callable), "is_task_factory", False):
            raise DagError(f"python_callable of task {task_id!r} is a @task function already.", hint="Just call it.")
        if not callable(python_callable):
            raise DagError(f"python_callable of task {task_id!r} is {python_callable!r}, which cannot be called.")
        super().__init__(task_id, args, name=_name)
        self.python_callable = python_callable
        self.op_args = tuple(op_args or ())
        self.op_kwargs = dict(op_kwargs or {})
        self._check_call()
        self._read(self.op_args, self.op_kwargs)

    def call(self, inputs: Mapping[str, Any], instance: TaskInstance | None = None) -> Any:
        """Run the function; an async function runs to its end."""
        args, kwargs = resolve(self.op_args, inputs), resolve(self.op_kwargs, inputs)
        result = self.python_callable(*args, **kwargs)
        if inspect.iscoroutine(result):
            import asyncio

            return asyncio.run(result)
        return result

    def _check_call(self) -> None:
        """A wrong call is an error of the DAG file now, not of the task at night."""
        try:
            signature = inspect.signature(self.python_callable)
        except (TypeError, ValueError):  # a callable in C may have no signature to check against
            return
        try:
            signature.bind(*self.op_args, **self.op_kwargs)
        except TypeError as error:
            name = getattr(self.python_callable, "__name__", repr(self.python_callable))
            raise DagError(f"task {self.task_id!r} cannot call {name}{signature}: {error}.") from None
