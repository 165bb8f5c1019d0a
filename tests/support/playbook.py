"""A script for the engine: events in, decisions asserted, every write committed to a store in memory.

    def test_downstream_waits_for_the_upstream_retry() -> None:
        book = Playbook("a >> b", retries=1, retry_delay=60)
        book.start().expect("launch a")
        book.finish("a", "failed").expect(wake_in=60)
        book.after(60).expect("launch a try 2")
        book.finish("a").expect("launch b")
        book.finish("b").expect("run success")

A decision is asserted whole: what `expect` does not name must not have happened. Effects are told as text:
`launch T`, `launch T try N`, `stop T for REASON`, `run STATE` (of an end), and, only when `acks=True`, `ack T`.
T is a task id, `T[0]` an instance of a mapped task; with several runs `RUN/T` (runs count from 1). Each step is
flushed at once, so a wrong guard in a write is a Conflict here, and `restart()` can throw the engine away at any
moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tests.support.builders import decode_spec, make_dag, parsed
from tests.support.clock import VirtualClock
from tests.support.past import read_past
from tickless.core import commands, events
from tickless.core.backfills import name_of
from tickless.core.choice import XCOM_CHOICE_KEY
from tickless.core.decision import (
    AckReport,
    BackfillChanged,
    DagPaused,
    Decision,
    Effect,
    Launch,
    PastWanted,
    RunChanged,
    SlotsSkipped,
    SlotsWanted,
    StopAttempt,
)
from tickless.core.engine import Engine
from tickless.core.record import Backfill, Instance
from tickless.model.backfill import BackfillKey
from tickless.model.dag import DagSpec
from tickless.model.id import UNMAPPED, AttemptId, Epoch, RunKey, TaskId, TaskKey
from tickless.model.limit import Limits, Routing
from tickless.model.report import Finished, Lost, Started
from tickless.model.row import AttemptRow, InstanceRow, RunRow
from tickless.model.schedule import ScheduleRules
from tickless.model.state import FINISHED_RUN_STATES, AttemptState, EndReason
from tickless.store.memory import MemoryStore
from tickless.store.revised import counted

_REASON = {
    AttemptState.SUCCESS: EndReason.EXITED,
    AttemptState.FAILED: EndReason.RAISED,
    AttemptState.SKIPPED: EndReason.EXITED,
}


class Outcome:
    """What one step (and the steps that it left over) decided."""

    def __init__(self, book: Playbook, decisions: list[Decision], now: datetime) -> None:
        self._book = book
        self._now = now
        self.decisions = decisions
        self.effects: list[Effect] = [effect for decision in decisions for effect in decision.effects]
        self.writes = [write for decision in decisions for write in decision.writes]
        self.stale = sum(decision.stale for decision in decisions)
        self.reply = next((decision.reply for decision in decisions if decision.reply is not None), None)
        self.wake_at = decisions[-1].wake_at

    @property
    def launched(self) -> list[str]:
        """Labels of the tasks whose attempts are launched, in order."""
        return [self._book.label(effect.key) for effect in self.effects if isinstance(effect, Launch)]

    @property
    def stopped(self) -> list[str]:
        """Labels of the tasks whose attempts are to be stopped, in order."""
        return [
            self._book.label(self._book.store.attempts[AttemptId(effect.stop.attempt_id)].key)
            for effect in self.effects
            if isinstance(effect, StopAttempt)
        ]

    def told(self, *, acks: bool = False) -> list[str]:
        """The effects as text."""
        return [text for text in (self._book.tell(effect, acks=acks) for effect in self.effects) if text]

    def expect(
        self, *effects: str, wake_in: float | None = None, stale: int = 0, acks: bool = False, in_order: bool = False
    ) -> Outcome:
        """Assert what was decided. `wake_in` is asserted only when given; effects in any order unless `in_order`."""
        told, expected = self.told(acks=acks), list(effects)
        if not in_order:
            told.sort()
            expected.sort()
        assert told == expected, f"\n   decided: {told}\n  expected: {expected}"
        assert self.stale == stale, f"{self.stale} stale inputs, expected {stale}"
        if wake_in is not None:
            assert self.wake_at is not None, f"no timer is armed, expected one in {wake_in} s"
            seconds = (self.wake_at - self._now).total_seconds()
            assert seconds == wake_in, f"wakes in {seconds} s, expected {wake_in} s"
        return self

    def expect_nothing(self, *, stale: int = 0) -> Outcome:
        """Assert that no row changes and nothing but acknowledgements leaves."""
        self.expect(stale=stale)
        assert self.writes == [], f"rows are written: {self.writes}"
        return self


class Playbook:
    """See the module's docstring. `engine`, `store` and `clock` are there to look at."""

    engine: Engine

    def __init__(
        self,
        shape: str | None = None,
        *,
        dag_id: str = "dag",
        limits: Limits | None = None,
        routing: Routing | None = None,
        schedule_rules: ScheduleRules | None = None,
        pools: Mapping[str, int] | None = None,
        tasks: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore()
        self.limits = limits or Limits()
        self.routing = routing or Routing()
        self.schedule_rules = schedule_rules
        self.steps = 0
        self.questions: list[PastWanted] = []
        self.reads_past = True  # else questions stay open
        self.restart()
        for name, slots in (pools or {}).items():
            self.set_pool(name, slots)
        if shape is not None:
            self.dag(shape, dag_id=dag_id, tasks=tasks, **options)

    # ---- driving --------------------------------------------------------------------------------------------------

    def when(self, event: events.Event | commands.Command, *, drain: bool = True) -> Outcome:
        """One step, and with `drain` all the work that it left over; each is committed at once."""
        return self._go_on([self._step(event)], drain=drain)

    def dag(self, shape: str, *, dag_id: str = "dag", **options: Any) -> Outcome:
        """A DAG file was parsed."""
        return self.parse(make_dag(shape, dag_id=dag_id, **options))

    def parse(self, spec: DagSpec) -> Outcome:
        return self.when(parsed(spec))

    def start(self, dag_id: str = "dag", *, drain: bool = True, **options: Any) -> Outcome:
        """Start a run; `options` are those of StartRun."""
        return self.when(commands.StartRun(dag_id=dag_id, **options), drain=drain)

    def start_many(self, count: int, dag_id: str = "dag") -> None:
        """Start runs; all are committed at once."""
        decisions = []
        for number in range(count):
            command = commands.StartRun(dag_id=dag_id, run_id=f"{dag_id}-{number}")
            decisions.append(self.engine.step(command, self.clock.now()))
            while decisions[-1].more:
                decisions.append(self.engine.step(events.WorkContinued(), self.clock.now()))
        self.store.flush_now(self.engine.epoch, [write for decision in decisions for write in decision.writes])

    def begin(self, *labels: str) -> Outcome:
        """The latest attempts of these tasks passed their start gate."""
        return self._all(self.started(label) for label in labels)

    def finish(self, label: str, state: str = "success", **details: Any) -> Outcome:
        """The latest attempt of this task ended (success, failed, skipped)."""
        return self.when(self.finished(label, state, **details))

    def finish_all(self, labels: Iterable[str], state: str = "success") -> Outcome:
        return self._all([self.finished(label, state) for label in labels])

    def lose(self, label: str) -> Outcome:
        """The latest attempt of this task vanished."""
        return self.when(Lost(attempt_id=self.attempt(label).attempt_id, at=self.clock.now(), why="the host is gone"))

    def after(self, seconds: float) -> Outcome:
        """Time passes, and the one timer rings."""
        self.clock.advance(seconds)
        return self.when(events.TimePassed())

    def cancel(self, run: int = 1) -> Outcome:
        return self.when(commands.CancelRun(run=RunKey(run)))

    def alter(self, verb: str, *labels: str) -> Outcome:
        """Clear or mark these tasks of one run, as the shell does: from rows, upstream first."""
        keys = {self._key(label) for label in labels}
        (run,) = {key.run for key in keys}
        row, version = self.store.runs[run], self.store.versions[self.store.runs[run].version]
        order = [task.task_id for task in decode_spec(version.spec).tasks]
        chosen = sorted(
            (self.store.instances[key] for key in keys), key=lambda each: (order.index(each.task_id), each.map_index)
        )
        finished = None
        if row.state in FINISHED_RUN_STATES:
            tallies = counted(each for key, each in self.store.instances.items() if key.run == run)
            finished = commands.FinishedRun(
                row=row, version=version, tallies=tuple(tallies), maps=self.store.maps_of(run)
            )
        choices = tuple(
            commands.BranchChoice(task_id=at.task_id, map_index=at.map_index, value=row.value)
            for (at, name), row in self.store.xcoms.items()
            if at.run == run and name == XCOM_CHOICE_KEY
        )
        return self.when(
            commands.AlterTasks(
                verb=commands.TaskVerb(verb), run=run, rows=tuple(chosen), finished_run=finished, choices=choices
            )
        )

    def set_pool(self, name: str, slots: int) -> Outcome:
        return self.when(commands.SetPool(name=name, slots=slots))

    def pause(self, dag_id: str = "dag") -> Outcome:
        return self.when(commands.PauseDag(dag_id=dag_id))

    def unpause(self, dag_id: str = "dag") -> Outcome:
        return self.when(commands.UnpauseDag(dag_id=dag_id))

    def backfill(
        self, from_at: datetime, to_at: datetime, *, dag_id: str = "dag", fill: bool = True, **options: Any
    ) -> Outcome:
        """Create a backfill, and bring it what it wants."""
        outcome = self.when(commands.CreateBackfill(dag_id=dag_id, from_at=from_at, to_at=to_at, **options))
        return self.fill() if fill else outcome

    def control_backfill(self, verb: str, key: int = 1) -> Outcome:
        return self.when(commands.ControlBackfill(backfill=BackfillKey(key), verb=commands.BackfillVerb(verb)))

    def slots_of(self, backfill: Backfill, most: int) -> commands.FillSlots:
        """What the shell reads for a backfill."""
        slots = self.engine.backfills.next_slots(backfill, most)
        dates, names = [slot.start for slot in slots], [name_of(slot) for slot in slots]
        return commands.FillSlots(
            backfill=backfill.row.key,
            place=backfill.place,
            slots=tuple(slots),
            taken=tuple(self.store.slot_runs_now(backfill.row.dag_id, dates, names)),
            last_run=self.engine.last_run,
        )

    def fill(self, most: int = 5) -> Outcome:
        """Bring backfills what they want until they can make no more runs."""
        decisions: list[Decision] = []
        while wanting := self.engine.backfills.wanting():
            decisions += self.when(self.slots_of(wanting[0], most)).decisions
        return Outcome(self, decisions or [Decision()], self.clock.now())

    def reload(self, limits: Limits | None = None, routing: Routing | None = None) -> Outcome:
        """The configuration was reloaded."""
        self.limits, self.routing = limits or self.limits, routing or self.routing
        return self.when(events.LimitsChanged(limits=self.limits, routing=self.routing))

    def restart(self, *, drain: bool = True) -> Outcome:
        """The daemon is killed and another takes over: a new epoch, and an engine restored from rows."""
        self.engine = self._new_engine()
        self.questions = []
        return self._go_on([self._commit(self.engine.restore(self.store.load_now(), self.clock.now()))], drain=drain)

    def freeze(self, run: int = 1) -> Outcome:
        """An event of this run was quarantined: the shell freezes it and rebuilds."""
        row = self.store.runs[RunKey(run)]
        self.store.runs[row.key] = replace(row, frozen="internal error, entry 1")
        return self.restart()

    # ---- reports --------------------------------------------------------------------------------------------------

    def started(self, label: str) -> Started:
        return Started(attempt_id=self.attempt(label).attempt_id, at=self.clock.now(), pid=4711, host="here")

    def finished(self, label: str, state: str = "success", **details: Any) -> Finished:
        attempt_state = AttemptState(state)
        details.setdefault("reason", _REASON[attempt_state])
        return Finished(attempt_id=self.attempt(label).attempt_id, at=self.clock.now(), state=attempt_state, **details)

    # ---- looking --------------------------------------------------------------------------------------------------

    def attempt(self, label: str) -> AttemptRow:
        """The latest attempt of a task, as committed."""
        return self.store.attempts[self.row(label).attempt_id]

    def attempts(self, label: str) -> list[AttemptRow]:
        """All attempts of a task, oldest first, as committed."""
        return [row for _, row in sorted(self.store.attempts.items()) if row.key == self._key(label)]

    def row(self, label: str) -> InstanceRow:
        """A task instance as committed."""
        return self.store.instances[self._key(label)]

    def instance(self, label: str) -> Instance:
        """An unfinished task instance in the engine."""
        found = self.engine.instance(self._key(label))
        assert found is not None, f"{label} is finished"
        return found

    def state(self, label: str) -> str:
        return self.row(label).state.value

    def states(self, run: int = 1) -> dict[str, str]:
        """Task id -> committed state."""
        return {row.task_id: row.state.value for key, row in self.store.instances.items() if key.run == run}

    def run(self, run: int = 1) -> RunRow:
        return self.store.runs[RunKey(run)]

    def runs(self) -> list[str]:
        """The committed states of all runs, oldest first."""
        return [row.state.value for _, row in sorted(self.store.runs.items())]

    def slots(self) -> list[str]:
        """When the slots of the committed runs were due, in the order in which they were made."""
        return [f"{row.run_after:%H:%M:%S}" for _, row in sorted(self.store.runs.items()) if row.run_after is not None]

    def in_state(self, state: str) -> list[str]:
        """Labels of the instances with this committed state."""
        return [self.label(key) for key, row in sorted(self.store.instances.items()) if row.state.value == state]

    @property
    def is_idle(self) -> bool:
        """Nothing is unfinished, and nothing is held."""
        engine = self.engine
        semaphores = [engine.parallelism, *engine.pools.values(), *engine.executors.values()]
        semaphores += [each for dag in engine.dags.values() for each in (dag.total, dag.active_runs)]
        return not engine.runs and not engine.attempts and not any(each.used for each in semaphores)

    def label(self, key: TaskKey) -> str:
        name = key.task_id if key.map_index == UNMAPPED else f"{key.task_id}[{key.map_index}]"
        return name if len(self.store.runs) == 1 and key.run == 1 else f"{key.run}/{name}"

    def tell(self, effect: Effect, *, acks: bool) -> str | None:
        match effect:
            case Launch():
                again = f" try {effect.try_number}" if effect.try_number > 1 else ""
                return f"launch {self.label(effect.key)}{again}"
            case StopAttempt():
                row = self.store.attempts[AttemptId(effect.stop.attempt_id)]
                return f"stop {self.label(row.key)} for {effect.stop.reason}"
            case RunChanged() if effect.state in FINISHED_RUN_STATES:
                which = "run" if len(self.store.runs) == 1 else f"run {effect.run}"
                return f"{which} {effect.state}"
            case DagPaused():
                return f"{'pause' if effect.is_paused else 'unpause'} {effect.dag_id}"
            case BackfillChanged():
                return f"backfill {effect.backfill} {effect.step}"
            case SlotsWanted():
                return None
            case SlotsSkipped():
                return f"skip {effect.first:%H:%M:%S} to {effect.before:%H:%M:%S}"
            case AckReport() if acks:
                known = self.store.attempts.get(effect.attempt_id)
                return f"ack {self.label(known.key) if known is not None else effect.attempt_id}"
            case _:
                return None

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _new_engine(self) -> Engine:
        epoch: Epoch = self.store.take_epoch_now("playbook")
        return Engine(
            epoch=epoch,
            limits=self.limits,
            routing=self.routing,
            decode_spec=decode_spec,
            schedule_rules=self.schedule_rules,
        )

    def _go_on(self, decisions: list[Decision], *, drain: bool) -> Outcome:
        """What the shell does by itself after a step: more steps, and reading which run is the previous one."""
        while drain and (decisions[-1].more or (self.reads_past and self.questions)):
            if decisions[-1].more:
                decisions.append(self._step(events.WorkContinued()))
            else:
                decisions.append(self._step(read_past(self.store, self.questions.pop(0))))
        return Outcome(self, decisions, self.clock.now())

    def _step(self, event: events.Event | commands.Command) -> Decision:
        return self._commit(self.engine.step(event, self.clock.now()))

    def _commit(self, decision: Decision) -> Decision:
        self.steps += 1
        if decision.writes:
            self.store.flush_now(self.engine.epoch, decision.writes)
        self.questions += [effect for effect in decision.effects if isinstance(effect, PastWanted)]
        return decision

    def _all(self, reports: Iterable[events.Event]) -> Outcome:
        decisions = [decision for report in reports for decision in self.when(report).decisions]
        return Outcome(self, decisions, self.clock.now())

    def _key(self, label: str) -> TaskKey:
        run, _, name = label.rpartition("/")
        task_id, _, index = name.partition("[")
        return TaskKey(RunKey(int(run or 1)), TaskId(task_id), int(index[:-1]) if index else UNMAPPED)
