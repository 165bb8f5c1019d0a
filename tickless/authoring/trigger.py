"""Starting runs of other DAGs from a task: a function, and an operator that may wait for the run's end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from tickless.authoring import arguments
from tickless.authoring.arguments import TaskArguments
from tickless.authoring.daemon import TriggeredRun, daemon
from tickless.authoring.field import resolve
from tickless.authoring.operators import Operator
from tickless.authoring.place import DagError
from tickless.errors import Refused, UserError
from tickless.exceptions import AirflowException, TaskSkipped
from tickless.model.dag import TaskKind
from tickless.model.state import FINISHED_RUN_STATES, RunState

if TYPE_CHECKING:
    from tickless.authoring.context import TaskInstance
    from tickless.authoring.xcom import XComArg

XCOM_RUN_ID = "trigger_run_id"


def trigger_dag(
    dag_id: str,
    conf: Mapping[str, Any] | None = None,
    *,
    run_id: str | None = None,
    logical_date: datetime | None = None,
) -> TriggeredRun:
    """Start a run of a DAG; returns when that is committed. However often the daemon restarts meanwhile, it is one run.

    Each try of the task that gets here starts a run of its own, unless it names the `run_id`.
    """
    try:
        text = json.dumps(dict(conf or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"the conf for a run of {dag_id!r} is not JSON: {error}") from None
    if logical_date is not None and logical_date.tzinfo is None:
        logical_date = logical_date.replace(tzinfo=UTC)
    return daemon(f"a run of {dag_id!r}").trigger(dag_id, conf=text, run_id=run_id, logical_date=logical_date)


class TriggerDagRunOperator(Operator):
    """Starts a run of another DAG and returns its run id, which is pushed as `trigger_run_id`, too.

    With `wait_for_completion` the task goes on until that run has ended; the daemon tells it. `poke_interval` is how
    often it asks when the daemon has more who wait than it can remember.
    """

    kind = TaskKind.PYTHON
    template_fields: ClassVar[tuple[str, ...]] = ("trigger_dag_id", "trigger_run_id", "logical_date", "conf")

    def __init__(
        self,
        *,
        task_id: str,
        trigger_dag_id: str | XComArg,
        trigger_run_id: str | XComArg | None = None,
        conf: Mapping[str, Any] | XComArg | None = None,
        logical_date: str | datetime | XComArg | None = None,
        wait_for_completion: bool = False,
        poke_interval: float | timedelta = 60,
        allowed_states: Sequence[str] | None = None,
        failed_states: Sequence[str] | None = None,
        skip_when_already_exists: bool = False,
        **args: Unpack[TaskArguments],
    ) -> None:
        super().__init__(task_id, args)
        of = f"of task {task_id!r}"
        self.trigger_dag_id, self.trigger_run_id, self.conf = trigger_dag_id, trigger_run_id, conf
        self.logical_date = logical_date
        self.wait_for_completion = arguments.flag(f"wait_for_completion {of}", wait_for_completion)
        self.skip_when_already_exists = arguments.flag(f"skip_when_already_exists {of}", skip_when_already_exists)
        self.poke_seconds = arguments.seconds(f"poke_interval {of}", poke_interval)
        if self.poke_seconds <= 0:
            raise DagError(f"poke_interval {of} is {poke_interval!r}, but must be above 0.")
        self.allowed_states = _states(f"allowed_states {of}", allowed_states, RunState.SUCCESS)
        self.failed_states = _states(f"failed_states {of}", failed_states, RunState.FAILED)
        self._read()

    def call(self, inputs: Mapping[Any, Any], instance: TaskInstance | None = None) -> str:
        render = self._renderer(instance)
        dag_id, run_id, moment, conf = (resolve(getattr(self, name), inputs, render) for name in self.template_fields)
        if isinstance(moment, str):
            try:
                moment = datetime.fromisoformat(moment)
            except ValueError:
                raise UserError(f"logical_date is {moment!r}, not a date like 2026-11-23T00:00:00Z") from None
        try:
            run = trigger_dag(dag_id, conf, run_id=run_id, logical_date=moment)
        except Refused as error:
            if self.skip_when_already_exists and run_id is not None:
                raise TaskSkipped(error.message) from None
            raise
        if instance is not None:
            instance.xcom_push(XCOM_RUN_ID, run.run_id)
        if self.wait_for_completion:
            self._wait(run)
        return run.run_id

    def _wait(self, run: TriggeredRun) -> None:
        what = f"run {run.dag_id}/{run.run_id}"
        until = [s for s in RunState if s in FINISHED_RUN_STATES or s in (*self.allowed_states, *self.failed_states)]
        ask = daemon(f"the state of {what}")
        while (state := ask.run_state(run.dag_id, run.run_id, until=until)) not in self.allowed_states:
            if state in self.failed_states:
                raise AirflowException(f"{what} ended as {state}")
            if state in FINISHED_RUN_STATES:
                raise AirflowException(f"{what} ended as {state}, which is not in {list(self.allowed_states)}")
            time.sleep(self.poke_seconds)


def _states(what: str, given: Sequence[str] | None, default: RunState) -> tuple[str, ...]:
    states = (default.value,) if given is None else tuple(str(state) for state in given)
    if unknown := [state for state in states if state not in set(RunState)]:
        raise DagError(f"{what} has {unknown[0]!r}; a run is one of {', '.join(RunState)}.")
    return states
