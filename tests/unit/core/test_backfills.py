"""Backfills. Every clock begins on 2026-11-22 at 12:00:00; schedules are hourly unless a test says something else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.builders import cron, make_dag
from tests.support.playbook import Playbook
from tickless.core import commands, events
from tickless.core.explain import explain_backfill, explain_run
from tickless.core.revision import RowsBehind
from tickless.errors import NotFound, Refused, TicklessError, UserError
from tickless.model.backfill import BackfillKey, Reprocess
from tickless.model.id import RunKey
from tickless.model.schedule import ScheduleKind, ScheduleSpec

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOURLY = cron("0 * * * *", has_intervals=True, start_at=NOON + timedelta(hours=6))
"""Its own first run is far away; a backfill does not mind the start_date."""
EMPTY = {"a": {"empty": True}}


def hours(ago: int) -> datetime:
    return NOON - timedelta(hours=ago)


def hourly(shape: str = "a", schedule: ScheduleSpec | None = HOURLY, **options: Any) -> Playbook:
    book = Playbook()
    book.clock.advance(60)
    book.parse(make_dag(shape, schedule=schedule, **options))
    return book


def due(book: Playbook) -> list[str]:
    """Slots of the backfill's runs, in the order in which they were made."""
    rows = [row for _, row in sorted(book.store.runs.items()) if row.backfill is not None]
    assert all(row.run_after is not None and row.run_type == "backfill" for row in rows)
    return [f"{row.run_after:%H}" for row in rows if row.run_after is not None]


def finish_all(book: Playbook) -> None:
    """Every launched task ends well, and what that makes room for is made."""
    while running := book.in_state("queued"):
        book.finish_all(running)
        book.fill()


# ---- slots --------------------------------------------------------------------------------------------------------


def test_every_slot_gets_one_run_with_its_data_interval() -> None:
    book = hourly(tasks=EMPTY)
    book.backfill(hours(5), hours(3))
    assert due(book) == ["08", "09", "10"]
    first = next(row for row in book.store.runs.values() if row.backfill)
    assert first.run_id == "backfill__2026-11-22T08:00:00+00:00"
    assert (first.logical_date, first.data_interval_start, first.data_interval_end) == (hours(5), hours(5), hours(4))
    row = book.store.backfills[BackfillKey(1)]
    assert (row.made, row.passed, row.place, row.completed_at) == (3, 0, hours(3), row.completed_at)
    assert row.completed_at is not None and book.is_idle


def test_backwards_the_newest_slot_comes_first() -> None:
    book = hourly(tasks=EMPTY)
    book.backfill(hours(5), hours(3), is_backwards=True)
    assert due(book) == ["10", "09", "08"]


def test_no_more_runs_than_max_active_are_unfinished_and_those_of_the_dag_do_not_count() -> None:
    book = hourly(max_active_runs=1)
    book.start().expect("launch a")  # it fills the DAG's own limit
    book.backfill(hours(9), hours(3), max_active=2).expect("launch 2/a", "launch 3/a")
    assert due(book) == ["04", "05"]
    book.finish("2/a").expect("run 2 success")
    book.fill().expect("launch 4/a")
    assert explain_backfill(book.engine, BackfillKey(1)) == "max_active: 2 of 2 runs of it are unfinished."
    finish_all(book)
    assert due(book) == ["04", "05", "06", "07", "08", "09", "10"]


def test_a_long_range_is_dealt_with_in_slices() -> None:
    book = hourly(tasks=EMPTY)
    outcome = book.backfill(hours(2000), hours(3), max_active=500)
    assert len(book.store.runs) == 1998 == book.store.backfills[BackfillKey(1)].made
    assert max(len(decision.writes) for decision in outcome.decisions) < 30


def test_slots_that_were_not_due_when_it_was_made_are_left_to_the_schedule() -> None:
    book = hourly(tasks=EMPTY)
    book.backfill(hours(3), hours(-24), fill=False)
    book.clock.advance(4 * 3600)
    book.fill()
    assert due(book) == ["10", "11", "12"]


# ---- slots that have a run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reprocess", "state", "again"),
    [
        ("none", "success", False),
        ("none", "failed", False),
        ("none", "live", False),
        ("failed", "success", False),
        ("failed", "failed", True),
        ("failed", "live", False),
        ("completed", "success", True),
        ("completed", "failed", True),
        ("completed", "live", False),
    ],
)
@pytest.mark.parametrize("is_restarted", [False, True])
def test_reprocess_says_what_becomes_of_a_slot_that_has_a_run(
    reprocess: str, state: str, again: bool, is_restarted: bool
) -> None:
    book = hourly()
    book.start(logical_date=hours(4), run_id="mine")
    if state != "live":
        book.finish("a", state)
    if is_restarted:
        book.restart()
    book.backfill(hours(4), hours(4), reprocess=Reprocess(reprocess))
    assert due(book) == (["09"] if again else [])
    row = book.store.backfills[BackfillKey(1)]
    assert (row.made, row.passed) == ((1, 0) if again else (0, 1))


def test_another_run_of_a_slot_has_a_name_of_its_own() -> None:
    book = hourly(tasks=EMPTY)
    for number in (1, 2):
        book.backfill(hours(4), hours(4), reprocess=Reprocess.COMPLETED)
        assert book.store.backfills[BackfillKey(number)].completed_at is not None
    names = [row.run_id for row in book.store.runs.values() if row.backfill]
    assert names == ["backfill__2026-11-22T09:00:00+00:00", "backfill__2026-11-22T09:00:00+00:00__2"]


def test_a_run_that_came_and_went_after_the_rows_were_read_is_not_missed() -> None:
    book = hourly(tasks=EMPTY)
    book.backfill(hours(4), hours(4), fill=False)
    command = book.slots_of(book.engine.backfills.wanting()[0], 5)
    book.start(logical_date=hours(4), run_id="quick")
    with pytest.raises(RowsBehind):
        book.when(command)
    book.fill()
    assert due(book) == []


def test_a_run_that_is_live_after_the_rows_were_read_is_not_missed() -> None:
    book = hourly()
    book.backfill(hours(4), hours(4), fill=False)
    command = book.slots_of(book.engine.backfills.wanting()[0], 5)
    book.start(logical_date=hours(4), run_id="quick")
    book.when(command)
    assert due(book) == []


def test_the_same_slots_brought_twice_make_no_second_run() -> None:
    book = hourly()
    book.backfill(hours(5), hours(3), fill=False)
    command = book.slots_of(book.engine.backfills.wanting()[0], 1)
    book.when(command)
    with pytest.raises(RowsBehind):
        book.when(command)
    assert due(book) == ["08"]


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("is_backwards", [False, True])
def test_the_schedule_passes_over_slots_that_a_backfill_has_dealt_with(is_backwards: bool, is_restarted: bool) -> None:
    schedule = cron("0 * * * *", has_intervals=True, catchup=True, start_at=hours(6))
    book = hourly(schedule=schedule, max_active_runs=1)
    book.begin("a")  # it catches up slowly: the first slot's run stands in the way of the others
    book.backfill(hours(5), hours(3), is_backwards=is_backwards)
    assert due(book) == (["10", "09", "08"] if is_backwards else ["08", "09", "10"])
    for label in book.in_state("queued"):
        book.finish(label)  # so the backfill is completed
    if is_restarted:
        book.restart()
    book.finish("1/a")
    while running := book.in_state("queued"):
        book.finish_all(running)
    assert book.slots()[:1] == ["07:00:00"] and [slot[:2] for slot in book.slots()] == ["07", *due(book), "11", "12"]


def test_only_the_very_same_slot_counts_as_dealt_with() -> None:
    book = hourly(tasks=EMPTY)
    book.backfill(hours(5), hours(3))
    book.parse(make_dag("a", tasks=EMPTY, schedule=cron("0 */3 * * *", catchup=True, start_at=hours(6))))
    assert [slot[:2] for slot in book.slots() if slot] == [*due(book), "06", "09", "12"]


# ---- pause, cancel, end -------------------------------------------------------------------------------------------


def test_paused_it_makes_no_runs_and_starts_none() -> None:
    book = hourly()
    book.backfill(hours(5), hours(3), max_active=1)
    assert due(book) == ["08"]
    book.control_backfill("pause").expect("backfill 1 paused")
    book.finish("a").expect("run success")
    assert not book.engine.backfills.wanting()
    assert explain_backfill(book.engine, BackfillKey(1)) == "It is paused; 0 of its runs have not ended yet."
    book.alter("clear", "a")  # a queued run of it
    run = book.engine.runs[RunKey(1)]
    (reason,) = explain_run(book.engine, run, book.clock.now())
    assert reason.code == "backfill_paused" and "tickless backfill unpause 1" in (reason.hint or "")
    book.restart()
    book.control_backfill("unpause").expect("backfill 1 unpaused", "launch a try 2")
    (reason, *_) = explain_run(book.engine, book.engine.runs[run.key], book.clock.now())
    assert reason.code == "starting"
    finish_all(book)
    assert due(book) == ["08", "09", "10"]


def test_a_queued_run_says_that_the_backfill_is_full() -> None:
    book = hourly()
    book.backfill(hours(5), hours(3), max_active=1)
    book.finish("a")
    book.fill()
    book.alter("clear", "1/a")
    run = book.engine.runs[RunKey(1)]
    (reason,) = explain_run(book.engine, run, book.clock.now())
    assert reason.message == "max_active: 1 of 1 runs of backfill 1 are running."


def test_cancelled_it_ends_its_queued_runs_and_makes_no_more_and_what_runs_goes_on() -> None:
    book = hourly()
    book.backfill(hours(5), hours(3), max_active=1)
    book.finish("a")
    book.fill()
    book.alter("clear", "1/a")
    book.control_backfill("pause")
    book.control_backfill("cancel").expect("backfill 1 cancelled", "run 1 failed")
    assert book.run(1).cancel_reason == "backfill: backfill 1 was cancelled"
    assert not book.store.backfills[BackfillKey(1)].is_paused, "or a run that is cleared later would never start"
    assert book.run(2).state == "running" and book.store.backfills[BackfillKey(1)].completed_at is None
    book.restart()
    book.backfill(hours(3), hours(3), fill=False)  # another one may begin
    book.finish("2/a").expect("run 2 success", "backfill 1 completed")
    assert due(book) == ["08", "09"]


def test_while_the_dag_is_paused_nothing_of_it_starts() -> None:
    book = hourly()
    book.pause()
    book.backfill(hours(5), hours(3))
    assert due(book) == []
    assert "dag unpause dag" in (explain_backfill(book.engine, BackfillKey(1)) or "")
    book.unpause()
    book.fill()
    assert due(book) == ["08", "09", "10"]


def test_it_waits_for_a_file_that_is_gone() -> None:
    book = hourly()
    book.backfill(hours(5), hours(3), max_active=1)
    book.when(events.DagVanished(dag_id="dag"))
    book.finish("a")
    book.fill()
    assert due(book) == ["08"]
    book.parse(make_dag("a", schedule=cron("0 0 * * *")))  # and with another schedule: the slots stay what they were
    book.fill()
    finish_all(book)
    assert due(book) == ["08", "09", "10"]


def test_runs_that_are_cleared_after_its_end_count_as_the_dags_own() -> None:
    book = hourly()
    book.backfill(hours(3), hours(3))
    book.finish("a").expect("run success", "backfill 1 completed")
    book.alter("clear", "a")
    assert book.engine.dags["dag"].active_runs.used == 1
    book.restart()
    assert book.engine.dags["dag"].active_runs.used == 1


def test_failures_of_its_runs_do_not_pause_the_dag() -> None:
    book = hourly(max_consecutive_failed_dag_runs=1)
    book.backfill(hours(4), hours(3))
    book.finish("1/a", "failed").expect("run 1 failed")
    assert not book.engine.dags["dag"].is_paused


def test_after_stop_admitting_it_makes_no_runs() -> None:
    book = hourly()
    book.when(commands.StopAdmitting())
    book.backfill(hours(4), hours(3))
    assert due(book) == []
    book.restart()
    book.fill()
    assert due(book) == ["09", "10"]


def test_killed_after_every_single_commit_it_makes_every_run_once() -> None:
    book = hourly()
    book.backfill(hours(30), hours(3), max_active=3, fill=False)
    for _ in range(200):
        wanting = book.engine.backfills.wanting()
        if wanting:
            book.when(book.slots_of(wanting[0], 2))
        elif running := book.in_state("queued"):
            book.finish(running[0])
        else:
            break
        book.restart()
    assert due(book) == [f"{(NOON - timedelta(hours=29 - n)):%H}" for n in range(28)]
    assert book.store.backfills[BackfillKey(1)].completed_at is not None


# ---- refusals -----------------------------------------------------------------------------------------------------

ONCE = ScheduleSpec(kind=ScheduleKind.ONCE, text="@once")


@pytest.mark.parametrize(
    ("schedule", "asked", "error", "words"),
    [
        (None, {}, UserError, "has no schedule"),
        (ONCE, {}, UserError, "'@once' of DAG 'dag' has no slots in the past"),
        (HOURLY, {"dag_id": "other"}, NotFound, "there is no DAG 'other'"),
        (HOURLY, {"from_at": hours(1), "to_at": hours(2)}, UserError, "is after to"),
        (HOURLY, {"from_at": hours(-2), "to_at": hours(-9)}, UserError, "no slot of the schedule"),
        (
            HOURLY,
            {"from_at": hours(3) + timedelta(minutes=1), "to_at": hours(3) + timedelta(minutes=59)},
            UserError,
            "no slot of the schedule '0 * * * *' of DAG 'dag'",
        ),
        (HOURLY, {"max_active": 0}, UserError, "max_active is"),
        (HOURLY, {"max_active": 501}, UserError, "max_active is"),
        (HOURLY, {"from_at": datetime(1, 1, 1, tzinfo=UTC)}, UserError, "between the years"),
    ],
)
def test_refusals(schedule: ScheduleSpec | None, asked: dict[str, Any], error: type[TicklessError], words: str) -> None:
    book = hourly(schedule=schedule)
    command: dict[str, Any] = {"dag_id": "dag", "from_at": hours(5), "to_at": hours(3)} | asked
    with pytest.raises(error, match=words.replace("*", r"\*")) as caught:
        book.when(commands.CreateBackfill(**command))
    assert caught.value.hint is not None or error is UserError
    assert not book.store.backfills


def test_one_at_a_time_for_each_dag() -> None:
    book = hourly()
    book.backfill(hours(5), hours(3))
    with pytest.raises(Refused, match="backfill 1 of DAG 'dag' is not completed"):
        book.backfill(hours(9), hours(8))


def test_what_is_over_cannot_be_paused() -> None:
    book = hourly(tasks=EMPTY)
    with pytest.raises(NotFound, match="no backfill 1"):
        book.control_backfill("pause")
    book.backfill(hours(5), hours(3))
    with pytest.raises(Refused, match="completed"):
        book.control_backfill("pause")


def test_a_dag_with_a_backfill_cannot_be_deleted() -> None:
    book = hourly()
    book.pause()
    book.backfill(hours(5), hours(3))
    with pytest.raises(Refused, match="backfill 1"):
        book.when(commands.DeleteDag(dag_id="dag", is_forced=True, is_last=False))


@pytest.mark.parametrize("name", ["depends_on_past", "wait_for_downstream"])
def test_what_looks_back_is_not_run_backwards(name: str) -> None:
    book = hourly(tasks={"a": {name: True}})
    with pytest.raises(UserError, match="backwards"):
        book.backfill(hours(5), hours(3), is_backwards=True)
    book.backfill(hours(5), hours(3))
