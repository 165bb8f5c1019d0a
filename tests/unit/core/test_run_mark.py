"""Whole runs that somebody declares done or gives up, as the engine sees them."""

from __future__ import annotations

import pytest

from tests.support.playbook import Outcome, Playbook
from tickless.core.commands import MarkRun
from tickless.core.explain import explain_run
from tickless.core.revision import RowsBehind
from tickless.errors import Refused
from tickless.model.id import RunKey
from tickless.model.state import RunState

SUCCESS, FAILED = RunState.SUCCESS, RunState.FAILED


def mark(book: Playbook, state: RunState, run: int = 1) -> Outcome:
    key = RunKey(run)
    finished = None if key in book.engine.runs else book.store.runs[key]
    return book.when(MarkRun(run=key, state=state, finished=finished))


def test_a_run_declared_done_stops_what_runs_and_succeeds_with_its_last_process() -> None:
    book = Playbook("a >> b; c")
    book.start()
    book.begin("a")
    book.begin("c")
    mark(book, SUCCESS).expect("stop a for marked_success", "stop c for marked_success")
    assert book.state("b") == "success"
    book.restart().expect("stop a for marked_success", "stop c for marked_success")
    book.finish("a", "failed", reason="marked_success").expect()
    book.finish("c", "failed", reason="marked_success").expect("run success")
    assert book.states(1) == {"a": "success", "b": "success", "c": "success"}
    assert book.is_idle


def test_a_run_given_up_fails_what_runs_and_skips_the_rest() -> None:
    book = Playbook("a >> b; c", retries=3)
    book.start()
    book.finish("c")
    mark(book, FAILED).expect("stop a for marked_failed")
    book.finish("a").expect("run failed")
    assert book.states(1) == {"a": "failed", "b": "skipped", "c": "success"}


def test_a_success_in_spite_of_a_failure_stays_one_when_it_is_read_back() -> None:
    book = Playbook("a; b")
    book.start()
    book.finish("a", "failed")
    book.begin("b")
    mark(book, SUCCESS).expect("stop b for marked_success")
    book.restart().expect("stop b for marked_success")
    book.finish("b", "failed", reason="marked_success").expect("run success")
    assert book.states(1)["a"] == "failed", "what was finished stays as it was"


@pytest.mark.parametrize("state", [SUCCESS, FAILED])
def test_a_queued_run_ends_without_a_task(state: RunState) -> None:
    book = Playbook("a", max_active_runs=1)
    book.start()
    book.start(run_id="second")
    mark(book, state, 2).expect(f"run 2 {state}")
    book.finish("1/a").expect("run 1 success")
    assert book.is_idle


@pytest.mark.parametrize(("first", "then"), [("success", FAILED), ("failed", SUCCESS)])
def test_a_finished_run_changes_its_state_and_a_clear_takes_that_back(first: str, then: RunState) -> None:
    book = Playbook("a")
    book.start()
    book.finish("a", first).expect(f"run {first}")
    mark(book, then).expect(f"run {then}")
    assert book.runs() == [then.value]
    book.alter("clear", "a").expect("launch a try 2")
    book.finish("a", first).expect(f"run {first}")


def test_a_mark_that_changes_nothing_writes_nothing() -> None:
    book = Playbook("a")
    book.start()
    book.finish("a")
    mark(book, SUCCESS).expect()
    assert book.store.runs[RunKey(1)].cancel_reason is None


def test_a_run_that_is_being_ended_already_is_left_alone_and_one_that_has_just_ended_is_read_again() -> None:
    book = Playbook("a")
    book.start()
    book.cancel()
    with pytest.raises(Refused, match="being ended already"):
        mark(book, SUCCESS)
    book.finish("a", "failed", reason="stopped")
    with pytest.raises(RowsBehind):
        book.engine.step(MarkRun(run=RunKey(1), state=SUCCESS), book.clock.now())


def test_why_says_that_somebody_marked_it() -> None:
    book = Playbook("a")
    book.start()
    mark(book, SUCCESS)
    reasons = explain_run(book.engine, book.engine.runs[RunKey(1)], book.clock.now())
    assert any("somebody declared the run done" in reason.message for reason in reasons)


def test_a_frozen_run_can_be_given_up() -> None:
    book = Playbook("a")
    book.start()
    book.freeze()
    mark(book, FAILED)
    book.finish("a", "failed", reason="marked_failed").expect("run failed")
