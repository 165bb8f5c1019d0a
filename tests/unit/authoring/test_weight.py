"""Effective priority weights, as a table."""

from __future__ import annotations

import pytest

from tickless import DAG, EmptyOperator

DIAMOND = {"a": "", "b": "a", "c": "a", "d": "b c"}
"""a above b and c, d below both: d is counted once for a."""


@pytest.mark.parametrize(
    ("graph", "own", "rules", "expected"),
    [
        (DIAMOND, {}, {}, {"a": 4, "b": 2, "c": 2, "d": 1}),
        (DIAMOND, {}, dict.fromkeys("abcd", "upstream"), {"a": 1, "b": 2, "c": 2, "d": 4}),
        (DIAMOND, {"a": 5, "d": 7}, dict.fromkeys("abcd", "absolute"), {"a": 5, "b": 1, "c": 1, "d": 7}),
        (DIAMOND, {"a": 10, "b": 20, "c": 30, "d": 40}, {}, {"a": 100, "b": 60, "c": 70, "d": 40}),
        (
            DIAMOND,
            {"a": 10, "b": 20, "c": 30, "d": 40},
            {"b": "upstream", "c": "absolute"},
            {"a": 100, "b": 30, "c": 30, "d": 40},
        ),
        (DIAMOND, {"b": -3, "c": 0}, {}, {"a": -1, "b": -2, "c": 1, "d": 1}),
        ({"a": "", "b": "", "c": "a"}, {}, {}, {"a": 2, "b": 1, "c": 1}),
        ({"a": "", "b": "a"}, {"a": 2**31 - 1, "b": 2**31 - 1}, {}, {"a": 2**31 - 1, "b": 2**31 - 1}),
        ({"a": "", "b": "a"}, {"a": -(2**31), "b": -5}, {}, {"a": -(2**31), "b": -5}),
        ({}, {}, {}, {}),
    ],
)
def test_effective_weight(
    graph: dict[str, str], own: dict[str, int], rules: dict[str, str], expected: dict[str, int]
) -> None:
    with DAG("x") as made:
        tasks = {
            name: EmptyOperator(
                task_id=name, priority_weight=own.get(name, 1), weight_rule=rules.get(name, "downstream")
            )
            for name in reversed(graph)  # the order of writing does not matter
        }
        for name, above in graph.items():
            tasks[name] << [tasks[other] for other in above.split()]
    assert {task.task_id: task.priority_weight for task in made.to_spec().tasks} == expected


def test_a_long_chain_is_no_square_of_time() -> None:
    with DAG("x") as made:
        last = EmptyOperator(task_id="t0")
        for number in range(1, 3000):
            last = last >> EmptyOperator(task_id=f"t{number}")
    assert [task.priority_weight for task in made.to_spec().tasks] == list(range(3000, 0, -1))
