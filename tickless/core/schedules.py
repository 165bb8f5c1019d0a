"""Runs that are due by time, and DAGs that are paused.

A scheduled DAG has one entry in the heap of timers: its next slot. When that is due, and after everything that may
change what comes next (a new version, an unpause, the end of a run that stood in the way, a restore), the DAG is
*looked at*: what is due is made, run by run on the agenda, and the timer is armed for what is not. What is due follows
from the version, the row of the DAG (`last`, the data interval of the last run that the schedule made) and the clock.
A run and the `last` that goes on from it are written in one commit: so a slot gives one run, whatever dies in between,
and a timer that rings twice or late does no harm.

No run is made while as many are queued or running as `max_active_runs` allows (Airflow's rule): the end of one looks
at the DAG again. Without catchup, what was due meanwhile is skipped but for the latest slot, and that is told.

While a DAG is paused its schedule makes no runs, its queued runs do not start, and none of its tasks is admitted: the
slots of its runs are closed. What runs goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

from tickless.core import commands
from tickless.core.changes import Changes
from tickless.core.decision import DagPaused, SlotsSkipped, Write
from tickless.core.quota import Quota
from tickless.core.record import DagState, Run
from tickless.core.runs import SCHEDULED, Runs
from tickless.core.timers import SlotDue, TimerHeap
from tickless.errors import NotFound, UserError
from tickless.model.row import DagRow
from tickless.model.schedule import Interval, ScheduleRules, ScheduleSpec, Slot
from tickless.model.state import RunState
from tickless.schedule.timetable import first_skipped, make_timetable, next_slot


class Schedules:
    """The part of the engine that knows of time and pauses. What it knows of a DAG is in the DAG's state."""

    def __init__(self, changes: Changes, quota: Quota, runs: Runs, timers: TimerHeap, rules: ScheduleRules) -> None:
        self.rules = rules
        self.refused: frozenset[tuple[str, str]] = frozenset()
        """(dag_id, run_id) that Postgres has already: somebody moved a DAG's last interval back by hand."""
        self._changes = changes
        self._quota = quota
        self._runs = runs
        self._timers = timers
        runs.when_ended = self._run_ended

    # ---- what others tell -----------------------------------------------------------------------------------------

    def restore(self, row: DagRow) -> None:
        dag = self._quota.dag(row.dag_id)
        dag.is_paused = row.is_paused
        dag.failed_in_a_row = row.failed_in_a_row
        dag.scheduled_since = row.scheduled_since
        if row.last_interval_start is not None and row.last_interval_end is not None:
            dag.last = Interval(row.last_interval_start, row.last_interval_end)

    def version_changed(self, dag: DagState, before: ScheduleSpec | None, *, is_new: bool) -> None:
        """The DAG has another current version; `before`: the schedule of the last one."""
        spec = self._spec(dag)
        if is_new:
            own = self._quota.current[dag.dag_id].spec.is_paused_upon_creation
            dag.is_paused = own if own is not None else self.rules.dags_are_paused_at_creation
        if spec != before:
            dag.armed_at = None  # `look` arms it again, if there is a schedule
        if spec != before and dag.last is None:
            dag.scheduled_since = self._changes.now if spec is not None else None
        if is_new or spec != before:
            self._write(dag)
        self.look(dag)

    def version_gone(self, dag: DagState) -> None:
        """The DAG has no current version any more; its timer, when it rings, finds nothing that it was armed for."""
        dag.armed_at = None

    def slot_due(self, timer: SlotDue) -> None:
        dag = self._quota.dag(timer.dag_id)
        if dag.armed_at == timer.due_at:  # else it was armed anew since
            dag.armed_at = None  # its entry is gone; if the clock was set back meanwhile, `look` makes another
            self.look(dag)

    def look_at_all(self) -> None:
        """Limits have changed, or everything was read from rows."""
        for dag_id in self._quota.current:
            self.look(self._quota.dag(dag_id))

    # ---- pauses ---------------------------------------------------------------------------------------------------

    def pause(self, command: commands.PauseDag | commands.UnpauseDag) -> None:
        dag = self._quota.dags.get(command.dag_id)
        if dag is None or dag.last_number == 0:
            raise NotFound(f"there is no DAG {command.dag_id!r}", hint="`tickless dag list` shows those there are.")
        self._changes.request_done("command", command.request_id, None)
        self._set_paused(dag, isinstance(command, commands.PauseDag), "somebody asked for it")

    def _set_paused(self, dag: DagState, is_paused: bool, why: str) -> None:
        if dag.is_paused == is_paused:
            return
        dag.is_paused = is_paused
        if not is_paused:
            dag.failed_in_a_row = 0
            if dag.last is None and self._spec(dag) is not None:
                dag.scheduled_since = self._changes.now
        self._write(dag)
        self._changes.effects.append(DagPaused(dag_id=dag.dag_id, is_paused=is_paused, why=why))
        for run in self._runs.runs.values():
            if run.row.dag_id == dag.dag_id:
                run.slots.is_closed = is_paused
                self._quota.admission.closed_or_opened(run)
        self._runs.start_queued_runs(dag)
        self.look(dag)

    def _run_ended(self, dag: DagState, run: Run) -> None:
        """Count failures; and a run that this one stood in the way of can be made."""
        limit = self.failure_limit(dag)
        if limit and run.row.backfill is None:
            before = dag.failed_in_a_row
            dag.failed_in_a_row = before + 1 if run.state is RunState.FAILED else 0
            if dag.failed_in_a_row >= limit and not dag.is_paused:
                why = f"{dag.failed_in_a_row} runs in a row have failed"
                self._set_paused(dag, True, why)
                self._changes.audit("tickless", "pause", dag_id=dag.dag_id, detail=json.dumps({"why": why}))
            elif dag.failed_in_a_row != before:
                self._write(dag)
        self.look(dag)

    def failure_limit(self, dag: DagState) -> int:
        """After how many failed runs in a row the DAG is paused; 0 = never."""
        plan = self._quota.current.get(dag.dag_id)
        own = plan.spec.max_consecutive_failed_dag_runs if plan is not None else 0
        return own if own is not None else self._quota.limits.max_consecutive_failed_dag_runs_per_dag

    # ---- making runs ----------------------------------------------------------------------------------------------

    def look(self, dag: DagState) -> None:
        """Make what is due of a DAG, and arm its timer for what comes next."""
        if dag.is_looked_at or self._spec(dag) is None:
            return
        if dag.last is None and dag.scheduled_since is None:  # written by a release that knew no schedules
            dag.scheduled_since = self._changes.now
            self._write(dag)
        dag.is_looked_at = True
        self._runs.agenda.append(self._make_due_runs(dag))

    def _make_due_runs(self, dag: DagState) -> Iterator[None]:
        yield
        while (found := self._due(dag)) is not None:
            self._make_run(dag, *found)
            yield
        dag.is_looked_at = False

    def _due(self, dag: DagState) -> tuple[ScheduleSpec, Slot] | None:
        """The next slot, if it is due and nothing stands in the way. If it is not due, the timer is armed for it."""
        spec = self._spec(dag)
        if spec is None or dag.is_paused:
            dag.armed_at = None
            return None
        slot = self.next_slot(dag, spec, self._changes.now)
        if slot is None or slot.run_after > self._changes.now:
            self._arm(dag, slot.run_after if slot is not None else None)
            return None
        dag.armed_at = None
        return (spec, slot) if not self._quota.is_stopping and not is_full(dag) else None

    def next_slot(self, dag: DagState, spec: ScheduleSpec, now: datetime) -> Slot | None:
        """What comes next, as far as the clock is concerned. None: nothing, or nobody can say (`schedule_problem`)."""
        dag.schedule_problem = None
        try:
            return next_slot(spec, self.rules, dag.last, now, dag.scheduled_since)
        except (UserError, OverflowError) as error:  # a time zone that this machine does not know …
            dag.schedule_problem = str(error)
            return None

    def manual_interval(self, command: commands.StartRun) -> Interval | None:
        """The data interval of a run that somebody starts for a logical date."""
        dag = self._quota.dags.get(command.dag_id)
        spec = self._spec(dag) if dag is not None else None
        if command.logical_date is None or dag is None or spec is None:
            return None
        try:
            timetable = make_timetable(spec, self.rules, dag.last, dag.scheduled_since or self._changes.now)
            return timetable.interval_of_manual(command.logical_date)
        except (UserError, OverflowError):
            return None  # it cannot be read on this machine; the run does not need it

    def _arm(self, dag: DagState, at: datetime | None) -> None:
        if at is not None and at != dag.armed_at:
            self._timers.arm(at, SlotDue(dag.dag_id, at))
        dag.armed_at = at

    def _make_run(self, dag: DagState, spec: ScheduleSpec, slot: Slot) -> None:
        skipped = first_skipped(spec, self.rules, dag.last, slot)
        if skipped is not None:
            self._changes.effects.append(SlotsSkipped(dag_id=dag.dag_id, first=skipped, before=slot.run_after))
        dag.last = Interval(slot.start, slot.end)
        self._write(dag)
        run_id = f"{SCHEDULED}__{slot.run_after.isoformat()}"
        if (dag.dag_id, run_id) in self.refused or self._runs.has_run_id(dag.dag_id, run_id):
            return  # that slot has its run
        if any(each.span.has_passed(slot, each.place) for each in (*dag.backfills.values(), *dag.past_backfills)):
            return  # a backfill has dealt with it
        plan = self._quota.current[dag.dag_id]
        self._runs.make_run(
            plan,
            run_id=run_id,
            run_type=SCHEDULED,
            logical_date=slot.start,
            run_after=slot.run_after,
            interval=dag.last,
        )

    def _spec(self, dag: DagState) -> ScheduleSpec | None:
        plan = self._quota.current.get(dag.dag_id)
        return plan.spec.schedule if plan is not None else None

    def _write(self, dag: DagState) -> None:
        self._changes.writes.append(Write(dag.image()))


def is_full(dag: DagState) -> bool:
    """Whether as many runs are queued or running as may be at once."""
    return dag.active_runs.used + len(dag.queued) >= dag.active_runs.limit
