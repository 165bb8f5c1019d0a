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
from tickless.model.backfill import Reprocess
from tickless.model.id import RunKey
from tickless.model.row import RunRow
from tickless.model.schedule import ScheduleKind, ScheduleRules
from tickless.model.state import FINISHED_RUN_STATES, RunState
from tickless.schedule.timetable import next_slot

if TYPE_CHECKING:
    from tests.support.world import World


def check_slots(world: World, decision: Decision, old_runs: Mapping[RunKey, RunRow]) -> None:
    """The scheduled runs that a decision makes."""
    told = {(each.dag_id, each.before): each.first for each in decision.effects if isinstance(each, SlotsSkipped)}
    made = [run for key, run in sorted(world.rows.runs.items()) if key not in old_runs and run.run_after is not None]
    for run in made:
        if run.backfill is not None:
            _check_backfill(world, run, old_runs)
            continue
        _check_slot(world, run, told)
        world.counts["slots"] += 1
    for dag_id in {run.dag_id for run in made if run.backfill is None and run.state not in FINISHED_RUN_STATES}:
        own = world.rows.specs[world.rows.current[dag_id]].max_active_runs
        live = [run for run in world.rows.runs.values() if run.dag_id == dag_id and run.frozen is None]
        live = [run for run in live if run.backfill is None]
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
    backfilled = {(row.run_after, row.logical_date) for row in others if row.backfill is not None}
    assert (run.run_after, run.logical_date) not in backfilled, f"I5: {run.run_id}: a backfill has run that slot"
    own = [row for row in others if row.backfill is None]
    before = max((row.run_after for row in own if row.run_after is not None), default=None)
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
    if run.run_after == follows or any(
        dag_id == run.dag_id and each is not None and follows <= each < run.run_after
        for dag_id, each in world.dealt_with
    ):
        return
    world.counts["skips"] += 1
    assert not spec.catchup, f"I5: {run.dag_id}: {run.run_after} follows {before}, though it catches up"
    assert now - run.run_after < beat, f"I5: {run.dag_id}: {run.run_after} is made, and a newer slot was due"
    assert told.get((run.dag_id, run.run_after)) is not None, f"I5: from {follows} on slots are dropped in silence"


def _check_backfill(world: World, run: RunRow, old_runs: Mapping[RunKey, RunRow]) -> None:
    """A slot that has a run gets another one only as it was asked for."""
    assert run.backfill is not None and run.run_type == "backfill" and run.run_after is not None
    row = world.rows.backfills[run.backfill]
    assert not world.is_stopping and run.run_after <= row.created_at
    assert not row.is_paused and row.cancelled_at is None and row.made > 0
    others = [each for each in world.rows.runs.values() if (each.dag_id, each.logical_date) == _slot_of(run)]
    before = max((each for each in others if each.key < run.key), key=lambda each: each.key, default=None)
    if before is not None:
        assert row.reprocess is not Reprocess.NONE, f"I5: {run.run_id}: run {before.key} has that slot"
        assert before.key in old_runs and old_runs[before.key].state in FINISHED_RUN_STATES
        assert before.state is RunState.FAILED or row.reprocess is Reprocess.COMPLETED
        assert before.backfill != run.backfill, f"I5: {run.run_id}: backfill {run.backfill} has run that slot"
        world.counts["reprocessed"] += 1
    mine = [each for each in world.rows.runs.values() if each.backfill == run.backfill and each.frozen is None]
    unfinished = [each for each in mine if each.state not in FINISHED_RUN_STATES]
    assert len(unfinished) <= row.max_active, f"backfill {run.backfill}: {unfinished}"
    world.counts["backfilled"] += 1
    world.dealt_with.add((run.dag_id, run.run_after))


def _slot_of(run: RunRow) -> tuple[str, datetime | None]:
    return run.dag_id, run.logical_date


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
