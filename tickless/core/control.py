"""What people ask of runs and limits: cancel, resize, reload."""

from __future__ import annotations

from collections.abc import Iterator

from tickless.core import commands, events
from tickless.core.attempts import Attempts
from tickless.core.changes import Changes
from tickless.core.decision import Write
from tickless.core.machine import Happening
from tickless.core.quota import Quota
from tickless.core.record import Run
from tickless.core.runs import Runs
from tickless.errors import Refused, UserError
from tickless.model.row import PoolRow
from tickless.model.state import FINISHED_TASK_STATES, EndReason, RunState


class Control:
    """Acts on the parts below it; holds nothing of its own."""

    def __init__(self, changes: Changes, quota: Quota, runs: Runs, attempts: Attempts) -> None:
        self._changes = changes
        self._quota = quota
        self._runs = runs
        self._attempts = attempts

    def cancel_run(self, command: commands.CancelRun) -> None:
        run = self._runs.runs.get(command.run)
        if run is None:
            raise Refused(f"run {command.run} has ended already", hint=f"`tickless run show {command.run}` shows how.")
        self._changes.request_done("command", command.request_id, run.key)
        if run.cancel_requested_at is not None:
            return
        self._changes.touch_run(run)
        run.cancel_requested_at = self._changes.now
        if run.state is RunState.QUEUED:
            if run.frozen is None:
                self._quota.dag(run.row.dag_id).queued.remove(run)
            if run.instances:  # it was finished, and cleared
                self._runs.agenda.appendleft(self.cancel_instances(run))
            else:
                self._runs.end_run(run)
        else:
            self._runs.agenda.appendleft(self.cancel_instances(run))
            if run.frozen is not None:
                self._runs.agenda.append(self._runs.create_instances(run))  # it may have been frozen half-way through

    def cancel_instances(self, run: Run) -> Iterator[None]:
        for instance in list(run.instances.values()):
            attempt = self._attempts.attempts.get(instance.attempt_id)
            if attempt is not None:
                self._attempts.stop(attempt, EndReason.STOPPED)
            elif instance.state not in FINISHED_TASK_STATES:
                self._runs.finish(instance, Happening.CANCEL, "the run was cancelled")
            yield
        if run.is_complete and run.key in self._runs.runs:  # frozen until now, and nothing was left to stop
            self._runs.end_run(run)

    def set_pool(self, command: commands.SetPool) -> None:
        if command.slots < 0:
            raise UserError(f"a pool cannot have {command.slots} slots", hint="Give a number from 0 up.")
        self._changes.request_done("command", command.request_id, None)
        self._changes.writes.append(Write(PoolRow(name=command.name, slots=command.slots)))
        self._quota.resize(self._quota.pool(command.name), command.slots)

    def on_limits_changed(self, event: events.LimitsChanged) -> None:
        runs = self._runs.runs.values()
        self._quota.apply(event.limits, event.routing, runs)
        for dag in self._quota.dags.values():
            self._runs.start_queued_runs(dag)
        self._quota.requeue(runs)
