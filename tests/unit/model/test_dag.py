"""DagSpec.build: a spec that exists is valid and ordered."""

from __future__ import annotations

from typing import Any

import pytest

from tickless.errors import UserError
from tickless.model.dag import DagSpec, TaskKind, TaskSpec, check_id


def build(graph: str, **rest: Any) -> DagSpec:
    """`"b:a c:a,b a"` is b after a, c after a and b, and a, written in this order."""
    tasks = []
    for word in graph.split():
        task_id, _, above = word.partition(":")
        tasks.append(
            TaskSpec(task_id=task_id, kind=TaskKind.EMPTY, upstream=tuple(above.split(",")) if above else (), **rest)
        )
    return DagSpec.build(dag_id="d", tasks=tasks)


@pytest.mark.parametrize(
    ("graph", "order"),
    [
        ("", ""),
        ("a b c", "a b c"),
        ("c:b b:a a", "a b c"),
        ("d:b,c c:a b:a a", "a c b d"),
        ("b:a,a a", "a b"),
        ("x b:a a y", "x a y b"),
    ],
)
def test_tasks_are_in_topological_order_and_ties_as_written(graph: str, order: str) -> None:
    assert " ".join(task.task_id for task in build(graph).tasks) == order


@pytest.mark.parametrize(
    ("graph", "cycle"),
    [
        ("a:a", "a -> a"),
        ("a:b b:a", "a -> b -> a"),
        ("s a:s,c b:a c:b e:c", "a -> b -> c -> a"),
        ("e:c s a:s,c b:a c:b", "c -> a -> b -> c"),
    ],
)
def test_a_cycle_is_named_in_the_order_of_execution(graph: str, cycle: str) -> None:
    with pytest.raises(UserError) as caught:
        build(graph)
    assert caught.value.message == f"DAG 'd' has a cycle: {cycle}"


@pytest.mark.parametrize(
    ("graph", "rest", "words"),
    [
        ("a a", {}, "two tasks with the id 'a'"),
        ("a:b", {}, "task 'a' of DAG 'd' waits for 'b', which is not in it"),
        ("a b:a", {"inputs": ("z",)}, "reads 'z' without waiting for it"),
        ("a", {"retries": -1}, "retries is -1"),
        ("a", {"retry_delay_seconds": -0.1}, "retry_delay is -0.1"),
        ("a", {"pool_slots": 0}, "pool_slots is 0"),
        ("a", {"execution_timeout_seconds": 0}, "execution_timeout is 0 s"),
        ("a", {"priority_weight": 2**31}, "does not fit in 32 bits"),
        ("a", {"command": "true"}, "a command goes with a bash task"),
        ("é", {}, "task_id 'é' is not allowed"),
    ],
)
def test_what_cannot_be_is_refused(graph: str, rest: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        build(graph, **rest)
    assert words in caught.value.message


@pytest.mark.parametrize("value", ["a", "a.b-c_D9", "..a", "x" * 250])
def test_ids_that_are_safe_in_paths_and_urls(value: str) -> None:
    check_id("dag_id", value)


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "a b", "a\n", "x" * 251, "a%", 3, None])
def test_ids_that_are_not(value: object) -> None:
    with pytest.raises(UserError, match="is not allowed"):
        check_id("dag_id", value)
