"""What DAG files can say, on a whole tickless: branches, skips, templates, XComs, groups and params."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.stage import Stage
from tickless.errors import UserError

FILES = {
    "branches.py": """
from tickless import ShortCircuitOperator, TaskFailed, TaskSkipped, task_group

with DAG("branches"):
    @task.branch
    def pick(dag_run):
        return dag_run.conf["way"]
    @task_group
    def small():
        bash("one") >> bash("two")
    large, left = bash("large"), bash("left", trigger_rule="all_done")
    join = bash("join", trigger_rule="none_failed_min_one_success")
    chain(pick(), [small(), large, left])
    [large, left] >> join

with DAG("circuits"):
    check = ShortCircuitOperator(task_id="check", python_callable=lambda dag_run: dag_run.conf["go"])
    heeds = ShortCircuitOperator(
        task_id="heeds", python_callable=lambda: False, ignore_downstream_trigger_rules=False
    )
    check >> bash("below") >> bash("far", trigger_rule="all_done")
    heeds >> bash("near") >> bash("cleanup", trigger_rule="all_done")

with DAG("ends"):
    @task
    def skips():
        raise TaskSkipped("nothing today")
    @task(retries=5, retry_delay=0)
    def gives_up():
        raise TaskFailed("never again")
    @task.branch(retries=1, retry_delay=0)
    def wrong():
        return "nobody"
    skips() >> bash("after_skip")
    gives_up(), wrong() >> bash("after_wrong")
""",
    "xcoms.py": """
from tickless import Variable, get_current_context

with DAG("xcoms"):
    @task
    def push(ti):
        ti.xcom_push("rows", [1, 2, {"deep": "three"}])
        ti.xcom_push(key="none", value=None)
        assert ti.xcom_pull(key="rows")[0] == 1
        return "returned"
    @task
    def split(x: int) -> dict[str, int]:
        return {"double": 2 * x, "square": x * x}
    @task
    def check(rows, returned, double, square, whole):
        assert rows == [1, 2, {"deep": "three"}], rows
        assert (returned, double, square, whole) == ("returned", 6, 9, {"double": 6, "square": 9})
        return get_current_context()["ti"].task_id
    pushed, parts = push(), split(3)
    checked = check(pushed["rows"], pushed, parts["double"], parts["square"], parts)
    said = BashOperator(
        task_id="said",
        bash_command="echo {{ ti.xcom_pull(task_ids='push', key='rows')[2].deep }} "
        "{{ ti.xcom_pull('split').square }} $LIST",
        env={"LIST": pushed["rows"]},
    )
    checked >> said
    @task(retries=1, retry_delay=0)
    def fails(ti):
        ti.xcom_push("tried", ti.try_number)
        raise ValueError("after pushing")
    fails()
    @task
    def asks(ti):
        Variable.set("color", "red")
        Variable.set("limits", {"most": 3}, serialize_json=True)
        assert ti.xcom_pull("nobody", default=7) == 7
        return [*ti.xcom_pull(["push", "split"], key="return_value"), ti.xcom_pull("split", key="square")]
    asked = asks()
    checked >> asked >> BashOperator(
        task_id="knows",
        bash_command="echo {{ var.value.color }} {{ var.json.limits.most }} {{ conn.get('none', 'no') }} "
        "{{ var.value.get('size', 'small') }} {{ ti.xcom_pull('a' + 's' + 'ks')[0] }}",
    )
""",
    "templates.py": """
from tickless import TaskGroup, Param

with DAG(
    "templates",
    params={"word": Param("hello", type="string", minLength=2), "count": 3},
    user_defined_macros={"shout": lambda text: text.upper() + "!"},
    user_defined_filters={"twice": lambda text: text * 2},
):
    with TaskGroup("g", default_args={"retries": 1, "retry_delay": 0}):
        BashOperator(
            task_id="bash",
            bash_command="echo {{ shout(params.word) | twice }} {{ run_id }} {{ params.count + 1 }} $V",
            env={"V": "{{ task.task_id }}.{{ ti.try_number }}"}, append_env=True)
    BashOperator(task_id="file", bash_command="scripts/report.sh", cwd="{{ 'scripts' }}")
    BashOperator(task_id="plain", bash_command="echo $((1+1)) ${#PATH} >/dev/null; echo plain")
    BashOperator(task_id="undefined", bash_command="echo {{ no_such_name }}")
    BashOperator(task_id="unsafe", bash_command="echo {{ ''.__class__.__mro__ }}")
    @task.bash
    def made(word, params):
        return "echo {{ ds_nodash | length }} " + word + params["word"]
    made("{{ params.word[0] }}")
    @task
    def argument(day, params, ds, ts, logical_date, data_interval_end, conf, var, task_instance):
        assert day == ds and ts.startswith(ds) and data_interval_end == logical_date
        return [params["word"], conf.get("extra"), task_instance.map_index]
    argument("{{ ds }}")
    def old_style(*args, **context):
        return [context["templates_dict"]["q"], context["params"]["count"], args[0]]
    PythonOperator(task_id="old_style", python_callable=old_style, op_args=["{{ params.word }}"],
                   templates_dict={"q": "select {{ params.count }}"})
""",
    "scripts/report.sh": "echo report for {{ params.word }}\npwd | xargs basename\n",
    "required.py": """
from tickless import Param
with DAG("required", params={"size": Param(type="integer", minimum=1), "day": Param("2026-11-22", format="date")}):
    bash("show", "echo {{ params.size * 2 }} {{ params.day }}")
""",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage({name: source for name, source in FILES.items() if name.endswith(".py")}) as stage:
        stage.write("scripts/report.sh", FILES["scripts/report.sh"], has_head=False)
        stage.start()
        yield stage
        stage.assert_clean_log()


SKIPPED, DONE = "skipped", "success"


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("small", {"small.one": DONE, "small.two": DONE, "large": SKIPPED, "left": SKIPPED, "join": SKIPPED}),
        (["large"], {"small.one": SKIPPED, "small.two": SKIPPED, "large": DONE, "left": SKIPPED, "join": DONE}),
        (None, dict.fromkeys(("small.one", "small.two", "large", "left", "join"), SKIPPED)),
    ],
)
def test_a_branch_follows_tasks_and_groups(stage: Stage, way: object, expected: dict[str, str]) -> None:
    run, state = stage.do("branches", {"way": way})
    assert (state, stage.states(run)) == ("success", {"pick": DONE, **expected})


def test_short_circuits_skip_all_below_or_heed_rules(stage: Stage) -> None:
    run, state = stage.do("circuits", {"go": False})
    assert (state, stage.states(run)) == (
        "success",
        {"check": DONE, "below": SKIPPED, "far": SKIPPED, "heeds": DONE, "near": SKIPPED, "cleanup": DONE},
    )
    run, _ = stage.do("circuits", {"go": True})
    assert {stage.states(run)[task_id] for task_id in ("below", "far")} == {DONE}


def test_tasks_end_as_they_say(stage: Stage) -> None:
    run, state = stage.do("ends")
    assert state == "failed"
    assert stage.states(run) == {
        "skips": SKIPPED,
        "after_skip": SKIPPED,
        "gives_up": "failed",
        "wrong": "failed",
        "after_wrong": "upstream_failed",
    }
    assert len(stage.attempts(run, "gives_up")) == 1
    assert len(stage.attempts(run, "wrong")) == 2
    assert "chose 'nobody', which DAG 'ends' does not have" in stage.log(run, "wrong")


def test_values_are_pushed_and_pulled(stage: Stage) -> None:
    run, _ = stage.do("xcoms")
    states = stage.states(run)
    errors = {task_id: task["attempt"]["error"] for task_id, task in stage.tasks(run).items()}
    assert states == {
        "push": DONE, "split": DONE, "check": DONE, "said": DONE, "fails": "failed", "asks": DONE, "knows": DONE,
    }, errors  # fmt: skip
    assert stage.output(run, "said") == 'three 9 [1, 2, {"deep": "three"}]'
    assert stage.output(run, "asks") == ["returned", {"double": 6, "square": 9}, 9]
    assert stage.output(run, "knows") == "red 3 no small returned"
    assert stage.query("select value from xcom where dag_run_key = $1 and key = 'none'", run)[0]["value"] == "null"
    assert stage.output(run, "split", "square") == 9
    assert stage.output(run, "fails", "tried") == 2


def test_templates_are_rendered_where_the_task_runs(stage: Stage) -> None:
    run, _ = stage.do("templates", {"word": "hey", "extra": 1})
    name = stage.client.get(f"/runs/{run}")["run_id"]
    errors = {task_id: task["attempt"]["error"] for task_id, task in stage.tasks(run).items()}
    assert stage.output(run, "g.bash") == f"HEY!HEY! {name} 4 g.bash.1", errors
    assert stage.output(run, "file") == "scripts"
    assert "report for hey" in stage.log(run, "file")
    assert stage.output(run, "plain") == "plain"
    assert stage.output(run, "made") == "8 hhey"
    assert stage.output(run, "argument") == ["hey", 1, -1]
    assert stage.output(run, "old_style") == ["select 3", 3, "hey"]
    assert stage.states(run)["undefined"] == stage.states(run)["unsafe"] == "failed"
    assert "task 'undefined' cannot be rendered: 'no_such_name' is undefined" in errors["undefined"]
    assert "task 'unsafe' cannot be rendered" in errors["unsafe"]


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({}, "size: it has no default, so a value must be given"),
        ({"size": "big"}, "size: 'big' is not of type 'integer'"),
        ({"size": 0}, "size: 0 is less than the minimum of 1"),
        ({"size": 1, "day": "yesterday"}, "day: 'yesterday' is not a 'date'"),
    ],
)
def test_a_conf_that_does_not_fit_starts_no_run(stage: Stage, conf: dict[str, Any], words: str) -> None:
    before = len(stage.query("select 1 from dag_run"))
    with pytest.raises(UserError) as caught:
        stage.go("required", conf)
    assert words in caught.value.message
    [asked] = stage.query("select tickless.trigger_dag('required', conf => $1::jsonb) as id", json.dumps(conf))

    def refusal() -> str | None:
        [row] = stage.query("select error from trigger_request where id = $1", asked["id"])
        return row["error"]  # type: ignore[no-any-return]

    refused = stage.wait(refusal, "a refused request")
    assert words in refused
    assert len(stage.query("select 1 from dag_run")) == before


def test_a_conf_that_fits_overrides_the_defaults(stage: Stage) -> None:
    run, state = stage.do("required", {"size": 21})
    assert state == "success"
    assert stage.output(run, "show") == "42 2026-11-22"
