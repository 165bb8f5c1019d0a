"""DAG files as people have them for Airflow 3: with another import line they run here, to the same results."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.stage import Stage

FILES = {
    "boilerplate.py": '''
"""A file that begins like most files do."""
from datetime import datetime, timedelta
from textwrap import dedent
from tickless import DAG, BashOperator

with DAG(
    "boilerplate",
    default_args={
        "owner": "data-team",
        "depends_on_past": False,
        "start_date": datetime(2026, 1, 1),
        "email": ["data@example.com"],
        "email_on_failure": False,
        "email_on_retry": False,
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
    },
    description="as in every tutorial",
    schedule=None,
    catchup=False,
    dag_display_name="Boilerplate",
    tags=["ported"],
) as dag:
    t1 = BashOperator(task_id="print_date", bash_command="date", depends_on_past=False)
    t1.doc_md = dedent("""
        #### Prints the date
    """)
    dag.doc_md = __doc__
    t2 = BashOperator(
        task_id="loop",
        bash_command=dedent("""
            {% for i in range(2) %}
            echo "{{ ds }} {{ macros.ds_add(ds, 7) }} {{ i }}"
            {% endfor %}
            """),
    )
    t1 >> [t2, BashOperator(task_id="skips", bash_command="exit 99")]
if __name__ == "__main__":
    dag.test()
''',
    "context.py": """
import logging
from tickless import DAG, PythonOperator, get_current_context, task
log = logging.getLogger(__name__)

def classic(ds=None, **kwargs):
    ti = kwargs["ti"]
    log.info("%s of %s in %s, try %s of %s", ti.task_id, ti.dag_id, ti.run_id, ti.try_number, ti.max_tries + 1)
    ti.xcom_push(key="ds", value=ds)
    return {"params": kwargs["params"], "conf": kwargs["dag_run"].conf, "type": kwargs["dag_run"].run_type}

def with_templates(**kwargs):
    return kwargs["templates_dict"]["query"]

with DAG("context", params={"table": "orders"}, render_template_as_native_obj=True) as dag:
    one = PythonOperator(task_id="one", python_callable=classic, retries=2)
    two = PythonOperator(
        task_id="two", python_callable=with_templates, templates_dict={"query": "select * from {{ params.table }}"}
    )

    @task(task_id="three")
    def modern(query, dag_run=None, ti=None, task=None):
        context = get_current_context()
        assert context["ti"].task_id == ti.task_id == task.task_id == "three"
        assert task.upstream_task_ids == {"one", "two"}, task.upstream_task_ids
        assert ti.xcom_pull(task_ids="one", key="ds") == ti.xcom_pull(task_ids=["one"], key="ds")[0]
        assert dag_run.start_date <= ti.start_date
        return [query, ti.xcom_pull("one")["type"], context["prev_data_interval_start_success"]]

    [one, two] >> modern(two.output)
""",
    "branching.py": """
from tickless import DAG, BranchPythonOperator, EmptyOperator, Label, TriggerRule, task

with DAG("branching") as dag:
    choose = BranchPythonOperator(task_id="choose", python_callable=lambda **context: ["b", "c"])
    join = EmptyOperator(task_id="join", trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    for option in ("a", "b", "c"):
        @task(task_id=option)
        def work():
            print("working")
        choose >> Label(f"way {option}") >> work() >> EmptyOperator(task_id=f"after_{option}") >> join
    @task.short_circuit
    def is_large(params=None):
        return False
    is_large() >> EmptyOperator(task_id="never") >> EmptyOperator(task_id="never_too", trigger_rule="all_done")
""",
    "flaky.py": """
from datetime import timedelta
from tickless import AirflowException, AirflowFailException, AirflowSkipException, Variable, dag, task

@dag(default_args={"retries": 2, "retry_delay": timedelta(seconds=0.1), "retry_exponential_backoff": False,
                   "execution_timeout": timedelta(minutes=5), "weight_rule": "absolute"})
def flaky():
    @task
    def fetch(city: str, **context) -> dict[str, float]:
        if context["ti"].try_number < 2:
            raise AirflowException("flaky")
        return {"temp": 1.5, "wind": 3.0}

    @task
    def skip():
        raise AirflowSkipException("nothing to do")

    @task
    def give_up():
        raise AirflowFailException("no use")

    @task(trigger_rule="all_done", multiple_outputs=False)
    def report(temps, default=None):
        return [temps, Variable.get("nobody_has_set_it", default_var="x")]

    skip(), give_up()
    report([fetch.override(task_id=f"fetch_{city}")(city)["temp"] for city in ("berlin", "paris")])

flaky()
""",
    "groups.py": """
from tickless import DAG, EmptyOperator, TaskGroup, task, task_group

with DAG("groups") as dag:
    begin, end = EmptyOperator(task_id="begin"), EmptyOperator(task_id="end")
    with TaskGroup("outer", tooltip="all of it") as outer:
        with TaskGroup("inner", default_args={"retries": 1}) as inner:
            [EmptyOperator(task_id="x"), EmptyOperator(task_id="y")] >> EmptyOperator(task_id="z")
        inner >> EmptyOperator(task_id="last")
    begin >> outer >> end

    @task
    def plus_one(x: int):
        return x + 1

    @task_group
    def twice(x):
        return plus_one(plus_one(x))

    plus_one.expand(x=[1, 2])
    twice(5)
""",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        for name, source in FILES.items():
            stage.write(name, source, has_head=False)
        stage.start()
        yield stage
        stage.assert_clean_log()


def test_none_has_an_error_or_a_warning(stage: Stage) -> None:
    assert stage.client.get("/import-errors")["items"] == []
    assert stage.events("dag.import_warned") == []


def test_boilerplate(stage: Stage) -> None:
    run, state = stage.do("boilerplate")
    assert (state, stage.states(run)) == ("success", {"print_date": "success", "loop": "success", "skips": "skipped"})
    days = [line.split() for line in stage.log(run, "loop").splitlines()]
    assert [line[2] for line in days] == ["0", "1"]
    assert days[0][0] < days[0][1]


def test_the_context_in_both_styles(stage: Stage) -> None:
    run, state = stage.do("context", {"table": "clients"})
    assert state == "success", [stage.log(run, task) for task in ("one", "two", "three")]
    conf = {"table": "clients"}
    assert stage.output(run, "one") == {"params": conf, "conf": conf, "type": "manual"}
    assert stage.output(run, "three") == ["select * from clients", "manual", None]
    assert "one of context in manual__" in stage.log(run, "one")
    assert stage.log(run, "one").rstrip().endswith("try 1 of 3")


def test_branches_and_short_circuits(stage: Stage) -> None:
    run, state = stage.do("branching")
    states = stage.states(run)
    assert state == "success"
    assert {name for name, state in states.items() if state == "skipped"} == {"a", "after_a", "never", "never_too"}
    assert states["join"] == "success"


def test_failures_skips_and_retries(stage: Stage) -> None:
    run, _ = stage.do("flaky")
    assert stage.states(run) == {
        "fetch_berlin": "success", "fetch_paris": "success", "skip": "skipped", "give_up": "failed", "report": "success"
    }  # fmt: skip
    assert len(stage.attempts(run, "fetch_paris")) == 2
    assert len(stage.attempts(run, "give_up")) == 1
    assert stage.output(run, "report") == [[1.5, 1.5], "x"]


def test_groups(stage: Stage) -> None:
    run, state = stage.do("groups")
    assert state == "success"
    assert {"outer.inner.z", "outer.last", "twice.plus_one", "twice.plus_one__1"} <= set(stage.states(run))
    assert json.dumps(stage.output(run, "twice.plus_one__1")) == "7"
