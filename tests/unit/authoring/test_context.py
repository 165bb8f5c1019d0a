"""The context of a running task: as arguments, from anywhere, and what a task pushes and pulls."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.authoring.instances import instance, order, run
from tickless import DAG, BashOperator, PythonOperator, get_current_context, task
from tickless.authoring import context, daemon, registry
from tickless.authoring.context import CONTEXT_KEYS, MAX_PUSHED, TaskInstance, enter
from tickless.authoring.daemon import XCom
from tickless.authoring.keys import CONTEXT, ELSEWHERE, TASK_INSTANCE
from tickless.authoring.place import DagError
from tickless.errors import UserError
from tickless.exceptions import AirflowException
from tickless.model.dag import TaskKind


def make(function: Any, *args: Any, **kwargs: Any) -> None:
    with DAG("x", params={"p": 1}):
        PythonOperator(task_id="t", python_callable=function, op_args=args, op_kwargs=kwargs)


def test_the_keys_are_those_that_are_promised() -> None:
    make(lambda: None)
    assert instance().get_template_context().keys() == CONTEXT_KEYS


def test_parameters_with_names_of_the_context_are_filled() -> None:
    def work(x: int, ds: str, ti: Any, *, params: Any, y: int = 5, run_id: Any = None, task: Any = None) -> Any:
        return x, ds, ti.task_id, params, y, run_id, task.task_id

    make(work, 3)
    assert run() == (3, "2026-11-22", "t", {"p": 1}, 5, "r", "t")


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (lambda ds, ti: (ds, ti), ("mine",), {"ti": "own"}, ("mine", "own")),
        (lambda ds, **context: (ds, sorted(context) == sorted(CONTEXT_KEYS - {"ds"})), ("mine",), {}, ("mine", True)),
        (lambda *args, **context: (args, context["ds"], context["a"]), (1,), {"a": 2}, ((1,), "2026-11-22", 2)),
        (lambda params, conf: (params, conf), (), {}, ({"p": 1}, {})),
        (lambda a, /, b=1: (a, b), (1,), {}, (1, 1)),
    ],
)
def test_what_is_given_comes_first(function: Any, args: Any, kwargs: Any, expected: object) -> None:
    make(function, *args, **kwargs)
    assert run() == expected


def test_other_missing_arguments_are_still_errors_of_the_dag_file() -> None:
    def work(x: int, ds: str, z: int) -> None: ...

    with DAG("x"), pytest.raises(DagError, match=r"cannot call work\(.*missing a required argument: 'z'"):
        PythonOperator(task_id="t", python_callable=work, op_args=[1])
    with pytest.raises(DagError, match="has the parameter ds='2026', which is filled from the context"):

        @task
        def named(x: int, ds: str = "2026") -> None: ...


def test_the_context_is_there_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_running", None)
    with pytest.raises(RuntimeError, match="no task is running"):
        get_current_context()
    make(lambda: None)
    context.enter(instance())
    assert get_current_context()["ti"].task_id == "t"
    assert get_current_context() is get_current_context()


# ---- XComs --------------------------------------------------------------------------------------------------------


def test_what_is_pushed_is_json_and_can_be_pulled_at_once() -> None:
    ti = instance()
    ti.xcom_push("k", {"a": [1]})
    ti.xcom_push(key="none", value=None)
    assert {key: json.loads(text) for key, text in ti.pushed.items()} == {"k": {"a": [1]}, "none": None}
    assert ti.xcom_pull(key="k") == {"a": [1]}
    assert ti.xcom_pull("t", "none", default=7) == 7


@pytest.mark.parametrize("key", ["", 3, None, "a\0b", "\ud800", "k" * 513])
def test_a_wrong_key_is_refused(key: Any) -> None:
    with pytest.raises(AirflowException, match="must be a text of 1 to 512 characters"):
        instance().xcom_push(key, 1)


def test_keys_are_limited_in_number() -> None:
    ti = instance()
    for number in range(MAX_PUSHED):
        ti.xcom_push(str(number), number)
    ti.xcom_push("0", "again")
    with pytest.raises(AirflowException, match="more than 1000 keys"):
        ti.xcom_push("one more", 1)


def test_a_bash_function_cannot_push() -> None:
    with pytest.raises(AirflowException, match="its process becomes the command"):
        TaskInstance(order(kind=TaskKind.BASH), {}, lambda key, value: "").xcom_push("k", 1)


class Answers:
    """A daemon that knows some values."""

    def __init__(self, *found: XCom) -> None:
        self.found = found
        self.asked: list[dict[str, Any]] = []

    def xcoms(self, **asked: Any) -> list[XCom]:
        self.asked.append(asked)
        return [each for each in self.found if each.task_id in asked["task_ids"]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    found = [XCom(task_id="far", map_index=-1, value=1), *(XCom(task_id="m", map_index=n, value=n) for n in (0, 1))]
    given = Answers(*found)
    monkeypatch.setattr(daemon._Held, "daemon", given)
    return given


@pytest.mark.parametrize(
    ("args", "kwargs", "value", "asks"),
    [
        (("near",), {}, "v", False),
        (("near", "k"), {}, "keyed", False),
        (("near",), {"dag_id": "x", "run_id": "r"}, "v", False),
        (("far",), {}, 1, True),
        (("gone",), {"default": 9}, 9, True),
        (("gone",), {}, None, True),
        ((["near", "far", "gone"],), {}, ["v", 1, None], True),
        (("m",), {}, [0, 1], True),
        (("far",), {"map_indexes": -1}, 1, True),
        (("near",), {"run_id": "other", "default": 0}, 0, True),
        ((), {}, None, True),
    ],
)
def test_pulling(answers: Answers, args: Any, kwargs: Any, value: object, asks: bool) -> None:
    ti = instance(inputs={"near": "v", ("near", "k"): "keyed"})
    assert ti.xcom_pull(*args, **kwargs) == value
    assert bool(answers.asked) == asks


def test_nothing_is_asked_outside_of_a_running_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon._Held, "daemon", None)
    with pytest.raises(UserError, match="the XCom 'return_value' of task 'far' was asked for outside"):
        instance().xcom_pull("far")


def f_dict() -> dict[str, int]: ...  # type: ignore[empty-body]
def f_bare() -> dict: ...  # type: ignore[type-arg,empty-body]
def f_mapping() -> Mapping[str, Any]: ...  # type: ignore[empty-body]
def f_list() -> list[dict[str, int]]: ...  # type: ignore[empty-body]
def f_dictionary() -> Dictionary: ...  # type: ignore[name-defined]  # noqa: F821
def f_none(): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "is_inferred"),
    [(f_dict, True), (f_bare, True), (f_mapping, True), (f_list, False), (f_dictionary, False), (f_none, False)],
)
@pytest.mark.parametrize("are_strings", [True, False])
def test_multiple_outputs_follow_from_the_annotation(function: Any, is_inferred: bool, are_strings: bool) -> None:
    if not are_strings and function is not f_dictionary:
        function.__annotations__ = inspect.get_annotations(function, eval_str=True)
    with DAG("x") as made:
        task(function)()
        task(multiple_outputs=not is_inferred, task_id="said")(function)()
    assert made.tasks[function.__name__].multiple_outputs is is_inferred
    assert made.tasks["said"].multiple_outputs is not is_inferred


def test_an_item_of_multiple_outputs_is_an_input_of_its_own() -> None:
    @task
    def many() -> dict[str, int]:
        return {"a": 1, "b": 2}

    @task
    def use(x: Any, y: Any = None) -> Any:
        return x, y

    with DAG("x") as made:
        parts = many()
        use.override(task_id="one")(parts["a"])
        use.override(task_id="deep")(parts["b"]["c"], parts)
        said = BashOperator(task_id="said", bash_command="true")
        use.override(task_id="plain")(said.output["a"])
    specs = {spec.task_id: (spec.inputs, spec.input_keys) for spec in made.to_spec().tasks}
    assert specs["one"] == ((), (("many", "a"),))
    assert specs["deep"] == (("many",), (("many", "b"),))
    assert specs["plain"] == (("said",), ())
    call = registry.callables("x")
    assert call["one"]({("many", "a"): 1}) == (1, None)
    assert call["deep"]({("many", "b"): {"c": 3}, "many": 4}) == (3, 4)
    with pytest.raises(AirflowException, match="task 'many' has handed on nothing under the key 'a'"):
        call["one"]({})


BEFORE = {
    "dag_id": "x",
    "run_id": "before",
    "run_type": "scheduled",
    "state": "success",
    "queued_at": "2026-11-21T00:00:01+00:00",
    "start_date": "2026-11-21T00:00:02+00:00",
    "end_date": "2026-11-21T00:00:03+00:00",
    "logical_date": "2026-11-20T00:00:00+00:00",
    "data_interval_start": "2026-11-20T00:00:00+00:00",
    "data_interval_end": "2026-11-21T00:00:00+00:00",
}


class Past:
    """A daemon that knows one run before this one, and counts who asks for it."""

    def __init__(self, before: dict[str, Any] | None = BEFORE) -> None:
        self.before = before
        self.asked: list[object] = []

    def previous_run(self, state: object = None) -> dict[str, Any] | None:
        self.asked.append(state)
        return self.before


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> Past:
    past = Past()
    monkeypatch.setattr(daemon._Held, "daemon", past)
    return past


FIELDS: dict[str, Any] = {
    "logical_date": "2026-11-22T13:14:15+00:00",
    "data_interval_start": "2026-11-22T13:14:15+00:00",
    "data_interval_end": "2026-11-23T13:14:15+00:00",
    "run_started_at": "2026-11-23T13:14:16+00:00",
    "run_type": "scheduled",
    "conf": '{"p": 2}',
    "try_number": 3,
}
VALUES = [
    ("conf", {"p": 2}),
    ("dag.dag_id", "x"),
    ("dag_run.run_id", "r"),
    ("dag_run.run_type", "scheduled"),
    ("dag_run.state", "running"),
    ("dag_run.start_date.isoformat()", "2026-11-23T13:14:16+00:00"),
    ("data_interval_start.isoformat()", "2026-11-22T13:14:15+00:00"),
    ("data_interval_end.isoformat()", "2026-11-23T13:14:15+00:00"),
    ("ds", "2026-11-22"),
    ("ds_nodash", "20261122"),
    ("inlets", []),
    ("logical_date.isoformat()", "2026-11-22T13:14:15+00:00"),
    ("macros.ds_add(ds, 1)", "2026-11-23"),
    ("outlets", []),
    ("params", {"p": 2}),
    ("prev_data_interval_end_success.isoformat()", "2026-11-21T00:00:00+00:00"),
    ("prev_data_interval_start_success.isoformat()", "2026-11-20T00:00:00+00:00"),
    ("prev_end_date_success.isoformat()", "2026-11-21T00:00:03+00:00"),
    ("prev_start_date_success.isoformat()", "2026-11-21T00:00:02+00:00"),
    ("run_id", "r"),
    ("task.task_id", "t"),
    ("task.retries", 4),
    ("task_instance.task_id", "t"),
    ("task_instance_key_str", "x__t__20261122"),
    ("templates_dict", None),
    ("test_mode", False),
    ("ti.task_id", "t"),
    ("ti.dag_id", "x"),
    ("ti.run_id", "r"),
    ("ti.map_index", -1),
    ("ti.try_number", 3),
    ("ti.max_tries", 4),
    ("ti.state", "running"),
    ("ti.end_date", None),
    ("ti.operator", "PythonOperator"),
    ("ti.pool", "default_pool"),
    ("ti.queue", "slow"),
    ("ti.priority_weight", 1),
    ("tuple(ti.key)", ("x", "t", "r", 3, -1)),
    ("ti.task is task and ti.dag is dag and ti.dag_run is dag_run", True),
    ("ti.get_template_context()['ds']", "2026-11-22"),
    ("ti.get_previous_dagrun().run_id", "before"),
    ("ti.get_previous_dagrun(state='success').conf", None),
    ("ti.log.name", "tickless.task"),
    ("bool(ti.hostname)", True),
    ("ti.start_date.tzinfo is not None", True),
    ("try_number", 3),
    ("ts", "2026-11-22T13:14:15+00:00"),
    ("ts_nodash", "20261122T131415"),
    ("ts_nodash_with_tz", "20261122T131415+0000"),
]


def present() -> TaskInstance:
    with DAG("x", params={"p": 1}):
        PythonOperator(task_id="t", python_callable=lambda: None, retries=4, queue="slow")
    return instance(**FIELDS)


@pytest.mark.parametrize(("expression", "expected"), VALUES)
def test_the_value_of_a_key(past: Past, expression: str, expected: object) -> None:
    assert eval(expression, {}, present().get_template_context()) == expected


def test_every_key_and_attribute_has_a_row() -> None:
    rows = " ".join(expression for expression, _ in VALUES)
    beyond = {"conn", "var", "ti.xcom_pull", "ti.xcom_push"}  # they ask the daemon, and have tests of their own
    names = {*CONTEXT, *(f"ti.{name}" for name in TASK_INSTANCE)} - beyond
    assert {name for name in names if not re.search(rf"(?<![\w.]){re.escape(name)}\b", rows)} == set()


def test_the_run_before_is_asked_for_when_it_is_looked_at_and_once(past: Past) -> None:
    context = present().get_template_context()
    assert [context["ds"], context.get("run_id"), "prev_start_date_success" in context] == ["2026-11-22", "r", True]
    assert past.asked == []
    assert context["prev_start_date_success"] is context.get("prev_start_date_success")
    assert context["prev_end_date_success"] > context["prev_start_date_success"]
    assert past.asked == ["success"]


def test_a_stand_in_behaves_like_the_value(past: Past) -> None:
    def work(prev_end_date_success: Any, **context: Any) -> Any:
        assert past.asked == ["success"], "it is named; what is not named is not asked for"
        start = context["prev_start_date_success"]
        assert isinstance(start, datetime)
        assert prev_end_date_success - start == timedelta(seconds=1)
        assert start < prev_end_date_success
        assert start == datetime(2026, 11, 21, 0, 0, 2, tzinfo=UTC)
        assert hash(start) == hash(datetime(2026, 11, 21, 0, 0, 2, tzinfo=UTC))
        assert start + timedelta(seconds=1) == prev_end_date_success
        assert [f"{start:%d.%m.}", str(start)[:10], bool(start), start.year] == ["21.11.", "2026-11-21", True, 2026]
        return type(prev_end_date_success)

    make(work)
    assert run() is datetime


def test_without_a_run_before_there_is_none(past: Past) -> None:
    past.before = None

    def work(prev_start_date_success: Any, **context: Any) -> Any:
        assert prev_start_date_success is None
        assert get_current_context()["prev_end_date_success"] is None
        return bool(context["prev_end_date_success"]), str(context["prev_end_date_success"])

    make(work)
    context_of = instance()
    enter(context_of)
    assert run() == (False, "None")


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_a_key_that_is_not_there_says_what_is(name: str) -> None:
    ti = present()
    with pytest.raises(KeyError, match=re.escape(ELSEWHERE[name])):
        ti.get_template_context()[name]
    with DAG("y") as dag, pytest.raises(AirflowException, match=re.escape(ELSEWHERE[name])):
        dag.templates.render("a field", "{{ " + name + " }}", ti.get_template_context(), is_file=False)


def test_templates_get_values_and_ask_only_for_what_they_name(past: Past) -> None:
    ti = present()
    with DAG("y", render_template_as_native_obj=True) as dag:
        context = ti.get_template_context()
        assert dag.templates.render("a field", "{{ ds }}", context, is_file=False) == "2026-11-22"
        assert past.asked == []
        native = dag.templates.render("a field", "{{ prev_start_date_success }}", context, is_file=False)
    assert type(native) is datetime


def test_an_attribute_that_is_not_there_says_what_is() -> None:
    ti = present()
    with pytest.raises(AttributeError, match="ti has no 'log_url' in this release; it has dag, "):
        ti.log_url  # noqa: B018
    with pytest.raises(AttributeError, match="dag_run has no 'note'; it has conf, "):
        ti.dag_run.note  # noqa: B018
    with pytest.raises(AirflowException, match="include_prior_dates"):
        ti.xcom_pull("t", include_prior_dates=True)
