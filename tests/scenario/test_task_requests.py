"""What running tasks ask the daemon for: values of others, variables, connections, runs; also over a daemon's death."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.stage import Stage

RESTART = {
    "r.py": """
from tickless import TriggerDagRunOperator, Variable, trigger_dag
@task
def one():
    Variable.set("k", "v")
    note("S")
    wait_at("one")
    return trigger_dag("triggered").run_id

@task
def two():
    wait_at("two")
    return Variable.delete("k")

@task
def three():
    wait_at("three")
    return Variable.get("gone", "default")

with DAG("triggers"):
    one()
with DAG("deletes"):
    two()
with DAG("reads"):
    three()
with DAG("triggered"):
    bash("echo")
with DAG("waits"):
    # An hour between two looks: only the daemon's word can end it in time.
    TriggerDagRunOperator(
        task_id="waits", trigger_dag_id="slow", trigger_run_id="slow", wait_for_completion=True, poke_interval=3600)
with DAG("slow"):
    held("a") >> held("b")
"""
}

FILES = {
    "leaks.py": r"""
import logging
from urllib.parse import quote
from tickless import Connection, Variable

@task
def leaks(how):
    early = logging.getLogger("early")
    early.addHandler(logging.StreamHandler(sys.stderr))
    early.propagate = False
    key = "-----BEGIN RSA-----\n" + "\n".join(f"line {n} of the private key" for n in range(3))
    Variable.set("api_key", "hunter2-of-a-variable")
    Variable.set("settings", {"user": "not a secret", "token": "token-in-json"}, serialize_json=True)
    fields = {"conn_type": "postgres", "login": "me", "password": 'p@ss/word "x"'}
    os.environ["TICKLESS_CONN_DB"] = json.dumps({**fields, "extra": {"private_key": key, "n": "plain-extra"}})
    db = Connection.get("db")
    print("password", db.password, quote(db.password, safe=""), repr(db.password), json.dumps(db.password))
    print(db.get_uri())
    print(key.splitlines()[2])
    print(Variable.get("api_key"), Variable.get("settings", deserialize_json=True), db.extra_dejson["n"])
    sys.stdout.writelines(["lines ", db.password, "\n"])
    early.warning("early %s", db.password)
    logging.getLogger("x").info("logged %s", db.password)
    sys.stderr.write(f"error {db.password}\n")
    if how == "raise":
        raise ValueError(f"cannot log in with {db.password}")
    if how == "exit":
        sys.exit(f"no {db.password}")
    return {"handed on": db.password}

with DAG("leaks"):
    leaks.override(task_id="returns")("return")
    leaks.override(task_id="raises")("raise")
    leaks.override(task_id="exits")("exit")
""",
    "asks.py": """
from tickless import Connection, Variable, get_connection, trigger_dag
from tickless.authoring.daemon import daemon

def ask():
    return daemon("a test")

@task
def make(value):
    return value

@task
def pull():
    mine = ask().xcoms(task_ids=["one", "two", "nobody"])
    every = ask().xcoms()
    none = ask().xcoms(task_ids=["one"], key="other")
    return [[x.task_id, x.map_index, x.value] for x in mine], len(every), len(none)

with DAG("pulls"):
    [make.override(task_id="one")({"a": [1, None, "ä\\u2028\\\\"]}), make.override(task_id="two")("2")] >> pull()

@task
def variables():
    assert Variable.get("missing", default=None) is None
    assert Variable.get("missing", 7) == 7
    try:
        Variable.get("missing")
    except KeyError as error:
        assert "missing" in str(error)
    else:
        raise AssertionError("there is none")
    Variable.set("list", [1, {"a": "ä"}], serialize_json=True)
    assert Variable.get("list", deserialize_json=True) == [1, {"a": "ä"}]
    Variable.set("plain", "first", description="said once")
    Variable.set("plain", "second")
    assert Variable.delete("list") == 1
    assert Variable.delete("list") == 0
    os.environ["TICKLESS_VAR_PLAIN"] = "from the environment"
    assert Variable.get("plain") == "from the environment"
    del os.environ["TICKLESS_VAR_PLAIN"]
    os.environ["AIRFLOW_CONN_DB"] = "postgres://me:p%40ss@db:5432/main?sslmode=require"
    found = get_connection("db")
    assert (found.conn_type, found.login, found.password, found.port) == ("postgres", "me", "p@ss", 5432)
    assert found.extra_dejson == {"sslmode": "require"}
    assert "p@ss" not in repr(found)
    return Variable.get("plain")

with DAG("variables"):
    variables()

@task
def triggers():
    first = trigger_dag("triggered", {"from": "a task"})
    second = trigger_dag("triggered", run_id="named")
    try:
        trigger_dag("nothing")
    except Exception as error:
        assert "nothing" in str(error), error
    else:
        raise AssertionError("there is no such DAG")
    while ask().run_state("triggered", first.run_id) != "success":
        time.sleep(0.01)
    return [first.run_id, second.run_id]

with DAG("triggers"):
    triggers()
with DAG("triggered"):
    bash("echo", 'echo "$TICKLESS_CONF"')

@task
def look(prev_end_date_success, prev_start_date_success, ti, **context):
    before = ti.get_previous_dagrun()
    return [
        prev_start_date_success and prev_start_date_success.isoformat(),
        prev_end_date_success and prev_end_date_success.isoformat(),
        str(context["prev_data_interval_end_success"]),
        before and before.run_id,
        before and before.state,
    ]

with DAG("looks_back"):
    look()
    bash("templated", "echo '{{ prev_start_date_success | ts if prev_start_date_success else 'first' }}'")

from tickless import TriggerDagRunOperator
with DAG("operators"):
    made = make.override(task_id="made")(["x"])
    waits = TriggerDagRunOperator(
        task_id="waits", trigger_dag_id="triggered", conf={"list": made, "of": "{{ run_id }}"},
        wait_for_completion=True, poke_interval=3600,
    )
    again = TriggerDagRunOperator(
        task_id="again", trigger_dag_id="triggered", trigger_run_id=waits.output, skip_when_already_exists=True)
    bad = TriggerDagRunOperator(
        task_id="bad", trigger_dag_id="failing", wait_for_completion=True, poke_interval=3600)
with DAG("failing"):
    bash("no", "exit 1")
""",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log()


def _success(stage: Stage, dag_id: str) -> int:
    run, state = stage.do(dag_id)
    assert state == "success", {task_id: task["attempt"]["error"] for task_id, task in stage.tasks(run).items()}
    return run


def test_values_of_other_tasks_are_pulled(stage: Stage) -> None:
    run = _success(stage, "pulls")
    mine, every, none = stage.output(run, "pull")
    assert mine == [["one", -1, {"a": [1, None, "ä\u2028\\"]}], ["two", -1, "2"]]
    assert (every, none) == (2, 0)


def test_variables_are_set_got_and_deleted_and_the_environment_comes_first(stage: Stage) -> None:
    run = _success(stage, "variables")
    assert stage.output(run, "variables") == "second"
    [row] = stage.query("select key, val, description from variable")
    assert (row["key"], row["description"]) == ("plain", "said once")
    assert "second" not in row["val"]
    assert (stage.home / "secret.key").stat().st_mode & 0o777 == 0o600


def test_what_a_task_has_read_that_is_secret_is_not_in_its_log(stage: Stage) -> None:
    secrets = ["hunter2-of-a-variable", "token-in-json", "p@ss", "p%40ss", "line 1 of the private key"]
    run, _ = stage.do("leaks")
    for task_id in ("returns", "raises", "exits"):
        [attempt] = stage.attempts(run, task_id)
        log = stage.log(run, task_id)
        assert [secret for secret in secrets if secret in log + (attempt["error"] or "")] == []
        for line in (
            "password *** *** '***' \"***\"",
            "postgres://me:***@",
            "lines ***",
            "early ***",
            "logged ***",
            "error ***",
            "*** {'user': 'not a secret', 'token': '***'} plain-extra",
        ):
            assert line in log, (task_id, log)
    assert "ValueError: cannot log in with ***" in stage.log(run, "raises")
    assert "ValueError: cannot log in with ***" in stage.attempts(run, "raises")[0]["error"]
    assert stage.attempts(run, "exits")[0]["error"] == "sys.exit: no ***"
    assert stage.output(run, "returns") == {"handed on": 'p@ss/word "x"'}, "data stays what it is"


def test_a_run_looks_at_the_one_before(stage: Stage) -> None:
    first, second = _success(stage, "looks_back"), _success(stage, "looks_back")
    assert stage.output(first, "look") == [None, None, "None", None, None]
    assert stage.output(first, "templated") == "first"
    row = stage.query("select * from dag_run where key = $1", first)[0]
    assert stage.output(second, "look") == [
        row["started_at"].isoformat(),
        row["ended_at"].isoformat(),
        str(row["queued_at"]),
        row["run_id"],
        "success",
    ]
    assert stage.output(second, "templated") == row["started_at"].isoformat()


def test_runs_are_triggered_and_looked_after(stage: Stage) -> None:
    run = _success(stage, "triggers")
    names = stage.output(run, "triggers")
    rows = stage.query("select key, run_id, run_type, conf from dag_run where dag_id = 'triggered' order by key")
    assert [row["run_id"] for row in rows] == names
    assert names[0].startswith("operator_triggered__")
    assert names[1] == "named"
    assert {row["run_type"] for row in rows} == {"operator_triggered"}
    assert stage.output(rows[0]["key"], "echo") == '{"from": "a task"}'


def test_an_operator_triggers_and_waits(stage: Stage) -> None:
    run, state = stage.do("operators")
    assert state == "failed"
    assert stage.states(run) == {"made": "success", "waits": "success", "again": "skipped", "bad": "failed"}
    found = stage.query("select key, value from xcom where dag_run_key = $1 and task_id = 'waits' order by key", run)
    values = {row["key"]: json.loads(row["value"]) for row in found}
    assert values["trigger_run_id"] == values["return_value"]
    [row] = stage.query("select state, conf from dag_run where run_id = $1", values["return_value"])
    assert row["state"] == "success"
    assert json.loads(row["conf"]) == {"list": ["x"], "of": stage.client.get(f"/runs/{run}")["run_id"]}
    assert "ended as failed" in stage.attempts(run, "bad")[0]["error"]


@pytest.mark.parametrize("how", ["kill", "term"])
def test_a_task_that_asks_while_no_daemon_is_there_is_answered_by_the_next(how: str) -> None:
    with Stage(RESTART) as stage:
        stage.start()
        run = stage.go("reads")
        stage.wait_state(run, "three", "running")
        if how == "kill":
            stage.kill_daemon()
        else:
            assert stage.terminate_daemon() == 0
        stage.open_gate("three")
        stage.start()
        assert stage.end(run) == "success"
        assert stage.output(run, "three") == "default"
        assert len(stage.attempts(run, "three")) == 1
        stage.assert_clean_log()


def test_a_daemon_killed_before_its_answer_has_changed_everything_once() -> None:
    """What a task asked for is committed, and the daemon dies: the next one gives the answer, and changes nothing."""
    with Stage(RESTART) as stage:
        stage.start()
        triggers, deletes = stage.go("triggers"), stage.go("deletes")
        stage.wait(lambda: stage.notes_file.exists(), "a variable that is set")
        stage.wait_state(triggers, "one", "running")
        stage.wait_state(deletes, "two", "running")
        for gate, run in (("one", triggers), ("two", deletes)):
            stage.kill_daemon()
            stage.open_gate(gate)
            points = stage.arm(daemon__before_answer="kill")
            stage.start(points, is_awaited=False)
            stage.wait_killed()
            points.assert_all_fired()
            stage.start()
            assert stage.end(run) == "success"
        [triggered] = stage.query("select key, run_id from dag_run where dag_id = 'triggered'")
        assert stage.output(triggers, "one") == triggered["run_id"], "the one run, however often it was asked for"
        assert stage.output(deletes, "two") == 1, "there was one, also in the eyes of the second daemon"
        assert [len(stage.attempts(triggers, "one")), len(stage.attempts(deletes, "two"))] == [1, 1]
        assert stage.end(triggered["key"]) == "success"
        stage.assert_clean_log()


def test_a_request_is_asked_again_when_postgres_has_been_away() -> None:
    with Stage(RESTART) as stage:
        stage.start()
        run = stage.go("triggers")
        stage.wait(lambda: stage.notes_file.exists(), "a variable that is set")
        postmaster = stage.postmaster_pid()
        assert postmaster is not None
        os.kill(postmaster, signal.SIGKILL)
        stage.open_gate("one")
        assert stage.patiently(lambda: stage.end(run)) == "success"
        [triggered] = stage.query("select run_id from dag_run where dag_id = 'triggered'")
        assert stage.output(run, "one") == triggered["run_id"]


@pytest.mark.parametrize("when", ["while it waits", "before the end is told"])
def test_a_task_that_waits_for_a_run_is_told_of_its_end_by_whoever_leads_then(when: str) -> None:
    with Stage(RESTART) as stage:
        stage.start()
        run = stage.go("waits")
        slow = stage.wait(lambda: stage.query("select key from dag_run where run_id = 'slow'"), "the triggered run")
        slow = slow[0]["key"]
        stage.wait_running(slow, "a")
        pid = stage.attempts(run, "waits")[0]["pid"]
        if when == "while it waits":
            stage.kill_daemon()
            stage.start()
            stage.open(slow, "a", "b")
        else:
            stage.kill_daemon()
            points = stage.arm(daemon__before_answer="kill")
            stage.start(points)
            stage.open(slow, "a", "b")
            stage.wait_killed()
            points.assert_all_fired()
            stage.start()
        assert stage.end(run) == "success"
        assert stage.output(run, "waits") == "slow"
        [attempt] = stage.attempts(run, "waits")
        assert attempt["pid"] == pid
        assert stage.query("select count(*) from dag_run where dag_id = 'slow'")[0]["count"] == 1
        stage.assert_clean_log()
