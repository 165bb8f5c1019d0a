"""Return values on their way from task to task: as JSON, through Postgres, over restarts of the daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stage import Stage

VALUES = '{"text": "ä\\u2028\\"\\\\\\\\ 日本", "list": [1, 2.5, True, None, -0.0, 10**30], "": {}, "deep": [[[["x"]]]]}'

FILES = {
    "values.py": f"""
VALUES = {VALUES}

@task
def make(value):
    return value

@task
def check(got, nested, keyword=None):
    assert got == VALUES, got
    assert nested == {{"a": [VALUES, "plain"], "b": ["bash says hello"]}}, nested
    assert keyword == VALUES["deep"], keyword
    return len(nested)

@task
def nothing():
    pass

@task
def gets_nothing(value, other):
    assert value is None and other is None, (value, other)
    return [value]

with DAG("values"):
    made = make(VALUES)
    said = bash("said", "echo first; echo; echo 'bash says hello'; echo")
    check(made, {{"a": [made, "plain"], "b": [said.output]}}, keyword=made["deep"])
    silent = bash("silent", ":")
    gets_nothing(nothing(), silent.output)

with DAG("asks"):
    # A bash task gets what it waits for in its environment.
    numbers = make.override(task_id="numbers")([1, 2])
    numbers >> bash("counts", 'echo "$TICKLESS_INPUTS"')

with DAG("skipping"):
    @task(trigger_rule="all_done")
    def after(value):
        return repr(value)
    after(bash("skips", "echo not this; exit 99").output)

with DAG("again"):
    @task(retries=1, retry_delay=0)
    def second():
        if os.environ["TICKLESS_TRY_NUMBER"] == "1":
            raise ValueError("not yet")
        return "second"
    make.override(task_id="copy")(second())
""",
    "restart.py": """
@task
def consume(a, b):
    return [a, b]

with DAG("restart"):
    first = held("first", {"is": "first"})
    gate = held("gate", "second")
    both = consume(first.output, gate.output)
""",
    "wide.py": """
@task
def part(number):
    return {"number": number, "pad": "x" * 1000}

@task
def total(parts):
    return sum(one["number"] for one in parts)

with DAG("wide", max_active_tasks=8):
    total([part.override(task_id=f"part_{number}")(number) for number in range(60)])
""",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log()


def test_values_come_out_as_they_went_in(stage: Stage) -> None:
    run, state = stage.do("values")
    assert state == "success", {task_id: task["attempt"]["error"] for task_id, task in stage.tasks(run).items()}
    assert stage.output(run, "make") == eval(VALUES)
    assert stage.output(run, "said") == "bash says hello", "the last line that is not empty"
    assert stage.output(run, "check") == 2
    assert stage.output(run, "gets_nothing") == [None]
    stored = {row["task_id"] for row in stage.query("select task_id from xcom where dag_run_key = $1", run)}
    assert stored == {"make", "said", "check", "gets_nothing"}, "None is no row"


def test_a_skipped_task_returns_nothing(stage: Stage) -> None:
    run, state = stage.do("skipping")
    assert state == "success"
    assert stage.output(run, "after") == "None"


def test_only_the_successful_try_counts(stage: Stage) -> None:
    run, state = stage.do("again")
    assert state == "success"
    assert stage.output(run, "copy") == "second"


def test_a_value_is_read_back_from_postgres_after_a_restart(stage: Stage) -> None:
    run = stage.go("restart")
    stage.wait_running(run, "first", "gate")
    stage.open(run, "first")
    stage.wait_state(run, "first", "success")
    stage.kill_daemon()
    # Its report waits for the next daemon; what it returned comes by the launcher's spool.
    stage.open(run, "gate")
    stage.start()
    assert stage.end(run) == "success"
    assert stage.output(run, "consume") == [{"is": "first"}, "second"]


def test_many_values_come_together(stage: Stage) -> None:
    run, state = stage.do("wide")
    assert state == "success"
    assert stage.output(run, "total") == sum(range(60))


def test_a_bash_task_finds_its_inputs_in_its_environment(stage: Stage) -> None:
    run, state = stage.do("asks")
    assert state == "success"
    assert stage.output(run, "counts") == "{}", "an edge alone carries no value"
