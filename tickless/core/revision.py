"""What people change after the fact: tasks that are to run again, and tasks that are declared done or given up.

The engine keeps no finished instances, so their rows come with the command; a finished run is taken up again from its
row and its counts. Everything is checked before anything is changed. What an instance is now decides:

- finished: its count is taken back, also from its downstream's. Cleared, it waits for its upstream; marked, it is
  counted anew. What waits below is looked at again; what below has run stays as it is, unless it was chosen, too.
- alive: its attempt is stopped. Only when the end of its process is decided it goes on: cleared (`restarting` until
  then) to a new try, marked to the state that was asked for. So two attempts of it are never alive together.
- waiting for a slot or a retry: cleared, it waits for its upstream; marked, it is finished.

What a branch did not follow is skipped again when it is cleared without the branch: its choice comes with the command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from tickless.core.attempts import Attempts
from tickless.core.changes import Changes
from tickless.core.choice import skipped_again, why_skipped
from tickless.core.commands import AlterTasks, BranchChoice, FinishedRun, MarkRun, TaskVerb
from tickless.core.decision import RunChanged, Write
from tickless.core.machine import Happening, RunHappening, move, move_run
from tickless.core.plan import compile_plan
from tickless.core.quota import Quota
from tickless.core.record import MARKED_RUN_FAILED, MARKED_RUN_SUCCESS, Instance, Run
from tickless.core.runs import Runs
from tickless.core.stopping import Stopping
from tickless.errors import Refused
from tickless.model.dag import DagSpec
from tickless.model.id import UNMAPPED
from tickless.model.row import InstanceRow
from tickless.model.state import FINISHED_RUN_STATES, FINISHED_TASK_STATES, EndReason, RunState, TaskState

_MARKS = {
    TaskVerb.MARK_SUCCESS: (Happening.MARK_SUCCESS, TaskState.SUCCESS, EndReason.MARKED_SUCCESS),
    TaskVerb.MARK_FAILED: (Happening.MARK_FAILED, TaskState.FAILED, EndReason.MARKED_FAILED),
}


class RowsBehind(Refused):
    """Something was decided after the rows were read: read them again, when it is committed."""


class Revision:
    """Acts on the parts below it; holds nothing of its own."""

    def __init__(
        self,
        changes: Changes,
        quota: Quota,
        runs: Runs,
        attempts: Attempts,
        stopping: Stopping,
        decode_spec: Callable[[str], DagSpec],
    ) -> None:
        self._changes = changes
        self._quota = quota
        self._runs = runs
        self._attempts = attempts
        self._stopping = stopping
        self._decode_spec = decode_spec

    def mark_run(self, command: MarkRun) -> None:
        """Declare a run done or give it up: it ends before its time, with this verdict; or has ended with it."""
        run = self._runs.runs.get(command.run)
        reason = MARKED_RUN_SUCCESS if command.state is RunState.SUCCESS else MARKED_RUN_FAILED
        if run is not None:
            if run.cancel_requested_at is not None:
                raise Refused(f"run {run.key} is being ended already", hint=f"`tickless why {run.key}` says why.")
            self._stopping.stop(run, reason)
        elif command.finished is None:
            raise RowsBehind(f"run {command.run} has just ended")
        elif command.finished.state is not command.state:
            before = command.finished
            row = replace(
                before, state=command.state, cancel_requested_at=self._changes.now, cancel_reason=reason, frozen=None
            )
            self._changes.writes.append(Write(row, (before.state,)))
            self._changes.effects.append(
                RunChanged(run=row.key, dag_id=row.dag_id, run_id=row.run_id, state=row.state, seconds=None)
            )
        self._changes.writes.extend(Write(row) for row in command.along)

    def alter_tasks(self, command: AlterTasks) -> None:
        """Clear or mark; see the module's docstring."""
        run = self._runs.runs.get(command.run)
        finished, live = self._sort(run, command)
        is_over = run is None
        if run is None:
            assert command.finished_run is not None
            run = self._take_up(command.finished_run)
        self._changes.writes.extend(Write(row) for row in command.along)
        # Those that are finished first: a run must not end while one of them is still to be changed.
        if command.verb is TaskVerb.CLEAR:
            skipped = skipped_again(run.plan, _standing(command))
            reopened = []
            for row in finished:
                branch = skipped.get(run.plan.index_of[row.task_id])
                if branch is None:
                    reopened.append(self._reopen(run, row))
                else:
                    self._skip_again(run, row, branch)
            for instance in live:
                self._clear_live(instance)
            self._runs.agenda.appendleft(
                self._runs.judge_reopened([*reopened, *(each for each in live if each.state is TaskState.NONE)])
            )
        else:
            for row in finished:
                self._mark_finished(run, row, command.verb)
            for instance in live:
                self._mark_live(instance, command.verb)
        if is_over:
            self._put_back(run, command)

    def _sort(self, run: Run | None, command: AlterTasks) -> tuple[list[InstanceRow], list[Instance]]:
        """Those that are finished, and those that are not; or the reason why nothing can be done."""
        if run is None:
            given = command.finished_run
            if given is None or given.row.state not in FINISHED_RUN_STATES:
                raise RowsBehind(f"run {command.run} has just ended")
            if given.row.frozen is not None:
                raise Refused(f"run {command.run} was stopped by an internal error: {given.row.frozen}")
        else:
            about = f"run {run.key} ({run.row.dag_id}/{run.row.run_id})"
            if run.frozen is not None:
                raise Refused(f"{about} was stopped by an internal error", hint=f"`tickless run cancel {run.key}`")
            if run.cancel_requested_at is not None:
                raise Refused(f"{about} is being cancelled", hint="Wait for its end, or for that of its tasks.")
        finished: list[InstanceRow] = []
        live: list[Instance] = []
        for row in command.rows:
            instance = self._runs.instance(row.key)
            if instance is not None:
                live.append(instance)
            elif row.state not in FINISHED_TASK_STATES:
                raise RowsBehind(f"{row.task_id} of run {row.run} has just ended")
            elif row.attempt_id in self._attempts.attempts:
                raise Refused(f"attempt {row.attempt_id} of {row.task_id} of run {row.run} has not ended yet")
            else:
                finished.append(row)
        if run is not None:
            for (task_id, state), count in Counter((row.task_id, row.state) for row in finished).items():
                if run.tallies.get(run.plan.index_of[task_id], {}).get(state, 0) < count:
                    raise RowsBehind(f"{task_id} of run {run.key} has just been marked")
        return finished, live

    # ---- runs -----------------------------------------------------------------------------------------------------

    def _take_up(self, given: FinishedRun) -> Run:
        """The record of a finished run, as the engine had it; nobody knows of it yet."""
        plan = self._quota.current.get(given.row.dag_id)
        if plan is None or plan.version.key != given.version.key:
            plan = compile_plan(given.version, self._decode_spec(given.version.spec))
        run = self._runs.record(given.row, plan)
        for tally in given.tallies:
            run.tally(plan.index_of[tally.task_id], tally.state, tally.count, returned=tally.returned)
        for row in given.maps:
            run.take_map(row)
        return run

    def _put_back(self, run: Run, command: AlterTasks) -> None:
        """What becomes of a run that was finished: it is queued when something of it is to run, else judged anew."""
        if command.verb is TaskVerb.CLEAR and not run.is_complete:
            self._changes.touch_run(run)
            run.state = move_run(run.state, RunHappening.CLEAR)
            run.cancel_requested_at = run.cancel_reason = run.started_at = run.ended_at = None
            self._runs.register(run)
            self._changes.tell(run, None)
            self._runs.queue_again(run)
            self._runs.start_queued_runs(self._quota.dag(run.row.dag_id))
            return
        self._runs.past.revised(run)
        if command.verb is not TaskVerb.CLEAR:
            after = RunHappening.FAIL if self._runs.is_bad(run) else RunHappening.SUCCEED
            if run.state is not (RunState.FAILED if after is RunHappening.FAIL else RunState.SUCCESS):
                self._changes.touch_run(run)
                run.state = move_run(run.state, after)
                self._changes.tell(run, None)

    # ---- task instances -------------------------------------------------------------------------------------------

    def _reopen(self, run: Run, row: InstanceRow) -> Instance:
        instance = Instance.of(run, row)
        self._runs.reopen(instance, Happening.CLEAR)
        run.untally(instance.task.index, row)
        run.instances[instance.task.index, instance.map_index] = instance
        return instance

    def _skip_again(self, run: Run, row: InstanceRow, branch: str) -> None:
        """A branch has decided against it: cleared without the branch it is skipped again, whatever it became since."""
        if row.state is TaskState.SKIPPED:
            return
        instance = Instance.of(run, row)
        self._runs.reopen(instance, Happening.CLEAR)
        run.wait_no_more(instance)
        run.untally(instance.task.index, row)
        after = move(instance.state, Happening.SKIP)
        assert after is TaskState.SKIPPED
        instance.state = after
        instance.ended_at = self._changes.now
        instance.reason = why_skipped(branch)
        run.tally(instance.task.index, after)
        self._tell(instance)

    def _clear_live(self, instance: Instance) -> None:
        attempt = self._attempts.attempts.get(instance.attempt_id)
        if attempt is not None:
            if instance.state is not TaskState.RESTARTING:
                after = move(instance.state, Happening.CLEAR)
                assert after is TaskState.RESTARTING
                self._changes.touch(instance)
                instance.state = after
            self._attempts.stop_to(attempt, EndReason.CLEARED)
        elif instance.state is TaskState.SCHEDULED and self._runs.may_run(instance):
            self._changes.touch(instance)
            instance.tries_cleared = instance.try_number - 1  # it stays where it waits, with all its tries again
        elif instance.state is not TaskState.NONE:
            self._runs.reopen(instance, Happening.CLEAR)
        elif instance.map_index == UNMAPPED and instance.run.is_expanding(instance.task.index):
            self._runs.stop_expansion(instance)

    def _mark_finished(self, run: Run, row: InstanceRow, verb: TaskVerb) -> None:
        happening, state, reason = _MARKS[verb]
        if row.state is state:
            return
        instance = Instance.of(run, row)
        self._changes.touch(instance)
        instance.state = state
        instance.reason = reason
        assert move(row.state, happening) is state
        run.untally(instance.task.index, row)
        run.tally(instance.task.index, state)
        self._tell(instance)

    def _tell(self, instance: Instance) -> None:
        """Those below it, and those that look at it from the next run: it is in another finished state."""
        run, task = instance.run, instance.task
        if task.downstream and run.may_schedule:
            self._runs.agenda.appendleft(self._runs.evaluate(run, task.downstream))
        self._runs.tell_followers(run, task.spec.task_id)

    def _mark_live(self, instance: Instance, verb: TaskVerb) -> None:
        happening, _, reason = _MARKS[verb]
        attempt = self._attempts.attempts.get(instance.attempt_id)
        if attempt is not None:
            self._attempts.stop_to(attempt, reason)
        else:
            self._runs.finish(instance, happening, reason)


def _standing(command: AlterTasks) -> Iterator[BranchChoice]:
    """The choices of branches that are not to choose anew."""
    cleared = {(row.task_id, row.map_index) for row in command.rows}
    return (each for each in command.choices if (each.task_id, each.map_index) not in cleared)
