"""Operators: the tasks of a DAG as objects. Making one adds it to its DAG; none of them does any work here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

from tickless.authoring import arguments
from tickless.authoring.arguments import TaskArguments, check_task_arguments
from tickless.authoring.dag import DAG, current_dag
from tickless.authoring.place import DagError, caller, line_in
from tickless.authoring.relation import Relative
from tickless.authoring.xcom import XComArg, find, resolve
from tickless.errors import UserError
from tickless.model.dag import SKIP_EXIT_CODE, TaskKind, TaskSpec, check_id

_TEMPLATE = re.compile(r"\{\{\s*(ti|task_instance|dag_run|run_id|params|ds|ts|dag|task|var|conn|macros|"
                       r"ds_nodash|ts_nodash|logical_date|execution_date|data_interval_(?:start|end))\b")  # fmt: skip


class Operator(Relative):
    """A task of a DAG. `upstream` are the ids of the tasks that it waits for, in the order they were given."""

    kind: ClassVar[TaskKind]

    def __init__(self, task_id: str, given: TaskArguments, *, name: str | None = None) -> None:
        self.place = caller()
        self.name = name or type(self).__name__
        try:
            check_id("task_id", task_id)
        except UserError as error:
            raise DagError(error.message, hint=error.hint) from None
        self.task_id = task_id
        own: dict[str, Any] = {**given}
        dag = own.pop("dag", None) or current_dag()
        if dag is None:
            raise DagError(
                f"task {task_id!r} is made outside of any DAG.",
                hint="Make it inside a function with @dag, inside `with DAG(...):`, or give it dag=...",
            )
        if not isinstance(dag, DAG):
            raise DagError(f"dag of task {task_id!r} is {dag!r}, but must be a DAG.")
        self.dag: DAG = dag
        self.fields = {**dag.default_fields, **check_task_arguments(f"{self.name} {task_id!r}", own)}
        self.weight_rule: str = self.fields.pop("weight_rule", "downstream")
        self.lineno = line_in(dag.file)
        self.upstream: dict[str, None] = {}
        self.inputs: dict[str, None] = {}
        dag.add(self)

    @property
    def output(self) -> XComArg:
        """What the task will return, to be passed to other tasks."""
        return XComArg(self)

    def operators(self) -> list[Operator]:
        return [self]

    def to_spec(self) -> TaskSpec:
        """The task as data; its weight is still its own one."""
        return TaskSpec(
            task_id=self.task_id,
            kind=self.kind,
            upstream=tuple(self.upstream),
            inputs=tuple(self.inputs),
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

    def call(self, inputs: Mapping[str, Any]) -> Any:
        """Run the function, given the return values of the tasks in `inputs`; an async function runs to its end."""
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


class BashOperator(Operator):
    """Runs a command in bash. Exit code 0 is success, `skip_on_exit_code` (99) marks the task skipped.

    `env` replaces the environment, or adds to it with `append_env=True`; the TICKLESS_ variables are always there.
    """

    kind = TaskKind.BASH

    def __init__(
        self,
        *,
        task_id: str,
        bash_command: str,
        env: Mapping[str, str] | None = None,
        append_env: bool = False,
        cwd: str | None = None,
        skip_on_exit_code: int | None = SKIP_EXIT_CODE,
        **args: Unpack[TaskArguments],
    ) -> None:
        super().__init__(task_id, args)
        of = f"of task {task_id!r}"
        self.bash_command = _plain(f"bash_command {of}", bash_command)
        if not self.bash_command.strip():
            raise DagError(f"bash_command {of} is empty.")
        self.env = None if env is None else _environment(of, env)
        self.append_env = arguments.flag(f"append_env {of}", append_env)
        self.cwd = arguments.optional_text(f"cwd {of}", cwd)
        code = skip_on_exit_code
        self.skip_on_exit_code = None if code is None else arguments.whole(f"skip_on_exit_code {of}", code)

    def _own_fields(self) -> dict[str, Any]:
        return {
            "command": self.bash_command,
            "env": self.env,
            "append_env": self.append_env,
            "cwd": self.cwd,
            "skip_on_exit_code": self.skip_on_exit_code,
        }


def _environment(of: str, env: object) -> dict[str, str]:
    if not isinstance(env, Mapping):
        raise DagError(f"env {of} is {env!r}, but must be a dict of strings.")
    for name in env:
        arguments.text(f"a name in env {of}", name)
        if not name or "=" in name:
            raise DagError(f"env {of} has the name {name!r}, which no environment can hold.")
    return {name: _plain(f"env[{name!r}] {of}", value) for name, value in env.items()}


def _plain(name: str, value: object) -> str:
    """A string without templates: they would reach the shell as they are."""
    if isinstance(value, XComArg):
        raise DagError(
            f"{name} is {value!r}, but a return value cannot be put into a command yet.",
            hint="Templates come in a later release; pass the value to a @task function instead.",
        )
    plain = arguments.text(name, value)
    if found := _TEMPLATE.search(plain):
        raise DagError(
            f"{name} uses the template {{{{ {found[1]} … }}}}, but templates come in a later release.",
            hint="The run is described by $TICKLESS_RUN_ID, $TICKLESS_CONF and the other TICKLESS_ variables.",
        )
    return plain
