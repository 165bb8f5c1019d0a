"""Bash: BashOperator, and the operator of `@task.bash`, whose function returns the command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from tickless.authoring import arguments
from tickless.authoring.arguments import TaskArguments
from tickless.authoring.operators import Operator, PythonOperator
from tickless.authoring.place import DagError
from tickless.authoring.xcom import XComArg
from tickless.exceptions import AirflowException
from tickless.model.dag import SKIP_EXIT_CODE, TaskKind

if TYPE_CHECKING:
    from tickless.authoring.context import TaskInstance

_TEMPLATE = re.compile(r"\{\{\s*(ti|task_instance|dag_run|run_id|params|ds|ts|dag|task|var|conn|macros|"
                       r"ds_nodash|ts_nodash|logical_date|execution_date|data_interval_(?:start|end))\b")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the process of a bash task is to become, once its DAG file has had its say."""

    text: str
    env: Mapping[str, str] | None
    cwd: str | None


class _Bash(Operator):
    """What the two have in common: where and how the command runs."""

    kind = TaskKind.BASH
    own_arguments = frozenset({"env", "append_env", "cwd", "skip_on_exit_code"})

    def _set_up(
        self, env: Mapping[str, str] | None, append_env: bool, cwd: str | None, skip_on_exit_code: int | None
    ) -> None:
        of = f"of task {self.task_id!r}"
        self.env = None if env is None else _environment(of, env)
        self.append_env = arguments.flag(f"append_env {of}", append_env)
        self.cwd = arguments.optional_text(f"cwd {of}", cwd)
        code = skip_on_exit_code
        self.skip_on_exit_code = None if code is None else arguments.whole(f"skip_on_exit_code {of}", code)

    def _own_fields(self) -> dict[str, Any]:
        return {
            "needs_runner": self.needs_runner,
            "env": self.env,
            "append_env": self.append_env,
            "cwd": self.cwd,
            "skip_on_exit_code": self.skip_on_exit_code,
        }


class BashOperator(_Bash):
    """Runs a command in bash. Exit code 0 is success, `skip_on_exit_code` (99) marks the task skipped.

    `env` replaces the environment, or adds to it with `append_env=True`; the TICKLESS_ variables are always there.
    """

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
        self._set_up(env, append_env, cwd, skip_on_exit_code)

    def _own_fields(self) -> dict[str, Any]:
        return {**super()._own_fields(), "command": self.bash_command}


class BashTask(_Bash, PythonOperator):
    """`@task.bash`: the function is called when the task runs; what it returns is the command."""

    kind = TaskKind.BASH

    def __init__(
        self,
        *,
        env: Mapping[str, str] | None = None,
        append_env: bool = False,
        cwd: str | None = None,
        skip_on_exit_code: int | None = SKIP_EXIT_CODE,
        **args: Any,
    ) -> None:
        PythonOperator.__init__(self, **args)
        self._set_up(env, append_env, cwd, skip_on_exit_code)

    @property
    def needs_runner(self) -> bool:
        return True

    def call(self, inputs: Mapping[str, Any], instance: TaskInstance | None = None) -> Command:
        """The command that the function returns."""
        text = PythonOperator.call(self, inputs, instance)
        if not isinstance(text, str) or not text.strip():
            raise AirflowException(
                f"the function of the bash task {self.task_id!r} returned {text!r}, but must return a command"
            )
        return Command(text=text, env=self.env, cwd=self.cwd)


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
