"""Limits on a whole daemon: exactly as many tasks run as may, and `tickless why` names the limit with its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.stage import Stage

FILES = {
    "three.py": 'with DAG("three"): [held(name) for name in "abc"]',
    "single.py": 'with DAG("single", max_active_runs=1): held("a")',
    "pooled.py": """
with DAG("pooled"):
    # In the order of the file the least important comes first.
    for weight in (1, 2, 3):
        held(f"w{weight}", priority_weight=weight, pool="narrow")
with DAG("wide"):
    held("two", pool="small", pool_slots=2)
with DAG("nopool"):
    held("a", pool="nowhere")
with DAG("queueless"):
    held("a", queue="gpu")
with DAG("own", max_active_tasks=1):
    [held(name) for name in "ab"]
""",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """parallelism 3, dag_concurrency 2, four tasks of a DAG over all its runs."""
    with Stage(FILES, limits={"parallelism": 3, "dag_concurrency": 2}) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log()


@pytest.fixture(autouse=True)
def rest(stage: Stage) -> Iterator[None]:
    yield
    stage.rest()


def finish(stage: Stage, *runs: int) -> None:
    """Let every held task of these runs end."""
    for run in runs:
        stage.open(run, "a", "b", "c", "w1", "w2", "w3", "two")
    assert [stage.end(run) for run in runs] == ["success"] * len(runs)


def only(reasons: list[dict[str, Any]]) -> dict[str, Any]:
    [reason] = reasons
    return reason


def test_of_three_ready_tasks_of_a_run_exactly_dag_concurrency_run(stage: Stage) -> None:
    run = stage.go("three")
    stage.wait_running(run, "a", "b")
    assert stage.states(run)["c"] == "scheduled"
    answer = stage.cli("why", run, "c")
    reason = only(answer.json)
    assert (reason["code"], reason["used"], reason["limit"]) == ("dag_concurrency", 2, 2)
    text = stage.cli("why", run, "c", is_json=False).out
    assert "dag_concurrency: 2 of 2" in text
    assert "max_active_tasks" in text, "it says what would change it"
    stage.open(run, "a")
    stage.wait_running(run, "b", "c")
    finish(stage, run)
    assert stage.most_at_once(run) == 2


def test_over_all_runs_exactly_parallelism_run(stage: Stage) -> None:
    first, second = stage.go("three"), stage.go("three")
    stage.wait_running(first, "a", "b")
    stage.wait_running(second, "a")
    reason = only(stage.why(second, "b"))
    assert (reason["code"], reason["used"], reason["limit"]) == ("parallelism", 3, 3)
    assert "parallelism: 3 of 3" in reason["message"]
    both = {reason["code"] for reason in stage.why(first, "c")}
    assert both == {"dag_concurrency", "parallelism"}, "everything that holds it back is named"
    finish(stage, first, second)
    assert stage.most_at_once(first, second) == 3


def test_a_dags_own_max_active_tasks_goes_before_dag_concurrency(stage: Stage) -> None:
    run = stage.go("own")
    stage.wait_running(run, "a")
    reason = only(stage.why(run, "b"))
    assert (reason["code"], reason["used"], reason["limit"]) == ("dag_concurrency", 1, 1)
    finish(stage, run)
    assert stage.most_at_once(run) == 1


def test_a_run_over_max_active_runs_is_queued_and_starts_when_the_first_ends(stage: Stage) -> None:
    first, second, third = stage.go("single"), stage.go("single"), stage.go("single")
    stage.wait_running(first, "a")
    assert [stage.client.get(f"/runs/{run}")["state"] for run in (second, third)] == ["queued", "queued"]
    reason = only(stage.cli("why", second).json)
    assert (reason["code"], reason["used"], reason["limit"]) == ("max_active_runs_per_dag", 1, 1)
    assert "1 of 1 runs of DAG single are running" in reason["message"]
    assert "1 queued before this one" in only(stage.why(third))["message"]
    assert only(stage.why(second, "a"))["code"] == "max_active_runs_per_dag", "its tasks wait for the same"
    assert stage.begun(second) == []
    stage.open(first, "a")
    stage.wait_running(second, "a")
    assert stage.client.get(f"/runs/{third}")["state"] == "queued"
    finish(stage, second, third)


def test_a_raised_pool_wakes_exactly_those_who_fit_by_priority(stage: Stage) -> None:
    assert stage.cli("pool", "set", "narrow", 0).json["slots"] == 0
    run = stage.go("pooled")
    reason = stage.wait(lambda: stage.why(run, "w1")[0], "a reason")
    stage.wait_state(run, "w1", "scheduled")
    reason = only(stage.why(run, "w3"))
    assert (reason["code"], reason["used"], reason["limit"]) == ("pool", 0, 0)
    assert "'narrow' has no slots" in reason["message"]
    assert "tickless pool set narrow 1" in reason["hint"]

    assert stage.cli("pool", "set", "narrow", 1).code == 0
    stage.wait_running(run, "w3")
    reason = only(stage.why(run, "w1"))
    assert (reason["code"], reason["used"], reason["limit"]) == ("pool", 1, 1)
    assert "1 of 1 slots of pool 'narrow'" in reason["message"]

    assert stage.cli("pool", "set", "narrow", 2).code == 0
    stage.wait_running(run, "w3", "w2")
    [pool] = [pool for pool in stage.cli("pool", "list").json if pool["name"] == "narrow"]
    assert (pool["slots"], pool["running"] + pool["queued"], pool["open"]) == (2, 2, 0)
    assert stage.states(run)["w1"] == "scheduled"

    # Smaller again: nobody is stopped, and a freed slot is not given away.
    assert stage.cli("pool", "set", "narrow", 1).code == 0
    stage.open(run, "w3")
    stage.wait_running(run, "w2")
    assert only(stage.why(run, "w1"))["used"] == 1
    finish(stage, run)
    assert stage.begun(run) == ["w3", "w2", "w1"]


def test_a_task_wider_than_its_pool_says_so_and_closes_it_to_nobody(stage: Stage) -> None:
    stage.cli("pool", "set", "small", 1)
    run = stage.go("wide")
    stage.wait_state(run, "two", "scheduled")
    reason = only(stage.why(run, "two"))
    assert reason["code"] == "pool"
    assert reason["needed"] == 2
    assert "needs 2 slots of pool 'small', which has only 1" in reason["message"]
    assert "tickless pool set small 2" in reason["hint"]
    stage.cli("pool", "set", "small", 2)
    stage.wait_running(run, "two")
    finish(stage, run)


def test_a_pool_that_does_not_exist_is_named(stage: Stage) -> None:
    run = stage.go("nopool")
    stage.wait_state(run, "a", "scheduled")
    reason = only(stage.why(run, "a"))
    assert reason["code"] == "pool"
    assert "'nowhere' has no slots (or does not exist)" in reason["message"]
    stage.cli("pool", "set", "nowhere", 1)
    finish(stage, run)


def test_a_queue_that_nobody_serves_is_named_and_holds_up_nobody(stage: Stage) -> None:
    run = stage.go("queueless")
    stage.wait_state(run, "a", "scheduled")
    text = stage.cli("why", run, "a", is_json=False).out
    assert "No executor serves the queue 'gpu'" in text
    assert 'gpu = "' in text, "it shows the line to add"
    other = stage.go("three")
    stage.wait_running(other, "a", "b")
    finish(stage, other)
    assert stage.cli("run", "cancel", run).code == 0
    assert stage.end(run) == "failed"
    assert stage.states(run) == {"a": "skipped"}


def test_max_active_tasks_per_dag_total_counts_over_all_runs() -> None:
    limits = {"parallelism": 8, "dag_concurrency": 2, "max_active_tasks_per_dag_total": 3}
    with Stage(FILES, limits=limits) as stage:
        stage.start()
        first, second = stage.go("three"), stage.go("three")
        stage.wait_running(first, "a", "b")
        stage.wait_running(second, "a")
        reason = only(stage.why(second, "b"))
        assert (reason["code"], reason["used"], reason["limit"]) == ("max_active_tasks_per_dag_total", 3, 3)
        assert "of DAG three" in reason["message"]
        other = stage.go("own")
        stage.wait_running(other, "a")
        finish(stage, first, second, other)
        assert stage.most_at_once(first, second) == 3
        stage.assert_clean_log()
