"""Airflow 3's defaults, as a table, and what is written or read of tasks and DAGs as attributes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tickless import DAG, BashOperator, EmptyOperator, PythonOperator, ShortCircuitOperator, TriggerRule, dag, task
from tickless.authoring import registry
from tickless.authoring.arguments import ABSENT_DAG_ARGUMENTS, ABSENT_TASK_ARGUMENTS
from tickless.authoring.place import DagError
from tickless.authoring.trigger import TriggerDagRunOperator
from tickless.model.dag import DagSpec, TaskSpec


@pytest.fixture(autouse=True)
def no_dags() -> None:
    registry.reset()


def spec(**args: Any) -> TaskSpec:
    registry.reset()
    with DAG("d") as made:
        EmptyOperator(task_id="t", **args)
    return made.to_spec().tasks[0]


def dag_spec(**args: Any) -> DagSpec:
    registry.reset()
    with DAG("d", **args) as made:
        EmptyOperator(task_id="t")
    return made.to_spec()


TASKS = [
    ("retries", "retries", 0),
    ("retry_delay", "retry_delay_seconds", 300.0),
    ("retry_exponential_backoff", "retry_exponential_backoff", 0.0),
    ("max_retry_delay", "max_retry_delay_seconds", None),
    ("execution_timeout", "execution_timeout_seconds", None),
    ("trigger_rule", "trigger_rule", TriggerRule.ALL_SUCCESS),
    ("pool", "pool", "default_pool"),
    ("pool_slots", "pool_slots", 1),
    ("max_active_tis_per_dag", "max_active_tis_per_dag", None),
    ("max_active_tis_per_dagrun", "max_active_tis_per_dagrun", None),
    ("priority_weight", "priority_weight", 1),
    ("queue", "queue", "default"),
    ("do_xcom_push", "do_xcom_push", True),
    ("doc_md", "doc", None),
]
DAGS = [
    ("description", None),
    ("schedule", None),
    ("tags", ()),
    ("max_active_tasks", None),
    ("max_active_runs", None),
    ("dagrun_timeout_seconds", None),
    ("fail_fast", False),
    ("max_consecutive_failed_dag_runs", None),
    ("is_paused_upon_creation", None),
    ("params", ()),
    ("doc", None),
]


@pytest.mark.parametrize(("argument", "field", "default"), TASKS)
def test_the_default_of_a_task(argument: str, field: str, default: object) -> None:
    assert getattr(spec(), field) == default
    with DAG("d2"):
        read = getattr(EmptyOperator(task_id="t"), argument)
    assert read == (timedelta(seconds=300) if argument == "retry_delay" else default)


@pytest.mark.parametrize(("field", "default"), DAGS)
def test_the_default_of_a_dag(field: str, default: object) -> None:
    assert getattr(dag_spec(), field) == default


def test_the_defaults_of_operators() -> None:
    with DAG("d") as made:
        bash = BashOperator(task_id="b", bash_command=":")
        short = ShortCircuitOperator(task_id="s", python_callable=lambda: True)
        trigger = TriggerDagRunOperator(task_id="t", trigger_dag_id="x")
        python = PythonOperator(task_id="p", python_callable=lambda: None)

        @task
        def plain() -> None: ...

        plain()
    assert (bash.append_env, bash.env, bash.cwd, bash.skip_on_exit_code) == (False, None, None, 99)
    assert short.ignore_downstream_trigger_rules is True
    assert (trigger.wait_for_completion, trigger.poke_seconds) == (False, 60)
    assert (trigger.allowed_states, trigger.failed_states) == (("success",), ("failed",))
    assert python.multiple_outputs is False
    assert {each.weight_rule for each in made.tasks.values()} == {"downstream"}
    assert (made.catchup, made.schedule, made.default_args) == (False, None, {})


@pytest.mark.parametrize(("name", "value"), ABSENT_TASK_ARGUMENTS.items())
def test_an_argument_that_asks_for_nothing_is_accepted(name: str, value: object) -> None:
    assert replace(spec(**{name: value}), lineno=0) == replace(spec(), lineno=0), name


@pytest.mark.parametrize(("name", "value"), ABSENT_DAG_ARGUMENTS.items())
def test_an_argument_of_a_dag_that_asks_for_nothing_is_accepted(name: str, value: object) -> None:
    assert dag_spec(**{name: value}).tasks == dag_spec().tasks, name


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"email": ["a@b.c"], "email_on_failure": False, "email_on_retry": False}, None),
        ({"email": ["a@b.c"], "email_on_failure": False}, "email="),
        ({"email": ["a@b.c"]}, "email="),
        ({"email_on_failure": True}, "email_on_failure=True"),
    ],
)
def test_mail_is_refused_unless_nobody_is_to_be_written_to(given: dict[str, Any], complaint: str | None) -> None:
    if complaint is None:
        assert replace(spec(**given), lineno=0) == replace(spec(), lineno=0)
        return
    with pytest.raises(DagError, match=complaint):
        spec(**given)


def test_what_is_set_on_a_task_afterwards_counts() -> None:
    with DAG("d") as made:
        one = EmptyOperator(task_id="one")
        one.doc_md = "    what it does"
        one.retries = 3
        one.retry_delay = timedelta(minutes=2)
        one.trigger_rule = "all_done"
        two = EmptyOperator(task_id="two")
        one >> two
        assert (one.retries, one.retry_delay, one.trigger_rule) == (3, timedelta(minutes=2), "all_done")
    found = made.to_spec().tasks[0]
    assert (found.doc, found.retries, found.retry_delay_seconds) == ("what it does", 3, 120.0)
    assert found.trigger_rule is TriggerRule.ALL_DONE
    assert (one.downstream_task_ids, two.upstream_task_ids) == ({"two"}, {"one"})
    assert (one.downstream_list, two.upstream_list) == ([two], [one])
    assert (one.operator_name, one.task_type, one.dag_id) == ("EmptyOperator", "EmptyOperator", "d")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("retries", "three", "retries of <EmptyOperator 't'> is 'three'"),
        ("trigger_rule", "all_sucess", "Did you mean 'all_success'"),
        ("on_failure_callback", print, "on_failure_callback"),
        ("depends_on_past", "yes", "depends_on_past of <EmptyOperator 't'> is 'yes'"),
        ("wait_for_past_depends_before_skipping", True, "wait_for_past_depends_before_skipping=True"),
    ],
)
def test_what_is_set_wrongly_afterwards_is_refused(name: str, value: object, complaint: str) -> None:
    with DAG("d"):
        made = EmptyOperator(task_id="t")
        with pytest.raises(DagError, match=complaint):
            setattr(made, name, value)


def test_what_is_set_on_a_dag_afterwards_counts_or_is_refused() -> None:
    with DAG("d", tags=["x"], schedule="@daily") as made:
        EmptyOperator(task_id="t")
        made.doc_md = "  about it"
        with pytest.raises(DagError, match=r"tags of <DAG 'd'> is set after it was made. Write DAG\(..., tags=...\)"):
            made.tags = ["y"]
        with pytest.raises(DagError, match="on_failure_callback of <DAG 'd'> is set"):
            made.on_failure_callback = print
    assert made.to_spec().doc == "about it"
    assert (made.tags, made.schedule, made.task_ids, made.has_task("t")) == (["x"], "@daily", ["t"], True)
    assert made.get_task("t") is made.task_dict["t"]
    with pytest.raises(DagError, match="has no task 'u'"):
        made.get_task("u")
    with pytest.raises(AttributeError, match="DAG has no attribute 'nothing'"):
        made.nothing  # noqa: B018


def test_dag_test_says_what_to_use_instead() -> None:
    @dag
    def d() -> None:
        EmptyOperator(task_id="t")

    with pytest.raises(DagError, match="`tickless dag test FILE`"):
        d().test()
