"""A whole installation in one synchronous object: engine, store in memory, a launcher, and a link that misbehaves.

`World` plays the shell (decide, commit, then do; throw RAM away on any doubt) and checks the invariants of design.md
§12 after each move, from the rows and from the launcher, never from what the engine says of itself (except I3 and I9,
which are about the engine's memory). The state machine in tests/property drives it at random.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tests.support.builders import decode_spec, parsed
from tests.support.clock import VirtualClock
from tests.support.fake_launcher import Launcher
from tests.support.past import read_past
from tests.support.picture import owed, picture, semaphores, told
from tests.support.rows import Rows
from tests.support.slots import check_schedules, check_slots
from tests.support.trigger_rules import FAIL, RUN, SKIP, WAIT, possible_verdicts, slow_verdict
from tickless.core import commands, events
from tickless.core.backfills import name_of
from tickless.core.choice import XCOM_CHOICE_KEY
from tickless.core.decision import AckReport, Decision, Launch, PastWanted, StopAttempt, Write
from tickless.core.engine import Engine
from tickless.core.record import MARKED_RUN_SUCCESS, Backfill, DagState, Run
from tickless.core.timers import RetryDue, RunTimeoutDue
from tickless.errors import Conflict, Unavailable, UserError
from tickless.model.backfill import BackfillKey, BackfillRow, Reprocess
from tickless.model.dag import DEFAULT_POOL, DagSpec
from tickless.model.id import UNMAPPED, AttemptId, Epoch, RunKey, TaskKey, epoch_of
from tickless.model.limit import Limits, Routing
from tickless.model.report import Finished, Lost, Report, Started
from tickless.model.row import (
    UNKNOWN_LENGTH,
    AttemptRow,
    DagRow,
    DagVanishedRow,
    InstanceRow,
    MapRow,
    PoolRow,
    RunGone,
    RunRemains,
    RunRow,
    VersionRow,
    XComRow,
)
from tickless.model.state import (
    FINISHED_RUN_STATES,
    FINISHED_TASK_STATES,
    LIVE_ATTEMPT_STATES,
    OCCUPYING_TASK_STATES,
    AttemptState,
    EndReason,
    RunState,
    TaskState,
)
from tickless.store.base import QuarantinedEvent
from tickless.store.memory import MemoryStore
from tickless.store.revised import counted

MARKS = {EndReason.MARKED_SUCCESS.value, EndReason.MARKED_FAILED.value}
DRAIN_CEILING = 5_000
"""More steps than any drain of these small worlds needs; reaching it means work that never ends."""


class World:
    """See the module's docstring. Every public method is one move; each leaves all invariants checked."""

    engine: Engine
    rows: Rows
    wake_at: datetime | None

    def __init__(self, limits: Limits, routing: Routing) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore()
        self.launcher = Launcher(self.clock)
        self.limits = limits
        self.routing = routing
        self.specs: dict[str, DagSpec] = {}
        self.link: list[Report] = []  # on their way to the present daemon
        self.history: list[Report] = []  # everything ever sent
        self.batch: list[Decision] = []  # decided, not committed
        self.has_more = False
        self.is_stopping = False
        self.questions: list[PastWanted] = []  # nobody has looked yet
        self.answers: list[events.PastFound] = []  # read, and not told yet
        self.offered: set[int] = set()  # trigger requests that the present daemon has seen
        self.old_leader: tuple[Epoch, list[Decision]] | None = None
        self.counts: Counter[str] = Counter()
        self.dealt_with: set[tuple[str, datetime | None]] = (
            set()
        )  # slots with a run by a backfill, or one deleted since
        self.reopened: Counter[TaskKey] = Counter()  # how often a finished instance was cleared
        self.is_revising = False  # finished rows may change in this step
        self.has_revised = False  # and what they became may not be committed yet
        self.restart()

    # ---- the shell ------------------------------------------------------------------------------------------------

    def offer(self, event: events.Event | commands.Command) -> Decision | None:
        """Step the engine; None when it refused."""
        self.clock.advance(0.000_001)
        had_more = self.has_more
        stale_expected = self._is_stale(event)
        before = picture(self.engine)["runs"].keys() if isinstance(event, commands.StartRun) else None
        try:
            decision = self.engine.step(event, self.clock.now())
        except UserError:
            if before is not None:
                assert picture(self.engine)["runs"].keys() == before, "a refused command has changed something"
            self.counts["refused"] += 1
            return None
        if stale_expected is not None:
            assert decision.stale == stale_expected, f"I6: {event} should be {'stale' if stale_expected else 'new'}"
            if stale_expected and not had_more:
                assert not decision.writes, f"I6: stale {event} changes {decision.writes}"
        self._adopt(decision)
        return decision

    def _adopt(self, decision: Decision) -> None:
        self.has_more = decision.more
        self.batch.append(decision)
        self._check_decision(decision)
        self.wake_at = decision.wake_at

    def drain(self) -> None:
        for _ in range(DRAIN_CEILING):
            if not self.has_more:
                return
            self.offer(events.WorkContinued())
        raise AssertionError("I7: work that never ends")

    def flush(self, count: int | None = None) -> None:
        """Commit the first `count` decisions (all), then release their effects."""
        entries = self.batch[:count]
        self.store.flush_now(self.engine.epoch, [write for entry in entries for write in entry.writes])
        del self.batch[: len(entries)]
        self._check_committed()
        self._release(entries)

    def _release(self, entries: list[Decision]) -> None:
        for effect in [effect for entry in entries for effect in entry.effects]:
            match effect:
                case Launch():
                    row = self.store.attempts[effect.attempt_id]
                    known = effect.attempt_id in self.launcher.key_of
                    if not known and row.state in LIVE_ATTEMPT_STATES:
                        self.counts["launched"] += 1
                        self.launcher.submit(effect.attempt_id, effect.key)
                    assert known or row.state is AttemptState.QUEUED, f"I1: {effect} of a row that is {row.state}"
                case StopAttempt():
                    attempt_id = AttemptId(effect.stop.attempt_id)
                    assert self.store.attempts[attempt_id].stop_requested_at is not None
                    if attempt_id in self.launcher.alive:
                        self.launcher.to_stop[attempt_id] = effect.stop.reason
                case AckReport():
                    acked = self.store.attempts.get(effect.attempt_id)
                    assert acked is None or acked.state not in LIVE_ATTEMPT_STATES, "acked before its end is committed"
                    self.launcher.ack(effect.attempt_id)
                case PastWanted():
                    self.questions.append(effect)

    def restart(self) -> None:
        """RAM is thrown away; a new leader takes over from the rows."""
        if self.batch:
            self.old_leader = (self.engine.epoch, self.batch)
        self.batch, self.link, self.offered = [], [], set()
        self.questions, self.answers = [], []
        self.is_stopping = False
        self.rows = Rows.of(self.store)
        epoch = self.store.take_epoch_now("world")
        self.engine = self._new_engine(epoch)
        decision = self.engine.restore(self.store.load_now(), self.clock.now())
        self._adopt(decision)
        committed = {row.attempt_id for row in self.store.attempts.values() if row.state in LIVE_ATTEMPT_STATES}
        strangers = set(self.launcher.alive) - committed
        assert not strangers, f"attempts {strangers} would be killed: they run, but their rows are not live"
        self.link = self.launcher.inventory()
        for spec in self.specs.values():
            self.offer(parsed(spec))
        self.counts["restarts"] += 1

    def _new_engine(self, epoch: Epoch) -> Engine:
        return Engine(epoch=epoch, limits=self.limits, routing=self.routing, decode_spec=decode_spec)

    # ---- moves of the outside ---------------------------------------------------------------------------------------

    def define(self, spec: DagSpec) -> None:
        self.specs[spec.dag_id] = spec
        self.offer(parsed(spec))

    def vanish(self, dag_id: str) -> None:
        if self.specs.pop(dag_id, None) is not None:
            self.offer(events.DagVanished(dag_id=dag_id))

    def start_run(
        self,
        dag_id: str,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        logical_date: datetime | None = None,
    ) -> None:
        if any(row.idempotency_key == idempotency_key is not None for row in self._finished_runs()):
            return  # the API looks a finished run up by its key
        if any((row.dag_id, row.run_id) == (dag_id, run_id) for row in self._finished_runs()):
            return  # Postgres would refuse the name
        self.offer(
            commands.StartRun(dag_id=dag_id, run_id=run_id, idempotency_key=idempotency_key, logical_date=logical_date)
        )

    def read_past(self, index: int) -> None:
        """Somebody looks into the rows, for the previous run of a run."""
        self.answers.append(read_past(self.store, self.questions.pop(index)))

    def tell_past(self, index: int) -> None:
        """The answer arrives, perhaps long after it was read."""
        self.offer(self.answers.pop(index))
        self.counts["pasts read"] += 1

    def read_all_pasts(self) -> None:
        """Until nothing is asked any more."""
        for _ in range(DRAIN_CEILING):
            self.drain()
            self.flush()
            if self.questions:
                self.read_past(0)
            elif self.answers:
                self.tell_past(0)
            else:
                return
        raise AssertionError("I7: it asks for ever")

    def request_run(self, dag_id: str) -> None:
        """Somebody's transaction commits a trigger request."""
        self.store.add_request(dag_id)

    def serve_requests(self) -> None:
        for request in self.store.open_requests_now():
            if request.id not in self.offered and request.dag_id in self.engine.current:
                self.offered.add(request.id)
                self.offer(commands.StartRun(dag_id=request.dag_id, request_id=request.id))

    def cancel(self, run: RunKey) -> None:
        self.offer(commands.CancelRun(run=run))

    def alter(self, run: RunKey, verb: commands.TaskVerb, task_ids: list[str], *, is_behind: bool) -> None:
        """Clear or mark tasks of a run, finished or not; with `is_behind` the rows are read before a flush.

        What earlier alterations have decided is committed in any case: one desk works them off, one after the other.
        """
        if not is_behind or self.has_revised:
            self.flush()
            self.has_revised = False
        row = self.store.runs.get(run)
        if row is None:
            return
        chosen = [
            instance
            for task in decode_spec(self.store.versions[row.version].spec).tasks
            if task.task_id in task_ids
            for key, instance in sorted(self.store.instances.items())
            if key[:2] == (run, task.task_id)
        ]
        finished = None
        if row.state in FINISHED_RUN_STATES:
            tallies = counted(
                each for each in self.store.instances.values() if each.run == run and each.state in FINISHED_TASK_STATES
            )
            finished = commands.FinishedRun(
                row=row,
                version=self.store.versions[row.version],
                tallies=tuple(tallies),
                maps=self.store.maps_of(run),
            )
        choices = tuple(
            commands.BranchChoice(task_id=at.task_id, map_index=at.map_index, value=each.value)
            for (at, name), each in self.store.xcoms.items()
            if at.run == run and name == XCOM_CHOICE_KEY
        )
        alteration = commands.AlterTasks(verb=verb, run=run, rows=tuple(chosen), finished_run=finished, choices=choices)
        self.is_revising = True
        try:
            if self.offer(alteration):
                self.has_revised = True
                self.counts[f"{verb} of a {'finished' if finished else 'live'} run"] += 1
        finally:
            self.is_revising = False

    def mark_run(self, run: RunKey, state: RunState) -> None:
        """Declare a run done or give it up, finished or not."""
        self.flush()
        row = self.store.runs.get(run)
        if row is None:
            return
        finished = row if row.state in FINISHED_RUN_STATES else None
        self.is_revising = True
        try:
            if self.offer(commands.MarkRun(run=run, state=state, finished=finished)):
                self.has_revised = True
                self.counts[f"mark {state} of a {'finished' if finished else 'live'} run"] += 1
        finally:
            self.is_revising = False

    def delete_run(self, run: RunKey) -> None:
        """Delete a run, if that may be: its row in one commit, the rest in the next one."""
        self.flush()
        row = self.store.runs.get(run)
        if row is None:
            return
        if self.offer(commands.DeleteRun(run=run, is_finished=row.state in FINISHED_RUN_STATES)) is None:
            return
        self.flush()
        attempts = tuple(key for key, attempt in self.store.attempts.items() if attempt.run == run)
        remains = RunRemains(run=run, attempts=attempts, most=1000)
        self.store.flush_now(self.engine.epoch, [Write(remains)])
        self.rows = Rows.of(self.store)
        self.counts["deleted"] += 1

    def set_pool(self, name: str, slots: int) -> None:
        self.offer(commands.SetPool(name=name, slots=slots))

    def pause(self, dag_id: str, *, is_paused: bool) -> None:
        self.offer(commands.PauseDag(dag_id=dag_id) if is_paused else commands.UnpauseDag(dag_id=dag_id))

    def backfill(self, dag_id: str, minutes: int, reprocess: Reprocess, *, max_active: int, is_backwards: bool) -> None:
        """Over the last minutes, whatever the schedule is."""
        now = self.clock.now()
        self.offer(
            commands.CreateBackfill(
                dag_id=dag_id,
                from_at=now - timedelta(minutes=minutes),
                to_at=now + timedelta(minutes=1),
                reprocess=reprocess,
                max_active=max_active,
                is_backwards=is_backwards,
            )
        )

    def control_backfill(self, key: BackfillKey, verb: commands.BackfillVerb) -> None:
        self.offer(commands.ControlBackfill(backfill=key, verb=verb))

    def fill(self, pick: int, most: int, between: Callable[[], None] = lambda: None) -> None:
        """Bring a backfill what the shell reads for it; `between`: what happens after the rows were read."""
        wanting = self.engine.backfills.wanting()
        if not wanting:
            return
        backfill, last_run = wanting[pick % len(wanting)], self.engine.last_run
        self.flush()
        slots, place = self.engine.backfills.next_slots(backfill, most), backfill.place
        dates, names = [slot.start for slot in slots], [name_of(slot) for slot in slots]
        taken = tuple(self.store.slot_runs_now(backfill.row.dag_id, dates, names))
        between()
        self.offer(
            commands.FillSlots(
                backfill=backfill.row.key, place=place, slots=tuple(slots), taken=taken, last_run=last_run
            )
        )

    def reload(self, limits: Limits, routing: Routing) -> None:
        self.limits, self.routing = limits, routing
        self.offer(events.LimitsChanged(limits=limits, routing=routing))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.offer(events.TimePassed())

    def ring(self) -> None:
        """Time passes until the one timer is due."""
        if self.wake_at is not None:
            self.advance(max(0.0, (self.wake_at - self.clock.now()) / timedelta(seconds=1)))

    def stop_admitting(self) -> None:
        self.is_stopping = True
        self.offer(commands.StopAdmitting())

    # ---- moves of the launcher --------------------------------------------------------------------------------------

    def start_process(self, attempt_id: AttemptId) -> None:
        self._send(self.launcher.start(attempt_id))

    def end_process(self, attempt_id: AttemptId, state: AttemptState, **says: Any) -> None:
        """`says` are further fields of its report: output, follow, skip_below, may_retry, xcoms."""
        reason = EndReason.RAISED if state is AttemptState.FAILED else EndReason.EXITED
        self._send(self.launcher.end(attempt_id, state, reason, **says))
        self.counts["choices"] += says.get("follow") is not None or says.get("skip_below", False)

    def obey_stop(self, attempt_id: AttemptId) -> None:
        reason = EndReason(self.launcher.to_stop[attempt_id])
        self._send(self.launcher.end(attempt_id, AttemptState.FAILED, reason))

    def stop_with_launcher(self, attempt_id: AttemptId) -> None:
        """The launcher was told to end with its tasks; the database did not ask for it."""
        self._send(self.launcher.end(attempt_id, AttemptState.FAILED, EndReason.STOPPED))

    def lose_process(self, attempt_id: AttemptId) -> None:
        self._send(self.launcher.lose(attempt_id))

    def deliver(self, index: int, *, keep: bool = False) -> None:
        """One report arrives, in any order; with `keep` it will arrive again."""
        report = self.link[index]
        if not keep:
            del self.link[index]
        self.offer(report)

    def replay(self, index: int) -> None:
        """A report from long ago arrives once more."""
        self.offer(self.history[index])

    def _send(self, report: Report) -> None:
        self.link.append(report)
        self.history.append(report)

    # ---- faults -----------------------------------------------------------------------------------------------------

    def crash_before_commit(self) -> None:
        self.restart()

    def crash_before_release(self) -> None:
        """kill -9 after the commit, before any effect leaves."""
        self.store.flush_now(self.engine.epoch, [write for entry in self.batch for write in entry.writes])
        self.batch = []
        self._check_committed()
        self.restart()

    def flush_with_unknown_outcome(self, *, commit: bool, count: int | None = None) -> None:
        self.store.fail_next(commit=commit)
        try:
            self.flush(count)
        except Unavailable:
            self._check_committed()
            self.restart()
        else:
            raise AssertionError("the store did not fail as wished")

    def quarantine(self, run: RunKey) -> None:
        """An event of this run raised: what was decided is committed, the run is frozen, RAM is thrown away."""
        self.flush()
        if run in self.engine.runs:
            event = QuarantinedEvent(
                run=run, attempt_id=None, kind="Started", event="{}", traceback="", at=self.clock.now()
            )
            self.store.quarantine_now(self.engine.epoch, event)
            self.restart()

    def flush_of_old_leader(self) -> None:
        """A leader that does not know yet that it was deposed tries to commit."""
        if self.old_leader is None:
            return
        epoch, entries = self.old_leader
        self.old_leader = None
        before = (dict(self.store.runs), dict(self.store.instances), dict(self.store.attempts))
        try:
            self.store.flush_now(epoch, [write for entry in entries for write in entry.writes])
        except Conflict:
            assert before == (self.store.runs, self.store.instances, self.store.attempts)
        else:
            raise AssertionError("a deposed leader has committed")

    # ---- invariants -------------------------------------------------------------------------------------------------

    def _is_stale(self, event: events.Event | commands.Command) -> int | None:
        if not isinstance(event, Started | Finished | Lost):
            return None
        row = self.rows.attempts.get(AttemptId(event.attempt_id))
        if isinstance(event, Started):
            return int(row is None or row.state is not AttemptState.QUEUED)
        return int(row is None or row.state not in LIVE_ATTEMPT_STATES)

    def _check_decision(self, decision: Decision) -> None:
        """Apply the writes to the rows as decided, and judge each."""
        rows, old_runs = self.rows, dict(self.rows.runs)
        changed: list[tuple[InstanceRow | None, InstanceRow]] = []
        mapped: list[MapRow] = []
        for write in decision.writes:
            match write.row:
                case RunRow() as run:
                    old_run = rows.runs.get(run.key)
                    assert write.expected == ((old_run.state,) if old_run is not None else None)
                    assert self.is_revising or old_run is None or old_run.state not in FINISHED_RUN_STATES, (
                        "I6: it is finished"
                    )
                    rows.runs[run.key] = run
                    if run.previous_run is not None and (old_run is None or old_run.previous_run is None):
                        assert (run.previous_run or None) == rows.previous(run), f"{run} looks at the wrong run"
                case InstanceRow() as instance:
                    old = rows.instances.get(instance.key)
                    assert write.expected == ((old.state, old.attempt_id) if old is not None else None)
                    if old is not None and old.state in FINISHED_TASK_STATES:
                        assert self.is_revising, "I6: a finished instance changes"
                        if instance.state not in FINISHED_TASK_STATES:
                            self.reopened[instance.key] += 1
                            old = replace(old, state=TaskState.NONE)
                    assert old is None or instance.try_number >= old.try_number
                    rows.instances[instance.key] = instance
                    changed.append((old, instance))
                case AttemptRow() as attempt:
                    old_attempt = rows.attempts.get(attempt.attempt_id)
                    assert write.expected == ((old_attempt.state,) if old_attempt is not None else None)
                    assert old_attempt is None or old_attempt.state in LIVE_ATTEMPT_STATES, "I6: a finished one changes"
                    assert old_attempt is not None or attempt.attempt_id > max(rows.attempts, default=0)
                    assert old_attempt is not None or epoch_of(attempt.attempt_id) == self.engine.epoch
                    rows.attempts[attempt.attempt_id] = attempt
                case XComRow(key=name) as xcom if name == XCOM_CHOICE_KEY:
                    rows.choices[TaskKey(xcom.run, xcom.task_id, xcom.map_index)] = json.loads(xcom.value)
                case MapRow() as map_row:
                    self._check_map(map_row)
                    mapped.append(map_row)
                case RunGone(run=gone_run):
                    deleted = rows.runs.pop(gone_run)
                    assert deleted.state in FINISHED_RUN_STATES, "an unfinished run is deleted"
                    self.dealt_with.add((deleted.dag_id, deleted.run_after))
                    assert not [each for each in rows.live_attempts() if each.run == gone_run], "under its process"
                case PoolRow() as pool:
                    rows.pools[pool.name] = pool
                case VersionRow() as version:
                    rows.specs[version.key] = decode_spec(version.spec)
                    rows.current[version.dag_id] = version.key
                case DagVanishedRow() as vanished:
                    rows.current.pop(vanished.dag_id)
                case DagRow() as dag:
                    rows.dags[dag.dag_id] = dag
                case BackfillRow() as backfill:
                    rows.backfills[backfill.key] = backfill
        for map_row in mapped:
            rows.maps[map_row.run, map_row.task_id] = map_row
            if map_row.is_expanded:
                gone = rows.instances.pop(TaskKey(map_row.run, map_row.task_id))
                assert gone.state is TaskState.NONE
        for old, instance in changed:
            if instance.reason not in MARKS:
                self._check_rule(old, instance)
            self._check_choice(old, instance)
            self._check_past(old, instance)
            self._check_fail_fast(old, instance)
        check_slots(self, decision, old_runs)
        new = [
            rows.attempts[each.attempt_id]
            for each in decision.effects
            if isinstance(each, Launch) and epoch_of(each.attempt_id) == self.engine.epoch
        ]
        started = [r for r in rows.runs.values() if r.state is RunState.RUNNING and self._was(old_runs, r) != r.state]
        if self.is_stopping:
            assert not new, f"I8: {new} launched after SIGTERM"
            assert not started, f"I8: {started} started after SIGTERM"
        for attempt in new:
            known = rows.dags.get(rows.runs[attempt.run].dag_id)
            assert known is None or not known.is_paused, f"{attempt.key} is launched, and its DAG is paused"
        self._check_limits(new, started)
        self._check_one_alive()
        if not decision.more:
            self._check_places()
            check_schedules(self, decision.wake_at)

    def _was(self, runs: Mapping[RunKey, RunRow], run: RunRow) -> RunState | None:
        old = runs.get(run.key)
        return old.state if old is not None else None

    def _check_rule(self, old: InstanceRow | None, new: InstanceRow) -> None:
        """I2, and that what the rule rules out is skipped or upstream_failed rightly."""
        if old is not None and old.state is not TaskState.NONE:
            return
        run = self.rows.runs[new.run]
        upstream = self.rows.upstream_states(new.key)
        rule = self.rows.spec_of(new.key).trigger_rule
        if new.state is TaskState.NONE:
            return
        if new.state is TaskState.SKIPPED and run.cancel_requested_at is not None:
            return
        if new.state is TaskState.SUCCESS and run.cancel_reason == MARKED_RUN_SUCCESS:
            return
        if new.state is TaskState.SKIPPED and self.rows.is_chosen_against(new.key):
            return
        if self.rows.spec_of(new.key).mapped:
            extent = self.rows.extent(new.key)
            may_run = RUN in possible_verdicts(rule, upstream)
            is_over = isinstance(extent, int) and extent > self.limits.max_map_length
            expected = TaskState.SKIPPED if extent == 0 else TaskState.FAILED if is_over else extent
            if new.map_index != UNMAPPED:
                is_gone = isinstance(extent, int) and new.map_index >= extent and not is_over
                expected = TaskState.REMOVED if is_gone else expected
                is_ruled_out = new.state in (TaskState.SKIPPED, TaskState.UPSTREAM_FAILED)
                if not is_ruled_out and new.state != expected:
                    assert isinstance(extent, int) and not is_gone, f"{new.key} is {new.state}, not {expected}"
            if new.state == expected and may_run:
                return
        verdict = {TaskState.SKIPPED: SKIP, TaskState.UPSTREAM_FAILED: FAIL}.get(new.state, RUN)
        assert verdict in possible_verdicts(rule, upstream), f"I2: {new.key} is {new.state}: {rule} of {upstream}"

    def _check_past(self, old: InstanceRow | None, new: InstanceRow) -> None:
        """No instance starts before what it looks at in the previous run has ended well."""
        has_waited = old is None or old.state in (TaskState.NONE, TaskState.RESTARTING)
        is_expanded = new.map_index != UNMAPPED and old is None  # that was judged when the expansion began
        begins = new.state in (TaskState.SCHEDULED, TaskState.QUEUED, TaskState.RUNNING, TaskState.SUCCESS)
        is_declared = new.reason in MARKS or self.rows.runs[new.run].cancel_requested_at is not None
        if has_waited and begins and not is_expanded and not is_declared:
            wanted = self.rows.waits_for_past(new.key)
            assert not wanted, f"{new.key} starts, and its past does not let it: {wanted}"
            spec = self.rows.spec_of(new.key)
            self.counts["let through by its past"] += spec.depends_on_past and bool(
                self.rows.previous(self.rows.runs[new.run])
            )

    def _check_map(self, new: MapRow) -> None:
        """A cursor never goes back, nor past what has rows. What has begun to be expanded under one limit goes on under
        a lower one."""
        old = self.rows.maps.get((new.run, new.task_id))
        if new.expanded_upto is None:
            return
        was = old.expanded_upto if old is not None else 0
        assert was is not None and was <= new.expanded_upto <= new.length, f"{old} is followed by {new}"
        if (old is None or old.length != new.length) and new.length not in (UNKNOWN_LENGTH, new.expanded_upto):
            assert new.length <= self.limits.max_map_length, f"{new} is longer than may be"
        self.counts["expanded"] += new.is_expanded

    def _check_choice(self, old: InstanceRow | None, new: InstanceRow) -> None:
        """What was chosen against, and had not begun, never does: it is skipped in the very commit of the choice."""
        if new.attempt_id == 0 and new.state not in FINISHED_TASK_STATES:
            assert not self.rows.is_chosen_against(new.key), f"{new.key} is {new.state} against a choice"
        if new.attempt_id != 0 and (old is None or old.attempt_id == 0):
            assert not self.rows.is_chosen_against(new.key), f"{new.key} begins against a choice"

    def _check_limits(self, new: list[AttemptRow], started: list[RunRow]) -> None:
        """I4, counted from the rows as decided: nothing was admitted over a limit."""
        rows = self.rows
        live = list(rows.live_attempts())
        for attempt in new:
            run = rows.runs[attempt.run]
            spec = rows.spec_of(attempt.key)
            assert self.routing.queues.get(spec.queue) == attempt.executor
            own = rows.specs[run.version].max_active_tasks
            limits: list[tuple[str, int | None, Callable[[AttemptRow], int]]] = [
                ("parallelism", self.limits.parallelism, lambda a: 1),
                (
                    "dag_concurrency",
                    own if own is not None else self.limits.dag_concurrency,
                    lambda a, run=run: int(a.run == run.key),  # type: ignore[misc]
                ),
                (
                    "max_active_tasks_per_dag_total",
                    self.limits.max_active_tasks_per_dag_total,
                    lambda a, run=run: int(rows.runs[a.run].dag_id == run.dag_id),  # type: ignore[misc]
                ),
                (
                    f"pool {attempt.pool}",
                    rows.pools[attempt.pool].slots if attempt.pool in rows.pools else 0,
                    lambda a, pool=attempt.pool: a.pool_slots if a.pool == pool else 0,  # type: ignore[misc]
                ),
                (
                    f"executor {attempt.executor}",
                    self.routing.executors.get(attempt.executor, 0),
                    lambda a, name=attempt.executor: int(a.executor == name),  # type: ignore[misc]
                ),
            ]
            if spec.max_active_tis_per_dag is not None:
                limits.append(
                    (
                        "max_active_tis_per_dag",
                        self._task_limit(run, attempt.task_id),
                        lambda a, run=run, mine=attempt: int(  # type: ignore[misc]
                            (rows.runs[a.run].dag_id, a.task_id) == (run.dag_id, mine.task_id)
                            and rows.spec_of(a.key).max_active_tis_per_dag is not None
                        ),
                    )
                )
            limits.append(
                (
                    "max_active_tis_per_dagrun",
                    spec.max_active_tis_per_dagrun,
                    lambda a, mine=attempt: int((a.run, a.task_id) == (mine.run, mine.task_id)),  # type: ignore[misc]
                )
            )
            for name, limit, weight in limits:
                used = sum(weight(each) for each in live)
                assert limit is None or used <= limit, f"I4: {name}: {attempt.key} makes it {used} of {limit}"
        for run in started:
            current = rows.current.get(run.dag_id)
            spec_of_dag = rows.specs[current if current is not None else run.version]
            own = spec_of_dag.max_active_runs
            limit = own if own is not None else self.limits.max_active_runs_per_dag
            if self._is_wanted(run):
                continue
            place = self._turns_at(run)
            if place is not None:
                limit = rows.backfills[place].max_active
            active = sum(
                each.dag_id == run.dag_id
                and self._turns_at(each) == place
                and each.state is RunState.RUNNING
                and not (each in started and each is not run and self._is_wanted(each))
                # Of a vanished DAG each run brings its own limit: a later one may have joined it in the same step.
                and (current is not None or place is not None or each.key <= run.key)
                for each in rows.runs.values()
            )
            assert active <= limit, f"I4: max_active_runs: {active} of {limit}"

    def _is_wanted(self, run: RunRow) -> bool:
        """A running run looks at it: it may start again beyond max_active_runs."""
        return run.created_upto > 0 and any(
            each.previous_run == run.key and each.state is RunState.RUNNING for each in self.rows.runs.values()
        )

    def _turns_at(self, run: RunRow) -> BackfillKey | None:
        """The backfill that a run counts at; None: its DAG."""
        backfill = self.rows.backfills.get(run.backfill) if run.backfill is not None else None
        return backfill.key if backfill is not None and backfill.completed_at is None else None

    def _task_limit(self, run: RunRow, task_id: str) -> int | None:
        """The current version's; of a vanished DAG, that of the newest version that an unfinished run has."""
        live = [
            each.version
            for each in self.rows.runs.values()
            if each.dag_id == run.dag_id and each.state not in FINISHED_RUN_STATES
        ]
        version = self.rows.current.get(run.dag_id) or max(live, default=run.version)
        tasks = {task.task_id: task for task in self.rows.specs[version].tasks}
        return tasks[task_id].max_active_tis_per_dag if task_id in tasks else None

    def _check_one_alive(self) -> None:
        live = Counter(row.key for row in self.rows.live_attempts())
        assert not [key for key, count in live.items() if count > 1], "I1: two live attempts of one task"
        won = Counter(
            row.key
            for row in self.rows.attempts.values()
            # A success that came before the stop of a clear is not taken for one.
            if row.state is AttemptState.SUCCESS and row.stop_reason is not EndReason.CLEARED
        )
        again = [key for key, count in won.items() if count > 1 + self.reopened[key]]
        assert not again, "I1: two attempts of one task succeeded"

    def _check_places(self) -> None:
        """I3: the engine knows each unfinished instance, and it is in exactly one place from which it will go on."""
        engine, rows = self.engine, self.rows
        live_runs = {key for key, run in rows.runs.items() if run.state not in FINISHED_RUN_STATES}
        assert engine.runs.keys() == live_runs
        live_timers = {timer for _, timer in engine.timers.entries() if isinstance(timer, RunTimeoutDue)}
        retries = {timer for _, timer in engine.timers.entries() if isinstance(timer, RetryDue)}
        for run in engine.runs.values():
            if run.state is RunState.QUEUED:
                is_waiting = run.frozen is None and run.cancel_requested_at is None
                assert (run in turns_of(engine, run).queued) == is_waiting
                assert not [i for i in run.instances.values() if i.state is not TaskState.NONE]
                continue
            assert run.created_upto == len(run.plan.tasks) or run.frozen is not None
            self._check_ends_in_time(run.key, live_timers)
            expected = {
                key
                for key, row in rows.instances.items()
                if key.run == run.key and row.state not in FINISHED_TASK_STATES
            }
            assert {instance.key for instance in run.instances.values()} == expected, "I3: an instance is forgotten"
            is_frozen = run.frozen is not None and run.cancel_requested_at is None
            assert run.instances or is_frozen, "I7: a run has nothing left to do and does not end"
            for instance in run.instances.values():
                assert instance.image() == rows.instances[instance.key]
                attempt = engine.attempts.get(instance.attempt_id)
                if run.cancel_requested_at is not None:
                    assert attempt is not None, f"{instance.key} of a cancelled run waits for something"
                    assert attempt.stop_requested_at is not None, f"{instance.key} is cancelled, but not stopped"
                if is_frozen and attempt is None:
                    assert instance.group is None
                    continue
                places = []
                if instance.state is TaskState.NONE:
                    rule = instance.task.spec.trigger_rule
                    verdict = slow_verdict(rule, rows.upstream_states(instance.key))
                    waits_for_past = verdict == RUN and (
                        bool(rows.waits_for_past(instance.key)) or run.key in self._asking()
                    )
                    is_unknown = instance.task.spec.mapped and rows.extent(instance.key) is None
                    assert verdict == WAIT or (verdict == RUN and is_unknown) or waits_for_past, (
                        f"I3: {instance.key} sleeps"
                    )
                    places.append("waits for upstream, or for its past")
                    self.counts["waits for its past"] += waits_for_past
                if instance.group is not None:
                    assert instance.state is TaskState.SCHEDULED
                    assert [each for _, each in instance.group.members].count(instance) == 1
                    places.append("waits for slots")
                    if not self.is_stopping:
                        assert instance.group.refusing(), f"I3: nothing refuses {instance.key}, and nobody wakes it"
                if instance.state is TaskState.UP_FOR_RETRY:
                    assert RetryDue(instance.key, instance.try_number) in retries
                    places.append("waits for its retry")
                if attempt is not None:
                    assert attempt.instance is instance
                    assert instance.state in (TaskState.QUEUED, TaskState.RUNNING, TaskState.RESTARTING)
                    if instance.state is TaskState.RESTARTING:
                        assert attempt.stop_requested_at is not None, f"{instance.key} restarts, but is not stopped"
                    places.append("has an attempt")
                assert len(places) == 1, f"I3: {instance.key} ({instance.state}) {places or 'is nowhere'}"
        for semaphore in (engine.parallelism, *engine.executors.values(), *engine.pools.values()):
            assert semaphore.used >= 0

    def _asking(self) -> set[RunKey]:
        """Runs whose previous run is being looked for."""
        asked = {each.run for entry in self.batch for each in entry.effects if isinstance(each, PastWanted)}
        return asked | {each.run for each in self.questions} | {each.run for each in self.answers}

    def _check_fail_fast(self, old: InstanceRow | None, new: InstanceRow) -> None:
        """A run with fail_fast does not go on after a failure (one that somebody declared does not count)."""
        run = self.rows.runs[new.run]
        if old is None or old.state not in OCCUPYING_TASK_STATES or new.state is not TaskState.FAILED:
            return
        if self.rows.specs[run.version].fail_fast and new.reason != EndReason.MARKED_FAILED and run.frozen is None:
            is_over = run.state in FINISHED_RUN_STATES or run.cancel_requested_at is not None
            assert is_over, f"{new.key} has failed, and its run goes on in spite of fail_fast"

    def _check_ends_in_time(self, key: RunKey, timers: set[RunTimeoutDue]) -> None:
        """A run with a timeout will be told of it."""
        run = self.rows.runs[key]
        spec = self.rows.specs[run.version]
        if run.state is not RunState.RUNNING or run.cancel_requested_at is not None or run.frozen is not None:
            return
        if spec.dagrun_timeout_seconds is not None:
            assert RunTimeoutDue(key) in timers, f"nothing will end run {key} in time"

    def _check_committed(self) -> None:
        """Every process of the launcher belongs to a live row; nothing is ever started on a decision alone."""
        for attempt_id in self.launcher.alive:
            assert self.store.attempts[attempt_id].state in LIVE_ATTEMPT_STATES, f"I1: {attempt_id} is an orphan"

    def check_restore(self) -> None:
        """I9: an engine restored from the committed rows equals the one that has lived through it all."""
        if self.is_stopping:
            return  # that wish is not in the rows
        self.offer(events.TimePassed())  # a restored engine acts at once upon what is due
        self.read_all_pasts()
        twin = self._new_engine(Epoch(self.store.epoch + 1))
        snapshot = self.store.load_now()
        decisions = [twin.restore(snapshot, self.clock.now())]
        while decisions[-1].more:
            decisions.append(twin.step(events.WorkContinued(), self.clock.now()))
        writes = [write for decision in decisions for write in decision.writes]
        assert not writes, f"I9: a restore changes {writes}"
        mine, its = picture(self.engine), picture(twin)
        for what in mine:
            assert mine[what] == its[what], f"I9: {what}: lived {mine[what]}, restored {its[what]}"
        assert told([effect for decision in decisions for effect in decision.effects]) == owed(self.engine)
        self.counts["restores compared"] += 1

    # ---- I7 ---------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """The faults stop: all that can run runs; then what blocks the rest is raised, and every run must end."""
        if self.is_stopping:
            self.restart()
        for run in [run for run in self.engine.runs.values() if run.frozen is not None]:
            self.cancel(run.key)
        for key in list(self.engine.backfills.active):
            self.control_backfill(key, commands.BackfillVerb.CANCEL)
        for dag_id in [dag_id for dag_id in self.engine.current if dag_id not in self.specs]:
            self.offer(events.DagVanished(dag_id=dag_id))  # its vanishing was not committed
        for spec in list(self.specs.values()):  # schedules never rest
            self.define(replace(spec, schedule=None, max_consecutive_failed_dag_runs=None))
        self.drain()  # the end of a run has paused its DAG; from now on it does not
        for dag_id in [dag_id for dag_id, dag in self.rows.dags.items() if dag.is_paused]:
            self.pause(dag_id, is_paused=False)
        self._run_to_rest()
        self._check_blocked()
        names = {DEFAULT_POOL, *self.rows.pools, *(t.pool for spec in self.rows.specs.values() for t in spec.tasks)}
        for name in sorted(names):
            self.set_pool(name, 100)
        queues = {task.queue for spec in self.rows.specs.values() for task in spec.tasks}
        limits = replace(
            self.limits,
            parallelism=100,
            dag_concurrency=100,
            max_active_runs_per_dag=100,
            max_active_tasks_per_dag_total=None,
        )
        self.reload(limits, Routing(executors={"local": 100}, queues=dict.fromkeys(sorted(queues), "local")))
        self._run_to_rest()
        self._satisfy_pasts()
        unfinished = [row for row in self.store.runs.values() if row.state not in FINISHED_RUN_STATES]
        assert not unfinished, f"I7: {unfinished} never end"
        assert not self.engine.runs and not self.engine.attempts
        assert not [each for each in semaphores(self.engine) if each.used], "slots are left taken"
        assert not self.launcher.alive, "processes are left over"
        assert not self.launcher.unacked, "an end was never acknowledged"
        opened = [request for request in self.store.open_requests_now() if request.dag_id in self.specs]
        assert not opened, "a request was forgotten"

    def _satisfy_pasts(self) -> None:
        """What waits for its past waits for something that has failed; somebody declares that done, run by run."""
        for _ in range(DRAIN_CEILING):
            if not self.engine.runs:
                return
            run = self.engine.runs[min(self.engine.runs)]
            waiting = [each.key for each in run.instances.values() if self.rows.waits_for_past(each.key)]
            assert waiting, f"I7: {run.key} waits for nothing"
            wanted = self.rows.waits_for_past(waiting[0])
            for key in wanted:
                self.alter(key.run, commands.TaskVerb.MARK_SUCCESS, [key.task_id], is_behind=False)
            self._run_to_rest()
            if run.key in self.engine.runs and self.rows.waits_for_past(waiting[0]):
                self.cancel(run.key)  # of mapped tasks nothing can be marked
                self._run_to_rest()
        raise AssertionError("I7: it goes on for ever")

    def _run_to_rest(self) -> None:
        for _ in range(DRAIN_CEILING):
            self.serve_requests()
            self.read_all_pasts()
            if self.link:
                self.deliver(0)
            elif self.launcher.to_stop:
                self.obey_stop(next(iter(self.launcher.to_stop)))
            elif self.launcher.alive:
                self.end_process(self.launcher.alive[0], AttemptState.SUCCESS)
            elif self.wake_at is not None:
                self.ring()
            else:
                return
        raise AssertionError("I7: it goes on for ever")

    def _check_blocked(self) -> None:
        """At rest nothing holds a slot, so whoever waits can never fit: P5 knows why, and so do we."""
        for run in self.engine.runs.values():
            for instance in run.instances.values():
                if instance.group is not None:
                    never = [each for each, weight in instance.group.needs if weight > each.limit]
                    assert never, f"I7: {instance.key} waits, and could have its slots"
            if run.state is RunState.QUEUED and run.frozen is None:
                assert turns_of(self.engine, run).active_runs.refuses(1, None), f"I7: {run.key} could start"

    def _finished_runs(self) -> list[RunRow]:
        return [row for row in self.rows.runs.values() if row.state in FINISHED_RUN_STATES]


def turns_of(engine: Engine, run: Run) -> DagState | Backfill:
    """Where a run stands in turn: at a backfill that is not completed, or at its DAG."""
    backfill = engine.backfills.active.get(run.row.backfill) if run.row.backfill is not None else None
    return backfill if backfill is not None else engine.dags[run.row.dag_id]
