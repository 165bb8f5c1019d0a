"""Retries on a whole daemon: as many tries as asked for, not before their delay, and `why` says when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.support.stage import Stage

FILES = {
    "retries.py": """
with DAG("third", default_args={"retry_delay": 0.3}):
    bash("flaky", 'echo "try $TICKLESS_TRY_NUMBER"; [ "$TICKLESS_TRY_NUMBER" -ge 3 ]', retries=5) >> bash("after")
with DAG("never", default_args={"retries": 2, "retry_delay": 0.05}):
    bash("fails", "exit 4") >> bash("after")
with DAG("ends", default_args={"retries": 1, "retry_delay": 0.05}, max_active_tasks=32):
    bash("times_out", "sleep 3600", execution_timeout=0.2)
    bash("killed", "kill -KILL $$")
    bash("skips", "exit 99")
    def not_json():
        return object()
    PythonOperator(task_id="refused", python_callable=not_json)
    bash("no_cwd", "true", cwd="/nowhere")
with DAG("later"):
    bash("fails", "exit 1", retries=1, retry_delay=3600)
    bash("beside", ":")
with DAG("waits"):
    def told():
        print("at last", flush=True)
        wait_at("told")
    PythonOperator(task_id="told", python_callable=told, pool="later")
with DAG("watched"):
    def flaky():
        print("try", os.environ["TICKLESS_TRY_NUMBER"], flush=True)
        wait_at("flaky")
        sys.exit(0 if os.environ["TICKLESS_TRY_NUMBER"] == "3" else 1)
    PythonOperator(task_id="flaky", python_callable=flaky, retries=5, retry_delay=0.05)
with DAG("later_by_default"):
    bash("fails", "exit 1", retries=1)
""",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log()


def test_a_task_is_tried_again_until_it_succeeds_and_not_before_its_delay(stage: Stage) -> None:
    run, state = stage.do("third")
    assert state == "success"
    attempts = stage.attempts(run, "flaky")
    assert [(each["try_number"], each["state"]) for each in attempts] == [(3, "success"), (2, "failed"), (1, "failed")]
    for later, earlier in pairwise(attempts):
        ended, queued = datetime.fromisoformat(earlier["ended_at"]), datetime.fromisoformat(later["queued_at"])
        # From the report of the end, which follows the end itself.
        assert queued - ended >= timedelta(seconds=0.3)
    for number in (1, 2, 3):
        log = stage.cli("task", "logs", run, "flaky", "--try", number, is_json=False).out
        assert log == f"try {number}\n"
    assert stage.log(run, "flaky") == "try 3\n", "the latest, unless one is named"
    missing = stage.cli("task", "logs", run, "flaky", "--try", 4)
    assert (missing.code, missing.error["code"]) == (3, "not_found")


def test_whoever_follows_the_log_of_a_task_reads_all_its_tries(stage: Stage) -> None:
    run = stage.go("watched")
    with stage.cli_process("task", "logs", "-f", run, "flaky", is_json=False) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "try 1\n"
        stage.open_gate("flaky")
        out, err = follower.communicate(timeout=60)
    assert out == "try 2\ntry 3\n"
    assert err == "--- try 2\n--- try 3\n"
    assert follower.returncode == 0


def test_whoever_follows_the_log_of_a_task_that_waits_for_others_hears_of_its_start(stage: Stage) -> None:
    """Nothing else happens in its run."""
    stage.cli("pool", "set", "later", 0)
    run = stage.go("waits")
    stage.wait_state(run, "told", "scheduled")
    with stage.cli_process("task", "logs", "-f", run, "told", is_json=False) as follower:
        assert follower.stdout is not None
        time.sleep(1)  # it should be waiting by now; if it is not, the test proves less
        stage.cli("pool", "set", "later", 1)
        assert follower.stdout.readline() == "at last\n", "while it runs"
        stage.open_gate("told")
        assert follower.stdout.read() == ""
    assert stage.end(run) == "success"


def test_a_task_that_never_succeeds_fails_after_its_last_try(stage: Stage) -> None:
    run, state = stage.do("never")
    assert state == "failed"
    assert stage.states(run) == {"fails": "failed", "after": "upstream_failed"}
    assert [(each["try_number"], each["exit_code"]) for each in stage.attempts(run, "fails")] == [
        (3, 4),
        (2, 4),
        (1, 4),
    ]


def test_every_failure_is_tried_again_but_a_skip_is_none(stage: Stage) -> None:
    run, _ = stage.do("ends")
    tries = {task_id: (task["reason"], task["try_number"]) for task_id, task in stage.tasks(run).items()}
    assert tries == {
        "times_out": ("timeout", 2),
        "killed": ("signaled", 2),
        "skips": ("exited", 1),
        "refused": ("output_refused", 2),
        "no_cwd": ("not_started", 2),
    }


def test_a_waiting_retry_holds_no_slot_and_says_when_it_comes(stage: Stage) -> None:
    run = stage.go("later")
    stage.wait_state(run, "beside", "success")
    task = stage.wait_state(run, "fails", "up_for_retry")
    due, ended = datetime.fromisoformat(task["due_at"]), datetime.fromisoformat(task["ended_at"])
    assert due - ended == timedelta(hours=1)
    [reason] = stage.cli("why", run, "fails").json
    assert reason["code"] == "retry_delay"
    assert "Try 1 of 2 ended (exited); the next one starts in 3" in reason["message"]
    [pool] = [pool for pool in stage.cli("pool", "list").json if pool["name"] == "default_pool"]
    assert pool["open"] == pool["slots"]

    # The timer is a row: it is there after a restart.
    stage.kill_daemon()
    stage.start()
    assert stage.task(run, "fails")["due_at"] == task["due_at"]
    assert stage.why(run, "fails")[0]["code"] == "retry_delay"
    stage.client.post(f"/runs/{run}/cancel")
    assert stage.end(run) == "failed"
    assert stage.states(run) == {"fails": "skipped", "beside": "success"}


def test_a_retry_that_is_due_while_no_daemon_runs_starts_with_the_next(stage: Stage) -> None:
    run = stage.go("third")
    stage.wait(lambda: stage.task(run, "flaky")["try_number"] >= 1 and stage.task(run, "flaky")["attempt"], "a try")
    stage.kill_daemon()
    stage.start()
    assert stage.end(run) == "success"
    assert [each["state"] for each in stage.attempts(run, "flaky")] == ["success", "failed", "failed"]


def test_the_default_delay_is_airflows(stage: Stage) -> None:
    run = stage.go("later_by_default")
    task = stage.wait_state(run, "fails", "up_for_retry")
    waits = datetime.fromisoformat(task["due_at"]) - datetime.fromisoformat(task["ended_at"])
    assert waits == timedelta(seconds=300)
    stage.client.post(f"/runs/{run}/cancel")
    assert stage.end(run) == "failed"
