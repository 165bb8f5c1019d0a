"""Runs that end before their time: somebody cancels one, its dagrun_timeout passes, or a task of a DAG with fail_fast
fails, or somebody marks one.

All four are one thing. That it is so, since when and why is a row of the run (`cancel_requested_at`,
`cancel_reason`); what follows is done instance by instance on the agenda, and again after a restart: attempts are
stopped, whatever has none is skipped. The run ends with the last of its processes: as failed, unless somebody
declared it done.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from tickless.core.attempts import Attempts
from tickless.core.changes import Changes
from tickless.core.quota import Quota
from tickless.core.record import MARKED_RUN_FAILED, MARKED_RUN_SUCCESS, Instance, Run
from tickless.core.runs import Runs
from tickless.core.timers import RunTimeoutDue, TimerHeap
from tickless.model.state import FINISHED_TASK_STATES, EndReason, RunState

_WISHES = {MARKED_RUN_SUCCESS: EndReason.MARKED_SUCCESS, MARKED_RUN_FAILED: EndReason.MARKED_FAILED}
"""What becomes of a task that runs, by why its run is ended."""


class Stopping:
    """Ends runs; hears from the parts below of runs that start and of tasks that fail."""

    def __init__(self, changes: Changes, quota: Quota, runs: Runs, attempts: Attempts, timers: TimerHeap) -> None:
        self._changes = changes
        self._quota = quota
        self._runs = runs
        self._attempts = attempts
        self._timers = timers
        runs.when_started = self.arm
        attempts.when_failed = self._task_failed

    def stop(self, run: Run, reason: str | None) -> None:
        """End an unfinished run. No reason: somebody asked for it."""
        if run.cancel_requested_at is not None:
            return
        self._changes.touch_run(run)
        run.cancel_requested_at = self._changes.now
        run.cancel_reason = reason
        if run.state is RunState.QUEUED:
            if run.frozen is None:
                self._quota.turns(run).queued.remove(run)
                self._quota.dag(run.row.dag_id).queued_again.pop(run.key, None)
            if run.instances:  # it was finished, and cleared
                self._runs.agenda.appendleft(self.stop_instances(run))
            else:
                self._runs.end_run(run)
        else:
            self._runs.agenda.appendleft(self.stop_instances(run))
            if run.frozen is not None:
                self._runs.agenda.append(self._runs.create_instances(run))  # it may have been frozen half-way through

    def stop_instances(self, run: Run) -> Iterator[None]:
        for instance in list(run.instances.values()):
            attempt = self._attempts.attempts.get(instance.attempt_id)
            if attempt is not None:
                wish = _WISHES.get(run.cancel_reason or "")
                if wish is not None:
                    self._attempts.stop_to(attempt, wish)
                else:
                    self._attempts.stop(attempt, EndReason.STOPPED)
            elif instance.state not in FINISHED_TASK_STATES:
                self._runs.finish(instance, run.ending, run.why_cancelled)
            yield
        # Frozen until now, and nothing was left to stop. One that was cleared since is another record.
        if run.is_complete and self._runs.runs.get(run.key) is run:
            self._runs.end_run(run)

    def arm(self, run: Run) -> None:
        """A run has started, or was read back: its timeout counts from its start."""
        due_at = timeout_at(run)
        if due_at is not None:
            self._timers.arm(due_at, RunTimeoutDue(run.key))

    def timeout_due(self, timer: RunTimeoutDue) -> None:
        run = self._runs.runs.get(timer.run)
        due_at = timeout_at(run) if run is not None else None
        # A run that was cleared has started anew; the timer of its first start is still in the heap.
        if run is None or due_at is None or not run.may_schedule:
            return
        if due_at > self._changes.now:
            self.arm(run)  # of its first start, or the clock was set back meanwhile: it must not be lost
        else:
            self.stop(run, f"dagrun_timeout: it has been running for {run.plan.spec.dagrun_timeout_seconds:g} s")

    def _task_failed(self, instance: Instance) -> None:
        run = instance.run
        if run.plan.spec.fail_fast and run.may_schedule and run.key in self._runs.runs:
            self.stop(run, f"fail_fast: task {instance.task.spec.task_id} has failed")


def timeout_at(run: Run) -> datetime | None:
    """When the dagrun_timeout of a run will have passed; None = never, or it has not started."""
    seconds = run.plan.spec.dagrun_timeout_seconds
    return None if seconds is None or run.started_at is None else run.started_at + timedelta(seconds=seconds)
