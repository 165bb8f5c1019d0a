"""Operators, dependencies and XComArgs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tickless import DAG, BashOperator, EmptyOperator, PythonOperator, TriggerRule, chain
from tickless.authoring import registry
from tickless.authoring.place import DagError
from tickless.model.dag import TaskKind, TaskSpec


def tasks(made: DAG) -> dict[str, TaskSpec]:
    return {task.task_id: task for task in made.to_spec().tasks}


def upstream(made: DAG) -> dict[str, list[str]]:
    return {task_id: sorted(task.upstream) for task_id, task in sorted(tasks(made).items())}


def empties(text: str) -> list[EmptyOperator]:
    return [EmptyOperator(task_id=task_id) for task_id in text.split()]


def test_shifts_and_lists_on_either_side() -> None:
    with DAG("x") as made:
        a, b, c, d, e, f = empties("a b c d e f")
        assert (a >> [b, c] >> d) is d
        [d, (e,)] >> f
        a << e
        [b] << a
        f.set_upstream(c)
        c.set_downstream([f])
    assert upstream(made) == {"a": ["e"], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": [], "f": ["c", "d", "e"]}


def test_chain_joins_lists_pairwise() -> None:
    with DAG("x") as made:
        a, b, c, d, e, f = empties("a b c d e f")
        chain(a, [b, c], [d, e], f)
        with pytest.raises(DagError, match="one of 2 with one of 1"):
            chain([a, b], [c])
    assert upstream(made) == {"a": [], "b": ["a"], "c": ["a"], "d": ["b"], "e": ["c"], "f": ["d", "e"]}


def test_impossible_dependencies_are_refused_at_their_line() -> None:
    with DAG("x"):
        a = EmptyOperator(task_id="a")
        with pytest.raises(DagError, match="'a' cannot wait for itself"):
            a >> a
        for other in (None, "b", 3, [a, None]):
            with pytest.raises(DagError, match="is not a task"):
                a >> other
    with DAG("y"):
        b = EmptyOperator(task_id="b")
    with pytest.raises(DagError, match="task 'b' of DAG 'y' cannot wait for task 'a' of another DAG, 'x'"):
        a >> b


def test_every_argument_reaches_the_spec() -> None:
    with DAG("x") as made:
        BashOperator(
            task_id="t",
            bash_command="echo $A",
            env={"A": "1"},
            append_env=True,
            cwd="/tmp",
            skip_on_exit_code=None,
            retries=3,
            retry_delay=timedelta(minutes=1),
            execution_timeout=90,
            trigger_rule="one_failed",
            pool="small",
            pool_slots=2,
            priority_weight=7,
            weight_rule="absolute",
            queue="ssd",
            do_xcom_push=False,
            doc_md="What.",
        )
    task = tasks(made)["t"]
    assert task == TaskSpec(
        task_id="t",
        kind=TaskKind.BASH,
        command="echo $A",
        env={"A": "1"},
        append_env=True,
        cwd="/tmp",
        skip_on_exit_code=None,
        retries=3,
        retry_delay_seconds=60.0,
        execution_timeout_seconds=90.0,
        trigger_rule=TriggerRule.ONE_FAILED,
        pool="small",
        pool_slots=2,
        priority_weight=7,
        queue="ssd",
        do_xcom_push=False,
        doc="What.",
        operator="BashOperator",
        lineno=task.lineno,
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"retires": 1}, "BashOperator 't' has no argument 'retires'. Did you mean 'retries'?"),
        ({"retries": 1.5}, "retries of BashOperator 't' is 1.5 (float), but must be a whole number"),
        ({"retries": True}, "must be a whole number"),
        ({"retry_delay": "5m"}, "must be a number of seconds or a timedelta"),
        ({"retry_delay": float("nan")}, "must be a number of seconds"),
        ({"retry_delay": 1e12}, "more than ten years"),
        ({"execution_timeout": "x"}, "must be a number of seconds"),
        ({"trigger_rule": "all_succes"}, "is 'all_succes' (str), which does not exist. Did you mean 'all_success'?"),
        ({"weight_rule": "sideways"}, "Use one of: downstream, upstream, absolute."),
        ({"pool": None}, "pool of BashOperator 't' is None (NoneType), but must be a string"),
        ({"queue": 3}, "queue of BashOperator 't' is 3"),
        ({"do_xcom_push": 1}, "must be True or False"),
        ({"depends_on_past": 1}, "depends_on_past of BashOperator 't' is 1 (int), but must be True or False"),
        ({"wait_for_past_depends_before_skipping": True}, "which this release of tickless does not support"),
        ({"on_failure_callback": print}, "does not support"),
        ({"env": {"A": 1}}, "env['A'] of task 't' is 1 (int), but must be a string"),
        ({"env": {1: "A"}}, "a name in env of task 't' is 1 (int)"),
        ({"env": {"A=B": "x"}}, "which no environment can hold"),
        ({"env": [("A", "1")]}, "must be a dict of strings"),
        ({"bash_command": 3}, "bash_command of task 't' is 3"),
        ({"bash_command": " "}, "is empty"),
        ({"bash_command": "a\x00b"}, "cannot be stored"),
        ({"params": ["x"]}, "params of BashOperator 't' is ['x'] (list), but must be a dict"),
        ({"multiple_outputs": "yes"}, "must be True or False"),
        ({"skip_on_exit_code": "99"}, "must be a whole number"),
        ({"cwd": 3}, "cwd of task 't' is 3"),
        ({"dag": "x"}, "dag of task 't' is 'x', but must be a DAG"),
        ({"task_id": "a b"}, "task_id 'a b' is not allowed"),
    ],
)
def test_a_wrong_argument_is_named(args: dict[str, Any], words: str) -> None:
    with DAG("x"), pytest.raises(DagError) as caught:
        BashOperator(**{"task_id": "t", "bash_command": "true", **args})
    assert words in str(caught.value)
    assert caught.value.place.file == __file__


@pytest.mark.parametrize("args", [{"owner": "me"}, {"depends_on_past": False}, {"email": None}, {"sla": None}])
def test_airflow_arguments_that_ask_for_nothing_are_accepted(args: dict[str, Any]) -> None:
    with DAG("x"):
        EmptyOperator(task_id="t", **args)


@pytest.mark.parametrize("name", ["depends_on_past", "wait_for_downstream", "ignore_first_depends_on_past"])
def test_what_a_task_wants_of_its_past_is_in_its_spec(name: str) -> None:
    for value in (True, False):
        own: dict[str, Any] = {name: not value}
        with DAG(f"x{value}", default_args={name: value}) as made:
            EmptyOperator(task_id="by_default")
            EmptyOperator(task_id="by_itself", **own)
        found = {task.task_id: getattr(task, name) for task in made.to_spec().tasks}
        assert found == {"by_default": value, "by_itself": not value}


def test_docker_style_braces_must_be_said_to_be_no_template() -> None:
    with DAG("x") as made:
        BashOperator(task_id="t", bash_command="docker ps --format '{{.Names}} {{ .ID }}'")
    with pytest.raises(DagError, match=r"task 't' is not a template that Jinja can read: .* \{% raw %\}") as caught:
        made.to_spec()
    assert caught.value.place == made.tasks["t"].place


def test_a_task_can_name_its_dag() -> None:
    made = DAG("x")
    EmptyOperator(task_id="t", dag=made)
    assert list(tasks(made)) == ["t"]


def test_two_operators_with_one_id_are_refused_naming_the_first() -> None:
    with DAG("x"):
        EmptyOperator(task_id="t")
        with pytest.raises(DagError, match=r"two tasks with the id 't'; the first is made at .*test_operators.py:\d+"):
            EmptyOperator(task_id="t")


def test_outputs_in_arguments_are_dependencies_and_inputs_at_any_depth() -> None:
    def work(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    with DAG("x") as made:
        a, b, c, d = (BashOperator(task_id=name, bash_command="true") for name in "abcd")
        PythonOperator(
            task_id="t",
            python_callable=work,
            op_args=[a.output, [1, (b.output,)]],
            op_kwargs={"k": {"deep": [c.output["rows"][0]]}, "again": a.output},
        )
        d >> made.tasks["t"]
    task = tasks(made)["t"]
    assert task.inputs == ("a", "b", "c")
    assert set(task.upstream) == {"a", "b", "c", "d"}
    call = registry.callables("x")
    assert list(call) == ["t"]
    inputs = {"a": 1, "b": 2, "c": {"rows": ["first", "second"]}}
    assert call["t"](inputs) == ((1, [1, (2,)]), {"k": {"deep": ["first"]}, "again": 1})
    assert call["t"]({**inputs, "a": None})[0][0] is None


def test_a_missing_input_is_none() -> None:
    with DAG("x"):
        a = EmptyOperator(task_id="a")
        PythonOperator(task_id="t", python_callable=lambda x: [x], op_args=[a.output])
    assert registry.callables("x")["t"]({}) == [None]


def test_an_async_function_runs_to_its_end() -> None:
    async def work(x: int) -> int:
        return x + 1

    with DAG("x"):
        PythonOperator(task_id="t", python_callable=work, op_args=[1])
    assert registry.callables("x")["t"]({}) == 2


def test_return_values_cannot_be_used_while_the_dag_is_built() -> None:
    with DAG("x"):
        value = EmptyOperator(task_id="a").output
        for use in (lambda: list(value), lambda: len(value), lambda: 1 if value else 0):
            with pytest.raises(DagError, match="only exists once the task has run"):
                use()
        assert "'a'" in repr(value)


def test_in_a_string_a_return_value_is_its_template() -> None:
    with DAG("x"):
        plain = PythonOperator(task_id="a", python_callable=dict).output
        many = PythonOperator(task_id="b", python_callable=dict, multiple_outputs=True).output
    assert f"{plain}" == "{{ ti.xcom_pull(task_ids='a') }}"
    assert str(plain["k"][0]) == "{{ ti.xcom_pull(task_ids='a')['k'][0] }}"
    assert str(many["k"][0]) == "{{ ti.xcom_pull(task_ids='b', key='k')[0] }}"


def test_a_task_passed_as_a_value_is_a_mistake() -> None:
    with DAG("x"):
        a = EmptyOperator(task_id="a")
        with pytest.raises(DagError, match=r"Pass what it returns: `.output`"):
            PythonOperator(task_id="t", python_callable=print, op_args=[a])


def test_a_call_that_cannot_work_is_refused_now() -> None:
    def work(a: int, b: int = 2) -> None:
        pass

    with DAG("x"):
        for args, words in (([], "missing a required argument: 'a'"), ([1, 2, 3], "too many positional")):
            with pytest.raises(DagError, match=rf"task 't\d' cannot call work\(.*{words}"):
                PythonOperator(task_id=f"t{len(args)}", python_callable=work, op_args=args)
        with pytest.raises(DagError, match="cannot be called"):
            PythonOperator(task_id="u", python_callable=3)  # type: ignore[arg-type]
