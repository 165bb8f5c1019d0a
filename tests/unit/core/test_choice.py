"""Branches and short circuits in the engine: what is skipped, in which commit, and that it outlives a restart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.playbook import Playbook
from tickless.core import commands
from tickless.core.choice import skipped_again
from tickless.model.id import UNMAPPED, RunKey, TaskId, TaskKey

GRAPH = "pick >> [a, b, join]; a >> join; b >> deep >> end"
JOIN = {"join": {"rule": "none_failed_min_one_success"}}


def kept(book: Playbook, task_id: str, key: str = "skipmixin_key", run: int = 1) -> Any:
    row = book.store.xcoms.get((TaskKey(RunKey(run), TaskId(task_id), UNMAPPED), key))
    return None if row is None else json.loads(row.value)


@pytest.mark.parametrize(
    ("follow", "skipped", "launched"),
    [
        (("a", "join"), {"b", "deep", "end"}, ["a"]),
        (("b",), {"a", "join"}, ["b"]),
        (("a", "b", "join"), set(), ["a", "b"]),
        ((), {"a", "b", "join", "deep", "end"}, []),
        (("nobody",), {"a", "b", "join", "deep", "end"}, []),
    ],
)
def test_what_a_branch_does_not_follow_is_skipped(
    follow: tuple[str, ...], skipped: set[str], launched: list[str]
) -> None:
    book = Playbook(GRAPH, tasks=JOIN)
    book.start().expect("launch pick")
    outcome = book.finish("pick", follow=follow)
    assert {task_id for task_id, state in book.states().items() if state == "skipped"} == skipped
    assert outcome.launched == launched
    assert kept(book, "pick") == {"followed": [name for name in ("a", "b", "join") if name in follow]}
    if not launched:
        assert book.run().state.value == "success"
        assert book.is_idle


def test_the_skips_are_in_the_commit_of_the_end_of_the_branch() -> None:
    book = Playbook(GRAPH)
    book.start()
    first = book.when(book.finished("pick", follow=("a",)), drain=False).decisions[0]
    written = {getattr(write.row, "task_id", None): write.row for write in first.writes}
    assert {"pick", "b", "join"} <= written.keys()
    assert book.row("b").state.value == book.row("join").state.value == "skipped"
    assert book.row("b").reason == "pick chose not to follow it"
    book.restart()
    assert book.states() == {
        "pick": "success", "a": "queued", "b": "skipped", "join": "skipped", "deep": "skipped", "end": "skipped",
    }  # fmt: skip


@pytest.mark.parametrize("rule", ["all_done", "always", "none_failed", "one_failed", "all_skipped"])
def test_a_task_that_is_not_followed_is_skipped_whatever_its_rule(rule: str) -> None:
    book = Playbook("pick >> [a, b]", tasks={"b": {"rule": rule}}, pools={"none": 0}, pool="default_pool")
    if rule == "always":
        book = Playbook("pick >> [a, b]", tasks={"b": {"rule": rule, "pool": "none"}}, pools={"none": 0})
    book.start()
    book.finish("pick", follow=("a",))
    assert book.state("b") == "skipped"
    book.finish("a").expect("run success")
    assert book.is_idle


def test_what_runs_already_goes_on() -> None:
    book = Playbook("pick >> [a, b]", tasks={"b": {"rule": "always"}})
    book.start().expect("launch pick", "launch b")
    book.finish("pick", follow=("a",)).expect("launch a")
    assert book.state("b") == "queued"
    book.finish_all(["a", "b"]).expect("run success")


def test_what_waits_for_its_retry_is_skipped_and_stays_so() -> None:
    book = Playbook("pick >> [a, b]", tasks={"b": {"rule": "always", "retries": 1, "retry_delay": 60}})
    book.start()
    book.finish("b", "failed")
    book.finish("pick", follow=("a",)).expect("launch a")
    assert book.state("b") == "skipped"
    book.after(60).expect_nothing()
    book.finish("a").expect("run success")


def test_a_short_circuit_skips_all_below_at_once() -> None:
    shape = "before >> check >> [a, b] >> c; x >> c; x >> y"
    book = Playbook(shape, tasks={"c": {"rule": "all_done"}})
    book.start()
    book.finish("before")
    decision = book.when(book.finished("check", skip_below=True), drain=False).decisions[0]
    assert {write.row.task_id for write in decision.writes if hasattr(write.row, "queued_at")} >= {"a", "b", "c"}  # type: ignore[union-attr]
    assert book.states() | {"x": "", "y": ""} == {
        "before": "success", "check": "success", "a": "skipped", "b": "skipped", "c": "skipped", "x": "", "y": "",
    }  # fmt: skip
    assert kept(book, "check") == {"skipped": ["a", "b", "c"]}
    book.finish("x").expect("launch y")
    book.finish("y").expect("run success")


def test_a_short_circuit_that_heeds_rules_skips_what_is_directly_below() -> None:
    book = Playbook("check >> a >> b", tasks={"b": {"rule": "all_done"}})
    book.start()
    book.finish("check", follow=()).expect("launch b")
    assert book.state("a") == "skipped"


def test_tasks_that_are_not_made_yet_are_made_to_be_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickless.core.engine.AGENDA_SLICE", 2)
    book = Playbook("pick >> [a, b, c, d, e]; z")
    book.start(drain=False)
    assert "e" not in book.states()
    book.when(book.finished("pick", follow=("d",)), drain=False)
    assert {task_id for task_id, state in book.states().items() if state == "skipped"} == {"a", "b", "c", "e"}
    book.restart()
    book.finish_all(["d", "z"])
    assert book.run().state.value == "success"


def test_nothing_is_chosen_by_an_attempt_that_fails_or_after_a_cancel() -> None:
    book = Playbook("pick >> [a, b]", retries=1, retry_delay=0)
    book.start()
    book.finish("pick", "failed", follow=("a",), skip_below=True)
    assert book.states() == {"pick": "up_for_retry", "a": "none", "b": "none"}
    assert kept(book, "pick") is None
    book.after(0).expect("launch pick try 2")
    book.cancel()
    book.finish("pick", follow=("a",))
    assert book.states() == {"pick": "success", "a": "skipped", "b": "skipped"}
    assert book.runs() == ["failed"]


def test_a_task_that_gives_up_is_not_tried_again() -> None:
    book = Playbook("a >> b", retries=3)
    book.start()
    book.finish("a", "failed", may_retry=False).expect("run failed")
    assert book.states() == {"a": "failed", "b": "upstream_failed"}


@pytest.mark.parametrize("state", ["success", "failed", "skipped"])
def test_what_is_pushed_is_committed_with_the_end_however_it_is(state: str) -> None:
    book = Playbook("a", retries=1)
    book.start()
    book.finish("a", state, xcoms={"k": "1", "l": '"x"'}, output="2" if state == "success" else None)
    assert (kept(book, "a", "k"), kept(book, "a", "l")) == (1, "x")
    assert kept(book, "a", "return_value") == (2 if state == "success" else None)


def test_a_late_report_chooses_nothing() -> None:
    book = Playbook("pick >> [a, b]")
    book.start()
    late = book.finished("pick", follow=("a",))
    book.finish("pick", follow=("a", "b")).expect("launch a", "launch b")
    book.when(late).expect_nothing(stale=1)
    book.when(commands.CancelRun(run=RunKey(1)))


# ---- clear ----------------------------------------------------------------------------------------------------------


def chosen(*, is_over: bool, follow: tuple[str, ...] = ("a",)) -> Playbook:
    """`pick` has followed a: b, join, deep and end are skipped. The run is over, or waits for a."""
    book = Playbook(GRAPH)
    book.start()
    book.finish("pick", follow=follow)
    if is_over:
        book.finish("a").expect("run success")
    return book


@pytest.mark.parametrize("is_over", [True, False])
def test_what_a_branch_did_not_follow_is_skipped_again_when_it_is_cleared_alone(is_over: bool) -> None:
    book = chosen(is_over=is_over)
    book.alter("clear", "b", "deep", "end").expect(*(["run success"] if is_over else []))
    assert {name: book.states()[name] for name in ("b", "deep", "end")} == dict.fromkeys(
        ("b", "deep", "end"), "skipped"
    )
    book.restart()
    if not is_over:
        book.finish("a").expect("run success")
    assert (book.runs(), book.is_idle) == (["success"], True)


def test_with_the_branch_it_is_for_the_branch_to_choose_anew() -> None:
    book = chosen(is_over=True)
    book.alter("clear", "pick", "a", "b", "join", "deep", "end").expect("launch pick try 2")
    assert kept(book, "pick") is None
    book.finish("pick", follow=("b",)).expect("launch b")
    assert book.states()["a"] == "skipped"


def test_while_the_branch_chooses_anew_its_last_choice_means_nothing() -> None:
    book = chosen(is_over=False)
    book.alter("clear", "pick").expect("launch pick try 2")
    book.alter("clear", "b").expect()
    assert book.state("b") == "none"
    book.finish("pick", follow=("b",)).expect("launch b")


def test_what_was_followed_is_cleared_as_ever() -> None:
    book = chosen(is_over=True)
    book.alter("clear", "a").expect("launch a try 2")
    book.finish("a").expect("run success")


def test_a_skipped_task_that_was_declared_done_is_skipped_again_with_what_is_below() -> None:
    book = chosen(is_over=True)
    book.alter("mark_success", "b")
    book.alter("clear", "b", "deep").expect("run success")
    assert (book.state("b"), book.state("deep")) == ("skipped", "skipped")
    assert book.row("b").reason == "pick chose not to follow it"
    assert book.runs() == ["success"]


def test_a_short_circuit_skips_again_all_that_it_skipped() -> None:
    book = Playbook("gate >> a >> b", tasks={"b": {"rule": "all_done"}})
    book.start()
    book.finish("gate", skip_below=True).expect("run success")
    book.alter("clear", "b").expect()
    assert (book.state("b"), book.runs()) == ("skipped", ["success"])


@pytest.mark.parametrize("value", ["null", "[1]", '{"followed": 1}', '{"skipped": [1, "nobody"]}', '"b"'])
def test_what_others_keep_under_the_same_key_means_nothing(value: str) -> None:
    book = Playbook("pick >> b")
    book.start()
    book.finish("pick")
    book.finish("b")
    choice = commands.BranchChoice(task_id="pick", map_index=UNMAPPED, value=value)
    assert skipped_again(book.engine.current["dag"], [choice]) == {}
