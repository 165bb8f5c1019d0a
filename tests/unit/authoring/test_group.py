"""Task groups, labels, and the helpers that join lists of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tickless import (
    DAG,
    EmptyOperator,
    Label,
    TaskGroup,
    chain,
    chain_linear,
    cross_downstream,
    dag,
    task,
    task_group,
)
from tickless.authoring import registry
from tickless.authoring.place import DagError
from tickless.model.dag import EdgeLabel, GroupSpec


def empties(text: str) -> list[EmptyOperator]:
    return [EmptyOperator(task_id=task_id) for task_id in text.split()]


def edges(made: DAG) -> str:
    """`a>b a>c`, sorted."""
    return " ".join(sorted(f"{above}>{spec.task_id}" for spec in made.to_spec().tasks for above in spec.upstream))


def test_ids_and_structure_of_nested_groups() -> None:
    with DAG("x") as made:
        with TaskGroup("outer", tooltip="  All of it.\n  More.") as outer:
            empties("a")
            with TaskGroup("inner"):
                empties("a b")
            with TaskGroup("plain", prefix_group_id=False):
                empties("c")
        EmptyOperator(task_id="late", task_group=outer)
        empties("a")
    spec = made.to_spec()
    assert [(t.task_id, t.group) for t in spec.tasks] == [
        ("outer.a", "outer"),
        ("outer.inner.a", "outer.inner"),
        ("outer.inner.b", "outer.inner"),
        ("c", "outer.plain"),
        ("outer.late", "outer"),
        ("a", None),
    ]
    assert spec.groups == (
        GroupSpec(group_id="outer", tooltip="All of it.\nMore."),
        GroupSpec(group_id="outer.inner", parent="outer"),
        GroupSpec(group_id="outer.plain", parent="outer"),
    )


def _group_to_task(before: TaskGroup, after: TaskGroup, x: Any, y: Any) -> None:
    x >> before >> y


def _group_to_group(before: TaskGroup, after: TaskGroup, x: Any, y: Any) -> None:
    before >> after


def _lists(before: TaskGroup, after: TaskGroup, x: Any, y: Any) -> None:
    [x, before] >> y
    y << [after]


def _chained(before: TaskGroup, after: TaskGroup, x: Any, y: Any) -> None:
    chain(x, before, [y, after])


def _upstream(before: TaskGroup, after: TaskGroup, x: Any, y: Any) -> None:
    after.set_upstream([x, before])


@pytest.mark.parametrize(
    ("relate", "expected"),
    [
        (_group_to_task, "a.1>a.2 a.2>y a.3>y b.1>b.2 x>a.1 x>a.3"),
        (_group_to_group, "a.1>a.2 a.2>b.1 a.3>b.1 b.1>b.2"),
        (_lists, "a.1>a.2 a.2>y a.3>y b.1>b.2 b.2>y x>y"),
        (_chained, "a.1>a.2 a.2>b.1 a.2>y a.3>b.1 a.3>y b.1>b.2 x>a.1 x>a.3"),
        (_upstream, "a.1>a.2 a.2>b.1 a.3>b.1 b.1>b.2 x>b.1"),
    ],
)
def test_groups_stand_for_their_first_and_their_last_tasks(
    relate: Callable[[TaskGroup, TaskGroup, Any, Any], None], expected: str
) -> None:
    with DAG("x") as made:
        x, y = empties("x y")
        with TaskGroup("a") as before:  # 1 >> 2, and 3
            one, two, _ = empties("1 2 3")
            one >> two
        with TaskGroup("b") as after:  # 1 >> 2
            one, two = empties("1 2")
            one >> two
        relate(before, after, x, y)
    assert edges(made) == expected


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        (lambda a, b, c, d, e, f: chain(a, [b, c], [d, e], f), "a>b a>c b>d c>e d>f e>f"),
        (lambda a, b, c, d, e, f: chain_linear(a, [b, c], [d, e], f), "a>b a>c b>d b>e c>d c>e d>f e>f"),
        (lambda a, b, c, d, e, f: chain_linear(a, [], [b], [], f), "a>b b>f"),
        (lambda a, b, c, d, e, f: cross_downstream([a, b], [c, d]), "a>c a>d b>c b>d"),
        (lambda a, b, c, d, e, f: cross_downstream(a, c), "a>c"),
    ],
)
def test_lists_are_joined(join: Callable[..., None], expected: str) -> None:
    with DAG("x") as made:
        join(*empties("a b c d e f"))
    assert edges(made) == expected


def test_labels_stand_on_the_edges_that_they_are_written_on() -> None:
    with DAG("x") as made:
        a, b, c, d, e, f = empties("a b c d e f")
        a >> Label("good") >> [b, c]
        d << Label("bad") << a
        [b, c] >> Label("both") >> e
        chain(d, [Label("one"), Label("two")], [e, f])
        with TaskGroup("g") as group:
            empties("h")
        f.set_downstream(group, edge_modifier=Label("in"))
    assert made.to_spec().edge_labels == tuple(
        EdgeLabel(upstream=above, downstream=below, label=label)
        for above, below, label in [
            ("a", "b", "good"), ("a", "c", "good"), ("a", "d", "bad"), ("b", "e", "both"), ("c", "e", "both"),
            ("d", "e", "one"), ("d", "f", "two"), ("f", "g.h", "in"),
        ]
    )  # fmt: skip
    assert edges(made) == "a>b a>c a>d b>e c>e d>e d>f f>g.h"


def test_default_args_go_from_the_outside_in() -> None:
    with DAG("x", default_args={"retries": 1, "queue": "dag", "pool": "dag"}) as made:
        with TaskGroup("outer", default_args={"queue": "outer", "pool": "outer"}):
            with TaskGroup("inner", default_args={"pool": "inner"}):
                EmptyOperator(task_id="a")
                EmptyOperator(task_id="b", pool="own")
            EmptyOperator(task_id="c")
        EmptyOperator(task_id="d")
    assert {t.task_id: (t.retries, t.queue, t.pool) for t in made.to_spec().tasks} == {
        "outer.inner.a": (1, "outer", "inner"),
        "outer.inner.b": (1, "outer", "own"),
        "outer.c": (1, "outer", "outer"),
        "d": (1, "dag", "dag"),
    }


def test_the_decorator_makes_a_group_for_each_call() -> None:
    @task
    def one() -> int:
        return 1

    @task
    def add(x: int) -> int:
        return x + 1

    @task_group(default_args={"retries": 2})
    def section(x: int) -> Any:
        "Adds twice."
        return add(add(x))

    @task_group("named")
    def unnamed() -> None:
        one()

    @dag
    def sums() -> None:
        total = section(section(one()))  # type: ignore[arg-type]  # results stand for what they will be
        section.override(group_id="other")(total)
        unnamed() >> EmptyOperator(task_id="end")

    sums()
    [spec] = registry.collect()
    assert [t.task_id for t in spec.tasks] == [
        "one", "named.one", "section.add", "end", "section.add__1", "section__1.add", "section__1.add__1",
        "other.add", "other.add__1",
    ]  # fmt: skip
    by_id = {t.task_id: t for t in spec.tasks}
    assert by_id["section__1.add"].inputs == ("section.add__1",)
    assert by_id["other.add"].retries == 2
    assert by_id["end"].upstream == ("named.one",)
    assert [(g.group_id, g.tooltip) for g in spec.groups] == [
        ("section", "Adds twice."), ("section__1", "Adds twice."), ("other", "Adds twice."), ("named", ""),
    ]  # fmt: skip
    assert registry.callables("sums")["section.add"]({"one": 4}) == 5


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: TaskGroup("a.b"), "group_id 'a.b' is not allowed"),
        (lambda: TaskGroup("g", tooltip=3), "tooltip of task group 'g' is 3"),  # type: ignore[arg-type]
        (lambda: TaskGroup("g", prefix_group="x"), "has no argument 'prefix_group'. Did you mean 'prefix_group_id'?"),
        (lambda: TaskGroup("g", default_args={"retires": 1}), "default_args of task group 'g' has no argument"),
        (lambda: [TaskGroup("g"), TaskGroup("g")], "a task or group with the id 'g' already"),
        (lambda: [EmptyOperator(task_id="g"), TaskGroup("g")], "a task or group with the id 'g' already"),
        (lambda: [TaskGroup("g"), EmptyOperator(task_id="g")], "has a task and a group with the id 'g'"),
        (lambda: TaskGroup("g") >> EmptyOperator(task_id="t"), "is given a dependency while it has no task"),
        (lambda: chain_linear([EmptyOperator(task_id="t")]), "fewer than two steps"),
        (lambda: Label(3), "must be given a string"),  # type: ignore[arg-type]
        (lambda: task_group(lambda: None) >> EmptyOperator(task_id="t"), "was not called"),
        (lambda: task_group(lambda: None).expand(x=[1]), "comes in a later release"),
    ],
)
def test_mistakes_are_named_with_their_line(mistake: Callable[[], Any], words: str) -> None:
    with DAG("x"), pytest.raises(DagError) as caught:
        mistake()
    assert words in str(caught.value)
    assert caught.value.place.file == __file__


def test_a_group_needs_a_dag() -> None:
    with pytest.raises(DagError, match="outside of any DAG"):
        TaskGroup("g")


def test_a_branch_may_choose_a_group() -> None:
    from tests.unit.authoring.test_branch import run

    with DAG("x"):

        @task.branch
        def pick() -> list[str]:
            return ["g"]

        with TaskGroup("g") as group:
            a, b, c = empties("a b c")
            a >> b
            other = EmptyOperator(task_id="other", task_group=group)
        picked = pick()
        picked >> [group, EmptyOperator(task_id="left")]
        other >> c
    assert run("x", "pick")[1].follow == ("g.a", "g.c", "g.other")
