"""The engine on its main paths, as scripts of events."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.playbook import Playbook
from tickless.core import commands, events
from tickless.core.engine import ADMISSION_SLICE, AGENDA_SLICE
from tickless.errors import NotFound, Refused
from tickless.model.dag import DagSpec
from tickless.model.limit import Limits, Routing
from tickless.model.report import Finished, Lost, Started
from tickless.model.state import AttemptState, EndReason, RunState


def test_a_chain_runs_in_order_and_ends_its_run() -> None:
    book = Playbook("a >> b >> c")
    book.start().expect("launch a")
    book.begin("a").expect()
    book.finish("a").expect("launch b")
    book.finish("b").expect("launch c")
    book.finish("c").expect("run success")
    assert book.states() == {"a": "success", "b": "success", "c": "success"}
    assert book.is_idle


def test_downstream_waits_for_the_upstream_retry() -> None:
    book = Playbook("a >> b", retries=1, retry_delay=60)
    book.start().expect("launch a")
    book.finish("a", "failed").expect(wake_in=60)
    book.after(59).expect(wake_in=1)
    book.after(1).expect("launch a try 2")
    book.finish("a").expect("launch b")
    book.finish("b").expect("run success")


def test_a_restart_in_each_state_goes_on_where_it_was() -> None:
    book = Playbook("a >> b", retries=1, retry_delay=60)
    book.restart().expect()
    book.start()
    book.restart().expect("launch a")
    book.begin("a")
    book.restart().expect()
    book.finish("a", "failed")
    book.restart().expect(wake_in=60)
    book.after(60).expect("launch a try 2")
    book.finish("a")
    book.restart().expect("launch b")
    book.finish("b").expect("run success")
    book.restart().expect()
    assert book.is_idle


# ---- attempts and their ends -------------------------------------------------------------------------------------


def test_a_task_without_tries_left_fails_its_run() -> None:
    book = Playbook("a >> b", retries=1, retry_delay=5)
    book.start()
    book.finish("a", "failed")
    book.after(5).expect("launch a try 2")
    book.finish("a", "failed").expect("run failed")
    assert book.states() == {"a": "failed", "b": "upstream_failed"}


def test_a_timeout_stops_the_attempt_and_its_slots_stay_taken_until_it_ends() -> None:
    book = Playbook("a; b", timeout=30, limits=Limits(parallelism=1))
    book.start().expect("launch a")
    book.begin("a").expect(wake_in=30)
    book.after(30).expect("stop a for timeout")
    assert book.engine.parallelism.used == 1
    book.finish("a", "failed", reason=EndReason.TIMEOUT).expect("launch b")
    assert book.row("a").reason == "timeout"


def test_the_timeout_counts_from_the_start_not_from_the_queueing() -> None:
    book = Playbook("a", timeout=30)
    book.start()
    book.after(100).expect()
    book.begin("a").expect(wake_in=30)


def test_a_timeout_survives_a_restart() -> None:
    book = Playbook("a", timeout=30)
    book.start()
    book.begin("a")
    book.clock.advance(10)
    book.restart().expect(wake_in=20)
    book.after(20).expect("stop a for timeout")
    book.restart().expect("stop a for timeout")


def test_the_timeout_of_an_attempt_that_has_ended_does_nothing() -> None:
    book = Playbook("a", timeout=30, retries=1, retry_delay=100)
    book.start()
    book.begin("a")
    book.finish("a", "failed")
    book.after(30).expect_nothing()


def test_a_timed_out_try_is_retried() -> None:
    book = Playbook("a", timeout=30, retries=1, retry_delay=5)
    book.start()
    book.begin("a")
    book.after(30)
    book.finish("a", "failed", reason=EndReason.TIMEOUT).expect(wake_in=5)
    book.after(5).expect("launch a try 2")


def test_a_lost_attempt_is_run_again_without_spending_a_try() -> None:
    book = Playbook("a", limits=Limits(max_lost_attempts=2))
    book.start().expect("launch a")
    book.lose("a").expect("launch a")
    book.begin("a")
    book.lose("a").expect("launch a")
    assert book.row("a").lost_count == 2
    assert book.row("a").try_number == 1
    book.lose("a").expect("run failed")
    assert book.row("a").reason == "lost"
    assert [row.state.value for row in book.attempts("a")] == ["lost"] * 3


def test_the_count_of_lost_attempts_starts_afresh_with_each_try() -> None:
    book = Playbook("a", retries=1, retry_delay=5, limits=Limits(max_lost_attempts=1))
    book.start()
    book.lose("a").expect("launch a")
    book.lose("a").expect(wake_in=5)
    book.after(5).expect("launch a try 2")
    book.lose("a").expect("launch a try 2")
    book.finish("a").expect("run success")


def test_a_task_stopped_together_with_its_launcher_is_run_again_for_ever() -> None:
    book = Playbook("a", limits=Limits(max_lost_attempts=0))
    book.start()
    for _ in range(3):
        book.finish("a", "failed", reason=EndReason.STOPPED).expect("launch a")
    assert book.row("a").lost_count == 0


def test_finished_without_started_is_enough() -> None:
    book = Playbook("a >> b")
    book.start()
    at = book.clock.now()
    book.finish("a", started_at=at, pid=7, host="h", exit_code=0).expect("launch b")
    row = book.attempts("a")[0]
    assert (row.state, row.started_at, row.pid, row.host, row.exit_code) == ("success", at, 7, "h", 0)
    assert book.row("a").started_at == at


def test_a_skipped_task_skips_its_downstream() -> None:
    book = Playbook("a >> b")
    book.start()
    book.finish("a", "skipped").expect("run success")
    assert book.states() == {"a": "skipped", "b": "skipped"}


def test_the_output_of_a_successful_attempt_is_written_with_its_end() -> None:
    book = Playbook("a; b")
    book.start()
    book.finish("a", output='{"n": 1}')
    book.finish("b", "failed", output="2")
    assert {key[0].task_id: row.value for key, row in book.store.xcoms.items()} == {"a": '{"n": 1}'}


# ---- late and doubled input --------------------------------------------------------------------------------------


def test_late_and_doubled_reports_are_stale_and_acknowledged() -> None:
    book = Playbook("a >> b")
    book.start()
    started, finished = book.started("a"), book.finished("a")
    lost = Lost(attempt_id=started.attempt_id, at=book.clock.now(), why="?")
    book.when(started).expect()
    book.when(started).expect_nothing(stale=1)
    book.when(finished).expect("ack a", "launch b", acks=True)
    for late in (finished, lost):
        outcome = book.when(late)
        outcome.expect_nothing(stale=1)
        outcome.expect("ack a", acks=True, stale=1)
    book.when(started).expect_nothing(stale=1)


def test_a_late_report_of_a_lost_attempt_is_stale() -> None:
    book = Playbook("a >> b")
    book.start()
    late = book.finished("a")
    book.lose("a").expect("launch a")
    book.when(late).expect_nothing(stale=1)
    book.when(Started(attempt_id=late.attempt_id, at=late.at, pid=1, host="h")).expect_nothing(stale=1)
    book.finish("a").expect("launch b")


def test_a_report_of_an_attempt_that_never_was_is_stale_and_acknowledged() -> None:
    book = Playbook("a")
    book.start()
    report = Finished(attempt_id=12345, at=book.clock.now(), state=AttemptState.SUCCESS, reason=EndReason.EXITED)
    book.when(report).expect("ack 12345", acks=True, stale=1)


def test_time_passing_and_work_continued_are_harmless_at_any_moment() -> None:
    book = Playbook("a >> b", retries=1)
    reports = (lambda: book.started("a"), lambda: book.finished("a", "failed"))
    book.start()
    for report in reports:
        book.when(report())
        book.when(events.TimePassed()).expect_nothing()
        book.when(events.WorkContinued()).expect_nothing()


# ---- ends of runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "tasks", "ends", "expected"),
    [
        ("a >> b", {}, {"a": "success", "b": "failed"}, "failed"),
        ("a >> b", {"b": {"rule": "all_done"}}, {"a": "failed", "b": "success"}, "success"),
        ("a >> b", {"b": {"rule": "one_failed"}}, {"a": "success"}, "success"),  # b is skipped
        ("a >> b", {}, {"a": "failed"}, "failed"),  # b is upstream_failed, and a leaf
        ("a; b", {}, {"a": "success", "b": "failed"}, "failed"),
        ("a; b", {}, {"a": "success", "b": "skipped"}, "success"),
        ("a >> [b, c]", {"c": {"rule": "all_done"}}, {"a": "success", "b": "success", "c": "failed"}, "failed"),
    ],
)
def test_the_leaves_decide_how_a_run_ends(
    shape: str, tasks: dict[str, dict[str, str]], ends: dict[str, str], expected: str
) -> None:
    book = Playbook(shape, tasks=tasks)
    book.start()
    for task, state in ends.items():
        book.finish(task, state)
    assert book.runs() == [expected]
    assert book.is_idle


def test_a_dag_of_empty_tasks_ends_in_its_first_step() -> None:
    book = Playbook("a >> [b, c] >> d", empty=True)
    book.start().expect("run success")
    assert set(book.states().values()) == {"success"}
    assert book.store.attempts == {}


def test_a_dag_without_tasks_ends_in_its_first_step() -> None:
    book = Playbook()
    book.parse(DagSpec.build(dag_id="dag", tasks=[]))
    book.start().expect("run success")
    assert book.is_idle


def test_an_empty_task_waits_for_its_upstream() -> None:
    book = Playbook("a >> b >> c", tasks={"b": {"empty": True}})
    book.start().expect("launch a")
    book.finish("a").expect("launch c")
    book.finish("c").expect("run success")


# ---- cancel ------------------------------------------------------------------------------------------------------


def test_cancel_stops_what_runs_and_skips_the_rest() -> None:
    book = Playbook("a >> b; c; d", retries=1, retry_delay=60, limits=Limits(dag_concurrency=2))
    book.start().expect("launch a", "launch c")
    book.begin("a")
    book.finish("c", "failed").expect("launch d")
    book.cancel().expect("stop a for stopped", "stop d for stopped")
    assert book.states() == {"a": "running", "b": "skipped", "c": "skipped", "d": "queued"}
    book.cancel().expect()
    book.after(60).expect()
    book.finish("a", "failed", reason=EndReason.STOPPED).expect()
    book.finish("d", "failed", reason=EndReason.STOPPED).expect("run failed")
    assert book.is_idle


def test_a_cancelled_run_fails_even_if_its_tasks_succeed() -> None:
    book = Playbook("a >> b")
    book.start()
    book.cancel().expect("stop a for stopped")
    book.finish("a").expect("run failed")
    assert book.states() == {"a": "success", "b": "skipped"}


def test_a_queued_run_is_cancelled_at_once() -> None:
    book = Playbook("a", max_active_runs=1)
    book.start_many(3)
    book.cancel(2).expect("run 2 failed")
    book.finish("1/a").expect("run 1 success", "launch 3/a")


def test_a_run_that_waits_for_slots_only_ends_at_once_when_cancelled() -> None:
    book = Playbook("a >> b; c", pool="shut", pools={"shut": 0})
    book.start().expect()
    book.cancel().expect("run failed")
    assert set(book.states().values()) == {"skipped"}


def test_a_lost_attempt_of_a_cancelled_run_is_not_run_again() -> None:
    book = Playbook("a")
    book.start()
    book.cancel()
    book.lose("a").expect("run failed")
    assert book.state("a") == "failed"


def test_cancel_of_a_finished_or_unknown_run_is_refused() -> None:
    book = Playbook("a", empty=True)
    book.start()
    for run in (1, 2):
        with pytest.raises(Refused):
            book.cancel(run)


def test_a_cancel_goes_on_after_a_restart() -> None:
    book = Playbook("a >> b; c", limits=Limits(parallelism=1))
    book.start().expect("launch a")
    book.cancel()
    book.restart().expect("launch a", "stop a for stopped")
    book.finish("a").expect("run failed")


# ---- many at once ------------------------------------------------------------------------------------------------


def test_a_wide_dag_is_made_in_bounded_steps() -> None:
    width = 1_000
    book = Playbook(
        "; ".join(f"t{n}" for n in range(width)),
        limits=Limits(dag_concurrency=width, parallelism=width),
        routing=Routing(executors={"local": width}),
        pools={"default_pool": width},
    )
    outcome = book.start()
    assert len(outcome.launched) == width
    for decision in outcome.decisions:
        assert len(decision.writes) <= 2 * ADMISSION_SLICE + AGENDA_SLICE + 1  # the run's own row
    assert len(outcome.decisions) > 3


def test_other_events_have_their_turn_while_a_wide_dag_is_made() -> None:
    book = Playbook("; ".join(f"t{n}" for n in range(1_000)), empty=True)
    book.dag("quick", dag_id="other", empty=True)
    book.start(drain=False).expect()
    book.start("other", drain=False).expect("run 2 success")


def test_a_wide_fan_in_and_out_ends() -> None:
    names = ", ".join(f"t{n}" for n in range(700))
    book = Playbook(f"first >> [{names}] >> last", empty=True)
    book.start().expect("run success")
    assert book.is_idle


def test_a_wide_dag_is_finished_after_a_restart_half_way() -> None:
    book = Playbook("; ".join(f"t{n}" for n in range(1_000)), empty=True)
    book.start(drain=False)
    assert 0 < book.run().created_upto < 1_000
    book.restart().expect("run success")


def test_a_cancel_half_way_through_the_making_skips_the_rest() -> None:
    book = Playbook("; ".join(f"t{n}" for n in range(1_000)), pool="shut", pools={"shut": 0})
    book.start(drain=False)
    book.cancel().expect("run failed")
    assert set(book.states().values()) == {"skipped"}
    assert len(book.states()) == 1_000


def test_many_retries_due_at_once_are_bounded_per_step() -> None:
    width = 1_000
    book = Playbook(
        "; ".join(f"t{n}" for n in range(width)),
        retries=1,
        retry_delay=60,
        limits=Limits(dag_concurrency=width, parallelism=width),
        routing=Routing(executors={"local": width}),
        pools={"default_pool": width},
    )
    book.start()
    book.finish_all([f"t{n}" for n in range(width)], "failed")
    book.clock.advance(60)
    outcome = book.when(events.TimePassed())
    assert len(outcome.launched) == width
    for decision in outcome.decisions:
        assert len(decision.writes) <= 2 * ADMISSION_SLICE + AGENDA_SLICE


def test_an_attempt_whose_run_is_over_is_stopped_at_each_restart_until_it_ends() -> None:
    book = Playbook("a")
    book.start()
    row = book.run()
    book.store.runs[row.key] = replace(row, state=RunState.FAILED)  # an operator's hand UPDATE
    book.restart().expect("stop a for stopped")
    book.restart().expect("stop a for stopped")
    assert book.engine.parallelism.used == 1
    book.finish("a").expect()
    assert book.is_idle


# ---- DAGs and their versions -------------------------------------------------------------------------------------


def test_a_run_is_pinned_to_the_version_it_started_with() -> None:
    book = Playbook("a >> b")
    book.start()
    book.dag("a >> c")
    book.finish("a").expect("launch b")
    book.start(run_id="second").expect("launch 2/a")
    book.restart()
    book.finish("1/b").expect("run 1 success")
    book.finish("2/a").expect("launch 2/c")
    assert [row.number for row in book.store.versions.values()] == [1, 2]


def test_the_same_dag_parsed_again_makes_no_version() -> None:
    book = Playbook("a >> b")
    book.dag("a >> b").expect_nothing()


def test_a_vanished_dag_starts_no_run_but_its_live_runs_go_on() -> None:
    book = Playbook("a >> b")
    book.start()
    book.when(events.DagVanished(dag_id="dag")).expect()
    book.when(events.DagVanished(dag_id="dag")).expect_nothing()
    with pytest.raises(NotFound):
        book.start(run_id="second")
    book.restart()
    book.finish("a").expect("launch b")
    book.dag("a")
    assert [row.number for row in book.store.versions.values()] == [1, 2]
    book.start(run_id="third").expect("launch 2/a")


def test_a_dag_that_comes_back_unchanged_gets_a_new_number() -> None:
    book = Playbook("a")
    book.when(events.DagVanished(dag_id="dag"))
    book.restart()
    book.dag("a")
    assert [row.number for row in book.store.versions.values()] == [1, 2]


def test_a_vanished_dag_keeps_its_max_active_runs() -> None:
    book = Playbook("a", max_active_runs=1)
    book.start_many(3)
    book.when(events.DagVanished(dag_id="dag")).expect()
    book.reload().expect()
    book.restart().expect("launch 1/a")
    book.finish("1/a").expect("run 1 success", "launch 2/a")


# ---- starting runs -----------------------------------------------------------------------------------------------


def test_an_idempotency_key_gives_the_same_run() -> None:
    book = Playbook("a")
    first = book.start(idempotency_key="k", request_id=1).reply
    again = book.start(idempotency_key="k", request_id=2).reply
    assert isinstance(first, commands.RunStarted) and isinstance(again, commands.RunStarted)
    assert (first.run, first.is_new) == (again.run, True)
    assert not again.is_new
    assert [done.run for done in book.store.done.values()] == [1, 1]
    book.restart()
    third = book.start(idempotency_key="k").reply
    assert isinstance(third, commands.RunStarted) and not third.is_new


def test_a_run_id_in_use_is_refused_and_nothing_changes() -> None:
    book = Playbook("a")
    book.start(run_id="x")
    with pytest.raises(Refused):
        book.start(run_id="x")
    assert book.runs() == ["running"]
    book.start(run_id="y").expect("launch 2/a")


def test_run_ids_made_in_the_same_instant_differ() -> None:
    book = Playbook("a")
    book.start()
    book.start()
    assert len({row.run_id for row in book.store.runs.values()}) == 2


def test_a_run_of_an_unknown_dag_is_refused() -> None:
    with pytest.raises(NotFound):
        Playbook().start("nowhere")


def test_run_keys_go_on_after_a_restart() -> None:
    book = Playbook("a", empty=True)
    book.start()
    book.restart()
    book.clock.advance(1)
    book.start()
    assert sorted(book.store.runs) == [1, 2]


# ---- the end of the daemon ---------------------------------------------------------------------------------------


def test_nothing_is_admitted_after_stop_admitting() -> None:
    book = Playbook("a >> b; c", retries=1, retry_delay=5, limits=Limits(dag_concurrency=1), max_active_runs=1)
    book.start(run_id="1").expect("launch a")
    book.start(run_id="2").expect()
    book.when(commands.StopAdmitting()).expect()
    book.finish("1/a").expect()
    book.after(60).expect()
    book.set_pool("default_pool", 1000).expect()
    book.reload(Limits(dag_concurrency=1, parallelism=99)).expect()
    book.start(run_id="3").expect()
    book.lose("1/a").expect(stale=1)
    book.restart().expect("launch 1/c")


# ---- frozen runs -------------------------------------------------------------------------------------------------


def test_a_frozen_run_schedules_nothing_but_takes_ends() -> None:
    book = Playbook("a >> b; c; d", retries=1, retry_delay=5, limits=Limits(dag_concurrency=2))
    book.start().expect("launch a", "launch c")
    book.freeze().expect("launch a", "launch c")
    book.finish("a").expect()
    book.finish("c", "failed").expect()
    book.after(60).expect()
    assert book.states() == {"a": "success", "b": "none", "c": "failed", "d": "scheduled"}
    book.cancel().expect("run failed")
    assert book.is_idle


def test_a_frozen_run_whose_tasks_all_ended_ends_by_its_cancel() -> None:
    book = Playbook("a")
    book.start()
    book.freeze()
    book.finish("a").expect()
    assert book.runs() == ["running"]
    book.cancel().expect("run failed")
    assert book.is_idle


def test_a_frozen_and_cancelled_run_ends_after_a_restart() -> None:
    book = Playbook("a >> b")
    book.start()
    book.cancel()
    book.freeze().expect("launch a", "stop a for stopped")
    book.finish("a").expect("run failed")


def test_a_frozen_queued_run_does_not_start_and_holds_up_nobody() -> None:
    book = Playbook("a", max_active_runs=1)
    book.start_many(3)
    book.freeze(2).expect("launch 1/a")
    book.finish("1/a").expect("run 1 success", "launch 3/a")
    assert book.runs() == ["success", "queued", "running"]
    book.cancel(2).expect("run 2 failed")
    book.finish("3/a").expect("run 3 success")
    assert book.is_idle


def test_a_run_frozen_half_way_through_its_making_ends_by_its_cancel() -> None:
    book = Playbook("; ".join(f"t{n}" for n in range(1_000)), pool="shut", pools={"shut": 0})
    book.start(drain=False)
    book.freeze().expect()
    assert 0 < book.run().created_upto < 1_000
    book.cancel().expect("run failed")
    assert len(book.in_state("skipped")) == 1_000
