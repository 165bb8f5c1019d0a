"""What arguments of tasks and DAGs mean, with real processes: states, and what `why` says meanwhile.

Each DAG stands in a situation from which nothing but the rule in question can take it, so nothing depends on time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stage import Stage

DAGS = """
def fail():
    raise RuntimeError("no")
def failing(task_id, **args):
    return PythonOperator(task_id=task_id, python_callable=fail, **args)
with DAG("grows"):
    failing("a", retries=2, retry_delay=3600, retry_exponential_backoff=2)
with DAG("too_long", dagrun_timeout=1):
    held("a") >> held("b")
with DAG("first_failure", fail_fast=True):
    failing("a")
    held("b") >> held("c")
with DAG("single"):
    held("a", max_active_tis_per_dag=1)
with DAG("narrow"):
    @task(max_active_tis_per_dagrun=1)
    def many(number):
        wait_at(os.environ["TICKLESS_RUN_ID"] + ".many")
    many.expand(number=[1, 2])
with DAG("given_up", max_consecutive_failed_dag_runs=2):
    failing("a")
for rule, first in (("downstream", "head"), ("upstream", "lone"), ("absolute", "lone")):
    with DAG(f"by_{rule}", max_active_tasks=1):
        gate = held("gate")
        # Of those that gate lets go: lone has weight 2 of its own, head 1 and that of two tasks below.
        lone = bash("lone", priority_weight=2, weight_rule=rule)
        head = bash("head", weight_rule=rule)
        gate >> [head, lone]
        head >> bash("second") >> bash("third")
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage({"d.py": DAGS}) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log()


def why(stage: Stage, run: int, task_id: str) -> tuple[str, str]:
    [found] = stage.why(run, task_id)
    return found["code"], found["message"]


def test_an_exponential_retry_waits_longer_than_its_delay(stage: Stage) -> None:
    run = stage.go("grows")
    row = stage.wait_state(run, "a", "up_for_retry")
    code, message = why(stage, run, "a")
    assert code == "retry_delay" and message.startswith("Try 1 of 3 ended (raised); the next one starts in ")
    [[seconds]] = stage.query(
        "select extract(epoch from due_at - ended_at)::float from task_instance where dag_run_key = $1", run
    )
    assert 3600 <= seconds < 7200, row  # the delay, and a jitter of up to as much again: both are in the row
    assert stage.cli("run", "cancel", run, "--yes").code == 0
    assert stage.end(run) == "failed"


def test_a_dagrun_timeout_stops_what_runs_and_skips_the_rest(stage: Stage) -> None:
    run = stage.go("too_long")
    assert stage.end(run) == "failed"
    assert stage.states(run) == {"a": "failed", "b": "skipped"}
    [[reason]] = stage.query("select cancel_reason from dag_run where key = $1", run)
    assert reason == "dagrun_timeout: it has been running for 1 s"


def test_fail_fast_ends_the_run_with_the_first_failure(stage: Stage) -> None:
    run = stage.go("first_failure")
    assert stage.end(run) == "failed"
    states = stage.states(run)
    assert (states["a"], states["c"]) == ("failed", "skipped") and states["b"] in ("failed", "skipped")
    [[reason]] = stage.query("select cancel_reason from dag_run where key = $1", run)
    assert reason == "fail_fast: task a has failed"


def test_a_task_is_limited_over_all_runs_of_its_dag(stage: Stage) -> None:
    first, second = stage.go("single"), stage.go("single")
    stage.wait_running(first, "a")
    stage.wait_state(second, "a", "scheduled")
    code, message = why(stage, second, "a")
    assert code == "max_active_tis_per_dag" and "1 of 1 task instances of task a of DAG single" in message
    stage.open(first, "a")
    stage.wait_running(second, "a")
    stage.open(second, "a")
    assert (stage.end(first), stage.end(second)) == ("success", "success")
    assert stage.most_at_once(first, second) == 1


def test_a_mapped_task_is_limited_within_its_run(stage: Stage) -> None:
    run = stage.go("narrow")
    states = "select state from task_instance where dag_run_key = $1 order by map_index"
    stage.wait(lambda: [row[0] for row in stage.query(states, run)] == ["running", "scheduled"], "one of two")
    [reason] = stage.client.get(f"/runs/{run}/tasks/many/why", map_index=1)["items"]
    assert (reason["code"], reason["used"], reason["limit"]) == ("max_active_tis_per_dagrun", 1, 1)
    stage.open(run, "many")
    assert stage.end(run) == "success"


def test_runs_that_fail_in_a_row_pause_the_dag(stage: Stage) -> None:
    for _ in range(2):
        _, state = stage.do("given_up")
        assert state == "failed"
    stage.wait(lambda: stage.dag("given_up")["is_paused"], "a pause")  # type: ignore[index]  # it is there
    held_back = stage.go("given_up")
    [reason] = stage.why(held_back)
    assert reason["code"] == "paused" and "tickless dag unpause given_up" in reason["hint"]
    assert stage.client.get(f"/runs/{held_back}")["state"] == "queued"


@pytest.mark.parametrize(("rule", "first"), [("downstream", "head"), ("upstream", "lone"), ("absolute", "lone")])
def test_the_weight_rule_says_who_goes_first(stage: Stage, rule: str, first: str) -> None:
    run = stage.go(f"by_{rule}")
    stage.wait_running(run, "gate")
    stage.open(run, "gate")
    assert stage.end(run) == "success"
    query = "select task_id from task_attempt where dag_run_key = $1 order by attempt_id limit 2"
    assert [row[0] for row in stage.query(query, run)] == ["gate", first]
