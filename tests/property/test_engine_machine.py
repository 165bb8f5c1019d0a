"""The engine under random events, faults and restarts. What is checked, and how, is in tests/support/world.py.

A failure prints the moves that lead to it, shrunk. A plain run makes the same search each time, so that a red one is
the fault of what was changed; `TICKLESS_CHAOS=1` (`make chaos`) searches elsewhere each time, longer and deeper. To
search from a seed, such as the one that a failure prints: `pytest tests/property --hypothesis-seed=N`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.support.builders import cron
from tests.support.clock import START
from tests.support.world import World
from tickless.core import engine as engine_module
from tickless.core import events
from tickless.core.commands import BackfillVerb, TaskVerb
from tickless.model.backfill import Reprocess
from tickless.model.dag import DagSpec, MappedOver, TaskKind, TaskSpec
from tickless.model.limit import Limits, Routing
from tickless.model.schedule import ScheduleKind, ScheduleSpec
from tickless.model.state import AttemptState, RunState, TriggerRule

IS_CHAOS = os.environ.get("TICKLESS_CHAOS") == "1"

IS_PLANTED = os.environ.get("TICKLESS_PLANTED") == "1"
"""A sabotage is to be noticed, not explained: shrinking is left out."""

HAS_SEED = any(each.startswith("--hypothesis-seed") for each in sys.argv)

PICK = st.integers(0, 30)
DAG_IDS = ("one", "two", "three")
TASKS = tuple(f"t{n}" for n in range(5))
POOLS = ("default_pool", "p", "q")
QUEUES = ("default", "fast", "nowhere")
ENDS = st.sampled_from((AttemptState.SUCCESS, AttemptState.FAILED, AttemptState.FAILED, AttemptState.SKIPPED))
SAYS = st.sampled_from(
    (
        {},
        {},
        {},
        {"follow": ()},
        {"follow": ("t1", "t3")},
        {"follow": ("t2", "t4", "nobody")},
        {"skip_below": True},
        {"may_retry": False},
        {"xcoms": {"k": "1"}},
        {"length": 2},
        {"length": 3},
        {"length": 0},
    )
)
"""What a task says besides, in its report."""
SEEN: Counter[str] = Counter()
"""What all examples together came to, for whoever tunes the rules."""


@st.composite
def _mapped(draw: st.DrawFn, upstream: list[int]) -> list[MappedOver]:
    """Mostly not mapped; else over one or two literals or upstream tasks."""
    if draw(st.sampled_from((True, True, False))):
        return []
    literals = st.builds(MappedOver, argument=st.just("x"), length=st.sampled_from((2, 1, 3, 0)))
    outputs = [MappedOver(argument="y", task_id=f"t{above}") for above in upstream]
    sources = [draw(st.sampled_from(outputs) if outputs else literals)]
    return [*sources, draw(literals)] if draw(st.sampled_from((False, False, True))) else sources


def _tasks(draw: st.DrawFn) -> Iterator[TaskSpec]:
    rules = st.one_of(st.just(TriggerRule.ALL_SUCCESS), st.sampled_from(TriggerRule))
    for index in range(draw(st.integers(1, 5))):
        upstream = draw(st.lists(st.integers(0, index - 1), max_size=3, unique=True)) if index else []
        yield TaskSpec(
            task_id=f"t{index}",
            kind=draw(st.sampled_from((TaskKind.PYTHON, TaskKind.PYTHON, TaskKind.PYTHON, TaskKind.EMPTY))),
            upstream=tuple(f"t{above}" for above in sorted(upstream)),
            trigger_rule=draw(rules),
            mapped=tuple(draw(_mapped(upstream))),
            retries=draw(st.sampled_from((0, 0, 1, 2))),
            retry_delay_seconds=draw(st.sampled_from((10.0, 0.0, 300.0))),
            retry_exponential_backoff=draw(st.sampled_from((0.0, 2.0))),
            max_retry_delay_seconds=draw(st.sampled_from((None, 15.0))),
            execution_timeout_seconds=draw(st.sampled_from((None, None, 30.0))),
            pool=draw(st.sampled_from(POOLS)),
            pool_slots=draw(st.sampled_from((1, 1, 1, 2, 3))),
            max_active_tis_per_dag=draw(st.sampled_from((None, None, None, 1, 2))),
            max_active_tis_per_dagrun=draw(st.sampled_from((None, None, 1))),
            depends_on_past=draw(st.sampled_from((False, False, True))),
            wait_for_downstream=draw(st.sampled_from((False, False, False, True))),
            ignore_first_depends_on_past=draw(st.sampled_from((True, True, False))),
            priority_weight=draw(st.sampled_from((1, 1, 2, 3))),
            queue=draw(st.sampled_from(("default", "default", "fast", "nowhere"))),
        )


BEGIN = START - timedelta(minutes=3)
SCHEDULES = (
    None,
    cron("* * * * *"),
    cron("* * * * *", start_at=BEGIN),
    cron("* * * * *", start_at=BEGIN, catchup=True),
    cron("* * * * *", has_intervals=True, catchup=True),
    cron("* * * * *", start_at=START, end_at=START + timedelta(minutes=5), catchup=True),
    ScheduleSpec(kind=ScheduleKind.DELTA, text="", every_seconds=90.0, start_at=BEGIN),
    ScheduleSpec(kind=ScheduleKind.DELTA, text="", every_seconds=90.0, catchup=True),
    ScheduleSpec(kind=ScheduleKind.ONCE, text="@once"),
    ScheduleSpec(kind=ScheduleKind.CONTINUOUS, text="@continuous"),
)


@st.composite
def dag_specs(draw: st.DrawFn) -> DagSpec:
    schedule = draw(st.sampled_from((None, None, None, *SCHEDULES)))
    is_continuous = schedule is not None and schedule.kind is ScheduleKind.CONTINUOUS
    tasks = list(_tasks(draw))
    all_success = all(task.trigger_rule is TriggerRule.ALL_SUCCESS for task in tasks)
    return DagSpec.build(
        dag_id=draw(st.sampled_from(DAG_IDS)),
        tasks=tasks,
        dagrun_timeout_seconds=draw(st.sampled_from((None, None, None, 20.0, 100.0))),
        fail_fast=draw(st.booleans()) if all_success else False,
        max_active_tasks=draw(st.sampled_from((None, None, 1, 2))),
        max_active_runs=1 if is_continuous else draw(st.sampled_from((None, None, 1, 2))),
        schedule=schedule,
        is_paused_upon_creation=draw(st.sampled_from((None, None, None, True))),
        max_consecutive_failed_dag_runs=draw(st.sampled_from((None, None, 1, 2))),
    )


LIMITS = st.builds(
    Limits,
    parallelism=st.sampled_from((4, 1, 2, 3, 0)),
    dag_concurrency=st.integers(1, 3),
    max_active_tasks_per_dag_total=st.sampled_from((None, 1, 2)),
    max_active_runs_per_dag=st.integers(1, 3),
    pool_ageing_seconds=st.sampled_from((60.0, 5.0)),
    max_lost_attempts=st.integers(0, 2),
    max_map_length=st.sampled_from((100, 4)),
)
ROUTINGS = st.sampled_from(
    (
        Routing(executors={"local": 4, "other": 1}, queues={"default": "local", "fast": "other"}),
        Routing(executors={"local": 2}, queues={"default": "local", "fast": "local"}),
        Routing(executors={"local": 2, "other": 2}, queues={"default": "other", "fast": "local"}),
        Routing(executors={"local": 0}, queues={"default": "local"}),
    )
)


class EngineMachine(RuleBasedStateMachine):
    """Rules are the moves of `World`, picked so that most of them find something to do."""

    world: World

    @initialize(
        limits=LIMITS,
        routing=ROUTINGS,
        specs=st.lists(dag_specs(), min_size=1, max_size=3),
        slices=st.sampled_from(((300, 200), (1, 1), (2, 3))),
        pools=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    )
    def begin(
        self,
        limits: Limits,
        routing: Routing,
        specs: list[DagSpec],
        slices: tuple[int, int],
        pools: tuple[int, int],
    ) -> None:
        self.patches = [
            mock.patch.object(engine_module, name, value)
            for name, value in zip(("AGENDA_SLICE", "ADMISSION_SLICE"), slices, strict=True)
        ]
        for patch in self.patches:
            patch.start()
        self.world = World(limits, routing)
        for name, slots in zip(POOLS[1:], pools, strict=True):
            self.world.set_pool(name, slots)
        for spec in specs:
            self.world.define(spec)
        self.world.flush()

    # ---- what is asked of it

    @rule(pick=PICK)
    def start_run(self, pick: int) -> None:
        dag_ids = sorted(self.world.specs)
        if dag_ids:
            self.world.start_run(dag_ids[pick % len(dag_ids)])

    @rule(pick=PICK, day=st.integers(-3, 3))
    def start_dated_run(self, pick: int, day: int) -> None:
        dag_ids = sorted(self.world.specs)
        if dag_ids:
            self.world.start_run(dag_ids[pick % len(dag_ids)], logical_date=START + timedelta(days=day))

    @precondition(lambda self: self.world.questions)
    @rule(pick=PICK)
    def read_past(self, pick: int) -> None:
        self.world.read_past(pick % len(self.world.questions))

    @precondition(lambda self: self.world.answers)
    @rule(pick=PICK)
    def tell_past(self, pick: int) -> None:
        self.world.tell_past(pick % len(self.world.answers))

    @rule(pick=PICK, key=st.sampled_from(("k1", "k2")))
    def start_run_with_key(self, pick: int, key: str) -> None:
        self.world.start_run(DAG_IDS[pick % len(DAG_IDS)], run_id=f"run-{key}", idempotency_key=key)

    @rule(pick=PICK)
    def request_run(self, pick: int) -> None:
        self.world.request_run(DAG_IDS[pick % len(DAG_IDS)])

    @rule()
    def serve_requests(self) -> None:
        self.world.serve_requests()

    @rule(spec=dag_specs())
    def define(self, spec: DagSpec) -> None:
        self.world.define(spec)

    @rule(pick=PICK)
    def vanish(self, pick: int) -> None:
        self.world.vanish(DAG_IDS[pick % len(DAG_IDS)])

    @rule(pick=PICK, is_paused=st.sampled_from((False, False, True)))
    def pause(self, pick: int, is_paused: bool) -> None:
        self.world.pause(DAG_IDS[pick % len(DAG_IDS)], is_paused=is_paused)

    @rule(
        pick=PICK,
        minutes=st.sampled_from((1, 3, 6)),
        reprocess=st.sampled_from(Reprocess),
        max_active=st.sampled_from((1, 2, 9)),
        is_backwards=st.booleans(),
    )
    def backfill(self, pick: int, minutes: int, reprocess: Reprocess, max_active: int, is_backwards: bool) -> None:
        dag_id = DAG_IDS[pick % len(DAG_IDS)]
        self.world.backfill(dag_id, minutes, reprocess, max_active=max_active, is_backwards=is_backwards)

    @precondition(lambda self: self.world.engine.backfills.active)
    @rule(pick=PICK, verb=st.sampled_from(BackfillVerb))
    def control_backfill(self, pick: int, verb: BackfillVerb) -> None:
        active = list(self.world.engine.backfills.active)
        self.world.control_backfill(active[pick % len(active)], verb)

    @precondition(lambda self: self.world.engine.backfills.wanting())
    @rule(pick=PICK, most=st.sampled_from((1, 3)), is_behind=st.booleans())
    def fill(self, pick: int, most: int, is_behind: bool) -> None:
        between = self.world.drain if is_behind else lambda: None
        self.world.fill(pick, most, between)

    @rule(seconds=st.sampled_from((45.0, 200.0)))
    def set_clock_back(self, seconds: float) -> None:
        self.world.advance(-seconds)

    @precondition(lambda self: self.world.engine.runs)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        runs = sorted(self.world.engine.runs)
        self.world.cancel(runs[pick % len(runs)])

    @precondition(lambda self: self.world.rows.runs)
    @rule(
        pick=PICK,
        verb=st.sampled_from((TaskVerb.CLEAR, *TaskVerb)),
        tasks=st.one_of(st.just(["t0"]), st.just([f"t{n}" for n in range(5)]), st.lists(st.sampled_from(TASKS))),
        is_behind=st.booleans(),
    )
    def alter(self, pick: int, verb: TaskVerb, tasks: list[str], is_behind: bool) -> None:
        runs = sorted(self.world.rows.runs)
        self.world.alter(runs[pick % len(runs)], verb, tasks, is_behind=is_behind)

    @precondition(lambda self: self.world.rows.runs)
    @rule(pick=PICK, state=st.sampled_from((*(None,) * 9, "delete", RunState.SUCCESS, RunState.FAILED)))
    def mark_or_delete_run(self, pick: int, state: RunState | str | None) -> None:
        """Seldom: it takes what others would work on."""
        runs = sorted(self.world.rows.runs)
        run = runs[pick % len(runs)]
        if state == "delete":
            self.world.delete_run(run)
        elif isinstance(state, RunState):
            self.world.mark_run(run, state)

    @rule(name=st.sampled_from(POOLS), slots=st.integers(0, 5))
    def set_pool(self, name: str, slots: int) -> None:
        self.world.set_pool(name, slots)

    @rule(limits=LIMITS, routing=ROUTINGS)
    def reload(self, limits: Limits, routing: Routing) -> None:
        self.world.reload(limits, routing)

    @rule(seconds=st.sampled_from((10.0, 1.0, 60.0, 400.0)))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def ring(self) -> None:
        self.world.ring()

    @rule()
    def stop_admitting(self) -> None:
        """SIGTERM; what is on its way still arrives."""
        self.world.stop_admitting()
        self.deliver_all()
        self.world.ring()

    # ---- processes and their reports

    @precondition(lambda self: self.world.launcher.waiting)
    @rule(pick=PICK)
    def start_process(self, pick: int) -> None:
        waiting = self.world.launcher.waiting
        self.world.start_process(waiting[pick % len(waiting)])

    @precondition(lambda self: self.world.launcher.alive)
    @rule(pick=PICK, state=ENDS, says=SAYS)
    def end_process(self, pick: int, state: AttemptState, says: dict[str, Any]) -> None:
        alive = self.world.launcher.alive
        self.world.end_process(alive[pick % len(alive)], state, output="1" if pick % 2 else None, **says)

    @precondition(lambda self: self.world.launcher.to_stop)
    @rule(pick=PICK)
    def obey_stop(self, pick: int) -> None:
        stops = list(self.world.launcher.to_stop)
        self.world.obey_stop(stops[pick % len(stops)])

    @precondition(lambda self: self.world.launcher.alive)
    @rule(pick=PICK, is_told=st.booleans())
    def lose_process(self, pick: int, is_told: bool) -> None:
        attempt_id = self.world.launcher.alive[pick % len(self.world.launcher.alive)]
        if is_told:
            self.world.stop_with_launcher(attempt_id)
        else:
            self.world.lose_process(attempt_id)

    @precondition(lambda self: self.world.link)
    @rule(pick=PICK, keep=st.booleans())
    def deliver(self, pick: int, keep: bool) -> None:
        self.world.deliver(pick % len(self.world.link), keep=keep)

    @rule()
    def deliver_all(self) -> None:
        while self.world.link:
            self.world.deliver(0)

    @precondition(lambda self: self.world.history)
    @rule(pick=PICK)
    def replay(self, pick: int) -> None:
        self.world.replay(pick % len(self.world.history))

    # ---- the shell, well and ill

    @precondition(lambda self: self.world.has_more)
    @rule()
    def work_on(self) -> None:
        self.world.offer(events.WorkContinued())

    @precondition(lambda self: self.world.batch)
    @rule()
    def flush(self) -> None:
        self.world.flush()

    @precondition(lambda self: len(self.world.batch) > 1)
    @rule(count=st.integers(1, 3))
    def flush_some(self, count: int) -> None:
        self.world.flush(count)

    @rule(ends=st.lists(ENDS, max_size=4))
    def go_on_for_a_while(self, ends: list[AttemptState]) -> None:
        """All is well for once: some processes start and end, and everything is committed."""
        world = self.world
        world.read_all_pasts()
        for attempt_id in list(world.launcher.waiting):
            world.start_process(attempt_id)
        for state in ends:
            if world.launcher.running:
                world.end_process(world.launcher.running[0], state)
        self.deliver_all()
        world.drain()
        world.flush()

    @rule(after_commit=st.booleans(), ends=st.lists(ENDS, max_size=2))
    def crash(self, after_commit: bool, ends: list[AttemptState]) -> None:
        """kill -9; some ends of processes came just before it."""
        for state in ends:
            if self.world.launcher.alive:
                self.world.end_process(self.world.launcher.alive[0], state)
        self.deliver_all()
        if after_commit:
            self.world.crash_before_release()
        else:
            self.world.crash_before_commit()

    @precondition(lambda self: self.world.batch)
    @rule(commit=st.booleans(), count=st.sampled_from((None, 1)))
    def flush_with_unknown_outcome(self, commit: bool, count: int | None) -> None:
        self.world.flush_with_unknown_outcome(commit=commit, count=count)

    @precondition(lambda self: self.world.engine.runs)
    @rule(pick=PICK)
    def quarantine(self, pick: int) -> None:
        runs = sorted(self.world.engine.runs)
        self.world.quarantine(runs[pick % len(runs)])

    @precondition(lambda self: self.world.old_leader is not None)
    @rule()
    def flush_of_old_leader(self) -> None:
        self.world.flush_of_old_leader()

    @rule()
    def check_restore(self) -> None:
        self.world.check_restore()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            note(f"counts: {dict(self.world.counts)}")
            self.world.check_restore()
            self.world.settle()
            self.world.check_restore()
            SEEN.update(self.world.counts)
            SEEN["runs"] += len(self.world.store.runs)
        finally:
            for patch in self.patches:
                patch.stop()


PROFILE: dict[str, Any] = (
    {"max_examples": int(os.environ.get("TICKLESS_EXAMPLES", "3000")), "stateful_step_count": 80}
    if IS_CHAOS
    else {"max_examples": 350, "stateful_step_count": 40}
)

TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(
    **PROFILE,
    deadline=None,
    derandomize=not (IS_CHAOS or IS_PLANTED or HAS_SEED),
    print_blob=True,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,) if IS_PLANTED else (Phase.explicit, Phase.generate, Phase.shrink),
)
pytestmark = pytest.mark.timeout(7_200 if IS_CHAOS else 400)  # what is found is made small, and that takes its time
