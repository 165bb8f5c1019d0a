"""Both executors in one daemon, routed by queue: one at a time and in order here, at once there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stage import Stage

FILES = {
    "both.py": """
with DAG("both", max_active_tasks=16):
    for number in range(4):
        held(f"slow{number}", queue="one_by_one")
        held(f"fast{number}")
with DAG("mixed"):
    @task(queue="one_by_one")
    def first():
        return "from the sequential one"
    @task
    def second(value):
        return value + ", through the local one"
    @task(queue="one_by_one")
    def third(value):
        return value + ", and back"
    third(second(first()))
""",
}
CONFIG = """
[executors.debug]
kind = "sequential"
[executors.local]
slots = 3
[queues]
one_by_one = "debug"
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES, config=CONFIG) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log()


def test_sequential_runs_one_at_a_time_in_order_while_local_runs_as_many_as_it_may(stage: Stage) -> None:
    run = stage.go("both")
    stage.wait_running(run, "slow0", "fast0", "fast1", "fast2")
    [reason] = stage.why(run, "slow3")
    assert (reason["code"], reason["used"], reason["limit"]) == ("executor", 1, 1)
    assert "executor 'debug'" in reason["message"]
    [reason] = stage.why(run, "fast3")
    assert (reason["code"], reason["used"], reason["limit"]) == ("executor", 3, 3)
    assert "[executors.local] slots" in reason["hint"]
    stage.open(run, "slow0")
    stage.wait_running(run, "slow1", "fast0", "fast1", "fast2")
    stage.open(run, "fast1", "fast3")
    stage.wait_state(run, "fast3", "success")
    stage.open(run, "slow1", "slow2", "slow3", "fast0", "fast2")
    assert stage.end(run) == "success"
    notes = [(kind, task_id) for kind, task_id in stage.notes(run) if task_id.startswith("slow")]
    assert notes == [(kind, f"slow{number}") for number in range(4) for kind in "SE"]
    executors = {task_id: task["attempt"]["executor"] for task_id, task in stage.tasks(run).items()}
    assert executors == {f"slow{n}": "debug" for n in range(4)} | {f"fast{n}": "local" for n in range(4)}


def test_the_order_of_the_sequential_executor_survives_a_killed_daemon(stage: Stage) -> None:
    run = stage.go("both")
    stage.wait_running(run, "slow0", "fast0", "fast1", "fast2")
    stage.kill_daemon()
    stage.start()
    stage.wait_running(run, "slow0", "fast0", "fast1", "fast2")
    stage.open(run, *(f"{kind}{number}" for kind in ("slow", "fast") for number in range(4)))
    assert stage.end(run) == "success"
    notes = [(kind, task_id) for kind, task_id in stage.notes(run) if task_id.startswith("slow")]
    assert notes == [(kind, f"slow{number}") for number in range(4) for kind in "SE"]


def test_values_pass_between_executors(stage: Stage) -> None:
    run, state = stage.do("mixed")
    assert state == "success"
    assert stage.output(run, "third") == "from the sequential one, through the local one, and back"
    executors = {task_id: task["attempt"]["executor"] for task_id, task in stage.tasks(run).items()}
    assert executors == {"first": "debug", "second": "local", "third": "debug"}


def test_a_cancelled_run_ends_on_both(stage: Stage) -> None:
    run = stage.go("both")
    stage.wait_running(run, "slow0", "fast0", "fast1", "fast2")
    stage.client.post(f"/runs/{run}/cancel")
    assert stage.end(run) == "failed"
    states = stage.states(run)
    assert {task_id for task_id, state in states.items() if state == "failed"} == {"slow0", "fast0", "fast1", "fast2"}
    assert {task_id for task_id, state in states.items() if state == "skipped"} == {"slow1", "slow2", "slow3", "fast3"}
    other = stage.go("mixed")
    assert stage.end(other) == "success", "and both take work again"
