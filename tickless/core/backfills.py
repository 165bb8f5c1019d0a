"""Backfills: a schedule run over the past, slot by slot.

A backfill is a row: which slots (`schedule.span`), how many of its runs at once, what becomes of slots that have a run
already, and the place that it has come to. The engine keeps no finished runs, so it cannot say itself which slots have
one: when a backfill can make runs it says so (`SlotsWanted`), and is brought its next slots with the rows that are in
their way (`FillSlots`). Runs that were made since those were read are known here; if one of them has ended already,
the rows are read again. A run and the place behind its slot are one commit: so a slot gives one run, whatever dies.

A backfill makes a run only when that may start: no more of its runs are unfinished than `max_active`. They have their
turns apart from the DAG's own runs, as in Airflow. Paused, it makes no runs and starts none; cancelled, its queued runs
end and no more are made; what runs goes on in both cases. It is completed when no slot is left (or it is cancelled) and
its last run has ended. While the DAG is paused, or no file defines it, nothing of it starts.

The schedule passes over slots that a backfill has dealt with: each of them has its run.
"""

from __future__ import annotations

import json
from datetime import datetime

from tickless.core.admission import Semaphore
from tickless.core.changes import Changes
from tickless.core.commands import BackfillCreated, BackfillVerb, ControlBackfill, CreateBackfill, FillSlots
from tickless.core.decision import BackfillChanged, BackfillStep, SlotsWanted, Write
from tickless.core.quota import Quota
from tickless.core.record import Backfill, DagState
from tickless.core.revision import RowsBehind
from tickless.core.runs import BACKFILL, Runs
from tickless.core.stopping import Stopping
from tickless.errors import NotFound, Refused, UserError
from tickless.model.backfill import MOST_ACTIVE, BackfillKey, BackfillRow, Reprocess
from tickless.model.dag import DagSpec
from tickless.model.schedule import Interval, ScheduleKind, ScheduleRules, ScheduleSpec, Slot
from tickless.model.state import FINISHED_RUN_STATES, RunState
from tickless.schedule.span import as_instant, settle
from tickless.schedule.timetable import FIRST_YEAR, LAST_YEAR

_STEPS = {
    BackfillVerb.PAUSE: BackfillStep.PAUSED,
    BackfillVerb.UNPAUSE: BackfillStep.UNPAUSED,
    BackfillVerb.CANCEL: BackfillStep.CANCELLED,
}


class Backfills:
    """Makes backfills and their runs; who starts and ends runs is below."""

    def __init__(self, changes: Changes, quota: Quota, runs: Runs, stopping: Stopping, rules: ScheduleRules) -> None:
        self.last_backfill = BackfillKey(0)
        self.active: dict[BackfillKey, Backfill] = {}
        """Those that are not completed, of all DAGs."""
        self._changes = changes
        self._quota = quota
        self._runs = runs
        self._stopping = stopping
        self._rules = rules
        self._is_busy = False  # it will look at the DAG itself, in the end
        runs.when_room = self._look

    def restore(self, row: BackfillRow) -> None:
        backfill = _record(row)
        dag = self._quota.dag(row.dag_id)
        if row.completed_at is None:
            dag.backfills[row.key] = self.active[row.key] = backfill
        else:
            dag.past_backfills.append(backfill)

    # ---- what people ask for --------------------------------------------------------------------------------------

    def preview(self, command: CreateBackfill, now: datetime) -> Backfill:
        """The backfill as it would be made. Raises what refuses it, but not for another one that is under way."""
        plan = self._quota.current.get(command.dag_id)
        if plan is None:
            raise NotFound(
                f"there is no DAG {command.dag_id!r}",
                hint="`tickless dag list` shows those there are, `tickless dag errors` the files that cannot be read.",
            )
        schedule = _schedule_of(plan.spec)
        if command.is_backwards and any(t.depends_on_past or t.wait_for_downstream for t in plan.spec.tasks):
            raise UserError(
                f"DAG {command.dag_id!r} has tasks with depends_on_past: its slots cannot be run backwards",
                hint="Leave out backwards.",
            )
        if not 1 <= command.max_active <= MOST_ACTIVE:
            raise UserError(f"max_active is {command.max_active}", hint=f"Give a number from 1 to {MOST_ACTIVE}.")
        for name, at in (("from", command.from_at), ("to", command.to_at)):
            if not FIRST_YEAR <= at.year <= LAST_YEAR:
                raise UserError(f"{name} {at} is not between the years {FIRST_YEAR} and {LAST_YEAR}")
        from_at, to_at = (as_instant(at, schedule, self._rules) for at in (command.from_at, command.to_at))
        if from_at > to_at:
            raise UserError(f"from {from_at} is after to {to_at}", hint="For the newest slots first say backwards.")
        last = self._quota.dag(command.dag_id).last
        backfill = _record(
            BackfillRow(
                key=BackfillKey(self.last_backfill + 1),
                dag_id=command.dag_id,
                schedule=settle(schedule, self._rules, last.end if last is not None else None, from_at),
                from_at=from_at,
                to_at=to_at,
                reprocess=command.reprocess,
                max_active=command.max_active,
                is_backwards=command.is_backwards,
                conf=command.conf,
                created_at=now,
            )
        )
        if backfill.is_filled:
            raise UserError(
                f"no slot of the schedule {schedule.text!r} of DAG {command.dag_id!r} from {from_at} to {to_at} "
                "has been due",
                hint=f"`tickless dag next {command.dag_id}` shows the slots to come, which are not for a backfill.",
            )
        return backfill

    def create(self, command: CreateBackfill) -> BackfillCreated:
        """One at a time for each DAG, as in Airflow."""
        backfill = self.preview(command, self._changes.now)
        key, dag = backfill.row.key, self._quota.dag(command.dag_id)
        for other in dag.backfills.values():
            if other.cancelled_at is None:
                raise Refused(
                    f"backfill {other.row.key} of DAG {command.dag_id!r} is not completed",
                    hint=f"Wait for its end, or cancel it: `tickless backfill cancel {other.row.key}`.",
                )
        self.last_backfill = key
        dag.backfills[key] = self.active[key] = backfill
        self._write(backfill)
        self._tell(backfill, BackfillStep.CREATED)
        self._audit(backfill, command.actor, "create_backfill")
        self._changes.request_done("command", command.request_id, None)
        self._look(dag)
        return BackfillCreated(backfill=key)

    def control(self, command: ControlBackfill) -> None:
        """Pause, unpause or cancel; not minding when there is nothing to change."""
        backfill = self.active.get(command.backfill)
        if backfill is None:
            if not 0 < command.backfill <= self.last_backfill:
                raise NotFound(f"there is no backfill {command.backfill}", hint="`tickless backfill list` shows all.")
            raise Refused(f"backfill {command.backfill} is completed")
        if backfill.cancelled_at is not None and command.verb is not BackfillVerb.CANCEL:
            raise Refused(f"backfill {command.backfill} was cancelled; it ends with its last run")
        dag = self._quota.dag(backfill.row.dag_id)
        self._changes.request_done("command", command.request_id, None)
        self._audit(backfill, command.actor, f"{command.verb}_backfill")
        is_paused = command.verb is BackfillVerb.PAUSE
        if command.verb is BackfillVerb.CANCEL:
            if backfill.cancelled_at is None:
                self._cancel(backfill)
        elif backfill.is_paused != is_paused:
            backfill.is_paused = is_paused
            self._write(backfill)
            self._tell(backfill, _STEPS[command.verb])
        self._runs.start_queued_runs(dag)

    def _cancel(self, backfill: Backfill) -> None:
        backfill.cancelled_at = self._changes.now
        backfill.is_paused = False  # nobody can unpause it any more, and a run of it may be cleared
        self._write(backfill)
        self._tell(backfill, BackfillStep.CANCELLED)
        for run in list(backfill.queued):
            self._stopping.stop(run, f"backfill: backfill {backfill.row.key} was cancelled")

    # ---- making runs ----------------------------------------------------------------------------------------------

    def wanting(self) -> list[Backfill]:
        """Those that can make runs now."""
        return [each for each in self.active.values() if self._room(each) > 0]

    def next_slots(self, backfill: Backfill, most: int) -> list[Slot]:
        """Those that are next."""
        slots: list[Slot] = []
        place = backfill.place
        while len(slots) < most and (slot := backfill.span.next(place)) is not None:
            slots.append(slot)
            place = backfill.span.place_of(slot)
        return slots

    def fill(self, command: FillSlots) -> None:
        """Deal with these slots, as far as there is room."""
        backfill = self.active.get(command.backfill)
        if backfill is None or backfill.place != command.place or not self._room(backfill):
            raise RowsBehind(f"backfill {command.backfill} has just been changed")
        row = backfill.row
        dag = self._quota.dag(row.dag_id)
        if dag.newest_ended > command.last_run:
            raise RowsBehind(f"run {dag.newest_ended} of DAG {row.dag_id} has just ended")
        names = {run.run_id for run in command.taken}
        latest = {run.logical_date: (run.key, run.state) for run in command.taken}  # the last one wins
        for key, live in sorted(dag.live.items()):
            latest[live.row.logical_date] = (key, live.state.value)
        plan = self._quota.current[row.dag_id]
        self._is_busy = True
        for slot in command.slots:
            if not self._room(backfill):
                break
            backfill.place = backfill.span.place_of(slot)
            if slot.start in latest and not self.may_run_again(backfill, *latest[slot.start]):
                backfill.passed += 1
                continue
            run_id = name_of(slot)
            if run_id in names or self._runs.has_run_id(row.dag_id, run_id):
                run_id = name_of(slot, row.key)
            backfill.made += 1
            self._runs.make_run(
                plan,
                run_id=run_id,
                run_type=BACKFILL,
                conf=row.conf,
                logical_date=slot.start,
                run_after=slot.run_after,
                interval=Interval(slot.start, slot.end),
                backfill=row.key,
            )
        self._is_busy = False
        backfill.is_filled = backfill.span.next(backfill.place) is None
        self._write(backfill)
        self._look(dag)

    def may_run_again(self, backfill: Backfill, key: int, state: str) -> bool:
        """Whether a slot that has this run already gets another one."""
        if key in self._runs.runs or state not in FINISHED_RUN_STATES:
            return False
        match backfill.row.reprocess:
            case Reprocess.NONE:
                return False
            case Reprocess.FAILED:
                return state == RunState.FAILED
            case Reprocess.COMPLETED:
                return True

    def _room(self, backfill: Backfill) -> int:
        """How many runs it may make now."""
        dag_id = backfill.row.dag_id
        if backfill.is_filled or backfill.is_paused or backfill.cancelled_at is not None:
            return 0
        if self._quota.is_stopping or self._quota.dag(dag_id).is_paused or dag_id not in self._quota.current:
            return 0
        return max(0, backfill.active_runs.limit - backfill.unfinished)

    def _look(self, dag: DagState) -> None:
        """A run has ended, or something else has changed: more may be made, or nothing is left to do."""
        if self._is_busy:
            return
        for backfill in list(dag.backfills.values()):
            if self._room(backfill):
                self._changes.effects.append(SlotsWanted(backfill=backfill.row.key))
            elif not backfill.unfinished and (backfill.is_filled or backfill.cancelled_at is not None):
                self._complete(dag, backfill)

    def _complete(self, dag: DagState, backfill: Backfill) -> None:
        backfill.completed_at = self._changes.now
        del dag.backfills[backfill.row.key], self.active[backfill.row.key]
        dag.past_backfills = [each for each in (*dag.past_backfills, backfill) if each.is_ahead_of(dag.last)]
        self._write(backfill)
        self._tell(backfill, BackfillStep.COMPLETED)

    def _write(self, backfill: Backfill) -> None:
        self._changes.writes.append(Write(backfill.image()))

    def _tell(self, backfill: Backfill, step: BackfillStep) -> None:
        row = backfill.row
        self._changes.effects.append(
            BackfillChanged(backfill=row.key, dag_id=row.dag_id, step=step, made=backfill.made, passed=backfill.passed)
        )

    def _audit(self, backfill: Backfill, actor: str | None, action: str) -> None:
        if actor is not None:
            detail = json.dumps({"backfill": backfill.row.key})
            self._changes.audit(actor, action, dag_id=backfill.row.dag_id, detail=detail)


def name_of(slot: Slot, backfill: BackfillKey | None = None) -> str:
    """The run id of a slot's run; with the backfill in it when another run has that name."""
    name = f"{BACKFILL}__{slot.run_after.isoformat()}"
    return name if backfill is None else f"{name}__{backfill}"


def _record(row: BackfillRow) -> Backfill:
    return Backfill(row, Semaphore("max_active", f"backfill {row.key}", row.max_active))


def _schedule_of(dag: DagSpec) -> ScheduleSpec:
    schedule = dag.schedule
    if schedule is None:
        raise UserError(
            f"DAG {dag.dag_id!r} has no schedule, so it has no slots to run",
            hint=f"`tickless run start {dag.dag_id}` starts a run.",
        )
    if schedule.kind not in (ScheduleKind.CRON, ScheduleKind.DELTA):
        raise UserError(
            f"the schedule {schedule.text!r} of DAG {dag.dag_id!r} has no slots in the past",
            hint="A backfill needs a cron expression or a timedelta.",
        )
    return schedule
