"""I5 of `World`: each slot of a schedule gives exactly one run, or is skipped and that is told.

Judged from the rows as decided, with an arithmetic of its own: every schedule that the state machine draws beats the
minute (cron) or a fixed number of seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tickless.core.decision import Decision, SlotsSkipped
from tickless.core.schedules import is_full
from tickless.model.id import RunKey
from tickless.model.row import RunRow
from tickless.model.schedule import ScheduleKind, ScheduleRules
from tickless.model.state import FINISHED_RUN_STATES
from tickless.schedule.timetable import next_slot

if TYPE_CHECKING:
    from tests.support.world import World


def check_slots(world: World, decision: Decision, old_runs: Mapping[RunKey, RunRow]) -> None:
    """The scheduled runs that a decision makes."""
    told = {(each.dag_id, each.before): each.first for each in decision.effects if isinstance(each, SlotsSkipped)}
    made = [run for key, run in sorted(world.rows.runs.items()) if key not in old_runs and run.run_after is not None]
    for run in made:
        _check_slot(world, run, told)
        world.counts["slots"] += 1
    for dag_id in {run.dag_id for run in made if run.state not in FINISHED_RUN_STATES}:
        own = world.rows.specs[world.rows.current[dag_id]].max_active_runs
        live = [run for run in world.rows.runs.values() if run.dag_id == dag_id and run.frozen is None]
        live = [run for run in live if run.state not in FINISHED_RUN_STATES]
        assert len(live) <= (own if own is not None else world.limits.max_active_runs_per_dag), f"{dag_id}: {live}"


def _check_slot(world: World, run: RunRow, told: Mapping[tuple[str, datetime], datetime]) -> None:
    now, rows = world.clock.now(), world.rows
    assert run.run_type == "scheduled" and run.run_after is not None and run.data_interval_end == run.run_after
    assert run.run_after <= now, f"I5: {run.run_id} was not due"
    assert not world.is_stopping, f"I8: {run.run_id} is made after SIGTERM"
    spec = rows.specs[run.version].schedule
    assert spec is not None and run.version == rows.current[run.dag_id]
    others = [row for row in rows.runs.values() if row.dag_id == run.dag_id and row.key < run.key]
    before = max((row.run_after for row in others if row.run_after is not None), default=None)
    if before is None:
        return
    assert run.run_after > before, f"I5: {run.dag_id}: {run.run_after} comes after {before}"
    assert spec.kind is not ScheduleKind.ONCE, "I5: @once, twice"
    if spec.kind is ScheduleKind.CONTINUOUS:
        assert run.data_interval_start == before and run.run_after - before >= timedelta(seconds=1)
        return
    if spec.kind is ScheduleKind.CRON:
        assert run.run_after.second == run.run_after.microsecond == 0
        beat, follows = timedelta(minutes=1), before.replace(second=0, microsecond=0) + timedelta(minutes=1)
    else:
        assert spec.every_seconds is not None
        beat = timedelta(seconds=spec.every_seconds)
        follows = before + beat
    if spec.start_at is not None and follows < spec.start_at and not spec.catchup:
        follows = spec.start_at
    if run.run_after == follows:
        return
    world.counts["skips"] += 1
    assert not spec.catchup, f"I5: {run.dag_id}: {run.run_after} follows {before}, though it catches up"
    assert now - run.run_after < beat, f"I5: {run.dag_id}: {run.run_after} is made, and a newer slot was due"
    assert told.get((run.dag_id, run.run_after)) is not None, f"I5: from {follows} on slots are dropped in silence"


def check_schedules(world: World, wake_at: datetime | None) -> None:
    """I5, I7: what is due has been made, or something stands in its way, or the timer will ring for it."""
    for dag_id, plan in world.engine.current.items():
        dag, spec = world.engine.dags[dag_id], plan.spec.schedule
        assert dag.image() == world.rows.dags[dag_id]
        if spec is None or dag.is_paused or world.is_stopping or is_full(dag):
            continue  # whatever ends that looks at it again
        slot = next_slot(spec, ScheduleRules(), dag.last, world.clock.now(), dag.scheduled_since)
        if slot is None:
            continue
        assert dag.armed_at is not None and wake_at is not None, f"I7: {dag_id} sleeps, and {slot} will come"
        assert wake_at <= dag.armed_at <= slot.run_after, f"I7: {dag_id} is armed for {dag.armed_at}, not for {slot}"
