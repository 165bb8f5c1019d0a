"""Mapped tasks in the engine: when they are expanded, into how many instances, and what that means downstream."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from tests.support.playbook import Playbook
from tickless.core import engine as engine_module
from tickless.core import events
from tickless.core.attempts import RETURNED_NOTHING
from tickless.core.mapping import picks
from tickless.model.dag import MappedOver
from tickless.model.id import UNMAPPED
from tickless.model.limit import Limits


def literal(length: int) -> MappedOver:
    return MappedOver(argument="x", length=length)


def output(task_id: str) -> MappedOver:
    return MappedOver(argument="y", task_id=task_id)


def indexes(book: Playbook, task_id: str) -> list[int]:
    """The map indexes that a task has rows for."""
    return sorted(key.map_index for key in book.store.instances if key.task_id == task_id)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((3,), [(0,), (1,), (2,)]),
        ((2, 3), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
        ((2, 1, 2), [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]),
    ],
)
def test_the_last_source_varies_fastest(lengths: tuple[int, ...], expected: list[tuple[int, ...]]) -> None:
    assert [picks(lengths, index) for index in range(len(expected))] == expected


@pytest.mark.parametrize(
    ("over", "returned", "expected"),
    [
        ((literal(3),), None, "launch b[0], launch b[1], launch b[2]"),
        ((output("a"),), 2, "launch b[0], launch b[1]"),
        ((literal(2), output("a")), 2, "launch b[0], launch b[1], launch b[2], launch b[3]"),
        ((literal(0),), None, "skipped: there is nothing to map over: its list is empty"),
        ((output("a"),), 0, "skipped: there is nothing to map over: a has handed on nothing"),
        ((literal(2), output("a")), 0, "skipped: there is nothing to map over: a has handed on nothing"),
        ((literal(7),), None, "failed: it would have 7 instances; max_map_length is 6"),
        ((literal(3), output("a")), 3, "failed: it would have 9 instances (3 x 3); max_map_length is 6"),
        ((output("a"),), None, "failed: a has returned neither a list nor a dict to map over"),
    ],
)
def test_what_becomes_of_a_mapped_task(over: tuple[MappedOver, ...], returned: int | None, expected: str) -> None:
    book = Playbook("a >> b", tasks={"b": {"mapped": over, "retries": 3}}, limits=Limits(max_map_length=6))
    book.start().expect("launch a")
    launched = book.finish("a", length=returned).launched
    if launched:
        assert ", ".join(f"launch {label}" for label in launched) == expected
        assert UNMAPPED not in indexes(book, "b")
    else:
        assert f"{book.state('b')}: {book.row('b').reason}" == expected


def test_it_is_expanded_only_when_its_trigger_rule_holds() -> None:
    book = Playbook("[a, c] >> b", tasks={"b": {"mapped": (literal(2),)}})
    book.start()
    assert indexes(book, "b") == [UNMAPPED]
    book.finish("a").expect()
    assert indexes(book, "b") == [UNMAPPED]
    book.finish("c").expect("launch b[0]", "launch b[1]")


def test_a_rule_that_holds_early_waits_for_the_length() -> None:
    book = Playbook("[a, c] >> b", tasks={"b": {"mapped": (output("a"),), "trigger_rule": "one_success"}})
    book.start()
    book.finish("c").expect()
    book.finish("a", length=1).expect("launch b[0]")


@pytest.mark.parametrize(("end", "state"), [("skipped", "upstream_failed"), ("failed", "upstream_failed")])
def test_without_what_it_is_mapped_over_it_cannot_run(end: str, state: str) -> None:
    book = Playbook("a >> b", tasks={"b": {"mapped": (output("a"),), "trigger_rule": "all_done"}})
    book.start()
    book.finish("a", end)
    assert book.state("b") == state
    assert book.row("b").reason == f"a, which it is mapped over, is {end}"


@pytest.mark.parametrize(
    ("rule", "ends", "state"),
    [
        ("all_success", ["success", "success", "success"], "queued"),
        ("all_success", ["success", "failed"], "upstream_failed"),
        ("all_success", ["success", "skipped"], "skipped"),
        ("all_done", ["success", "failed"], "none"),
        ("all_done", ["success", "failed", "skipped"], "queued"),
        ("one_success", ["failed", "success"], "queued"),
        ("one_failed", ["success", "success", "success"], "skipped"),
        ("none_failed", ["success", "skipped", "skipped"], "queued"),
        ("none_failed_min_one_success", ["skipped", "skipped", "skipped"], "skipped"),
        ("all_failed", ["failed", "failed", "failed"], "queued"),
        ("all_skipped", ["skipped", "skipped"], "none"),
    ],
)
@pytest.mark.parametrize("is_restored", [False, True])
def test_each_instance_is_one_upstream(rule: str, ends: list[str], state: str, is_restored: bool) -> None:
    book = Playbook("a >> b", tasks={"a": {"mapped": (literal(3),)}, "b": {"trigger_rule": rule}})
    book.start()
    for index, end in enumerate(ends):
        if is_restored:
            book.restart()
        book.finish(f"a[{index}]", end)
    assert book.state("b") == state


@pytest.mark.parametrize("is_restored", [False, True])
def test_over_a_mapped_task_there_is_one_instance_for_each_value(is_restored: bool) -> None:
    tasks: dict[str, dict[str, Any]] = {
        "a": {"mapped": (literal(5),)},
        "b": {"mapped": (output("a"),), "trigger_rule": "all_done"},
    }
    book = Playbook("a >> b", tasks=tasks)
    book.start()
    book.finish("a[2]", output="2")
    book.finish("a[3]")  # it returned None
    book.finish("a[4]", "skipped")
    if is_restored:
        book.restart()
    book.finish("a[1]", "failed").expect()
    book.finish("a[0]", output='"x"').expect("launch b[0]", "launch b[1]")
    assert book.row("a[3]").reason == RETURNED_NOTHING


def test_each_instance_has_its_own_tries() -> None:
    book = Playbook("a", tasks={"a": {"mapped": (literal(2),)}}, retries=1, retry_delay=60)
    book.start()
    book.finish("a[1]", "failed").expect(wake_in=60)
    book.finish("a[0]").expect()
    book.after(60).expect("launch a[1] try 2")
    book.finish("a[1]", "failed").expect("run failed")


def test_an_empty_task_is_expanded_and_over_at_once() -> None:
    book = Playbook("a", tasks={"a": {"mapped": (literal(5),), "empty": True}})
    book.start().expect("run success")
    assert indexes(book, "a") == [0, 1, 2, 3, 4]


def test_an_expansion_is_cut_off_anywhere_and_goes_on() -> None:
    """A restart after each step of one instance: the cursor in the rows says where to go on."""
    with mock.patch.object(engine_module, "AGENDA_SLICE", 1):
        book = Playbook("a >> b", tasks={"a": {"mapped": (literal(6),)}}, limits=Limits(dag_concurrency=2))
        book.start(drain=False)
        seen = set()
        while indexes(book, "a") != list(range(6)):
            seen.add(tuple(indexes(book, "a")))
            book.restart(drain=False)
            book.when(events.WorkContinued(), drain=False)
        assert (UNMAPPED, 0, 1, 2) in seen
        assert len(book.in_state("queued")) == 2
        for index in range(6):
            book.finish(f"a[{index}]")
    assert book.state("b") == "queued"


def test_a_neighbour_has_its_turn_during_an_expansion() -> None:
    with mock.patch.object(engine_module, "AGENDA_SLICE", 10):
        book = Playbook("x >> y", dag_id="neighbour", limits=Limits(parallelism=3, max_map_length=1000))
        book.dag("a", dag_id="wide", tasks={"a": {"mapped": (literal(1000),)}})
        book.start("neighbour")
        book.start("wide", drain=False)
        step = book.when(book.finished("1/x"), drain=False)
        assert "1/y" in step.launched
        assert len(step.writes) < 30


def test_a_cancel_in_the_middle_makes_no_more_instances() -> None:
    with mock.patch.object(engine_module, "AGENDA_SLICE", 10):
        book = Playbook("a >> b", tasks={"a": {"mapped": (literal(100),)}}, limits=Limits(parallelism=1))
        book.start(drain=False)
        book.when(events.WorkContinued(), drain=False)
        book.cancel()
    made = indexes(book, "a")
    assert UNMAPPED in made and 2 < len(made) < 100
    running = book.in_state("queued")
    book.finish(running[0], "failed", reason="stopped").expect("run failed")
    assert book.is_idle


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_branch_that_skips_a_task_while_it_is_expanded_leaves_nobody_waiting(is_restored: bool) -> None:
    tasks: dict[str, dict[str, Any]] = {
        "b": {"mapped": (literal(50),), "trigger_rule": "one_success"},
        "d": {"trigger_rule": "all_done"},
    }
    with mock.patch.object(engine_module, "AGENDA_SLICE", 4):
        book = Playbook("[a, c] >> b >> d", tasks=tasks, limits=Limits(parallelism=2))
        book.start()
        book.when(book.finished("a"), drain=False)
        book.when(events.WorkContinued(), drain=False)
        assert UNMAPPED in indexes(book, "b")
        book.finish("c", follow=())
        if is_restored:
            book.restart()
    for label in book.in_state("queued"):
        if label != "d":
            book.finish(label)
    assert book.state("d") == "queued"
    assert len(indexes(book, "b")) < 50


OVER_A: dict[str, dict[str, Any]] = {"b": {"mapped": (output("a"),)}}


def expanded(length: int = 3, ends: str = "success", dag: str = "a >> b >> c") -> Playbook:
    """A run in which b was mapped over so many elements of a, and its instances have ended."""
    book = Playbook(dag, tasks=OVER_A)
    book.start()
    book.finish("a", length=length)
    for index in range(length):
        book.finish(f"b[{index}]", ends)
    return book


def states(book: Playbook, task_id: str) -> dict[int, str]:
    return {
        key.map_index: row.state.value for key, row in sorted(book.store.instances.items()) if key.task_id == task_id
    }


@pytest.mark.parametrize("is_restored", [False, True])
@pytest.mark.parametrize(
    ("length", "launched", "found"),
    [
        (3, [0, 1, 2], {0: "success", 1: "success", 2: "success"}),
        (2, [0, 1], {0: "success", 1: "success", 2: "removed"}),
        (5, [0, 1, 2, 3, 4], dict.fromkeys(range(5), "success")),
        (0, [], {0: "removed", 1: "removed", 2: "removed"}),
        (None, [], {0: "failed", 1: "failed", 2: "failed"}),
        (7, [], {0: "failed", 1: "failed", 2: "failed"}),
    ],
)
@pytest.mark.parametrize("is_over", [False, True])
def test_what_is_cleared_with_its_source_is_expanded_anew(
    length: int | None, launched: list[int], found: dict[int, str], is_over: bool, is_restored: bool
) -> None:
    book = Playbook("a >> b >> c; d", tasks=OVER_A, limits=Limits(max_map_length=6))
    book.start()
    book.finish("a", length=3)
    for index in range(3):
        book.finish(f"b[{index}]")
    book.finish("c")
    if is_over:
        book.finish("d").expect("run success")
    book.alter("clear", "a", "b[0]", "b[1]", "b[2]", "c")
    assert states(book, "b") == {0: "none", 1: "none", 2: "none"}
    if is_restored:
        book.restart()
    started = [label for label in book.finish("a", length=length).launched if label != "c"]
    assert started == [f"b[{index}]" for index in launched]
    for index in launched:
        if is_restored:
            book.restart()
        book.finish(f"b[{index}]")
    assert states(book, "b") == found
    assert book.state("c") == ("upstream_failed" if "failed" in found.values() else "queued")


def test_what_was_removed_comes_back_with_more_elements() -> None:
    book = expanded()
    book.alter("clear", "a", "b[0]", "b[1]", "b[2]")
    book.finish("a", length=1)
    assert states(book, "b") == {0: "queued", 1: "removed", 2: "removed"}
    assert book.row("b[2]").reason == "what it is mapped over has only 1 elements now"
    book.finish("b[0]")
    book.alter("clear", "a", "b[0]", "b[1]", "b[2]")
    assert book.finish("a", length=4).launched == ["b[0]", "b[1]", "b[2]", "b[3]"]


def test_single_instances_are_cleared_and_run_at_once() -> None:
    book = expanded(dag="a >> b")
    assert book.runs() == ["success"]
    book.alter("clear", "b[1]").expect("launch b[1] try 2")
    book.finish("b[1]").expect("run success")


def test_an_instance_that_is_alive_is_stopped_and_runs_again() -> None:
    book = Playbook("a >> b", tasks=OVER_A)
    book.start()
    book.finish("a", length=2)
    book.alter("clear", "b[0]").expect("stop b[0] for cleared")
    book.finish("b[0]", "failed", reason="stopped").expect("launch b[0] try 2")


def test_instances_are_marked() -> None:
    book = expanded(ends="failed")
    assert book.state("c") == "upstream_failed"
    for index in range(3):
        book.alter("mark_success", f"b[{index}]")
    book.alter("clear", "c").expect("launch c")


def test_a_marked_source_has_nothing_to_map_over() -> None:
    book = expanded()
    book.alter("clear", "a", "b[0]", "b[1]", "b[2]")
    book.finish("a", "failed")
    book.alter("mark_success", "a")
    book.alter("clear", "b[0]")
    assert states(book, "b")[0] == "failed"
    assert book.row("b[0]").reason == "a has returned neither a list nor a dict to map over"


@pytest.mark.parametrize("is_restored", [False, True])
@pytest.mark.parametrize(("length", "found"), [(100, 100), (60, 60), (5, 5)])
def test_an_expansion_that_is_cleared_in_the_middle_is_judged_anew(length: int, found: int, is_restored: bool) -> None:
    with mock.patch.object(engine_module, "AGENDA_SLICE", 10):
        book = Playbook("a >> b", tasks=OVER_A, limits=Limits(parallelism=1))
        book.start()
        book.when(book.finished("a", length=80), drain=False)
        book.when(events.WorkContinued(), drain=False)
        made = indexes(book, "b")
        assert UNMAPPED in made and 5 < len(made) < 60
        book.alter("clear", "a", *(f"b[{index}]" if index >= 0 else "b" for index in made))
        if is_restored:
            book.restart()
        assert indexes(book, "b") == made
        for label in book.in_state("restarting"):
            book.finish(label, "failed", reason="stopped")
        book.finish("a", length=length)
    unremoved = [index for index, state in states(book, "b").items() if state != "removed"]
    assert unremoved == list(range(found))
    assert UNMAPPED not in indexes(book, "b")


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_stopped_expansion_that_is_cleared_goes_on(is_restored: bool) -> None:
    with mock.patch.object(engine_module, "AGENDA_SLICE", 10):
        book = Playbook("a >> b >> c", tasks={"b": {"mapped": (literal(100),)}}, limits=Limits(parallelism=1))
        book.start()
        book.when(book.finished("a"), drain=False)
        book.when(events.WorkContinued(), drain=False)
        book.cancel()
        book.finish(book.in_state("queued")[0], "failed", reason="stopped").expect("run failed")
        made = indexes(book, "b")
        if is_restored:
            book.restart()
        book.alter("clear", *(f"b[{index}]" if index >= 0 else "b" for index in made), "c")
    assert indexes(book, "b") == list(range(100))
    assert book.state("c") == "none"
