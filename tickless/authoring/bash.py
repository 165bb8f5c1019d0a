"""Bash: BashOperator, and the operator of `@task.bash`, whose function returns the command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from tickless.authoring import arguments
from tickless.authoring.arguments import TaskArguments
from tickless.authoring.field import Render, has_template, resolve
from tickless.authoring.lazy import LazyXComs
from tickless.authoring.operators import Operator, PythonOperator
from tickless.authoring.place import DagError
from tickless.authoring.xcom import XComArg
from tickless.exceptions import AirflowException
from tickless.model.dag import SKIP_EXIT_CODE, TaskKind

if TYPE_CHECKING:
    from tickless.authoring.context import TaskInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the process of a bash task is to become, once its DAG file has had its say."""

    text: str
    env: Mapping[str, str] | None
    append_env: bool
    cwd: str | None


class _Bash(Operator):
    """What the two have in common: where and how the command runs."""

    kind = TaskKind.BASH
    template_ext: ClassVar[tuple[str, ...]] = (".sh", ".bash")
    own_arguments = frozenset({"env", "append_env", "cwd", "skip_on_exit_code"})

    env: dict[str, str | XComArg] | XComArg | None
    cwd: str | XComArg | None

    def _set_up(
        self,
        env: Mapping[str, str | XComArg] | XComArg | None,
        append_env: bool,
        cwd: str | XComArg | None,
        skip_on_exit_code: int | None,
    ) -> None:
        of = f"of task {self.task_id!r}"
        self.env = env if env is None or isinstance(env, XComArg) else _environment(of, env)
        self.append_env = arguments.flag(f"append_env {of}", append_env)
        self.cwd = cwd if isinstance(cwd, XComArg) else arguments.optional_text(f"cwd {of}", cwd)
        code = skip_on_exit_code
        self.skip_on_exit_code = None if code is None else arguments.whole(f"skip_on_exit_code {of}", code)

    def _command(self, text: object, inputs: Mapping[Any, Any], render: Render | None) -> Command:
        env = resolve(self.env, inputs, render)
        cwd = resolve(self.cwd, inputs, render)
        if not isinstance(text, str) or not text.strip():
            raise AirflowException(f"the command of task {self.task_id!r} is {text!r}, but must be a string")
        if env is not None and not isinstance(env, dict):
            raise AirflowException(f"env of task {self.task_id!r} is {env!r}, but must be a dict")
        if cwd is not None and not isinstance(cwd, str):
            raise AirflowException(f"cwd of task {self.task_id!r} is {cwd!r}, but must be a string")
        return Command(
            text=text,
            env=None if env is None else {name: _variable(value) for name, value in env.items()},
            append_env=self.append_env,
            cwd=cwd,
        )

    def _own_fields(self) -> dict[str, Any]:
        is_made = self.needs_runner
        return {
            "needs_runner": is_made,
            # What is a template, or holds an XComArg, is nothing that a launcher could use.
            "env": None if is_made else self.env,
            "append_env": self.append_env,
            "cwd": None if is_made else self.cwd,
            "skip_on_exit_code": self.skip_on_exit_code,
        }


class BashOperator(_Bash):
    """Runs a command in bash. Exit code 0 is success, `skip_on_exit_code` (99) marks the task skipped.

    `env` replaces the environment, or adds to it with `append_env=True`; the TICKLESS_ variables are always there.
    The command, `env` and `cwd` may be templates; a command that ends with .sh or .bash names a file with one. Without
    any the command is started without a Python in between.
    """

    template_fields = ("bash_command", "env", "cwd")

    def __init__(
        self,
        *,
        task_id: str,
        bash_command: str | XComArg,
        env: Mapping[str, str | XComArg] | XComArg | None = None,
        append_env: bool = False,
        cwd: str | XComArg | None = None,
        skip_on_exit_code: int | None = SKIP_EXIT_CODE,
        **args: Unpack[TaskArguments],
    ) -> None:
        super().__init__(task_id, args)
        of = f"of task {task_id!r}"
        self.bash_command = _text(f"bash_command {of}", bash_command)
        if isinstance(bash_command, str) and not bash_command.strip():
            raise DagError(f"bash_command {of} is empty.")
        self._set_up(env, append_env, cwd, skip_on_exit_code)
        self._read()

    @property
    def needs_runner(self) -> bool:
        return bool(self.templates or self.has_results)

    def call(self, inputs: Mapping[Any, Any], instance: TaskInstance | None = None) -> Command:
        """The command, rendered."""
        render = self._renderer(instance)
        return self._command(resolve(self.bash_command, inputs, render), inputs, render)

    def _own_fields(self) -> dict[str, Any]:
        return {**super()._own_fields(), "command": None if self.needs_runner else self.bash_command}


class BashTask(_Bash, PythonOperator):
    """`@task.bash`: the function is called when the task runs, and returns the command, which may be a template."""

    kind = TaskKind.BASH
    template_fields = (*PythonOperator.template_fields, "env", "cwd")
    template_ext = ()
    own_arguments = PythonOperator.own_arguments | _Bash.own_arguments

    def __init__(
        self,
        *,
        env: Mapping[str, str] | None = None,
        append_env: bool = False,
        cwd: str | None = None,
        skip_on_exit_code: int | None = SKIP_EXIT_CODE,
        **args: Any,
    ) -> None:
        self.env, self.cwd = None if env is None else _environment(f"of task {args['task_id']!r}", env), cwd
        PythonOperator.__init__(self, **args)
        self._set_up(env, append_env, cwd, skip_on_exit_code)

    @property
    def needs_runner(self) -> bool:
        return True

    def call(self, inputs: Mapping[Any, Any], instance: TaskInstance | None = None) -> Command:
        """The command that the function returns, rendered."""
        text = PythonOperator.call(self, inputs, instance)
        if not isinstance(text, str) or not text.strip():
            raise AirflowException(
                f"the function of the bash task {self.task_id!r} returned {text!r}, but must return a command"
            )
        if instance is not None and has_template(text):
            what = f"the command of task {self.task_id!r}"
            text = self.dag.templates.render(what, text, instance.get_template_context(), is_file=False)
        return self._command(text, inputs, self._renderer(instance))


def _environment(of: str, env: object) -> dict[str, str | XComArg]:
    if not isinstance(env, Mapping):
        raise DagError(f"env {of} is {env!r}, but must be a dict of strings.")
    for name in env:
        arguments.text(f"a name in env {of}", name)
        if not name or "=" in name:
            raise DagError(f"env {of} has the name {name!r}, which no environment can hold.")
    return {name: _text(f"env[{name!r}] {of}", value) for name, value in env.items()}


def _text(name: str, value: object) -> str | XComArg:
    return value if isinstance(value, XComArg) else arguments.text(name, value)


def _variable(value: object) -> str:
    """The value of an environment variable: strings as they are, what a task returned otherwise as JSON."""
    return value if isinstance(value, str) else json.dumps(list(value) if isinstance(value, LazyXComs) else value)
