"""Clear and mark, as the engine sees them. `Playbook.alter` reads the rows as the shell does."""

from __future__ import annotations

from unittest import mock

import pytest

from tests.support.playbook import Playbook
from tickless.core import commands
from tickless.core import engine as engine_module
from tickless.core.commands import AlterTasks, TaskVerb
from tickless.core.revision import RowsBehind
from tickless.errors import Refused
from tickless.model.id import RunKey


def test_a_cleared_task_of_a_finished_run_runs_again_and_its_downstream_with_it() -> None:
    book = Playbook("a >> b; c")
    book.start()
    book.finish("a", "failed")
    book.finish("c").expect("run failed")
    book.alter("clear", "a", "b").expect("launch a try 2")
    assert book.runs() == ["running"]
    assert (book.state("b"), book.state("c"), book.row("c").try_number) == ("none", "success", 1)
    book.finish("a").expect("launch b")
    book.finish("b").expect("run success")
    assert book.is_idle


def test_a_clear_gives_back_all_retries_and_numbers_go_on() -> None:
    book = Playbook("a", retries=1, retry_delay=0)
    book.start()
    book.finish("a", "failed")
    book.after(0).expect("launch a try 2")
    book.finish("a", "failed").expect("run failed")
    book.alter("clear", "a").expect("launch a try 3")
    book.finish("a", "failed").expect()
    book.restart()
    book.after(0).expect("launch a try 4")
    book.finish("a", "failed").expect("run failed")


def test_a_cleared_running_task_runs_again_only_after_its_process_has_ended() -> None:
    book = Playbook("a >> b")
    book.start()
    book.begin("a")
    book.alter("clear", "a").expect("stop a for cleared")
    assert book.state("a") == "restarting"
    book.restart().expect("stop a for cleared")
    book.alter("clear", "a").expect()
    book.finish("a", "failed", reason="cleared").expect("launch a try 2")
    assert [row.state for row in book.attempts("a")] == ["failed", "queued"]
    book.finish("a").expect("launch b")


def test_even_a_success_that_came_before_the_stop_is_not_taken_for_one() -> None:
    book = Playbook("a >> b")
    book.start()
    book.alter("clear", "a").expect("stop a for cleared")
    book.finish("a", output="1").expect("launch a try 2")
    assert book.store.xcoms == {}


def test_a_clear_takes_back_what_the_task_has_handed_on() -> None:
    book = Playbook("a")
    book.start()
    book.finish("a", output="1").expect("run success")
    assert len(book.store.xcoms) == 1
    book.alter("clear", "a")
    assert book.store.xcoms == {}


def test_a_task_that_waits_for_a_slot_waits_for_its_upstream_again() -> None:
    book = Playbook("a >> b", pools={"none": 0}, tasks={"b": {"pool": "none"}})
    book.start()
    book.finish("a").expect()
    assert book.state("b") == "scheduled"
    book.alter("clear", "a", "b").expect("launch a try 2")
    assert book.state("b") == "none"
    book.set_pool("none", 1).expect()
    book.finish("a").expect("launch b try 2")


def test_a_cleared_run_waits_for_its_turn_and_restores_as_queued() -> None:
    book = Playbook("a", max_active_runs=1)
    book.start().expect("launch a")
    book.finish("a").expect("run success")
    book.start(run_id="second").expect("launch 2/a")
    book.alter("clear", "1/a").expect()
    assert book.runs() == ["queued", "running"]
    book.restart()
    book.finish("2/a").expect("run 2 success", "launch 1/a try 2")


def test_a_queued_cleared_run_can_be_cancelled() -> None:
    book = Playbook("a >> b", max_active_runs=1)
    book.start()
    book.finish("a")
    book.finish("b").expect("run success")
    book.start(run_id="second")
    book.alter("clear", "1/a", "1/b")
    book.cancel(1).expect("run 1 failed")
    assert book.states(1) == {"a": "skipped", "b": "skipped"}


def test_a_cancelled_run_can_be_cleared_and_succeeds() -> None:
    book = Playbook("a")
    book.start()
    book.cancel()
    book.finish("a", "failed", reason="stopped").expect("run failed")
    book.alter("clear", "a").expect("launch a try 2")
    book.finish("a").expect("run success")


def test_a_run_that_is_cleared_the_moment_it_is_cancelled_is_not_ended_twice() -> None:
    with mock.patch.object(engine_module, "AGENDA_SLICE", 1):
        book = Playbook("a", queue="nowhere")
        book.start()
        book.when(commands.CancelRun(run=RunKey(1)), drain=False)
        assert book.runs() == ["failed"]
        book.alter("clear", "a").expect()
        assert book.runs() == ["running"]


def test_a_running_task_marked_success_is_stopped_and_only_then_let_its_downstream_go() -> None:
    book = Playbook("a >> b")
    book.start()
    book.begin("a")
    book.alter("mark_success", "a").expect("stop a for marked_success")
    book.restart().expect("stop a for marked_success")
    book.finish("a", "failed", reason="marked_success").expect("launch b")
    assert book.state("a") == "success"


def test_a_running_task_marked_failed_is_not_tried_again() -> None:
    book = Playbook("a", retries=3)
    book.start()
    book.alter("mark_failed", "a").expect("stop a for marked_failed")
    book.finish("a", "failed", reason="marked_failed").expect("run failed")


def test_of_clear_and_mark_the_latest_wish_stands() -> None:
    book = Playbook("a")
    book.start()
    book.alter("mark_failed", "a").expect("stop a for marked_failed")
    book.alter("clear", "a").expect()
    book.finish("a", "failed", reason="marked_failed").expect("launch a try 2")


def test_what_waits_below_a_marked_task_is_looked_at_again() -> None:
    book = Playbook("[a, b] >> c; a >> d", tasks={"c": {"rule": "one_failed"}})
    book.start()
    book.finish("a").expect("launch d")
    book.alter("mark_failed", "a").expect("launch c")


@pytest.mark.parametrize(("verb", "end"), [("mark_success", "success"), ("mark_failed", "failed")])
def test_a_finished_run_is_judged_anew_when_a_task_of_it_is_marked(verb: str, end: str) -> None:
    book = Playbook("a >> b")
    book.start()
    book.finish("a")
    book.finish("b", "failed" if end == "success" else "success")
    book.alter(verb, "b").expect(f"run {end}")
    assert (book.runs(), book.is_idle) == ([end], True)


def test_all_tasks_of_a_live_run_can_be_marked_at_once() -> None:
    book = Playbook("a >> b >> c; d")
    book.start()
    book.finish("a", "failed")
    book.begin("d")
    book.alter("mark_success", "a", "b", "c", "d").expect("stop d for marked_success")
    book.finish("d", "failed", reason="marked_success").expect("run success")


@pytest.mark.parametrize("what", ["a run", "a task"])
def test_rows_that_are_behind_change_nothing(what: str) -> None:
    book = Playbook("a" if what == "a run" else "a; b")
    book.start()
    row = book.row("a")
    book.finish("a")
    with pytest.raises(RowsBehind):
        book.engine.step(AlterTasks(verb=TaskVerb.CLEAR, run=RunKey(1), rows=(row,)), book.clock.now())
    assert book.alter("clear", "a").launched == ["a"]


def test_rows_that_a_mark_has_overtaken_are_refused() -> None:
    book = Playbook("a; b")
    book.start()
    book.finish("a")
    row = book.row("a")
    book.alter("mark_failed", "a")
    with pytest.raises(RowsBehind):
        book.engine.step(AlterTasks(verb=TaskVerb.CLEAR, run=RunKey(1), rows=(row,)), book.clock.now())
    assert book.alter("clear", "a").launched == ["a"]


@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_run_that_is_being_cancelled_or_was_frozen_is_left_alone(is_frozen: bool) -> None:
    book = Playbook("a")
    book.start()
    if is_frozen:
        book.freeze()
    else:
        book.cancel()
    with pytest.raises(Refused):
        book.alter("clear", "a")
