"""Sabotages of backfills."""

from __future__ import annotations

from tests.planted.runner import Sabotage

BACKFILLS = "tickless/core/backfills.py"
UNIT = "tests/unit/core/test_backfills.py::"

SABOTAGES = [
    Sabotage(
        name="place_of_a_backfill_is_not_committed_with_its_runs",
        file=BACKFILLS,
        old="        backfill.is_filled = backfill.span.next(backfill.place) is None\n        self._write(backfill)\n",
        new="        backfill.is_filled = backfill.span.next(backfill.place) is None\n",
        tests=(UNIT + "test_killed_after_every_single_commit_it_makes_every_run_once",),
    ),
    Sabotage(
        name="rows_behind_a_slot_are_believed",
        file=BACKFILLS,
        old="        if dag.newest_ended > command.last_run:\n",
        new="        if dag.newest_ended < 0:\n",
        tests=(UNIT + "test_a_run_that_came_and_went_after_the_rows_were_read_is_not_missed",),
    ),
    Sabotage(
        name="a_backfill_does_not_see_live_runs",
        file=BACKFILLS,
        old="        for key, live in sorted(dag.live.items()):\n",
        new="        for key, live in sorted(dag.live.items())[:0]:\n",
        tests=(UNIT + "test_a_run_that_is_live_after_the_rows_were_read_is_not_missed",),
    ),
    Sabotage(
        name="slots_are_filled_from_any_place",
        file=BACKFILLS,
        old="backfill.place != command.place or ",
        new="",
        tests=(UNIT + "test_the_same_slots_brought_twice_make_no_second_run",),
    ),
    Sabotage(
        name="the_schedule_runs_what_a_backfill_has_run",
        file="tickless/core/schedules.py",
        old="each.span.has_passed(slot, each.place) for each in",
        new="False for each in",
        tests=(UNIT + "test_the_schedule_passes_over_slots_that_a_backfill_has_dealt_with",),
    ),
    Sabotage(
        name="runs_of_a_backfill_take_the_turns_of_the_dag",
        file="tickless/core/quota.py",
        old="        return backfill if backfill is not None else dag\n",
        new="        return dag\n",
        tests=(UNIT + "test_no_more_runs_than_max_active_are_unfinished_and_those_of_the_dag_do_not_count",),
    ),
    Sabotage(
        name="a_cancelled_backfill_leaves_its_queued_runs",
        file=BACKFILLS,
        old="        for run in list(backfill.queued):\n",
        new="        for run in list(backfill.queued)[:0]:\n",
        tests=(UNIT + "test_cancelled_it_ends_its_queued_runs_and_makes_no_more_and_what_runs_goes_on",),
    ),
]
