"""From committed rows to a filled engine: what waits is put where it waits, what is owed is released again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tickless.core.attempts import Attempts
from tickless.core.backfills import Backfills
from tickless.core.changes import Changes
from tickless.core.decision import Launch, StopAttempt
from tickless.core.past import NONE_BEFORE, EndedRun
from tickless.core.plan import compile_plan
from tickless.core.quota import Quota
from tickless.core.record import Attempt, Instance, Run
from tickless.core.runs import Runs
from tickless.core.schedules import Schedules
from tickless.core.snapshot import Snapshot
from tickless.core.stopping import Stopping
from tickless.core.timers import RetryDue, TimerHeap
from tickless.core.versions import Versions
from tickless.model.dag import DagSpec
from tickless.model.id import UNMAPPED, RunKey, VersionKey
from tickless.model.order import StopOrder
from tickless.model.row import AttemptRow, InstanceTally
from tickless.model.state import AttemptState, EndReason, RunState, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """The parts of an empty engine, to be filled."""

    changes: Changes
    quota: Quota
    runs: Runs
    attempts: Attempts
    stopping: Stopping
    versions: Versions
    schedules: Schedules
    backfills: Backfills
    timers: TimerHeap

    def fill(self, snapshot: Snapshot, decode_spec: Callable[[str], DagSpec]) -> None:
        """Everything that is in the rows; what follows from it is on the agenda or in the effects."""
        quota, runs = self.quota, self.runs
        runs.last_run, self.versions.last_version = snapshot.last_run, VersionKey(snapshot.last_version)
        for row in snapshot.pools:
            quota.pool(row.name).limit = row.slots
        plans = {row.key: compile_plan(row, decode_spec(row.spec)) for row in snapshot.versions}
        quota.current.update({dag_id: plans[VersionKey(key)] for dag_id, key in snapshot.current.items()})
        for dag_id, number in snapshot.last_numbers.items():
            quota.dag(dag_id).last_number = number
        for dag_row in snapshot.dags:
            self.schedules.restore(dag_row)
        for backfill_row in snapshot.backfills:
            self.backfills.restore(backfill_row)
        self.backfills.last_backfill = snapshot.last_backfill
        self._past(snapshot)
        for run_row in snapshot.runs:
            run = runs.add_run(run_row, plans[run_row.version])
            turns = quota.turns(run)
            if run.state is not RunState.QUEUED:
                turns.active_runs.take(1)
            elif run.frozen is None and run.cancel_requested_at is None:
                turns.queued.append(run)  # a frozen one does not start, and nobody waits behind it
                if run.created_upto:
                    quota.dag(run_row.dag_id).queued_again[run.key] = run
        for tally in snapshot.tallies:
            run = runs.runs[tally.run]
            run.tally(run.plan.index_of[tally.task_id], tally.state, tally.count, returned=tally.returned)
        for instance_row in snapshot.instances:
            instance = Instance.of(runs.runs[instance_row.run], instance_row)
            instance.run.instances[instance.task.index, instance.map_index] = instance
            if instance.state is TaskState.NONE:
                instance.run.wait(instance)
        for map_row in snapshot.maps:
            self.runs.runs[map_row.run].take_map(map_row)
        for attempt_row in snapshot.attempts:
            self._attempt(attempt_row)
        for run in list(runs.runs.values()):
            self._waits(run)
        for dag in quota.dags.values():
            runs.start_queued_runs(dag)
        self.schedules.look_at_all()

    def _past(self, snapshot: Snapshot) -> None:
        """Finished runs that unfinished ones look at; one that never began has no counts."""
        others = {NONE_BEFORE, *(row.key for row in snapshot.runs)}
        tallies: dict[RunKey, list[InstanceTally]] = {
            row.previous_run: []
            for row in snapshot.runs
            if row.previous_run is not None and row.previous_run not in others
        }
        for tally in snapshot.past_tallies:
            tallies[tally.run].append(tally)
        self.runs.past.ended.update({run: EndedRun.of(each) for run, each in tallies.items()})

    def _attempt(self, row: AttemptRow) -> None:
        instance = self.runs.instance(row.key)
        if instance is not None and instance.attempt_id != row.attempt_id:
            instance = None
        run = self.runs.runs.get(row.run)
        holds = self.quota.holds(run, row)
        for semaphore, weight in holds:
            semaphore.take(weight)
        attempt = self.attempts.attempts[row.attempt_id] = Attempt(row, instance, holds)
        self.attempts.arm_timeout(attempt)
        effects = self.changes.effects
        if instance is None:
            self.attempts.stop(attempt, EndReason.STOPPED)  # its run is over; nobody waits for it
        elif row.state is AttemptState.QUEUED:
            effects.append(
                Launch(attempt_id=row.attempt_id, key=row.key, executor=row.executor, try_number=row.try_number)
            )
        if row.stop_requested_at is not None and row.stop_reason is not None:
            effects.append(
                StopAttempt(executor=row.executor, stop=StopOrder(attempt_id=row.attempt_id, reason=row.stop_reason))
            )

    def _waits(self, run: Run) -> None:
        """Put each unfinished instance where it waits, and what was cut off back on the agenda."""
        for instance in run.instances.values():
            if instance.state is TaskState.SCHEDULED and run.frozen is None:
                self.quota.wait_for_slots(instance)
            elif instance.state is TaskState.UP_FOR_RETRY and instance.due_at is not None:
                self.timers.arm(instance.due_at, RetryDue(instance.key, instance.try_number))
        if run.state is not RunState.RUNNING:
            if run.cancel_requested_at is not None:
                self.runs.agenda.append(self.stopping.stop_instances(run))
            return
        agenda = self.runs.agenda
        if run.cancel_requested_at is not None:
            agenda.append(self.stopping.stop_instances(run))
        elif run.frozen is not None:
            return
        else:
            self.stopping.arm(run)
            waiting = dict.fromkeys(i.task.index for i in run.instances.values() if i.state is TaskState.NONE)
            agenda.append(self.runs.evaluate(run, tuple(waiting)))
            agenda.extend(
                self.runs.expand(run.instances[index, UNMAPPED]) for index in run.expansions if run.is_expanding(index)
            )
        agenda.append(self.runs.create_instances(run))
