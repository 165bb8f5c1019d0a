"""depends_on_past, wait_for_downstream, ignore_first_depends_on_past: what is looked at, and who is woken when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.support.builders import cron
from tests.support.clock import START
from tests.support.past import read_past
from tests.support.picture import picture
from tests.support.playbook import Outcome, Playbook
from tickless.core import commands
from tickless.core.explain import explain_run, explain_task
from tickless.errors import Refused
from tickless.model.dag import MappedOver
from tickless.model.id import RunKey

PAST = {"depends_on_past": True}


def day(book: Playbook, number: int, **options: Any) -> Outcome:
    """Start the run of a day."""
    options.setdefault("run_id", f"run-{len(book.store.runs) + 1}")
    return book.start(logical_date=START + timedelta(days=number), **options)


def why(book: Playbook, label: str) -> tuple[str, str, str | None]:
    (reason,) = explain_task(book.engine, book.instance(label), book.clock.now())
    return reason.code, reason.message, reason.hint


# ---- which run is the previous one ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made_before", "is_scheduled", "expected"),
    [
        ([], False, 0),
        ([1], False, 1),
        ([1, 2], False, 2),
        ([2, 1], False, 1),  # by logical date, not by the order in which they were made
        ([5, 1], False, 2),
        ([3, 5], False, 0),  # none is before day 3; one of the same date is not before it
        ([1, 1], False, 2),  # two of the same date: the one that was made last
        ([None], False, 0),  # without a logical date it is nobody's previous run
        ([1, None], False, 1),
        ([1, 2], True, 0),  # with catchup only the schedule's own runs count
    ],
)
def test_the_previous_run_is_the_latest_before_by_logical_date(
    made_before: list[int | None], is_scheduled: bool, expected: int
) -> None:
    schedule = cron("0 0 1 1 *", start_at=START + timedelta(days=3000), catchup=True) if is_scheduled else None
    book = Playbook("a", tasks={"a": PAST}, schedule=schedule)
    for number in made_before:
        if number is None:
            book.start(run_id="undated")
        else:
            day(book, number, run_id=f"day-{number}-{len(book.store.runs)}")
    key = len(made_before) + 1
    day(book, 3, run_id="this one")
    assert book.run(key).previous_run == expected


def test_a_run_that_is_made_later_for_an_earlier_date_is_not_looked_at() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    day(book, 3)
    day(book, 2, run_id="late")
    assert [book.run(number).previous_run for number in (1, 2, 3)] == [0, 1, 1]


def test_a_run_without_a_logical_date_has_no_past() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1).expect("launch a")
    book.finish("a", "failed")
    book.start(run_id="by hand").expect("launch 2/a")
    assert book.run(2).previous_run is None


def test_scheduled_runs_look_at_the_one_before() -> None:
    book = Playbook("a", tasks={"a": PAST}, schedule=cron("* * * * *"))
    book.after(60)
    book.after(60)
    assert [book.run(number).previous_run for number in (1, 2)] == [0, 1]
    assert (book.state("1/a"), book.state("2/a")) == ("queued", "none")


def test_a_dag_without_such_tasks_asks_nothing() -> None:
    book = Playbook("a >> b")
    book.reads_past = False
    day(book, 1)
    assert not book.questions and book.run(1).previous_run is None


# ---- what is waited for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "is_let_through"), [("success", True), ("skipped", True), ("failed", False)])
@pytest.mark.parametrize("is_forgotten", [False, True])
def test_it_starts_after_success_and_after_skipped(state: str, is_let_through: bool, is_forgotten: bool) -> None:
    """Whether the previous run still runs, ends meanwhile, or has been forgotten before this one was made."""
    book = Playbook("a; other", tasks={"a": PAST})
    day(book, 1).expect("launch a", "launch other")
    if is_forgotten:
        book.finish("a", state)
        book.finish("other")
        day(book, 2)
    else:
        day(book, 2).expect("launch 2/other")
        book.finish("1/a", state)
    assert book.state("2/a") == ("queued" if is_let_through else "none")
    book.restart()
    assert book.state("2/a") == ("queued" if is_let_through else "none")


def test_a_retry_of_the_previous_one_is_waited_for() -> None:
    book = Playbook("a", tasks={"a": PAST}, retries=1, retry_delay=60)
    day(book, 1)
    day(book, 2).expect()
    book.finish("1/a", "failed").expect()
    book.after(60).expect("launch 1/a try 2")
    assert why(book, "2/a")[1] == "depends_on_past: it waits for a of the previous run, 1, which is queued now."
    book.finish("1/a").expect("run 1 success", "launch 2/a")


def test_upstream_counts_as_well() -> None:
    book = Playbook("up >> a", tasks={"a": PAST})
    day(book, 1)
    day(book, 2).expect("launch 2/up")
    book.finish("1/up").expect("launch 1/a")
    book.finish("1/a").expect("run 1 success")
    book.finish("2/up").expect("launch 2/a")


def test_what_the_trigger_rule_rules_out_does_not_wait() -> None:
    book = Playbook("up >> a", tasks={"a": PAST})
    day(book, 1)
    day(book, 2)
    book.finish("2/up", "failed").expect("run 2 failed")
    assert book.state("2/a") == "upstream_failed"


def test_an_empty_task_waits_too() -> None:
    book = Playbook("a", tasks={"a": {**PAST, "empty": True}})
    book.reads_past = False
    day(book, 1).expect()
    assert book.state("a") == "none"
    book.when(read_past(book.store, book.questions.pop())).expect("run success")


def test_a_mapped_task_waits_for_all_instances() -> None:
    book = Playbook("a", tasks={"a": {**PAST, "mapped": (MappedOver(argument="x", length=2),)}})
    day(book, 1).expect("launch a[0]", "launch a[1]")
    day(book, 2).expect()
    book.finish("1/a[0]").expect()
    book.finish("1/a[1]").expect("run 1 success", "launch 2/a[0]", "launch 2/a[1]")


def test_wait_for_downstream_waits_for_those_directly_below() -> None:
    book = Playbook("a >> [b, c] >> d", tasks={"a": {"wait_for_downstream": True}})
    day(book, 1)
    day(book, 2).expect()
    book.finish("1/a").expect("launch 1/b", "launch 1/c")
    book.finish("1/b").expect()
    code, message, _ = why(book, "2/a")
    assert code == "depends_on_past"
    assert message == "wait_for_downstream: it waits for c of the previous run, 1, which is queued now."
    book.finish("1/c").expect("launch 1/d", "launch 2/a")


def test_a_task_that_the_previous_run_does_not_have_starts() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    book.finish("a", "failed").expect("run failed")
    book.dag("a; b", tasks={"a": PAST, "b": PAST})
    day(book, 2).expect("launch 2/b")


def test_without_ignoring_the_first_it_waits_until_somebody_marks_it() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    strict = {"depends_on_past": True, "ignore_first_depends_on_past": False}
    book.dag("a; b", tasks={"a": PAST, "b": strict})
    day(book, 2).expect()
    book.restart()
    code, message, hint = why(book, "2/b")
    assert code == "depends_on_past"
    assert message == "It depends on its past, and the previous run, 1, has no task 'b'."
    assert hint is not None and "`tickless task mark success 2 b`" in hint
    book.alter("mark_success", "2/b")
    assert book.state("2/b") == "success"


def test_the_first_run_of_all_starts_even_so() -> None:
    book = Playbook("a", tasks={"a": {"depends_on_past": True, "ignore_first_depends_on_past": False}})
    day(book, 1).expect("launch a")


def test_a_run_that_was_cancelled_before_it_began_holds_nobody() -> None:
    book = Playbook("a", tasks={"a": PAST}, max_active_runs=1)
    day(book, 1)
    day(book, 2)
    day(book, 3)
    book.cancel(2).expect("run 2 failed")
    book.finish("1/a", "failed").expect("run 1 failed", "launch 3/a")
    assert book.run(3).previous_run == 2


def test_one_that_waits_is_told_when_such_a_run_is_cancelled() -> None:
    book = Playbook("a", tasks={"a": PAST}, max_active_runs=1)
    day(book, 1)
    day(book, 2)
    book.freeze(2)
    day(book, 3)
    book.finish("1/a").expect("run 1 success")
    assert book.runs() == ["success", "queued", "running"]
    book.cancel(2).expect("run 2 failed", "launch 3/a")


def test_tasks_that_a_cancel_has_skipped_count_as_skipped() -> None:
    book = Playbook("a >> b", tasks={"b": PAST})
    day(book, 1)
    day(book, 2)
    book.finish("2/a").expect()
    book.cancel(1).expect("stop 1/a for stopped", "launch 2/b")
    assert book.state("1/b") == "skipped"


# ---- what wakes it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [False, True])
def test_a_mark_lets_it_start(restarts: bool) -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    book.finish("a", "failed").expect("run failed")
    day(book, 2).expect()
    assert why(book, "2/a") == (
        "depends_on_past",
        "depends_on_past: it waits for a of the previous run, 1, which is failed.",
        "`tickless task clear 1 a` runs that again; `tickless task mark success 1 a` lets this one start.",
    )
    if restarts:
        book.restart()
    book.alter("mark_success", "1/a").expect("run 1 success", "launch 2/a")


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clear_of_the_previous_run_lets_it_start_when_that_has_ended(restarts: bool) -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    book.finish("a", "failed")
    day(book, 2).expect()
    book.alter("clear", "1/a").expect("launch 1/a try 2")
    if restarts:
        book.restart()
    book.finish("1/a").expect("run 1 success", "launch 2/a")


def test_only_those_that_look_at_it_are_woken() -> None:
    book = Playbook("a; b", tasks={"a": PAST, "b": PAST})
    day(book, 1)
    day(book, 2).expect()
    day(book, 3).expect()
    book.finish("1/a").expect("launch 2/a")
    book.finish("2/a").expect("launch 3/a")
    assert book.in_state("none") == ["2/b", "3/b"]


def test_a_cleared_run_waits_for_its_past_again() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    book.finish("a")
    day(book, 2)
    book.finish("2/a").expect("run 2 success")
    book.alter("clear", "1/a").expect("launch 1/a try 2")
    book.alter("clear", "2/a").expect()
    assert why(book, "2/a")[1] == "depends_on_past: it waits for a of the previous run, 1, which is queued now."
    book.finish("1/a").expect("run 1 success", "launch 2/a try 2")


def test_a_cleared_run_that_has_been_forgotten_finds_its_past_again() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    book.finish("a")
    day(book, 2)
    book.finish("2/a", "failed").expect("run 2 failed")
    assert not book.engine.past.ended and not book.engine.past.followers
    book.alter("clear", "2/a").expect("launch 2/a try 2")


def test_a_cleared_run_is_not_kept_out_by_one_that_waits_for_it() -> None:
    """Else both would wait for ever: one for its past, the other for max_active_runs."""
    book = Playbook("a", tasks={"a": PAST}, max_active_runs=1)
    day(book, 1)
    book.finish("a", "failed")
    day(book, 2).expect()
    book.alter("clear", "1/a").expect("launch 1/a try 2")
    book.restart().expect("launch 1/a try 2")
    day(book, 3).expect()
    assert book.runs() == ["running", "running", "queued"]
    book.finish("1/a").expect("run 1 success", "launch 2/a")
    book.finish("2/a").expect("run 2 success", "launch 3/a")


def test_what_a_branch_skips_again_lets_the_next_run_go_on() -> None:
    book = Playbook("branch >> [a, b]", tasks={"a": PAST})
    day(book, 1)
    book.finish("branch", follow=("b",)).expect("launch b")
    book.alter("mark_failed", "a")
    book.finish("b").expect("run failed")
    day(book, 2)
    book.finish("2/branch").expect("launch 2/b")
    book.alter("clear", "1/a").expect("launch 2/a")
    assert book.state("1/a") == "skipped"


def test_a_cleared_run_whose_previous_one_was_deleted_looks_at_the_one_before_that() -> None:
    book = Playbook("a", tasks={"a": PAST})
    for number in (1, 2, 3):
        day(book, number)
        book.finish(f"{number}/a" if number > 1 else "a")
    book.when(commands.DeleteRun(run=RunKey(2), is_finished=True))
    book.alter("mark_failed", "1/a")
    book.reads_past = False
    book.alter("clear", "3/a").expect()
    assert book.run(3).previous_run is None
    book.restart()
    book.when(read_past(book.store, book.questions.pop())).expect()
    assert book.run(3).previous_run == 1 and "which is failed" in why(book, "3/a")[1]


# ---- reading --------------------------------------------------------------------------------------------------------


def test_until_it_is_read_it_waits() -> None:
    book = Playbook("a; b", tasks={"a": PAST})
    book.reads_past = False
    day(book, 1).expect("launch b")
    assert why(book, "a")[1] == "Which run is the previous one is being read."
    book.restart()
    assert len(book.questions) == 1, "a restored engine asks again"
    book.when(read_past(book.store, book.questions.pop())).expect("launch a")


def test_an_answer_that_a_mark_has_overtaken_is_asked_for_again() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    book.finish("a", "failed")
    book.reads_past = False
    day(book, 2)
    late = read_past(book.store, book.questions.pop())
    book.alter("mark_success", "1/a").expect("run 1 success")
    book.when(late).expect()
    book.when(read_past(book.store, book.questions.pop())).expect("launch 2/a")


def test_an_answer_that_the_end_of_the_run_has_overtaken_is_asked_for_again() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    book.reads_past = False
    day(book, 2)
    late = read_past(book.store, book.questions.pop())
    book.finish("1/a", "failed").expect("run 1 failed")
    book.when(late).expect()
    assert book.state("2/a") == "none"
    book.when(read_past(book.store, book.questions.pop())).expect()
    assert "which is failed" in why(book, "2/a")[1]


def test_an_answer_to_a_run_that_has_ended_means_nothing() -> None:
    book = Playbook("a", tasks={"a": PAST})
    book.reads_past = False
    day(book, 1)
    late = read_past(book.store, book.questions.pop())
    book.alter("mark_failed", "a").expect("run failed")
    book.alter("clear", "a").expect()
    book.when(late).expect_nothing()
    book.when(read_past(book.store, book.questions.pop())).expect("launch a")


def test_a_run_that_is_deleted_before_it_is_looked_at_is_not_waited_for() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    book.finish("a", "failed")
    book.reads_past = False
    day(book, 2)
    late = read_past(book.store, book.questions.pop())
    book.when(commands.DeleteRun(run=RunKey(1), is_finished=True))
    book.when(late).expect()
    book.when(read_past(book.store, book.questions.pop())).expect("launch 2/a")


def test_a_run_that_is_looked_at_cannot_be_deleted() -> None:
    book = Playbook("a", tasks={"a": PAST})
    day(book, 1)
    book.finish("a", "failed")
    day(book, 2)
    with pytest.raises(Refused, match="run 2 looks back at run 1"):
        book.when(commands.DeleteRun(run=RunKey(1), is_finished=True))


def test_the_run_says_what_it_waits_for() -> None:
    book = Playbook("a; b", tasks={"a": PAST, "b": PAST})
    day(book, 1)
    day(book, 2)
    reasons = explain_run(book.engine, book.engine.runs[RunKey(2)], book.clock.now())
    assert [(reason.code, reason.task_id) for reason in reasons] == [("depends_on_past", "a"), ("depends_on_past", "b")]


def test_a_run_that_never_began_is_cleared_to_the_same_engine_as_a_restored_one() -> None:
    book = Playbook("a", tasks={"a": PAST}, max_active_runs=1)
    day(book, 1)
    day(book, 2)
    book.cancel(2)
    row, version = book.run(2), book.store.versions[book.run(2).version]
    finished = commands.FinishedRun(row=row, version=version, tallies=())
    book.when(commands.AlterTasks(verb=commands.TaskVerb.CLEAR, run=RunKey(2), rows=(), finished_run=finished))
    lived = picture(book.engine)
    book.restart()
    assert picture(book.engine)["queued again"] == lived["queued again"]


def test_a_run_that_never_began_and_is_cleared_does_not_wait_behind_one_that_waits_for_it() -> None:
    book = Playbook("a >> b", tasks={"b": PAST}, max_active_runs=1)
    day(book, 1)
    day(book, 2)
    day(book, 3)
    book.cancel(2).expect("run 2 failed")
    book.finish("1/a").expect("launch 1/b")
    book.finish("1/b").expect("run 1 success", "launch 3/a")
    row, version = book.run(2), book.store.versions[book.run(2).version]
    finished = commands.FinishedRun(row=row, version=version, tallies=())
    clear = commands.AlterTasks(verb=commands.TaskVerb.CLEAR, run=RunKey(2), rows=(), finished_run=finished)
    book.when(clear).expect("launch 2/a")
    book.finish("3/a").expect()
    book.finish("2/a").expect("launch 2/b")
    book.finish("2/b").expect("run 2 success", "launch 3/b")
