"""Mapped tasks in the engine: when they are expanded, into how many instances, and what that means downstream."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from tests.support.playbook import Playbook
from tickless.core import engine as engine_module
from tickless.core import events
from tickless.core.attempts import RETURNED_NOTHING
from tickless.core.commands import AlterTasks, TaskVerb
from tickless.core.mapping import picks
from tickless.errors import Refused
from tickless.model.dag import MappedOver
from tickless.model.id import UNMAPPED, RunKey
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


def test_nothing_is_cleared_in_runs_with_mapped_tasks() -> None:
    book = Playbook("a >> b", tasks={"b": {"mapped": (literal(2),)}})
    book.start()
    book.finish("a")
    with pytest.raises(Refused, match="mapped tasks"):
        book.when(AlterTasks(run=RunKey(1), verb=TaskVerb.CLEAR, rows=(book.row("a"),)))
    assert book.state("a") == "success"
