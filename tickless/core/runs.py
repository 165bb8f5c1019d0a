"""Runs and their task instances, from the making of a run to its end. They are one cycle: the last instance that
finishes ends the run, which starts the next one, whose instances are made and perhaps finish at once."""

from __future__ import annotations

import json
import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from tickless.core import commands
from tickless.core.admission import Semaphore
from tickless.core.changes import Changes
from tickless.core.commands import RunStarted
from tickless.core.decision import Write
from tickless.core.events import PastFound
from tickless.core.machine import Happening, RunHappening, move, move_run
from tickless.core.mapping import extent_of, lengths_of
from tickless.core.past import Past
from tickless.core.plan import DagPlan, TaskPlan
from tickless.core.quota import Quota
from tickless.core.readiness import Verdict, judge
from tickless.core.record import Backfill, DagState, Expansion, Instance, Run
from tickless.errors import NotFound, Refused, UserError
from tickless.model.backfill import BackfillKey
from tickless.model.dag import TaskKind
from tickless.model.id import UNMAPPED, RunKey, TaskKey
from tickless.model.row import UNKNOWN_LENGTH, RunRow, XComsDropped
from tickless.model.schedule import Interval
from tickless.model.state import FINISHED_TASK_STATES, EndReason, RunState, TaskState

SCHEDULED = "scheduled"
BACKFILL = "backfill"
RESERVED_RUN_TYPES = (SCHEDULED, BACKFILL, "asset_triggered")
"""A run id that begins with one of these and `__` is not for others to give: each slot's run has its own."""

_HAPPENING_OF_VERDICT = {
    Verdict.SKIP: Happening.SKIP,
    Verdict.FAIL_UPSTREAM: Happening.FAIL_UPSTREAM,
}

_WITHOUT_PROCESS = frozenset({TaskState.NONE, TaskState.SCHEDULED, TaskState.UP_FOR_RETRY})


class Runs:
    """The unfinished runs, and the agenda: what is too large for one step, one instance at a time."""

    def __init__(self, changes: Changes, quota: Quota) -> None:
        self.runs: dict[RunKey, Run] = {}
        self.agenda: deque[Iterator[None]] = deque()
        self.last_run = RunKey(0)
        self.when_ended: Callable[[DagState, Run], None] = lambda dag, run: None
        """Called when a run has ended, before the next one starts; set by the part that counts and makes runs."""
        self.when_room: Callable[[DagState], None] = lambda dag: None
        """Called when something has changed that the backfills of a DAG may have waited for."""
        self.when_started: Callable[[Run], None] = lambda run: None
        """Called when a run begins to run; set by the part that ends those that run for too long."""
        self.past = Past(changes, self.runs)
        self._changes = changes
        self._quota = quota
        self._run_of_key: dict[str, RunKey] = {}  # idempotency key -> live run
        self._run_ids: set[tuple[str, str]] = set()

    def instance(self, key: TaskKey) -> Instance | None:
        """An unfinished task instance."""
        run = self.runs.get(key.run)
        if run is None:
            return None
        index = run.plan.index_of.get(key.task_id)
        return None if index is None else run.instances.get((index, key.map_index))

    # ---- runs --------------------------------------------------------------------------------------------------------

    def start_run(self, command: commands.StartRun, interval: Interval | None = None) -> RunStarted:
        """`interval`: the data interval that its schedule has for the logical date that was asked for."""
        plan = self._quota.current.get(command.dag_id)
        if plan is None:
            raise NotFound(
                f"there is no DAG {command.dag_id!r}",
                hint="`tickless dag list` shows those there are, `tickless dag errors` the files that cannot be read.",
            )
        if command.idempotency_key is not None and command.idempotency_key in self._run_of_key:
            run = self.runs[self._run_of_key[command.idempotency_key]]
            self._changes.request_done("trigger_request", command.request_id, run.key)
            return RunStarted(run=run.key, run_id=run.row.run_id, is_new=False)
        run_id = command.run_id or self._free_run_id(command.dag_id, command.run_type)
        if self.has_run_id(command.dag_id, run_id):
            raise run_id_taken(command.dag_id, run_id)
        kind = run_id.partition("__")[0]
        if kind in RESERVED_RUN_TYPES and kind != command.run_type:
            raise UserError(
                f"run id {run_id!r} begins like that of a run of another kind",
                hint=f"Leave it out, or begin with something else than {kind}__.",
            )
        run = self.make_run(
            plan,
            run_id=run_id,
            run_type=command.run_type,
            conf=command.conf,
            logical_date=command.logical_date,
            idempotency_key=command.idempotency_key,
            interval=interval,
        )
        if command.actor is not None:
            detail = json.dumps({"run_id": run_id})
            self._changes.audit(command.actor, "start", dag_id=command.dag_id, run=run.key, detail=detail)
        self._changes.request_done("trigger_request", command.request_id, run.key)
        return RunStarted(run=run.key, run_id=run_id, is_new=True)

    def make_run(
        self,
        plan: DagPlan,
        *,
        run_id: str,
        run_type: str,
        conf: str = "{}",
        logical_date: datetime | None = None,
        idempotency_key: str | None = None,
        run_after: datetime | None = None,
        interval: Interval | None = None,
        backfill: BackfillKey | None = None,
    ) -> Run:
        """Make a run of this version; it starts as soon as it may."""
        dag_id = plan.spec.dag_id
        self.last_run = RunKey(self.last_run + 1)
        row = RunRow(
            key=self.last_run,
            dag_id=dag_id,
            run_id=run_id,
            version=plan.version.key,
            state=RunState.QUEUED,
            run_type=run_type,
            conf=conf,
            logical_date=logical_date,
            queued_at=self._changes.now,
            idempotency_key=idempotency_key,
            run_after=run_after,
            data_interval_start=interval.start if interval is not None else None,
            data_interval_end=interval.end if interval is not None else None,
            backfill=backfill,
        )
        run = self.add_run(row, plan)
        self._changes.new_run(run)
        self._changes.tell(run, None)
        dag = self._quota.dag(dag_id)
        self._quota.turns(run).queued.append(run)
        self.start_queued_runs(dag)
        return run

    def has_run_id(self, dag_id: str, run_id: str) -> bool:
        """Whether an unfinished run has this name."""
        return (dag_id, run_id) in self._run_ids

    def _free_run_id(self, dag_id: str, run_type: str) -> str:
        base = run_id = f"{run_type}__{self._changes.now.isoformat(timespec='microseconds')}"
        suffix = 1
        while (dag_id, run_id) in self._run_ids:
            suffix += 1
            run_id = f"{base}__{suffix}"
        return run_id

    def add_run(self, row: RunRow, plan: DagPlan) -> Run:
        run = self.record(row, plan)
        self.register(run)
        return run

    def record(self, row: RunRow, plan: DagPlan) -> Run:
        """The record of a run that nobody knows of yet."""
        slots = Semaphore("dag_concurrency", f"run {row.dag_id}/{row.run_id}", self._quota.run_limit(plan))
        slots.is_closed = self._quota.dag(row.dag_id).is_paused
        return Run(row, plan, slots)

    def register(self, run: Run) -> None:
        """From now on it is one of the unfinished runs."""
        row = run.row
        self.runs[row.key] = run
        self._quota.dag(row.dag_id).live[row.key] = run
        self._run_ids.add((row.dag_id, row.run_id))
        if row.idempotency_key is not None:
            self._run_of_key[row.idempotency_key] = row.key
        self.past.enter(run)

    def start_queued_runs(self, dag: DagState) -> None:
        """Its own first, then those of its backfills."""
        self._quota.limit_active_runs(dag)
        if not dag.is_paused:
            self._start_in_turn(dag, dag)
            for backfill in list(dag.backfills.values()):
                if not backfill.is_paused:
                    self._start_in_turn(dag, backfill)
            if dag.backfills and dag.queued_again:
                self._start_in_turn(dag, dag)  # a run of a backfill that has just started may wait for one of these
        if dag.backfills:
            self.when_room(dag)

    def _start_in_turn(self, dag: DagState, turns: DagState | Backfill) -> None:
        while (run := self._next_to_start(dag, turns)) is not None:
            turns.queued.remove(run)
            dag.queued_again.pop(run.key, None)
            turns.active_runs.take(1)
            self._changes.touch_run(run)
            run.state = move_run(run.state, RunHappening.ADMIT)
            run.started_at = self._changes.now
            self._changes.tell(run, None)
            if run.is_complete:  # a DAG without tasks
                self.end_run(run)
            else:
                self.when_started(run)
                self.agenda.appendleft(self.create_instances(run))
                if run.instances:  # it was finished, and some of its tasks are to run again
                    self.agenda.appendleft(self.judge_reopened(list(run.instances.values())))
            self._quota.limit_active_runs(dag)

    def _next_to_start(self, dag: DagState, turns: DagState | Backfill) -> Run | None:
        if not turns.queued or self._quota.is_stopping:
            return None
        if not turns.active_runs.refuses(1, None):
            return turns.queued[0]
        # A run that waits for its past would keep its place for ever if that could not run again.
        again = (run for run in dag.queued_again.values() if self._quota.turns(run) is turns)
        held_up = next((run for run in again if self.past.holds_up_a_running_one(run)), None)
        return held_up if held_up is not None else self._never_began(turns)

    def _never_began(self, turns: DagState | Backfill) -> Run | None:
        """A run that was ended before it began, and cleared: a later one of its kind runs already, and waits for it."""
        for key, followers in self.past.followers.items():
            run = self.runs.get(key)
            if run is None or run.state is not RunState.QUEUED or self._quota.turns(run) is not turns:
                continue
            is_held = run.frozen is not None or run.cancel_requested_at is not None
            running = (each for each in followers.values() if each.state is RunState.RUNNING)
            if not is_held and any(self._quota.turns(each) is turns for each in running):
                return run
        return None

    def queue_again(self, run: Run) -> None:
        """A run that was finished waits for its turn, among the others by its age."""
        dag = self._quota.dag(run.row.dag_id)
        insort(self._quota.turns(run).queued, run, key=lambda each: each.key)
        if run.created_upto:  # else it was ended before it began: nothing in its row tells it from a new one
            dag.queued_again[run.key] = run

    def past_found(self, answer: PastFound) -> None:
        run = self.past.found(answer)
        if run is not None:
            waiting = tuple({index for indices in run.plan.lookers.values() for index in indices})
            self.agenda.append(self.evaluate(run, waiting))
            self.start_queued_runs(self._quota.dag(run.row.dag_id))

    def tell_followers(self, run: Run, task_id: str) -> None:
        """The runs that look at this one: the state of a task of it has changed."""
        for follower in self.past.followers.get(run.key, {}).values():
            if task_id in follower.plan.lookers and follower.may_schedule:
                self.agenda.append(self.evaluate(follower, follower.plan.lookers[task_id]))

    def create_instances(self, run: Run) -> Iterator[None]:
        tasks = run.plan.tasks
        while run.created_upto < len(tasks):
            self._changes.touch_run(run)
            instance = Instance(run, tasks[run.created_upto])
            run.created_upto += 1
            run.instances[instance.task.index, instance.map_index] = instance
            self._changes.new_instance(instance)
            if run.cancel_requested_at is not None:
                self.finish(instance, run.ending, run.why_cancelled)
            else:
                self.judge(instance)
            yield

    def is_bad(self, run: Run) -> bool:
        """Whether a complete run has failed."""
        if run.is_marked_success:
            return False
        return run.cancel_requested_at is not None or any(
            run.tallies.get(leaf, {}).get(state)
            for leaf in run.plan.leaves
            for state in (TaskState.FAILED, TaskState.UPSTREAM_FAILED)
        )

    def end_run(self, run: Run) -> None:
        self._changes.touch_run(run)
        was_running = run.state is RunState.RUNNING
        run.state = move_run(run.state, RunHappening.FAIL if self.is_bad(run) else RunHappening.SUCCEED)
        run.ended_at = self._changes.now
        run.frozen = None
        self._changes.tell(run, (self._changes.now - run.started_at).total_seconds() if run.started_at else None)
        del self.runs[run.key]
        self._run_ids.discard((run.row.dag_id, run.row.run_id))
        if run.row.idempotency_key is not None:
            self._run_of_key.pop(run.row.idempotency_key, None)
        dag = self._quota.dag(run.row.dag_id)
        del dag.live[run.key]
        dag.newest_ended = max(dag.newest_ended, run.key)
        turns = self._quota.turns(run)
        if was_running:
            turns.active_runs.give_back(1)
        elif run in turns.queued:
            turns.queued.remove(run)
        dag.queued_again.pop(run.key, None)
        self.past.leave(run)
        if not run.tallies:  # it never began: none of its tasks holds anybody up any more
            for task_id in run.plan.index_of:
                self.tell_followers(run, task_id)
        self.when_ended(dag, run)
        self.start_queued_runs(dag)

    # ---- task instances ----------------------------------------------------------------------------------------------

    def evaluate(self, run: Run, indices: tuple[int, ...]) -> Iterator[None]:
        for index in indices:
            instance = run.instances.get((index, UNMAPPED))
            if instance is not None and run.may_schedule:
                self.judge(instance)
                yield
            if index in run.waiting and run.may_schedule:
                yield from self._judge_waiting(run, index)

    def _judge_waiting(self, run: Run, index: int) -> Iterator[None]:
        """Instances of a mapped task that were reopened: the rule is the same for all, so mostly one look is enough."""
        for map_index in sorted(run.waiting[index]):
            instance = run.instances.get((index, map_index))
            if instance is None or instance.state is not TaskState.NONE:
                continue
            if not run.may_schedule:
                return
            self.judge(instance)
            yield
            if instance.state is TaskState.NONE:
                return  # it goes on waiting, and so do the others

    def judge(self, instance: Instance) -> None:
        """Apply the trigger rule to an instance that waits for its upstream."""
        run, task = instance.run, instance.task
        if instance.state is not TaskState.NONE:
            return
        if instance.map_index == UNMAPPED and run.is_expanding(task.index):
            return
        self._changes.focus = run
        verdict = self._verdict(instance)
        if verdict is Verdict.WAIT:
            return
        if verdict is not Verdict.RUN:
            self.finish(instance, _HAPPENING_OF_VERDICT[verdict], None)
        elif self.past.blocker(instance) is not None:
            return  # whatever changes that tells us
        elif task.spec.mapped:
            self._judge_extent(instance)
        else:
            self._begin(instance)

    def _begin(self, instance: Instance) -> None:
        if instance.task.spec.kind is TaskKind.EMPTY:
            self.finish(instance, Happening.PASS, None)
        else:
            self.schedule(instance)

    def may_run(self, instance: Instance) -> bool:
        """Whether its trigger rule holds, now, its past lets it, and what it is mapped over is there."""
        if self._verdict(instance) is not Verdict.RUN or self.past.blocker(instance) is not None:
            return False
        lengths = lengths_of(instance.run, instance.task)
        return lengths is not None and (instance.map_index == UNMAPPED or instance.map_index < math.prod(lengths))

    def _verdict(self, instance: Instance) -> Verdict:
        run, task = instance.run, instance.task
        return judge(task.spec.trigger_rule, run.counts[task.index], run.upstream[task.index])

    def _judge_extent(self, instance: Instance) -> None:
        """The trigger rule of a mapped task holds: expand it, if what it is mapped over is there and any good. An
        instance that was reopened runs again, if there still is an element for it."""
        run, task = instance.run, instance.task
        extent = extent_of(run, task, self._quota.limits.max_map_length)
        if extent.is_fault:
            self.finish(instance, Happening.FAIL, extent.reason)
        elif extent.verdict is Verdict.RUN and instance.map_index == UNMAPPED:
            self._expand_to(instance, extent.count)
        elif extent.verdict is Verdict.RUN and instance.map_index < extent.count:
            self._grow(run, task, extent.count)
            self._begin(instance)
        elif extent.verdict in (Verdict.RUN, Verdict.SKIP) and instance.map_index != UNMAPPED:
            self.finish(instance, Happening.REMOVE, f"what it is mapped over has only {extent.count:,} elements now")
        elif extent.verdict is not Verdict.WAIT:
            self.finish(instance, _HAPPENING_OF_VERDICT[extent.verdict], extent.reason)

    def _expand_to(self, unexpanded: Instance, count: int) -> None:
        """Make so many instances, or those that are not there yet, if an expansion was stopped and cleared."""
        run, task = unexpanded.run, unexpanded.task
        expansion = run.expansions.setdefault(task.index, Expansion(count))
        expansion.length = max(count, expansion.upto)
        self._changes.touch_map(run, task.index)
        run.resize(task.index, expansion.length)
        if expansion.upto == expansion.length:
            del run.instances[task.index, UNMAPPED]
            self.agenda.appendleft(self.evaluate(run, task.downstream))
            self.tell_followers(run, task.spec.task_id)
            self._end_if_complete(run)
        else:
            self.agenda.append(self.expand(unexpanded))

    def _grow(self, run: Run, task: TaskPlan, count: int) -> None:
        """What a task is mapped over was made anew and has more elements than before: so many instances in all."""
        expansion = run.expansions[task.index]
        if count > expansion.length == expansion.upto:
            unexpanded = run.instances[task.index, UNMAPPED] = Instance(run, task)
            self._changes.new_instance(unexpanded)
            self._expand_to(unexpanded, count)

    def expand(self, unexpanded: Instance) -> Iterator[None]:
        """Make the instances of a mapped task, one at a time; with the last one the unexpanded instance goes.

        It stops where that was ended by something else (a cancel, the choice of a branch) or cleared.
        """
        run, task = unexpanded.run, unexpanded.task
        expansion, place = run.expansions[task.index], (task.index, UNMAPPED)
        while run.may_schedule and run.instances.get(place) is unexpanded and run.is_expanding(task.index):
            self._changes.focus = run
            self._changes.touch_map(run, task.index)
            instance = Instance(run, task, expansion.upto)
            expansion.upto += 1
            run.instances[task.index, instance.map_index] = instance
            self._changes.new_instance(instance)
            if expansion.upto == expansion.length:
                del run.instances[place]
            self._begin(instance)
            yield

    def schedule(self, instance: Instance) -> None:
        """A new try: its trigger rule holds, or its retry is due."""
        after = move(instance.state, Happening.READY)
        assert after is not None
        self._changes.touch(instance)
        instance.run.wait_no_more(instance)
        instance.state = after
        instance.try_number += 1
        instance.lost_count = 0
        instance.due_at = None
        instance.scheduled_at = self._changes.now
        self._quota.wait_for_slots(instance)

    def skip(self, run: Run, indices: Sequence[int], reason: str) -> None:
        """Skip those of these tasks that have no process: all in this step, so in the commit of what decided it.

        Their number is not bounded by the slice; they are below one task. Those not made yet are made first.
        """
        creation = self.create_instances(run)
        while indices and run.created_upto <= max(indices):
            next(creation)
        for index in indices:
            for instance in run.of_task(index):
                if instance.state in _WITHOUT_PROCESS:
                    self.finish(instance, Happening.SKIP, reason)

    def reopen(self, instance: Instance, happening: Happening) -> None:
        """An instance without a live attempt waits for its upstream again, as if it had never run; for its tries
        too, but their numbers go on."""
        after = move(instance.state, happening)
        assert after is TaskState.NONE
        if instance.state is TaskState.SCHEDULED:
            self._quota.admission.leave(instance)
        self._changes.touch(instance)
        instance.state = after
        instance.tries_cleared = instance.try_number
        instance.lost_count = 0
        instance.scheduled_at = instance.queued_at = instance.started_at = instance.ended_at = instance.due_at = None
        instance.reason = None
        run, index = instance.run, instance.task.index
        run.wait(instance)
        if index in run.lengths:
            self.set_length(instance, UNKNOWN_LENGTH)
        if index in run.expansions and instance.map_index == UNMAPPED:
            self.stop_expansion(instance)
        key = instance.key
        self._changes.writes.append(Write(XComsDropped(run=key.run, task_id=key.task_id, map_index=key.map_index)))

    def set_length(self, instance: Instance, length: int) -> None:
        """How much a task has returned that others are mapped over."""
        instance.run.lengths[instance.task.index] = length
        self._changes.touch_map(instance.run, instance.task.index)

    def stop_expansion(self, unexpanded: Instance) -> None:
        """An expansion that was not done is cleared: how many instances there are to be is found out anew."""
        run, index = unexpanded.run, unexpanded.task.index
        expansion = run.expansions[index]
        expansion.length = UNKNOWN_LENGTH
        run.resize(index, expansion.upto + 1)
        self._changes.touch_map(run, index)

    def judge_reopened(self, instances: list[Instance]) -> Iterator[None]:
        """Trigger rules of instances that were reopened."""
        for instance in instances:
            if instance.run.may_schedule:
                self.judge(instance)
                yield

    def finish(self, instance: Instance, happening: Happening, reason: str | None) -> None:
        """An instance reaches a finished state; its downstream is told, and its run may end."""
        after = move(instance.state, happening)
        assert after is not None and after in FINISHED_TASK_STATES
        if instance.state is TaskState.SCHEDULED:
            self._quota.admission.leave(instance)
        self._changes.touch(instance)
        run = instance.run
        run.wait_no_more(instance)
        instance.state = after
        instance.ended_at = self._changes.now
        instance.due_at = None
        if reason is not None:
            instance.reason = reason
        del run.instances[instance.task.index, instance.map_index]
        expansion = run.expansions.get(instance.task.index)
        if expansion is not None and instance.map_index == UNMAPPED:
            run.resize(instance.task.index, expansion.upto + 1)  # no more instances come; this one stands for them
        has_returned = after is TaskState.SUCCESS and instance.reason == EndReason.EXITED
        run.tally(instance.task.index, after, returned=has_returned)
        if instance.task.downstream and run.may_schedule:
            self.agenda.appendleft(self.evaluate(run, instance.task.downstream))
        self.tell_followers(run, instance.task.spec.task_id)
        self._end_if_complete(run)

    def _end_if_complete(self, run: Run) -> None:
        if run.is_complete and (run.frozen is None or run.cancel_requested_at is not None):
            self.end_run(run)


def run_id_taken(dag_id: str, run_id: str) -> Refused:
    """The refusal of a run whose name is in use, by a finished run or an unfinished one."""
    return Refused(f"DAG {dag_id!r} has a run {run_id!r} already", hint="Leave the run id out, or choose another.")
