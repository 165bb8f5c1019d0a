"""What people ask of runs and limits: cancel, resize, reload."""

from __future__ import annotations

from tickless.core import commands, events
from tickless.core.changes import Changes
from tickless.core.decision import Write
from tickless.core.quota import Quota
from tickless.core.runs import Runs
from tickless.core.stopping import Stopping
from tickless.errors import Refused, UserError
from tickless.model.row import PoolRow


class Control:
    """Acts on the parts below it; holds nothing of its own."""

    def __init__(self, changes: Changes, quota: Quota, runs: Runs, stopping: Stopping) -> None:
        self._changes = changes
        self._quota = quota
        self._runs = runs
        self._stopping = stopping

    def cancel_run(self, command: commands.CancelRun) -> None:
        run = self._runs.runs.get(command.run)
        if run is None:
            raise Refused(f"run {command.run} has ended already", hint=f"`tickless run show {command.run}` shows how.")
        self._changes.request_done("command", command.request_id, run.key)
        self._stopping.stop(run, None)

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
