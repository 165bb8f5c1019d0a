"""Templates: what is one, what is refused when the file is parsed, and what they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.authoring.instances import run
from tickless import DAG, BashOperator, PythonOperator, XComArg, task
from tickless.authoring.field import has_template, is_template_file
from tickless.authoring.place import DagError
from tickless.exceptions import AirflowException
from tickless.model.dag import TaskSpec


def spec_of(made: DAG, task_id: str = "t") -> TaskSpec:
    return next(spec for spec in made.to_spec().tasks if spec.task_id == task_id)


@pytest.mark.parametrize(
    ("text", "extensions", "is_one", "is_file"),
    [
        ("echo {{ ds }}", (".sh",), True, False),
        ("{% if x %}", (), True, False),
        ("echo ${#list[@]} {} {#", (), False, False),
        ("run.sh", (".sh", ".bash"), True, True),
        ("scripts/run.bash", (".sh", ".bash"), True, True),
        ("run.sh ", (".sh",), False, False),
        ("bash run.sh", (".sh",), False, False),
        ("/opt/run.sh", (".sh",), False, False),
        ("run.sql", (".sh",), False, False),
        ("", (), False, False),
    ],
)
def test_what_is_a_template(text: str, extensions: tuple[str, ...], is_one: bool, is_file: bool) -> None:
    assert (has_template(text, extensions), is_template_file(text, extensions)) == (is_one, is_file)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ ds }} {{ ds_nodash }}", "2026-11-22 20261122"),
        ("{{ ts }}", "2026-11-22T13:14:15.123456+00:00"),
        ("{{ ts_nodash }} {{ ts_nodash_with_tz }}", "20261122T131415 20261122T131415+0000"),
        ("{{ logical_date.year }} {{ data_interval_end | ds }}", "2026 2026-11-22"),
        ("{{ macros.ds_add(ds, 9) }} {{ macros.ds_add(ds, -22) }}", "2026-12-01 2026-10-31"),
        ("{{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.%y') }}", "22.11.26"),
        ("{{ (logical_date + macros.timedelta(hours=11)) | ts_nodash }}", "20261123T001415"),
        (
            "{{ macros.json.dumps({'a': 1}) }} {{ macros.uuid.UUID(int=1) }}",
            '{"a": 1} 00000000-0000-0000-0000-000000000001',
        ),
        ("{{ params.a }} {{ params.b }} {{ params.c }}", "1 own given"),
        ("{{ conf.c }} {{ dag_run.conf['c'] }} {{ dag_run.run_type }}", "given given manual"),
        ("{{ dag.dag_id }} {{ task.task_id }} {{ ti.task_id }} {{ task_instance.try_number }}", "x t t 1"),
        ("{{ run_id }} {{ task_instance_key_str }} {{ test_mode }}", "r x__t__20261122 False"),
        ("{{ mine(3) }} {{ 3 | double }}", "4 6"),
        ("{% for n in [1, 2] %}{{ n }},{% endfor %}{% do [] %}", "1,2,"),
        ("{% raw %}{{.Names}}{% endraw %}", "{{.Names}}"),
        ("no template", "no template"),
    ],
)
def test_rendering(text: str, rendered: str) -> None:
    with DAG(
        "x",
        params={"a": 1, "b": 2, "c": 3},
        user_defined_macros={"mine": lambda n: n + 1},
        user_defined_filters={"double": lambda n: 2 * n},
    ) as made:
        PythonOperator(task_id="t", python_callable=lambda text: text, op_args=[text], params={"b": "own"})
    made.to_spec()
    assert run(conf='{"c": "given"}') == rendered


def test_a_logical_date_comes_before_the_time_of_asking() -> None:
    with DAG("x"):
        BashOperator(task_id="t", bash_command="{{ ds }} {{ data_interval_start }} {{ dag_run.data_interval_end.day }}")
    fields: dict[str, Any] = {
        "logical_date": "2026-01-02T00:00:00+00:00",
        "data_interval_end": "2026-01-03T00:00:00+00:00",
    }
    assert run(**fields).text == "2026-01-02 2026-01-02 00:00:00+00:00 3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ nobody }}", "a field of task 't' cannot be rendered: 'nobody' is undefined"),
        ("{{ params.nobody }}", "has no attribute 'nobody'"),
        ("{{ ''.__class__ }}", "is unsafe"),
        ("{{ ds.nothing.at_all }}", "cannot be rendered"),
        ("{% include name %}", "'name' is undefined"),
        ("{{ macros.nothing }}", "no attribute 'nothing'"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_what_cannot_be_rendered_fails_the_task_with_its_reason(text: str, words: str) -> None:
    with DAG("x") as made:
        BashOperator(task_id="t", bash_command=text)
    made.to_spec()
    with pytest.raises(AirflowException) as caught:
        run()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ ds", "is not a template that Jinja can read: unexpected end of template"),
        ("echo\n{{ . }}", "(line 2 of it)"),
        ("{{ ds | uper }}", "there is no filter 'uper'"),
        ("{{ ds is odder }}", "there is no test 'odder'"),
        ("{% include 'none.sql' %}", "names the template 'none.sql', which is not there"),
        ("none.sh", "names the template 'none.sh', which is not there"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_the_dag_file(text: str, words: str) -> None:
    with DAG("x") as made:
        BashOperator(task_id="t", bash_command=text)
    with pytest.raises(DagError) as caught:
        made.to_spec()
    assert words in str(caught.value)
    assert caught.value.place == made.tasks["t"].place


def test_template_files_are_looked_for_in_order(tmp_path: Path) -> None:
    for name, content in {
        "first/a.sh": "first {{ ds }}",
        "second/a.sh": "-",
        "second/b.sh": "{% include 'a.sh' %}!",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    paths = [str(tmp_path / "first"), str(tmp_path / "second")]
    with DAG("x", template_searchpath=paths) as made:
        BashOperator(task_id="t", bash_command="b.sh")
        PythonOperator(
            task_id="p",
            python_callable=lambda templates_dict: templates_dict,
            templates_dict={"q": ["a.sh"]},
            templates_exts=(".sh",),
        )
    assert (spec_of(made).needs_runner, spec_of(made).command) == (True, None)
    assert run().text == "first 2026-11-22!"
    assert run("p") == {"q": ["first 2026-11-22"]}


def test_native_objects() -> None:
    @task
    def keep(value: Any) -> Any:
        return value

    with DAG("x", render_template_as_native_obj=True, params={"n": 3}) as made:
        keep.override(task_id="t")({"k": ["{{ params.n + 1 }}", "{{ [1, params.n] }}"]})
    made.to_spec()
    assert run() == {"k": [4, [1, 3]]}


def test_undefined_names_may_be_let_pass() -> None:
    import jinja2

    with DAG("x", template_undefined=jinja2.Undefined, jinja_environment_kwargs={"variable_start_string": "<<"}):
        BashOperator(task_id="t", bash_command="{% if 1 %}a<<nobody}}b{% endif %}")
    assert run().text == "ab"


def test_commands_without_templates_need_no_runner() -> None:
    with DAG("x") as made:
        BashOperator(task_id="t", bash_command="echo 1", env={"A": "1"}, cwd="sub")
        BashOperator(task_id="u", bash_command="echo 1", env={"A": "{{ ds }}"})
        BashOperator(task_id="v", bash_command="echo 1", cwd="{{ ds }}")
    plain, *made_later = (spec_of(made, task_id) for task_id in "tuv")
    assert (plain.needs_runner, plain.command, plain.env, plain.cwd) == (False, "echo 1", {"A": "1"}, "sub")
    assert [(each.needs_runner, each.command, each.env, each.cwd) for each in made_later] == [
        (True, None, None, None)
    ] * 2
    assert run("u").env == {"A": "2026-11-22"}
    assert run("v").cwd == "2026-11-22"


def test_results_in_commands_are_data_and_never_rendered() -> None:
    with DAG("x") as made:
        a = PythonOperator(task_id="a", python_callable=dict).output
        BashOperator(task_id="t", bash_command=a, env={"A": a, "B": "{{ ds }}", "N": a["n"]})
        BashOperator(task_id="u", bash_command="echo {{ ti.xcom_pull('a') }}")
    spec = spec_of(made)
    assert (spec.upstream, spec.inputs, spec.input_keys) == (("a",), ("a",), (("a", "n"),))
    command = run(inputs={"a": "{{ 1 + 1 }}", ("a", "n"): [1]})
    assert (command.text, command.env) == ("{{ 1 + 1 }}", {"A": "{{ 1 + 1 }}", "B": "2026-11-22", "N": "[1]"})
    with pytest.raises(AirflowException, match="the command of task 't' is 5, but must be a string"):
        run(inputs={"a": 5, ("a", "n"): 1})
    assert run("u", {"a": "{{ 1 + 1 }}"}).text == "echo {{ 1 + 1 }}"


@pytest.mark.parametrize(
    ("call", "inputs", "keys"),
    [
        ("ti.xcom_pull('a')", ("a",), ()),
        ("ti.xcom_pull(task_ids='a', key='k')", (), (("a", "k"),)),
        ("task_instance.xcom_pull(['a', 'b'], default=3)", ("a", "b"), ()),
        ("ti.xcom_pull('nobody')", (), ()),
        ("ti.xcom_pull('beside')", (), ()),
        ("ti.xcom_pull('a' ~ run_id)", (), ()),
        ("ti.xcom_pull('a', map_indexes=1)", (), ()),
        ("ti.xcom_pull(task_ids=params.x)", (), ()),
    ],
)
def test_pulls_that_are_written_out_come_with_the_order(call: str, inputs: object, keys: object) -> None:
    with DAG("x") as made:
        a, b, beside = (BashOperator(task_id=name, bash_command="true") for name in ("a", "b", "beside"))
        a >> b >> BashOperator(task_id="t", bash_command="echo {{ " + call + " }}")
        assert beside.task_id == "beside"
    assert (spec_of(made).inputs, spec_of(made).input_keys) == (inputs, keys)


def test_an_xcomarg_in_a_string_is_pulled() -> None:
    with DAG("x") as made:
        a = PythonOperator(task_id="a", python_callable=dict)
        assert isinstance(a.output, XComArg)
        a >> BashOperator(task_id="t", bash_command=f"echo {a.output['k']}")
    assert spec_of(made).inputs == ("a",)
    assert run(inputs={"a": {"k": "v"}}).text == "echo v"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"template_searchpath": 3}, "template_searchpath of DAG 'x' is 3, but must be a folder"),
        ({"template_searchpath": [3]}, "template_searchpath of DAG 'x' is 3"),
        ({"user_defined_macros": ["a"]}, "user_defined_macros of DAG 'x' is ['a'], but must be a dict"),
        (
            {"user_defined_filters": {"a": 1}},
            "user_defined_filters of DAG 'x' has 'a', which is 1 and cannot be called",
        ),
        ({"render_template_as_native_obj": "yes"}, "must be True or False"),
    ],
)
def test_wrong_arguments_are_named(args: dict[str, Any], words: str) -> None:
    with pytest.raises(DagError) as caught:
        DAG("x", **args)
    assert words in str(caught.value)
