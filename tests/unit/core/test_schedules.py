"""Runs that are due by time, and DAGs that are paused. Every clock begins at 12:00:00."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest

from tests.support.builders import cron, make_dag
from tests.support.clock import START
from tests.support.playbook import Playbook
from tickless.core import commands, events
from tickless.core import engine as engine_module
from tickless.core.explain import explain_run, explain_schedule, explain_task
from tickless.errors import NotFound, UserError
from tickless.model.limit import Limits
from tickless.model.schedule import ScheduleKind, ScheduleRules, ScheduleSpec

MINUTELY = cron("* * * * *")
CATCHUP = cron("* * * * *", catchup=True, start_at=START - timedelta(minutes=10))
ONCE = ScheduleSpec(kind=ScheduleKind.ONCE, text="@once")
CONTINUOUS = ScheduleSpec(kind=ScheduleKind.CONTINUOUS, text="@continuous")
EMPTY = {"a": {"empty": True}}


def scheduled(schedule: ScheduleSpec = MINUTELY, *, shape: str = "a", late: float = 0, **options: object) -> Playbook:
    """A book whose DAG is parsed 30 s before 12:01 (`late` s after that), so that nothing is due yet."""
    book = Playbook()
    book.clock.advance(30 + late)
    book.parse(make_dag(shape, schedule=schedule, **options))  # type: ignore[arg-type]  # whatever a DAG takes
    return book


# ---- one slot, one run --------------------------------------------------------------------------------------------


def test_a_slot_makes_a_run_and_the_next_one_is_armed() -> None:
    book = Playbook()
    book.parse(make_dag("a", schedule=cron("30 12 * * *", interval_seconds=600.0))).expect(wake_in=1800)
    book.after(1800).expect("launch a", wake_in=86_400)
    run = book.run()
    due = START + timedelta(minutes=30)
    assert (run.run_id, run.run_type) == ("scheduled__2026-11-22T12:30:00+00:00", "scheduled")
    assert (run.run_after, run.data_interval_start, run.data_interval_end) == (due, due - timedelta(minutes=10), due)
    assert run.logical_date == due - timedelta(minutes=10)
    book.finish("a").expect("run success")
    assert book.store.dag_states["dag"].last_interval_end == due


def test_the_timer_may_ring_at_any_time() -> None:
    book = scheduled()
    for _ in range(3):
        book.after(0).expect()
    book.after(30).expect("launch a")
    for _ in range(3):
        book.after(0).expect()
    book.clock.advance(-3600)  # somebody sets the clock back
    book.after(0).expect(wake_in=3660)
    book.clock.advance(3600)
    book.after(60).expect("launch 2/a")
    assert book.slots() == ["12:01:00", "12:02:00"]


def test_after_a_jump_only_the_latest_slot_gets_a_run_and_that_is_told() -> None:
    book = scheduled()
    book.after(30).expect("launch a")
    book.after(600).expect("launch 2/a", "skip 12:02:00 to 12:11:00")
    assert book.slots() == ["12:01:00", "12:11:00"]


def test_every_restart_at_every_moment_makes_one_run_per_slot() -> None:
    book = scheduled(max_active_runs=1000, shape="a", tasks=EMPTY)
    for _ in range(40):
        book.clock.advance(15)
        book.restart()
        book.when(events.TimePassed())
        book.restart()
    assert book.slots() == [f"12:{minute:02}:00" for minute in range(1, 11)]


def test_what_was_due_while_the_daemon_was_away_is_made_at_once() -> None:
    book = scheduled()
    book.clock.advance(95)
    book.restart().expect("launch a", wake_in=55)
    assert book.slots() == ["12:02:00"], "it counts from when it was first seen"


def test_a_slot_whose_commit_was_lost_comes_again() -> None:
    book = scheduled()
    book.clock.advance(30)
    book.engine.step(events.TimePassed(), book.clock.now())  # decided, and the daemon dies before the commit
    book.restart().expect("launch a")
    assert book.slots() == ["12:01:00"]


def test_a_slot_that_postgres_has_already_is_passed_over() -> None:
    book = scheduled()
    book.after(30)
    book.finish("a")
    # An operator moves the schedule back by hand; the shell learns from Postgres that the run is there.
    book.store.dag_states["dag"] = replace(
        book.store.dag_states["dag"], last_interval_start=START, last_interval_end=START
    )
    run_id = book.run().run_id
    engine = book._new_engine()
    engine.schedules.refused = frozenset({("dag", run_id)})
    decision = engine.restore(book.store.load_now(), book.clock.now())
    while decision.more:
        decision = engine.step(events.WorkContinued(), book.clock.now())
    assert not engine.runs
    assert decision.wake_at == START + timedelta(minutes=2)


def test_a_run_by_hand_cannot_take_the_name_of_a_slot() -> None:
    book = scheduled()
    with pytest.raises(UserError, match="begins like that of a run of another kind"):
        book.start(run_id="scheduled__2026-11-22T12:01:00+00:00")
    book.start(run_id="schedule-of-mine").expect("launch a")


def test_once_and_continuous() -> None:
    book = Playbook()
    book.parse(make_dag("a", schedule=ONCE)).expect("launch a")
    book.finish("a").expect("run success")
    assert book.after(10_000).wake_at is None
    book.restart().expect()

    book = Playbook()
    book.parse(make_dag("a", schedule=CONTINUOUS, max_active_runs=1)).expect("launch a")
    book.after(5).expect()
    book.finish("a").expect("run 1 success", "launch 2/a")
    book.finish("2/a").expect("run 2 success", wake_in=1)
    book.after(1).expect("launch 3/a")
    row = book.run(2)
    assert (row.data_interval_start, row.data_interval_end) == (START, START + timedelta(seconds=5))


def test_a_schedule_that_this_machine_cannot_read_harms_nobody() -> None:
    book = Playbook("b", dag_id="other")
    book.parse(make_dag("a", schedule=replace(MINUTELY, timezone="Atlantis/Poseidonis")))
    assert book.after(60).wake_at is None
    [reason] = explain_schedule(book.engine, "dag", book.clock.now())
    assert reason.code == "schedule_problem" and "Atlantis/Poseidonis" in reason.message
    book.start("other").expect("launch b")
    book.start("dag").expect("launch 2/a")


# ---- versions -----------------------------------------------------------------------------------------------------


def test_a_new_version_arms_anew() -> None:
    book = scheduled()
    book.parse(make_dag("a", schedule=cron("0 13 * * *"))).expect(wake_in=30)  # the old entry is still in the heap
    book.after(30).expect(wake_in=3540)
    book.after(3540).expect("launch a")
    book.parse(make_dag("a", schedule=MINUTELY)).expect(wake_in=60)
    book.parse(make_dag("a")).expect()
    book.after(60).expect()
    assert book.slots() == ["13:00:00"]


def test_a_dag_that_vanishes_is_scheduled_no_more_and_goes_on_when_it_is_back() -> None:
    book = scheduled()
    book.after(30).expect("launch a")
    book.finish("a")
    book.when(events.DagVanished(dag_id="dag")).expect()
    book.after(60).expect()
    assert explain_schedule(book.engine, "dag", book.clock.now())[0].code == "vanished"
    book.restart().expect()
    book.parse(make_dag("a", schedule=MINUTELY)).expect("launch 2/a")
    assert book.slots() == ["12:01:00", "12:02:00"]


def test_a_dag_that_comes_back_without_a_schedule_waits_for_no_slot() -> None:
    book = scheduled()
    book.when(events.DagVanished(dag_id="dag")).expect()
    book.parse(make_dag("a")).expect()
    assert book.engine.dags["dag"].armed_at is None
    book.after(120).expect()


# ---- catchup and limits -------------------------------------------------------------------------------------------


def test_catchup_makes_runs_up_to_the_limit_and_goes_on_when_one_ends() -> None:
    book = Playbook()
    book.parse(make_dag("a", schedule=CATCHUP, max_active_runs=3)).expect("launch 1/a", "launch 2/a", "launch 3/a")
    assert book.slots() == ["11:50:00", "11:51:00", "11:52:00"]
    [reason] = explain_schedule(book.engine, "dag", book.clock.now())
    assert (reason.code, reason.used, reason.limit) == ("max_active_runs_per_dag", 3, 3)
    book.finish("2/a").expect("run 2 success", "launch 4/a")
    for run in (1, 3, *range(4, 12)):
        book.finish(f"{run}/a")
    assert book.slots() == [f"11:{minute}:00" for minute in range(50, 60)] + ["12:00:00"]
    book.after(60).expect("launch 12/a")


def test_a_long_catchup_is_bounded_work() -> None:
    with mock.patch.object(engine_module, "AGENDA_SLICE", 7):
        book = Playbook()
        long_ago = replace(CATCHUP, start_at=START - timedelta(minutes=99))
        outcome = book.parse(make_dag("a", schedule=long_ago, tasks=EMPTY))
    assert len(book.slots()) == 100
    assert max(len(decision.writes) for decision in outcome.decisions) <= 3 * 7
    assert book.is_idle


def test_without_catchup_what_the_limit_holds_back_is_skipped() -> None:
    book = scheduled(max_active_runs=1)
    book.after(30).expect("launch a")
    book.after(60).expect()
    book.after(60).expect()
    book.finish("a").expect("run 1 success", "launch 2/a", "skip 12:02:00 to 12:03:00")
    assert book.slots() == ["12:01:00", "12:03:00"]


def test_a_raised_limit_lets_the_schedule_go_on() -> None:
    book = Playbook(limits=Limits(max_active_runs_per_dag=1))
    book.parse(make_dag("a", schedule=CATCHUP)).expect("launch a")
    book.reload(Limits(max_active_runs_per_dag=2)).expect("launch 2/a")


def test_a_stopping_daemon_makes_no_runs() -> None:
    book = scheduled()
    book.when(commands.StopAdmitting())
    book.after(30).expect()
    assert book.slots() == []
    book.restart().expect("launch a")


# ---- pauses -------------------------------------------------------------------------------------------------------


def test_while_a_dag_is_paused_nothing_of_it_starts_and_what_runs_goes_on() -> None:
    book = scheduled(shape="a >> b", max_active_runs=1)
    book.after(30).expect("launch a")
    book.begin("a")
    book.start().expect()
    book.pause().expect("pause dag")
    book.after(300).expect()
    book.finish("1/a").expect()  # b is scheduled, and not sent off
    assert book.state("1/b") == "scheduled"
    for _ in range(2):
        now = book.clock.now()
        [reason] = explain_task(book.engine, book.instance("1/b"), now)
        assert (reason.code, reason.hint) == ("paused", "`tickless dag unpause dag` lets it go on.")
        first, second = (explain_run(book.engine, book.engine.runs[row.key], now) for row in book.store.runs.values())
        assert [each.code for each in first] == ["paused", "paused"]
        assert [each.code for each in second] == ["paused"]
        assert [each.code for each in explain_schedule(book.engine, "dag", now)] == ["paused"]
        book.restart().expect()
    book.unpause().expect("unpause dag", "launch 1/b")
    book.finish("1/b").expect("run 1 success", "launch 2/a")
    book.finish("2/a"), book.finish("2/b")
    assert book.slots() == ["12:01:00", "12:06:00"]


def test_a_paused_dag_holds_nobody_else_up() -> None:
    book = Playbook("a", limits=Limits(parallelism=1, pool_ageing_seconds=0), pools={"p": 2}, pool="p", pool_slots=2)
    book.dag("x", dag_id="other", pool="p")
    book.start("other").expect("launch x")
    book.start("dag").expect()  # wide, aged: the pool is reserved for it
    book.start("other").expect()
    book.pause("dag").expect("pause dag")
    book.finish("1/x").expect("run 1 success", "launch 3/x")
    book.unpause("dag").expect("unpause dag")
    book.finish("3/x").expect("run 3 success", "launch 2/a")


def test_catchup_makes_up_for_a_pause() -> None:
    book = scheduled(replace(MINUTELY, catchup=True), tasks=EMPTY)
    book.after(30)
    book.pause()
    book.after(300).expect()
    book.unpause()
    assert book.slots() == [f"12:{minute:02}:00" for minute in range(1, 7)]


def test_a_dag_that_never_ran_counts_from_its_unpause() -> None:
    book = scheduled(is_paused_upon_creation=True)
    book.after(300).expect()
    book.unpause().expect("unpause dag", wake_in=30)
    assert book.slots() == []


def test_new_dags_are_paused_where_the_configuration_says_so() -> None:
    book = Playbook("a", schedule_rules=ScheduleRules(dags_are_paused_at_creation=True))
    book.dag("a", dag_id="own", is_paused_upon_creation=False)
    assert {dag_id: row.is_paused for dag_id, row in book.store.dag_states.items()} == {"dag": True, "own": False}
    book.start("dag").expect()
    book.start("own").expect("launch 2/a")
    book.dag("a >> b")
    assert book.engine.dags["dag"].is_paused, "a new version of a DAG changes nothing"


def test_pausing_twice_or_nothing() -> None:
    book = scheduled()
    book.unpause().expect_nothing()
    book.pause().expect("pause dag")
    book.pause().expect_nothing()
    done = book.when(commands.PauseDag(dag_id="dag", request_id=7)).writes
    assert [write.row for write in done] and "command" in repr(done[0].row)
    with pytest.raises(NotFound, match="no DAG 'nothing'"):
        book.pause("nothing")


def test_so_many_failures_in_a_row_pause_the_dag() -> None:
    book = scheduled(max_consecutive_failed_dag_runs=2)
    book.after(30)
    book.finish("a", "failed").expect("run failed")
    book.after(60)
    book.finish("2/a").expect("run 2 success")  # counted anew
    book.after(60)
    book.finish("3/a", "failed").expect("run 3 failed")
    book.restart().expect()
    book.after(60)
    book.finish("4/a", "failed").expect("run 4 failed", "pause dag")
    book.after(600).expect()
    book.unpause()
    book.finish("5/a", "failed").expect("run 5 failed")
    assert not book.engine.dags["dag"].is_paused


def test_the_configuration_can_ask_for_it_too() -> None:
    book = Playbook("a", limits=Limits(max_consecutive_failed_dag_runs_per_dag=1))
    book.dag("a", dag_id="own", max_consecutive_failed_dag_runs=0)
    for dag_id in ("own", "dag"):
        book.start(dag_id)
    book.finish("1/a", "failed").expect("run 1 failed")
    book.finish("2/a", "failed").expect("run 2 failed", "pause dag")


def test_dates_bound_the_schedule() -> None:
    start = datetime(2026, 11, 22, 12, 2, tzinfo=UTC)
    book = scheduled(cron("* * * * *", start_at=start, end_at=start + timedelta(minutes=1)), tasks=EMPTY)
    for _ in range(4):
        book.after(60)
    assert book.slots() == ["12:02:00", "12:03:00"]
    assert [each.code for each in explain_schedule(book.engine, "dag", book.clock.now())] == ["schedule_over"]


def test_a_run_by_hand_for_a_date_has_the_interval_of_its_schedule() -> None:
    book = scheduled(cron("0 0 * * *", has_intervals=True, start_at=START + timedelta(days=30)))
    for number, asked in enumerate((datetime(2026, 11, 20, 6, tzinfo=UTC), None), 1):
        book.start(logical_date=asked)
        row = book.run(number)
        found = (row.data_interval_start, row.data_interval_end, row.run_after)
        days = (datetime(2026, 11, 19, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC))
        assert found == ((*days, None) if asked is not None else (None, None, None))


def test_a_clock_that_is_set_back_while_the_timer_rings_loses_no_slot() -> None:
    with mock.patch.object(engine_module, "AGENDA_SLICE", 1):
        book = scheduled()
        book.parse(make_dag("a", dag_id="other", schedule=MINUTELY))
        book.clock.advance(30)
        book.when(events.TimePassed(), drain=False)  # one of two slots is looked at
        book.clock.advance(-20)
        while book.engine.step(events.WorkContinued(), book.clock.now()).more:
            pass
        assert {dag.armed_at for dag in book.engine.dags.values()} == {START + timedelta(minutes=1)}
        assert book.engine.timers.next_due_at() == START + timedelta(minutes=1)
