"""@task: calls become tasks."""

from __future__ import annotations

import pytest

from tickless import DAG, EmptyOperator, XComArg, dag, task
from tickless.authoring import registry
from tickless.authoring.place import DagError


def test_calls_make_tasks_with_dependencies_and_run() -> None:
    @task
    def one() -> int:
        "Gives one."
        return 1

    @task(retries=2, pool="small")
    def add(x: int, *, y: int = 0) -> int:
        return x + y

    @dag
    def sums() -> None:
        total = add(one(), y=2)
        assert isinstance(total, XComArg)
        total >> EmptyOperator(task_id="end")

    sums()
    [spec] = registry.collect()
    assert [(t.task_id, t.upstream, t.inputs, t.retries, t.pool, t.operator, t.doc) for t in spec.tasks] == [
        ("one", (), (), 0, "default_pool", "@task", "Gives one."),
        ("add", ("one",), ("one",), 2, "small", "@task", None),
        ("end", ("add",), (), 0, "default_pool", "EmptyOperator", None),
    ]
    call = registry.callables("sums")
    assert call["one"]({}) == 1
    assert call["add"]({"one": 5}) == 7


def test_repeated_calls_are_numbered_as_in_airflow() -> None:
    @task
    def f() -> None: ...

    with DAG("x") as made:
        f()
        f()
        f()
        f.override(task_id="f__1")()
        f.override(task_id="g")()
        f.override(task_id="g")()
    assert list(made.tasks) == ["f", "f__1", "f__2", "f__3", "g", "g__1"]
    with DAG("y") as other:
        f()
    assert list(other.tasks) == ["f"]


def test_override_changes_a_copy() -> None:
    @task(retries=1, queue="a")
    def f(x: int) -> int:
        return x

    with DAG("x") as made:
        f.override(task_id="g", retries=5)(1)
        f(2)
    assert {t.task_id: (t.retries, t.queue) for t in made.to_spec().tasks} == {"g": (5, "a"), "f": (1, "a")}
    with pytest.raises(DagError, match="'retires'"):
        f.override(retires=5)


def test_lists_of_results_fan_in_and_out() -> None:
    @task
    def part(n: int) -> int:
        return n

    @task
    def total(parts: list[int]) -> int:
        return sum(parts)

    with DAG("x") as made:
        parts = [part(n) for n in range(3)]
        EmptyOperator(task_id="start") >> parts
        total(parts)
    specs = {t.task_id: t for t in made.to_spec().tasks}
    assert specs["part__1"].upstream == ("start",)
    assert specs["total"].inputs == ("part", "part__1", "part__2")
    assert registry.callables("x")["total"]({"part": 1, "part__1": 2, "part__2": 3}) == 6


def test_the_function_itself_stays_callable() -> None:
    @task
    def f(x: int) -> int:
        return x + 1

    assert f.function(1) == 2
    assert f.__name__ == "f"


def test_mistakes_are_named() -> None:
    @task
    def f(x: int = 0) -> int:
        return x

    with pytest.raises(DagError, match=r"'f' is called outside of any DAG\..* call f\.function"):
        f()
    with DAG("x"):
        end = EmptyOperator(task_id="end")
        for use in (lambda: f >> end, lambda: end >> f, lambda: [f] >> end):
            with pytest.raises(DagError, match="was not called"):
                use()
        with pytest.raises(DagError, match="Pass what it returns"):
            f(f)
        with pytest.raises(DagError, match=r"cannot call f\(x: 'int' = 0\).*unexpected keyword argument 'y'"):
            f(y=1)
    with pytest.raises(DagError, match="'retires'"):
        task(retires=1)(print)
    with pytest.raises(DagError, match="keyword arguments only"):
        task("name")  # type: ignore[call-overload]
    with pytest.raises(DagError, match=r"@task\.docker does not exist in this release"):
        task.docker  # noqa: B018 - the attribute raises
    assert task.python is task


def test_an_unknown_dag_has_no_callables() -> None:
    with pytest.raises(Exception, match="DAG 'nope' is not defined"):
        registry.callables("nope")
