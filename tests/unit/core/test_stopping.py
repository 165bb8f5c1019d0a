"""Runs that end before their time: dagrun_timeout and fail_fast, each rule a row or a short play."""

from __future__ import annotations

from unittest import mock

import pytest

from tests.support.builders import make_dag
from tests.support.playbook import Playbook
from tickless.core import engine as engine_module
from tickless.core import events
from tickless.core.explain import explain_run
from tickless.errors import UserError
from tickless.model.limit import Limits

# ---- dagrun_timeout --------------------------------------------------------------------------------------------------


def test_a_run_that_takes_too_long_fails() -> None:
    book = Playbook("a >> b; c", dagrun_timeout=100, tasks={"c": {"retries": 1, "retry_delay": 500}})
    book.start().expect("launch a", "launch c", wake_in=100)
    book.finish("c", "failed").expect(wake_in=100)
    book.after(100).expect("stop a for stopped")
    assert book.states() == {"a": "queued", "b": "skipped", "c": "skipped"}
    assert book.runs() == ["running"]  # the process of a is still alive
    book.finish("a", "failed", reason="stopped").expect("run failed")
    assert book.states()["a"] == "failed"
    assert book.run().cancel_reason == "dagrun_timeout: it has been running for 100 s"
    assert book.row("b").reason == book.run().cancel_reason
    assert book.is_idle


def test_the_time_counts_from_the_start_of_the_run_not_from_its_creation() -> None:
    book = Playbook("a", dagrun_timeout=100, max_active_runs=1)
    book.start()
    book.start()
    book.after(60).expect()
    book.finish("1/a").expect("run 1 success", "launch 2/a")
    book.after(60).expect()
    book.after(40).expect("stop 2/a for stopped")


def test_a_run_that_has_ended_in_time_is_left_alone() -> None:
    book = Playbook("a", dagrun_timeout=100)
    book.start()
    book.finish("a").expect("run success")
    book.after(100).expect_nothing()


@pytest.mark.parametrize("seconds_down", [0, 10, 1000])
def test_a_restart_changes_nothing_about_the_time(seconds_down: float) -> None:
    book = Playbook("a", dagrun_timeout=100)
    book.start()
    book.begin("a")
    book.clock.advance(seconds_down)
    book.restart().expect(wake_in=100 - seconds_down)
    book.after(max(0, 100 - seconds_down)).expect("stop a for stopped")


def test_the_end_of_a_large_run_is_bounded_and_goes_on_after_a_crash() -> None:
    names = ", ".join(f"t{number}" for number in range(30))
    with mock.patch.object(engine_module, "AGENDA_SLICE", 10):
        book = Playbook(f"[{names}]", dagrun_timeout=100, limits=Limits(parallelism=0))
        book.start()
        book.clock.advance(100)
        first = book.when(events.TimePassed(), drain=False)
        assert first.decisions[-1].more
        assert len(first.writes) <= 12
        book.restart().expect("run failed")
    assert set(book.states().values()) == {"skipped"}


def test_why_names_the_timeout() -> None:
    book = Playbook("a", dagrun_timeout=100)
    book.start()
    book.after(100)
    reason = explain_run(book.engine, book.engine.runs[book.run().key], book.clock.now())[0]
    assert (reason.code, reason.message) == (
        "dagrun_timeout",
        "The run is ended by dagrun_timeout (it has been running for 100 s); its running tasks are being stopped.",
    )


def test_a_cancel_came_first() -> None:
    book = Playbook("a", dagrun_timeout=100)
    book.start()
    book.cancel().expect("stop a for stopped")
    book.after(100).expect_nothing()
    assert book.run().cancel_reason is None


# ---- fail_fast -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "ends", "expected", "told"),
    [
        # What runs is stopped, what waits is skipped; the run ends with the last process.
        ("a; b; b >> c", {}, [("a", "failed")], {"a": "failed", "b": "queued", "c": "skipped"}, ["stop b for stopped"]),
        ("a >> b", {}, [("a", "failed")], {"a": "failed", "b": "skipped"}, ["run failed"]),
        # A failure with tries left is none yet.
        ("a; b", {"retries": 1}, [("a", "failed")], {"a": "up_for_retry", "b": "queued"}, []),
        # A skip is none, either.
        ("a >> c; b", {}, [("a", "skipped")], {"a": "skipped", "b": "queued", "c": "skipped"}, []),
        # Whoever waits for a retry is skipped.
        (
            "a; b",
            {"tasks": {"a": {"retries": 1}}},
            [("a", "failed"), ("b", "failed")],
            {"a": "skipped", "b": "failed"},
            ["run failed"],
        ),
        ("a", {}, [("a", "failed")], {"a": "failed"}, ["run failed"]),
        ("a; b", {}, [("a", "success"), ("b", "failed")], {"a": "success", "b": "failed"}, ["run failed"]),
    ],
)
def test_fail_fast(
    shape: str, options: dict[str, object], ends: list[tuple[str, str]], expected: dict[str, str], told: list[str]
) -> None:
    book = Playbook(shape, fail_fast=True, **options)  # type: ignore[arg-type]
    book.start()
    for label, state in ends[:-1]:
        book.finish(label, state)
    book.finish(*ends[-1]).expect(*told)
    assert book.states() == expected


def test_the_first_failure_is_named() -> None:
    book = Playbook("a; b", fail_fast=True)
    book.start()
    book.begin("a", "b")
    book.finish("a", "failed")
    assert book.run().cancel_reason == "fail_fast: task a has failed"
    book.finish("b", "failed").expect("run failed")  # it failed by itself, before the stop reached it
    assert book.run().cancel_reason == "fail_fast: task a has failed"


def test_the_stop_is_committed_with_the_failure() -> None:
    with mock.patch.object(engine_module, "AGENDA_SLICE", 1):
        book = Playbook("a; b; c", fail_fast=True)
        book.start()
        book.when(book.finished("a", "failed"), drain=False)
        assert book.run().cancel_requested_at is not None
        book.restart()
        assert sorted(row.key.task_id for row in book.store.attempts.values() if row.stop_requested_at) == ["b", "c"]


def test_other_trigger_rules_do_not_go_with_fail_fast() -> None:
    with pytest.raises(UserError, match="task 'b' of DAG 'dag' has the trigger rule all_done, but the DAG has fail_f"):
        make_dag("a >> b", fail_fast=True, tasks={"b": {"rule": "all_done"}})


def test_a_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"dagrun_timeout is 0 s, but must be above 0"):
        make_dag("a", dagrun_timeout=0)
