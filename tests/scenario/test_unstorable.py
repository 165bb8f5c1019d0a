"""Reports that Postgres refuses: that attempt fails with a clear reason; its neighbours and the daemon do not notice.

The runner lets none of this through. These tasks write their outcome record themselves, as hostile or broken code may.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stage import Stage

FILES = {
    "forged.py": """
def forged(task_id, times=99, **fields):
    def call():
        if int(os.environ["TICKLESS_TRY_NUMBER"]) > times:
            return "honest"
        record = {"attempt_id": int(os.environ["TICKLESS_ATTEMPT_ID"]), "state": "success", "reason": "exited"}
        os.pwrite(4, json.dumps(record | {"exit_code": 0} | fields).encode() + b"\\n", 0)
        os._exit(0)
    return PythonOperator(task_id=task_id, python_callable=call)

with DAG("refused", max_active_tasks=32):
    forged("nul", output='{"a": "x\\\\u0000y"}')
    forged("surrogate", output='["\\\\ud800"]')
    forged("no_json", output="{day: 1}")
    forged("nothing", output="")
    forged("huge_number", output="1e999999")
    forged("deep", output="[" * 60000 + "]" * 60000)
    for number in range(6):
        bash(f"honest{number}", f"echo {number}")

with DAG("invalid", max_active_tasks=32):
    forged("alive", state="running")
    forged("lost", state="lost")
    forged("stopped", reason="stopped")
    forged("huge_code", exit_code=2**40)
    forged("other", attempt_id=12345)
    forged("no_state", state="fantastic")
    forged("vast", output=json.dumps("x" * 20_000_000))
    bash("honest", "echo honest")

with DAG("forged_first", default_args={"retries": 1, "retry_delay": 0}):
    forged("again", times=1, output='"\\\\u0000"') >> bash("after")

with DAG("beside"):
    held("a") >> bash("b")
""",
}
REFUSED = ("nul", "surrogate", "no_json", "nothing", "huge_number", "deep")
INVALID = ("alive", "lost", "stopped", "huge_code", "other", "no_state", "vast")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log(but=["flush.refused"])


def rebuilds(stage: Stage) -> int:
    return len(stage.events("state.rebuilt"))


def test_what_postgres_refuses_fails_its_attempt_and_nothing_else(stage: Stage) -> None:
    beside = stage.go("beside")
    stage.wait_running(beside, "a")
    before = rebuilds(stage)
    run, state = stage.do("refused")
    assert state == "failed"
    tasks = stage.tasks(run)
    honest = {task_id: task["state"] for task_id, task in tasks.items() if task_id not in REFUSED}
    assert honest == {f"honest{number}": "success" for number in range(6)}
    for task_id in REFUSED:
        assert (tasks[task_id]["state"], tasks[task_id]["reason"]) == ("failed", "unstorable"), task_id
        assert "Postgres refused what this attempt reported: " in tasks[task_id]["attempt"]["error"]
        assert len(stage.attempts(run, task_id)) == 1, "nothing ran twice"
    assert [stage.output(run, f"honest{number}") for number in range(6)] == [str(number) for number in range(6)]
    assert rebuilds(stage) - before <= len(REFUSED), "each is refused once"
    assert len(stage.events("flush.refused")) == len(REFUSED)
    stage.open(beside, "a")
    assert stage.end(beside) == "success"


def test_an_unstorable_attempt_is_tried_again_like_any_failure(stage: Stage) -> None:
    run, state = stage.do("forged_first")
    assert state == "success"
    assert [(each["state"], each["reason"]) for each in stage.attempts(run, "again")] == [
        ("success", "exited"),
        ("failed", "unstorable"),
    ]
    assert stage.output(run, "again") == "honest"


def test_a_record_that_no_runner_writes_is_no_record(stage: Stage) -> None:
    before = rebuilds(stage)
    run, state = stage.do("invalid")
    assert state == "failed"
    tasks = stage.tasks(run)
    assert tasks["honest"]["state"] == "success"
    for task_id in INVALID:
        assert (tasks[task_id]["state"], tasks[task_id]["reason"]) == ("failed", "exited"), tasks[task_id]
        assert "without recording an outcome" in tasks[task_id]["attempt"]["error"]
        assert len(stage.attempts(run, task_id)) == 1
    assert rebuilds(stage) == before


def test_a_dag_that_postgres_refuses_is_an_error_of_its_file(stage: Stage) -> None:
    stage.write("forges.py", 'with DAG("forged"): bash("a", "echo good")')
    stage.wait(lambda: stage.dag("forged"), "its good version")
    before = rebuilds(stage)
    stage.write(
        "forges.py",
        """
result = {"file": "forges.py", "dags": [{"spec": {"dag_id": "forged", "tasks": []}, "hash": "a\\0b"}]}
os.write(int(sys.argv[sys.argv.index("--result-fd") + 1]), json.dumps(result).encode())
os._exit(0)
""",
    )
    error = stage.wait(lambda: stage.error_of("forges.py"), "the error")
    assert "DAG 'forged' cannot be stored: Postgres: " in error["error"]
    run, state = stage.do("forged")
    assert (state, stage.log(run, "a")) == ("success", "good\n"), "the last good version"
    assert rebuilds(stage) == before + 1
