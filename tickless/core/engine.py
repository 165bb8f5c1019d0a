"""The engine: live runs in RAM; `step(event, now)` decides what to write, what to release after the commit, and when
to wake up. No clock, no I/O, no randomness, no logging. See README.md in this folder for the theory of operation.

The work of a step is proportional to what changed. What could be larger (making the instances of a wide DAG,
cancelling them, telling thousands of downstream tasks) is put on the agenda as a generator that touches one instance
at a time; a step takes a bounded slice of it and reports `more`. An agenda needs no rows of its own: each item follows
from committed rows, and `restore` puts it there again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import assert_never

from tickless.core import commands, events
from tickless.core.admission import Admission, Group, Lane, Needs, Semaphore
from tickless.core.commands import RunStarted
from tickless.core.decision import (
    AckReport,
    AttemptEnded,
    Decision,
    Effect,
    Launch,
    RunChanged,
    StopAttempt,
    Write,
)
from tickless.core.machine import Happening, RunHappening, move, move_run
from tickless.core.plan import DagPlan, compile_plan
from tickless.core.readiness import Verdict, judge
from tickless.core.record import Attempt, DagState, Instance, Run
from tickless.core.retry import judge_end, next_try_at
from tickless.core.snapshot import Snapshot
from tickless.core.timers import RetryDue, TimeoutDue, Timer, TimerHeap
from tickless.errors import NotFound, Refused, UserError
from tickless.model.dag import DagSpec, TaskKind
from tickless.model.id import UNMAPPED, AttemptId, Epoch, RunKey, TaskKey, VersionKey, make_attempt_id
from tickless.model.limit import Limits, Routing
from tickless.model.order import StopOrder
from tickless.model.report import Finished, Lost, Started
from tickless.model.row import (
    AttemptRow,
    DagVanishedRow,
    PoolRow,
    RequestDone,
    RunRow,
    VersionRow,
    XComRow,
)
from tickless.model.state import FINISHED_TASK_STATES, AttemptState, EndReason, RunState, TaskState

AGENDA_SLICE = 300
ADMISSION_SLICE = 200
"""Together the most instances that one step touches; the loop gets its turn between steps."""

XCOM_RETURN_KEY = "return_value"
UNLIMITED = 2**31
"""Limit of a semaphore whose key is not set: it never refuses, and setting the key later finds it counted."""

_HAPPENING_OF_VERDICT = {
    Verdict.SKIP: Happening.SKIP,
    Verdict.FAIL_UPSTREAM: Happening.FAIL_UPSTREAM,
}


class Engine:
    """All scheduling state of one leader. Built empty for an epoch, filled by `restore`, driven by `step`."""

    def __init__(
        self, *, epoch: Epoch, limits: Limits, routing: Routing, decode_spec: Callable[[str], DagSpec]
    ) -> None:
        self.epoch = epoch
        self.limits = limits
        self.routing = routing
        self.current: dict[str, DagPlan] = {}  # by dag_id
        self.dags: dict[str, DagState] = {}
        self.runs: dict[RunKey, Run] = {}  # unfinished ones
        self.attempts: dict[AttemptId, Attempt] = {}  # live ones
        self.pools: dict[str, Semaphore] = {}
        self.executors: dict[str, Semaphore] = {}
        self.parallelism = Semaphore("parallelism", "the installation", limits.parallelism)
        self.admission = Admission()
        self.timers = TimerHeap()
        self.is_stopping = False
        self.focus: Run | None = None
        """The run that was worked on last: the one to blame when a step raises."""
        self._decode_spec = decode_spec
        self._run_of_key: dict[str, RunKey] = {}  # idempotency key -> live run
        self._run_ids: set[tuple[str, str]] = set()
        self._last_run = RunKey(0)
        self._last_version = VersionKey(0)
        self._last_attempt = 0
        self._unrouted: dict[str, Semaphore] = {}
        self._agenda: deque[Iterator[None]] = deque()
        for name, slots in routing.executors.items():
            self._executor(name).limit = slots
        # What the present step has touched, with the guards of the writes (None = insert).
        self._now = datetime.min.replace(tzinfo=UTC)
        self._touched_runs: dict[Run, tuple[object, ...] | None] = {}
        self._touched_instances: dict[Instance, tuple[object, ...] | None] = {}
        self._touched_attempts: dict[Attempt, tuple[object, ...] | None] = {}
        self._writes: list[Write] = []
        self._effects: list[Effect] = []
        self._stale = 0

    def restore(self, snapshot: Snapshot, now: datetime) -> Decision:
        """Fill an empty engine from committed rows; the effects that these rows still owe are in the decision.

        Launches of queued attempts and stops that were requested are released again: executors know both by
        attempt id. Work that was cut off half-way (instances not yet made, a cancel, trigger rules not yet looked
        at) is on the agenda again.
        """
        self._begin(now)
        self._last_run, self._last_version = snapshot.last_run, VersionKey(snapshot.last_version)
        for row in snapshot.pools:
            self._pool(row.name).limit = row.slots
        plans = {row.key: compile_plan(row, self._decode_spec(row.spec)) for row in snapshot.versions}
        self.current = {dag_id: plans[VersionKey(key)] for dag_id, key in snapshot.current.items()}
        for dag_id, number in snapshot.last_numbers.items():
            self._dag(dag_id).last_number = number
        for run_row in snapshot.runs:
            run = self._add_run(run_row, plans[run_row.version])
            dag = self._dag(run_row.dag_id)
            if run.state is not RunState.QUEUED:
                dag.active_runs.take(1)
            elif run.frozen is None:
                dag.queued.append(run)  # a frozen one does not start, and nobody waits behind it
        for tally in snapshot.tallies:
            run = self.runs[tally.run]
            run.tally(run.plan.index_of[tally.task_id], tally.state, tally.count)
        for instance_row in snapshot.instances:
            instance = Instance.of(self.runs[instance_row.run], instance_row)
            instance.run.instances[instance.task.index, instance.map_index] = instance
        for attempt_row in snapshot.attempts:
            self._restore_attempt(attempt_row)
        for run in list(self.runs.values()):
            self._restore_waits(run)
        for dag in self.dags.values():
            self._start_queued_runs(dag)
        return self._conclude()

    def _restore_attempt(self, row: AttemptRow) -> None:
        instance = self.instance(row.key)
        if instance is not None and instance.attempt_id != row.attempt_id:
            instance = None
        run = self.runs.get(row.run)
        holds = self._slots(run, row.pool, row.pool_slots, self._executor(row.executor))
        for semaphore, weight in holds:
            semaphore.take(weight)
        attempt = self.attempts[row.attempt_id] = Attempt(row, instance, holds)
        self._arm_timeout(attempt)
        if instance is None:
            self._stop(attempt, EndReason.STOPPED)  # its run is over; nobody waits for it
        elif row.state is AttemptState.QUEUED:
            self._effects.append(
                Launch(attempt_id=row.attempt_id, key=row.key, executor=row.executor, try_number=row.try_number)
            )
        if row.stop_requested_at is not None and row.stop_reason is not None:
            self._effects.append(
                StopAttempt(executor=row.executor, stop=StopOrder(attempt_id=row.attempt_id, reason=row.stop_reason))
            )

    def _restore_waits(self, run: Run) -> None:
        """Put each unfinished instance where it waits, and what was cut off back on the agenda."""
        for instance in run.instances.values():
            if instance.state is TaskState.SCHEDULED and run.frozen is None:
                self._wait_for_slots(instance)
            elif instance.state is TaskState.UP_FOR_RETRY and instance.due_at is not None:
                self.timers.arm(instance.due_at, RetryDue(instance.key, instance.try_number))
        if run.state is not RunState.RUNNING:
            return
        if run.cancel_requested_at is not None:
            self._agenda.append(self._cancel_instances(run))
        elif run.frozen is not None:
            return
        else:
            waiting = tuple(i.task.index for i in run.instances.values() if i.state is TaskState.NONE)
            self._agenda.append(self._evaluate(run, waiting))
        self._agenda.append(self._create_instances(run))

    # ---- the step -------------------------------------------------------------------------------------------------

    def step(self, event: events.Event | commands.Command, now: datetime) -> Decision:
        """Decide what follows from one event or command.

        Raises UserError when a command cannot be obeyed; nothing has changed then. Any other exception is a bug, and
        the engine must be thrown away and restored from rows.
        """
        self._begin(now)
        reply: RunStarted | None = None
        match event:
            case Started():
                self._on_started(event)
            case Finished() | Lost():
                self._on_ended(event)
            case commands.StartRun():
                reply = self._start_run(event)
            case events.WorkContinued():
                pass
            case events.TimePassed():
                self._agenda.append(self._ring(now))
            case events.DagParsed():
                self._on_dag_parsed(event)
            case events.DagVanished():
                self._on_dag_vanished(event)
            case events.LimitsChanged():
                self._on_limits_changed(event)
            case commands.CancelRun():
                self._cancel_run(event)
            case commands.SetPool():
                self._set_pool(event)
            case commands.StopAdmitting():
                self.is_stopping = True
            case _:
                assert_never(event)
        return self._conclude(reply)

    def _begin(self, now: datetime) -> None:
        self._now = now
        self._touched_runs.clear()
        self._touched_instances.clear()
        self._touched_attempts.clear()
        self._writes = []
        self._effects = []
        self._stale = 0
        self.focus = None

    def _conclude(self, reply: RunStarted | None = None) -> Decision:
        self._work_agenda()
        self._admit_waiting()
        writes = self._writes
        for run, expected in self._touched_runs.items():
            run.row = run.image()
            writes.append(Write(run.row, expected, expected is None))
        for instance, expected in self._touched_instances.items():
            writes.append(Write(instance.image(), expected, expected is None))
        for attempt, expected in self._touched_attempts.items():
            writes.append(Write(attempt.image(), expected, expected is None))
        return Decision(
            writes=writes,
            effects=self._effects,
            wake_at=self.timers.next_due_at(),
            more=bool(self._agenda) or (self.admission.has_work() and not self.is_stopping),
            reply=reply,
            stale=self._stale,
        )

    def _work_agenda(self) -> None:
        left = AGENDA_SLICE
        while self._agenda and left > 0:
            item = self._agenda.popleft()
            for _ in item:
                left -= 1
                if left <= 0:
                    self._agenda.append(item)  # to the back: others have their turn first
                    break

    def _admit_waiting(self) -> None:
        if self.is_stopping:
            return
        for _ in range(ADMISSION_SLICE):
            admitted = self.admission.next_admitted(self._now, self.limits.pool_ageing_seconds)
            if admitted is None:
                return
            self._launch(*admitted)

    def _touch(self, instance: Instance) -> None:
        """Must come before the first change of an instance in a step: it notes the guard."""
        self.focus = instance.run
        if instance not in self._touched_instances:
            self._touched_instances[instance] = (instance.state, instance.attempt_id)

    def _touch_run(self, run: Run) -> None:
        self.focus = run
        if run not in self._touched_runs:
            self._touched_runs[run] = (run.state,)

    def _touch_attempt(self, attempt: Attempt) -> None:
        if attempt not in self._touched_attempts:
            self._touched_attempts[attempt] = (attempt.state,)

    # ---- runs -----------------------------------------------------------------------------------------------------

    def _start_run(self, command: commands.StartRun) -> RunStarted:
        plan = self.current.get(command.dag_id)
        if plan is None:
            raise NotFound(
                f"there is no DAG {command.dag_id!r}",
                hint="`tickless dag list` shows those there are, `tickless dag errors` the files that cannot be read.",
            )
        if command.idempotency_key is not None and command.idempotency_key in self._run_of_key:
            run = self.runs[self._run_of_key[command.idempotency_key]]
            self._request_done("trigger_request", command.request_id, run.key)
            return RunStarted(run=run.key, run_id=run.row.run_id, is_new=False)
        run_id = command.run_id or self._free_run_id(command.dag_id, command.run_type)
        if (command.dag_id, run_id) in self._run_ids:
            raise run_id_taken(command.dag_id, run_id)
        self._last_run = RunKey(self._last_run + 1)
        row = RunRow(
            key=self._last_run,
            dag_id=command.dag_id,
            run_id=run_id,
            version=plan.version.key,
            state=RunState.QUEUED,
            run_type=command.run_type,
            conf=command.conf,
            logical_date=command.logical_date,
            queued_at=self._now,
            idempotency_key=command.idempotency_key,
        )
        run = self._add_run(row, plan)
        self._touched_runs[run] = None
        self._tell(run, None)
        self._request_done("trigger_request", command.request_id, run.key)
        dag = self._dag(command.dag_id)
        dag.queued.append(run)
        self._start_queued_runs(dag)
        return RunStarted(run=run.key, run_id=run_id, is_new=True)

    def _free_run_id(self, dag_id: str, run_type: str) -> str:
        base = run_id = f"{run_type}__{self._now.isoformat(timespec='microseconds')}"
        suffix = 1
        while (dag_id, run_id) in self._run_ids:
            suffix += 1
            run_id = f"{base}__{suffix}"
        return run_id

    def _add_run(self, row: RunRow, plan: DagPlan) -> Run:
        own = plan.spec.max_active_tasks
        limit = own if own is not None else self.limits.dag_concurrency
        run = Run(row, plan, Semaphore("dag_concurrency", f"run {row.dag_id}/{row.run_id}", limit))
        self.runs[row.key] = run
        self._run_ids.add((row.dag_id, row.run_id))
        if row.idempotency_key is not None:
            self._run_of_key[row.idempotency_key] = row.key
        return run

    def _start_queued_runs(self, dag: DagState) -> None:
        self._limit_active_runs(dag)
        while dag.queued and not dag.active_runs.refuses(1, None) and not self.is_stopping:
            run = dag.queued.popleft()
            dag.active_runs.take(1)
            self._touch_run(run)
            run.state = move_run(run.state, RunHappening.ADMIT)
            run.started_at = self._now
            self._tell(run, None)
            if run.is_complete:  # a DAG without tasks
                self._end_run(run)
            else:
                self._agenda.appendleft(self._create_instances(run))
            self._limit_active_runs(dag)

    def _create_instances(self, run: Run) -> Iterator[None]:
        tasks = run.plan.tasks
        while run.created_upto < len(tasks):
            self._touch_run(run)
            instance = Instance(run, tasks[run.created_upto])
            run.created_upto += 1
            run.instances[instance.task.index, instance.map_index] = instance
            self._touched_instances[instance] = None
            if run.cancel_requested_at is not None:
                self._finish(instance, Happening.CANCEL, "the run was cancelled")
            else:
                self._judge(instance)
            yield

    def _end_run(self, run: Run) -> None:
        self._touch_run(run)
        bad = run.cancel_requested_at is not None or any(
            run.tallies.get(leaf, {}).get(state)
            for leaf in run.plan.leaves
            for state in (TaskState.FAILED, TaskState.UPSTREAM_FAILED)
        )
        was_running = run.state is RunState.RUNNING
        run.state = move_run(run.state, RunHappening.FAIL if bad else RunHappening.SUCCEED)
        run.ended_at = self._now
        run.frozen = None
        self._tell(run, (self._now - run.started_at).total_seconds() if run.started_at else None)
        del self.runs[run.key]
        self._run_ids.discard((run.row.dag_id, run.row.run_id))
        if run.row.idempotency_key is not None:
            self._run_of_key.pop(run.row.idempotency_key, None)
        dag = self._dag(run.row.dag_id)
        if was_running:
            dag.active_runs.give_back(1)
        self._start_queued_runs(dag)

    def _cancel_run(self, command: commands.CancelRun) -> None:
        run = self.runs.get(command.run)
        if run is None:
            raise Refused(f"run {command.run} has ended already", hint=f"`tickless run show {command.run}` shows how.")
        self._request_done("command", command.request_id, run.key)
        if run.cancel_requested_at is not None:
            return
        self._touch_run(run)
        run.cancel_requested_at = self._now
        if run.state is RunState.QUEUED:
            if run.frozen is None:
                self._dag(run.row.dag_id).queued.remove(run)
            self._end_run(run)
        else:
            self._agenda.appendleft(self._cancel_instances(run))
            if run.frozen is not None:
                self._agenda.append(self._create_instances(run))  # it may have been frozen half-way through

    def _cancel_instances(self, run: Run) -> Iterator[None]:
        for instance in list(run.instances.values()):
            attempt = self.attempts.get(instance.attempt_id)
            if attempt is not None:
                self._stop(attempt, EndReason.STOPPED)
            elif instance.state not in FINISHED_TASK_STATES:
                self._finish(instance, Happening.CANCEL, "the run was cancelled")
            yield
        if run.is_complete and run.key in self.runs:  # frozen until now, and nothing was left to stop
            self._end_run(run)

    # ---- task instances -------------------------------------------------------------------------------------------

    def _evaluate(self, run: Run, indices: tuple[int, ...]) -> Iterator[None]:
        for index in indices:
            instance = run.instances.get((index, UNMAPPED))
            if instance is not None and run.may_schedule:
                self._judge(instance)
                yield

    def _judge(self, instance: Instance) -> None:
        """Apply the trigger rule to an instance that waits for its upstream."""
        if instance.state is not TaskState.NONE:
            return
        run, task = instance.run, instance.task
        self.focus = run
        verdict = judge(task.spec.trigger_rule, run.counts[task.index], run.upstream_of(task.index))
        if verdict is Verdict.WAIT:
            return
        if verdict is not Verdict.RUN:
            self._finish(instance, _HAPPENING_OF_VERDICT[verdict], None)
        elif task.spec.kind is TaskKind.EMPTY:
            self._finish(instance, Happening.PASS, None)
        else:
            self._schedule(instance)

    def _schedule(self, instance: Instance) -> None:
        """A new try: its trigger rule holds, or its retry is due."""
        after = move(instance.state, Happening.READY)
        assert after is not None
        self._touch(instance)
        instance.state = after
        instance.try_number += 1
        instance.lost_count = 0
        instance.due_at = None
        instance.scheduled_at = self._now
        self._wait_for_slots(instance)

    def _wait_for_slots(self, instance: Instance) -> None:
        run, spec = instance.run, instance.task.spec
        signature = (spec.pool, spec.pool_slots, spec.queue)
        group = run.groups.get(signature)
        if group is None:
            needs = self._needs(run, *signature)
            group = run.groups[signature] = Group(run, signature, needs, self._lane(run, signature, needs))
        self.admission.wait(instance, group)

    def _lane(self, run: Run, signature: tuple[str, int, str], needs: Needs) -> Lane:
        """One per signature; one per DAG and signature when DAGs are limited over all their runs."""
        if self.limits.max_active_tasks_per_dag_total is None:
            return self.admission.lane(signature, needs[2:])
        return self.admission.lane((run.row.dag_id, *signature), needs[1:])

    def _finish(self, instance: Instance, happening: Happening, reason: str | None) -> None:
        """An instance reaches a finished state; its downstream is told, and its run may end."""
        after = move(instance.state, happening)
        assert after is not None and after in FINISHED_TASK_STATES
        if instance.state is TaskState.SCHEDULED:
            self.admission.leave(instance)
        self._touch(instance)
        run = instance.run
        instance.state = after
        instance.ended_at = self._now
        instance.due_at = None
        if reason is not None:
            instance.reason = reason
        del run.instances[instance.task.index, instance.map_index]
        run.tally(instance.task.index, after)
        if instance.task.downstream and run.may_schedule:
            self._agenda.appendleft(self._evaluate(run, instance.task.downstream))
        if run.is_complete and (run.frozen is None or run.cancel_requested_at is not None):
            self._end_run(run)

    def _launch(self, instance: Instance, needs: Needs) -> None:
        """The instance has its slots: make its attempt."""
        after = move(instance.state, Happening.ADMIT)
        assert after is not None
        self._touch(instance)
        run, spec = instance.run, instance.task.spec
        self._last_attempt += 1
        attempt_id = make_attempt_id(self.epoch, self._last_attempt)
        instance.state = after
        instance.attempt_id = attempt_id
        instance.queued_at = self._now
        instance.started_at = None
        key = instance.key
        suffix = "" if key.map_index == UNMAPPED else f".{key.map_index}"
        row = AttemptRow(
            attempt_id=attempt_id,
            run=key.run,
            task_id=key.task_id,
            map_index=key.map_index,
            try_number=instance.try_number,
            state=AttemptState.QUEUED,
            executor=self.routing.queues[spec.queue],
            queue=spec.queue,
            pool=spec.pool,
            pool_slots=spec.pool_slots,
            queued_at=self._now,
            timeout_seconds=spec.execution_timeout_seconds,
            # One folder per run: making a folder costs more than half of making the file.
            log_path=f"{run.row.dag_id}/{key.run}/{key.task_id}{suffix}.{instance.try_number}-{attempt_id}.log",
        )
        attempt = Attempt(row, instance, needs)
        self.attempts[attempt_id] = attempt
        self._touched_attempts[attempt] = None
        self._effects.append(
            Launch(attempt_id=attempt_id, key=key, executor=row.executor, try_number=instance.try_number)
        )

    # ---- reports --------------------------------------------------------------------------------------------------

    def _on_started(self, report: Started) -> None:
        attempt = self.attempts.get(AttemptId(report.attempt_id))
        if attempt is None or attempt.state is not AttemptState.QUEUED:
            self._stale += 1
            return
        self._touch_attempt(attempt)
        attempt.state = AttemptState.RUNNING
        attempt.started_at = report.at
        attempt.pid = report.pid
        attempt.host = report.host
        self._arm_timeout(attempt)
        instance = attempt.instance
        if instance is not None:
            after = move(instance.state, Happening.START)
            assert after is not None
            self._touch(instance)
            instance.state = after
            instance.started_at = report.at

    def _arm_timeout(self, attempt: Attempt) -> None:
        seconds = attempt.row.timeout_seconds
        if seconds is not None and attempt.started_at is not None:
            self.timers.arm(attempt.started_at + timedelta(seconds=seconds), TimeoutDue(attempt.id))

    def _on_ended(self, report: Finished | Lost) -> None:
        attempt_id = AttemptId(report.attempt_id)
        attempt = self.attempts.pop(attempt_id, None)
        self._effects.append(AckReport(attempt_id=attempt_id))
        if attempt is None:
            self._stale += 1
            return
        self._touch_attempt(attempt)
        attempt.ended_at = report.at
        if isinstance(report, Finished):
            attempt.state, attempt.reason = report.state, report.reason
            attempt.exit_code, attempt.signal, attempt.error = report.exit_code, report.signal, report.error
            attempt.started_at = attempt.started_at or report.started_at
            attempt.pid = attempt.pid or report.pid
            attempt.host = attempt.host or report.host
            if report.reason is EndReason.STOPPED and attempt.stop_requested_at is None:
                # Nobody asked for it in the database: the launcher was told to shut down with its tasks.
                attempt.state = AttemptState.LOST
        else:
            attempt.state, attempt.reason, attempt.error = AttemptState.LOST, EndReason.LOST, report.why
        for semaphore, weight in attempt.holds:
            semaphore.give_back(weight)
        self.admission.freed(semaphore for semaphore, _ in attempt.holds)
        if attempt.instance is not None:
            self._end_try(attempt, attempt.instance, report.output if isinstance(report, Finished) else None)

    def _end_try(self, attempt: Attempt, instance: Instance, output: str | None) -> None:
        """What the end of its attempt means for the task instance."""
        run, spec = instance.run, instance.task.spec
        told_at = len(self._effects)  # the end of the task is told before the end of its run
        self._touch(instance)
        instance.started_at = attempt.started_at
        instance.reason = attempt.reason
        if attempt.state is AttemptState.LOST and run.may_schedule:
            is_lost = attempt.reason is EndReason.LOST  # not merely stopped together with its launcher
            if not is_lost or instance.lost_count < self.limits.max_lost_attempts:
                after = move(instance.state, Happening.LOSE)
                assert after is not None
                instance.state = after
                instance.lost_count += is_lost
                self._wait_for_slots(instance)
                self._tell_end(told_at, attempt, instance)
                return
        happening = judge_end(attempt.state, spec, instance.try_number, may_retry=run.may_schedule)
        if happening is Happening.RETRY:
            after = move(instance.state, Happening.RETRY)
            assert after is not None
            instance.state = after
            instance.ended_at = self._now
            instance.due_at = next_try_at(self._now, spec)
            self.timers.arm(instance.due_at, RetryDue(instance.key, instance.try_number))
        else:
            if happening is Happening.SUCCEED and output is not None:
                key = instance.key
                self._writes.append(
                    Write(
                        XComRow(
                            run=key.run,
                            task_id=key.task_id,
                            map_index=key.map_index,
                            key=XCOM_RETURN_KEY,
                            value=output,
                            created_at=self._now,
                        )
                    )
                )
            self._finish(instance, happening, None)
        self._tell_end(told_at, attempt, instance)

    # ---- timers, limits, DAGs -------------------------------------------------------------------------------------

    def _ring(self, now: datetime) -> Iterator[None]:
        for timer in self.timers.pop_due(now):
            self._on_timer(timer)
            yield

    def _on_timer(self, timer: Timer) -> None:
        match timer:
            case RetryDue(key, try_number):
                instance = self.instance(key)
                if (
                    instance is not None
                    and instance.state is TaskState.UP_FOR_RETRY
                    and instance.try_number == try_number
                    and instance.run.may_schedule
                ):
                    self._schedule(instance)
            case TimeoutDue(attempt_id):
                attempt = self.attempts.get(attempt_id)
                if attempt is not None:
                    self._stop(attempt, EndReason.TIMEOUT)
            case _:
                assert_never(timer)

    def _stop(self, attempt: Attempt, reason: EndReason) -> None:
        """Ask for the end of an attempt. Its slots stay taken until its process has ended."""
        if attempt.stop_requested_at is not None:
            return
        self._touch_attempt(attempt)
        attempt.stop_requested_at = self._now
        attempt.stop_reason = reason
        self._effects.append(
            StopAttempt(executor=attempt.row.executor, stop=StopOrder(attempt_id=attempt.id, reason=reason))
        )

    def _set_pool(self, command: commands.SetPool) -> None:
        if command.slots < 0:
            raise UserError(f"a pool cannot have {command.slots} slots", hint="Give a number from 0 up.")
        self._request_done("command", command.request_id, None)
        self._writes.append(Write(PoolRow(name=command.name, slots=command.slots)))
        self._resize(self._pool(command.name), command.slots)

    def _resize(self, semaphore: Semaphore, limit: int) -> None:
        semaphore.limit = limit
        if semaphore.reserved is not None and semaphore.reserved.weight_on(semaphore) > limit:
            semaphore.reserved = None  # it can never fit now and must not close the pool for all
        self.admission.freed([semaphore])

    def _on_limits_changed(self, event: events.LimitsChanged) -> None:
        self.limits, self.routing = event.limits, event.routing
        self._resize(self.parallelism, event.limits.parallelism)
        for name in {*self.executors, *event.routing.executors}:
            self._resize(self._executor(name), event.routing.executors.get(name, 0))
        for run in self.runs.values():
            own = run.plan.spec.max_active_tasks
            self._resize(run.slots, own if own is not None else event.limits.dag_concurrency)
        for dag in self.dags.values():
            self._apply_dag_limits(dag)
            self._start_queued_runs(dag)
        # Queues may be served by other executors now: everybody who waits does so under the new needs.
        waiting = [instance for run in self.runs.values() for instance in run.instances.values() if instance.group]
        for instance in waiting:
            self.admission.leave(instance)
        for run in self.runs.values():  # also where nobody waits just now: the next one must find the new needs
            run.groups.clear()
            run.slots.parked.clear()
        self.admission.forget_lanes()
        for instance in waiting:
            self._wait_for_slots(instance)

    def _on_dag_parsed(self, event: events.DagParsed) -> None:
        dag_id = event.spec.dag_id
        now = self.current.get(dag_id)
        if now is not None and now.version.hash == event.hash:
            return
        self._last_version = VersionKey(self._last_version + 1)
        dag = self._dag(dag_id)
        dag.last_number += 1
        version = VersionRow(
            key=self._last_version,
            dag_id=dag_id,
            number=dag.last_number,
            spec=event.spec_json,
            hash=event.hash,
            bundle=event.bundle,
            file=event.file,
            created_at=self._now,
        )
        self._writes.append(Write(version))
        self.current[dag_id] = compile_plan(version, event.spec)
        self._apply_dag_limits(dag)
        self._start_queued_runs(dag)

    def _on_dag_vanished(self, event: events.DagVanished) -> None:
        if self.current.pop(event.dag_id, None) is not None:
            self._writes.append(Write(DagVanishedRow(dag_id=event.dag_id, at=self._now)))
            self._start_queued_runs(self._dag(event.dag_id))

    def _limit_active_runs(self, dag: DagState) -> None:
        """The current version says how many may run; of a vanished DAG, the version of the run that is next."""
        plan = self.current.get(dag.dag_id) or (dag.queued[0].plan if dag.queued else None)
        own = plan.spec.max_active_runs if plan is not None else None
        dag.active_runs.limit = own if own is not None else self.limits.max_active_runs_per_dag

    def _apply_dag_limits(self, dag: DagState) -> None:
        self._limit_active_runs(dag)
        total = self.limits.max_active_tasks_per_dag_total
        self._resize(dag.total, total if total is not None else UNLIMITED)

    # ---- semaphores -----------------------------------------------------------------------------------------------

    def _dag(self, dag_id: str) -> DagState:
        dag = self.dags.get(dag_id)
        if dag is None:
            scope = f"DAG {dag_id}"
            dag = self.dags[dag_id] = DagState(
                dag_id,
                Semaphore("max_active_runs_per_dag", scope, 0),
                Semaphore("max_active_tasks_per_dag_total", scope, 0),
            )
            self._apply_dag_limits(dag)
        return dag

    def _pool(self, name: str) -> Semaphore:
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = Semaphore("pool", name, 0)
        return pool

    def _executor(self, name: str) -> Semaphore:
        executor = self.executors.get(name)
        if executor is None:
            executor = self.executors[name] = Semaphore("executor", name, 0)
        return executor

    def _needs(self, run: Run, pool: str, pool_slots: int, queue: str) -> Needs:
        executor = self.routing.queues.get(queue)
        if executor is not None:
            served = self._executor(executor)
        else:
            served = self._unrouted.setdefault(queue, Semaphore("queue", queue, 0))
        return self._slots(run, pool, pool_slots, served)

    def _slots(self, run: Run | None, pool: str, pool_slots: int, executor: Semaphore) -> Needs:
        """From the narrowest to the widest, so that a refusal is found where the fewest wait."""
        own = ((run.slots, 1), (self._dag(run.row.dag_id).total, 1)) if run is not None else ()
        return (*own, (self._pool(pool), pool_slots), (executor, 1), (self.parallelism, 1))

    # ---- telling --------------------------------------------------------------------------------------------------

    def _tell(self, run: Run, seconds: float | None) -> None:
        self._effects.append(
            RunChanged(run=run.key, dag_id=run.row.dag_id, run_id=run.row.run_id, state=run.state, seconds=seconds)
        )

    def _tell_end(self, at: int, attempt: Attempt, instance: Instance) -> None:
        self._effects.insert(
            at,
            AttemptEnded(
                attempt=attempt.image(),
                dag_id=instance.run.row.dag_id,
                run_id=instance.run.row.run_id,
                task_state=instance.state,
                due_at=instance.due_at,
            ),
        )

    def _request_done(self, table: str, request_id: int | None, run: RunKey | None) -> None:
        if request_id is not None:
            self._writes.append(Write(RequestDone(table=table, id=request_id, run=run)))

    # ---- looking --------------------------------------------------------------------------------------------------

    def instance(self, key: TaskKey) -> Instance | None:
        """An unfinished task instance."""
        run = self.runs.get(key.run)
        if run is None:
            return None
        index = run.plan.index_of.get(key.task_id)
        return None if index is None else run.instances.get((index, key.map_index))


def run_id_taken(dag_id: str, run_id: str) -> Refused:
    """The refusal of a run whose name is in use, by a finished run or an unfinished one."""
    return Refused(f"DAG {dag_id!r} has a run {run_id!r} already", hint="Leave the run id out, or choose another.")
