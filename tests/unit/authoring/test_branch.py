"""Branches and short circuits: from what a function returns to the tasks directly below that are followed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.authoring.instances import instance
from tickless import DAG, BranchPythonOperator, EmptyOperator, ShortCircuitOperator, chain, task
from tickless.authoring import registry
from tickless.authoring.context import TaskInstance
from tickless.authoring.place import DagError
from tickless.exceptions import AirflowException
from tickless.model.dag import TaskKind


def run(dag_id: str, task_id: str) -> tuple[Any, TaskInstance]:
    ti = instance(task_id)
    return registry.callables(dag_id)[task_id]({}, ti), ti


def graph(choice: object) -> None:
    """pick >> a, b, join; a >> join; b >> deep >> end; elsewhere stands alone."""
    with DAG("x"):
        pick = BranchPythonOperator(task_id="pick", python_callable=lambda: choice)
        a, b, join, deep, end, _ = (EmptyOperator(task_id=i) for i in ("a", "b", "join", "deep", "end", "elsewhere"))
        pick >> [a, b, join]
        a >> join
        chain(b, deep, end)


@pytest.mark.parametrize(
    ("choice", "followed"),
    [
        ("a", ("a", "join")),
        ("b", ("b",)),
        (["a", "b"], ("a", "b", "join")),
        ({"b"}, ("b",)),
        (("join",), ("join",)),
        ("deep", ()),  # nothing directly below leads there but b, which was not chosen
        ("elsewhere", ()),
        ([], ()),
        (None, ()),
    ],
)
def test_a_branch_follows_what_is_chosen_and_what_that_leads_to(choice: object, followed: tuple[str, ...]) -> None:
    graph(choice)
    value, ti = run("x", "pick")
    assert ti.follow == followed
    assert not ti.skip_below
    assert value == ([*choice] if isinstance(choice, set) else choice)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("bb", "chose 'bb', which DAG 'x' does not have. Did you mean 'b'?"),
        (["a", "zzzzz"], "chose 'zzzzz', which DAG 'x' does not have"),
        (3, "returned 3, but must return a task id, a list of task ids, or None"),
        (["a", None], "must return a task id"),
        ({"a": 1}, "must return a task id"),
        (True, "must return a task id"),
    ],
)
def test_a_wrong_choice_fails_the_task_and_is_named(choice: object, words: str) -> None:
    graph(choice)
    ti = instance()
    with pytest.raises(AirflowException) as caught:
        registry.callables("x")["pick"]({}, ti)
    assert words in str(caught.value)
    assert ti.follow is None


@pytest.mark.parametrize(
    ("value", "ignore", "follow", "skip_below"),
    [
        (True, True, None, False),
        ("yes", False, None, False),
        (False, True, None, True),
        ([], True, None, True),
        (None, False, (), False),
    ],
)
def test_a_short_circuit(value: object, ignore: bool, follow: object, skip_below: bool) -> None:
    with DAG("x"):
        check = ShortCircuitOperator(
            task_id="pick", python_callable=lambda: value, ignore_downstream_trigger_rules=ignore
        )
        check >> EmptyOperator(task_id="a")
    returned, ti = run("x", "pick")
    assert (returned, ti.follow, ti.skip_below) == (value, follow, skip_below)


def test_decorators_make_the_same_and_take_their_own_arguments() -> None:
    @task.branch(retries=2)
    def pick(x: int) -> str:
        return "a" if x else "b"

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def check() -> bool:
        return False

    with DAG("x") as made:
        a, b = EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
        check() >> pick(1) >> [a, b]
    specs = {spec.task_id: spec for spec in made.to_spec().tasks}
    assert [(specs[i].operator, specs[i].kind.value, specs[i].retries) for i in ("pick", "check")] == [
        ("@task.branch", "python", 2),
        ("@task.short_circuit", "python", 0),
    ]
    assert run("x", "pick")[1].follow == ("a",)
    assert run("x", "check")[1].follow == ()


def test_wrong_arguments_are_named_where_they_are_written() -> None:
    with pytest.raises(DagError, match=r"@task.branch 'f' has no argument 'ignore_downstream_trigger_rules'"):

        @task.branch(ignore_downstream_trigger_rules=False)
        def f() -> None: ...

    with DAG("x"), pytest.raises(DagError, match="must be True or False"):
        ShortCircuitOperator(task_id="t", python_callable=bool, ignore_downstream_trigger_rules=1)  # type: ignore[arg-type]
    with pytest.raises(DagError, match=r"@task.branch takes keyword arguments only"):
        task.branch("name")  # type: ignore[call-overload]


def test_a_bash_function_returns_its_command() -> None:
    @task.bash(env={"A": "1"}, append_env=True, cwd="sub", skip_on_exit_code=7)
    def say(word: str) -> str:
        return f"echo {word}"

    @task.bash
    def nothing() -> None: ...

    with DAG("x") as made:
        say("hello")
        nothing()
    spec = made.to_spec().tasks[0]
    assert (spec.kind, spec.needs_runner, spec.command) == (TaskKind.BASH, True, None)
    assert (spec.append_env, spec.skip_on_exit_code) == (True, 7)
    command, _ = run("x", "say")
    assert (command.text, command.env, command.cwd) == ("echo hello", {"A": "1"}, "sub")
    with pytest.raises(AirflowException, match="'nothing' returned None, but must return a command"):
        run("x", "nothing")
