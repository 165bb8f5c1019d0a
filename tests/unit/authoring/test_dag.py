"""DAG and @dag: what is accepted, what is refused and with which words, and what comes out as a spec."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tickless import DAG, EmptyOperator, dag
from tickless.authoring import registry
from tickless.authoring.place import DagError
from tickless.model.dag import DagSpec


def here() -> int:
    """The line that calls this."""
    import sys

    return sys._getframe(1).f_lineno


def spec(dag_id: str) -> DagSpec:
    return next(spec for spec in registry.collect() if spec.dag_id == dag_id)


def test_everything_that_is_said_is_in_the_spec() -> None:
    with DAG(
        "etl",
        description="Daily",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        tags=["b", "a", "b"],
        max_active_tasks=3,
        max_active_runs=1,
        default_args={"retries": 2, "owner": "me", "email_on_failure": False},
        doc_md="""
            # Title
            Text
        """,
    ) as made:
        EmptyOperator(task_id="one")
        EmptyOperator(task_id="two", retries=0)
    assert made.dag_id == "etl"
    assert spec("etl") == DagSpec.build(
        dag_id="etl",
        tasks=spec("etl").tasks,
        description="Daily",
        tags=("b", "a"),
        max_active_tasks=3,
        max_active_runs=1,
        doc="# Title\nText",
        lineno=spec("etl").lineno,
    )
    assert [task.retries for task in spec("etl").tasks] == [2, 0]


def test_defaults_are_airflows() -> None:
    with DAG("plain"):
        EmptyOperator(task_id="t")
    plain = spec("plain")
    assert (plain.description, plain.tags, plain.max_active_tasks, plain.max_active_runs) == (None, (), None, None)
    [task] = plain.tasks
    assert (task.retries, task.retry_delay_seconds, task.execution_timeout_seconds) == (0, 300.0, None)
    assert (task.trigger_rule, task.pool, task.pool_slots) == ("all_success", "default_pool", 1)
    assert (task.priority_weight, task.queue, task.do_xcom_push) == (1, "default", True)


def test_a_decorated_function_is_a_factory() -> None:
    @dag
    def bare() -> None:
        """What it does."""
        EmptyOperator(task_id="t")

    @dag(dag_id="named", tags=["x"])
    def other(count: int) -> None:
        for number in range(count):
            EmptyOperator(task_id=f"t{number}")

    @dag("positional", doc_md=None)
    def third() -> None:
        """Not shown."""

    assert registry.collect() == []
    made = bare()
    other(count=2)
    third()
    assert isinstance(made, DAG)
    assert [(s.dag_id, len(s.tasks), s.tags, s.doc) for s in registry.collect()] == [
        ("bare", 1, (), "What it does."),
        ("named", 2, ("x",), None),
        ("positional", 0, (), None),
    ]


def test_a_factory_that_is_never_called_is_worth_a_warning() -> None:
    @dag
    def forgotten() -> None:
        pass

    assert any("'forgotten' is never called" in warning for warning in registry.warnings())
    forgotten()
    assert registry.warnings() == ["DAG 'forgotten' has no tasks"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"shedule": None}, "DAG 'x' has no argument 'shedule'. Did you mean 'schedule'?"),
        ({"max_active_run": 3}, "Did you mean 'max_active_runs'?"),
        ({"zzz": 3}, "It takes: catchup, dag_id, dagrun_timeout, default_args"),
        ({"deadline": 5}, "deadline=5, which this release of tickless does not support"),
        ({"dagrun_timeout": "1h"}, "dagrun_timeout of DAG 'x' is '1h' (str), but must be a number of seconds"),
        ({"fail_fast": 1}, "fail_fast of DAG 'x' is 1 (int), but must be True or False"),
        ({"tags": "one"}, "tags of DAG 'x' is the string 'one'"),
        ({"tags": ["a", 1]}, "a tag of DAG 'x' is 1 (int), but must be a string"),
        ({"max_active_tasks": 0}, "must be at least 1"),
        ({"max_active_runs": True}, "must be a whole number"),
        ({"start_date": "2026-01-01"}, "must be a datetime"),
        ({"catchup": "no"}, "must be True or False"),
        ({"description": "a\x00b"}, "cannot be stored"),
        ({"doc_md": "\ud800"}, "cannot be stored"),
        (
            {"default_args": {"retires": 3}},
            "default_args of DAG 'x' has no argument 'retires'. Did",
        ),
        ({"default_args": {"retries": "3"}}, "retries of default_args of DAG 'x' is '3' (str)"),
        ({"default_args": {"depends_on_past": "yes"}}, "depends_on_past of default_args of DAG 'x' is 'yes' (str)"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(args: dict[str, Any], words: str) -> None:
    with pytest.raises(DagError) as caught:
        DAG("x", **args)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{__file__}:{here() - 2}: ")


@pytest.mark.parametrize(
    "args",
    [{"on_failure_callback": None}, {"params": {}}, {"dagrun_timeout": None}],
)
def test_airflow_arguments_that_ask_for_nothing_are_accepted(args: dict[str, Any]) -> None:
    DAG("x", **args)


def test_bad_and_doubled_ids_are_refused() -> None:
    with pytest.raises(DagError, match="dag_id 'a/b' is not allowed"):
        DAG("a/b")
    DAG("a")
    first = here() - 1
    with pytest.raises(DagError, match=rf"DAG 'a' is defined twice: at .*:{first} and at .*:{first + 3}"):
        DAG("a")


def test_dags_do_not_nest() -> None:
    @dag
    def inner() -> None:
        pass

    with DAG("outer"):
        with pytest.raises(DagError, match="DAG 'inner' is opened inside DAG 'outer'"):
            inner()
        with pytest.raises(DagError, match="inside DAG 'outer'"), DAG("other"):
            pass
        EmptyOperator(task_id="t")  # the outer one is still open
    assert [task.task_id for task in spec("outer").tasks] == ["t"]
    with pytest.raises(DagError, match="outside of any DAG"):
        EmptyOperator(task_id="t")


def test_a_block_that_raises_is_left() -> None:
    with pytest.raises(ZeroDivisionError), DAG("a"):
        1 / 0  # noqa: B018 - raises
    with DAG("b"):
        EmptyOperator(task_id="t")
    assert len(spec("b").tasks) == 1


def test_errors_of_the_whole_graph_name_a_line() -> None:
    with DAG("loop"):
        line = here() - 1
        one, two = EmptyOperator(task_id="one"), EmptyOperator(task_id="two", pool_slots=1)
        one >> two >> one
    with pytest.raises(DagError, match="has a cycle: one -> two -> one") as caught:
        registry.collect()
    assert caught.value.place == (__file__, line)
    registry.reset()
    with DAG("bad"):
        EmptyOperator(task_id="t", pool_slots=0)
        line = here() - 1
    with pytest.raises(DagError, match="pool_slots is 0, but must be at least 1") as caught:
        registry.collect()
    assert caught.value.place == (__file__, line)


def test_collect_can_be_restricted_to_a_file() -> None:
    DAG("a").file = "/x.py"
    DAG("b").file = "/y.py"
    assert [spec.dag_id for spec in registry.collect("/y.py")] == ["b"]
