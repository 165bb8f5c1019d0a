"""A newcomer with a folder and a terminal: every command, its output, its exit code, and what it says when it fails."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import is_alive
from tests.support.stage import Answer, Stage

FILES = {
    "hello.py": """
with DAG("hello"):
    bash("greet", 'echo "hello $TICKLESS_CONF"') >> held("wait") >> bash("bye", "echo bye")
with DAG("quick"):
    bash("one", "echo 1") >> bash("two", "echo 2")
with DAG("fails"):
    bash("breaks", "echo about to break; exit 7") >> bash("never")
""",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """`tickless dev FOLDER`."""
    with Stage(FILES, is_dev=True) as stage:
        stage.start()
        yield stage


def assert_pure(answer: Answer) -> None:
    """-o json: one document on stdout, nothing that looks like it on stderr."""
    json.loads(answer.out)
    assert "{" not in answer.err


def test_status_says_that_it_is_ready(stage: Stage) -> None:
    answer = stage.cli("status")
    assert answer.code == 0
    status = answer.json
    assert (status["is_ready"], status["state"], status["mode"]) == (True, "leader", "dev")
    assert status["pid"] == stage.daemon.pid
    assert status["dags"] == 3
    text = stage.cli("status", is_json=False).out
    assert f"pid {stage.daemon.pid}" in text
    assert str(stage.home) in text


def test_dags_are_listed(stage: Stage) -> None:
    answer = stage.cli("dags", "list")
    assert {dag["dag_id"]: dag["file"] for dag in answer.json} == dict.fromkeys(("hello", "quick", "fails"), "hello.py")
    assert stage.cli("dag", "list", is_json=False).out.splitlines()[0].split()[:2] == ["DAG", "VERSION"]
    empty = stage.cli("dag", "errors", is_json=False)
    assert (empty.out, empty.err) == ("", "no DAG file has an error\n")


def test_a_dag_is_drawn(stage: Stage) -> None:
    assert stage.cli("dag", "graph", "hello", is_json=False).out == "●  greet\n●  wait\n●  bye\n"
    assert [node["task_id"] for node in stage.cli("dag", "graph", "hello").json["nodes"]] == ["greet", "wait", "bye"]
    assert stage.cli("dag", "graph", "hello", "--svg", "-", is_json=False).out.startswith("<svg ")
    assert len(list((stage.home / "layouts").iterdir())) == 1
    nowhere = stage.cli("dag", "graph", "hello", "--svg", str(stage.home / "nowhere" / "x.svg"), is_json=False)
    assert (nowhere.code, nowhere.out) == (1, "")
    assert "nowhere/x.svg" in nowhere.err


def test_json_lines_are_one_object_per_line(stage: Stage) -> None:
    answer = stage.cli("dags", "list", "-o", "jsonl", is_json=False)
    assert {json.loads(line)["dag_id"] for line in answer.out.splitlines()} == {"hello", "quick", "fails"}
    error = stage.cli("run", "show", 10**6, "-o", "jsonl", is_json=False)
    assert (error.code, json.loads(error.err)["error"]["code"]) == (3, "not_found")


def test_a_wait_has_an_end_if_one_is_asked_for(stage: Stage) -> None:
    answer = stage.cli("run", "start", "hello", "--wait", "--timeout", "0.2")
    assert (answer.code, answer.json["is_finished"]) == (124, False)
    number = answer.json["run"]
    assert f"run {number} (hello/" in answer.err
    assert stage.cli("run", "watch", number, "--timeout", "0.1").code == 124
    stage.open(number, "wait")
    watched = stage.cli("run", "watch", number, is_json=False)
    assert (watched.code, watched.out) == (0, "")
    assert "success after" in watched.err


def test_shells_complete_nouns_and_verbs(stage: Stage) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_TICKLESS_COMPLETE" in stage.cli("completion", shell, is_json=False).out
    completed = stage.cli(
        is_json=False, _TICKLESS_COMPLETE="bash_complete", COMP_WORDS="tickless run wa", COMP_CWORD="2"
    )
    assert completed.out == "plain,watch\n"


def test_a_run_that_is_waited_for_gives_its_verdict_as_exit_code(stage: Stage) -> None:
    good = stage.cli("run", "start", "quick", "--wait")
    assert good.code == 0
    assert_pure(good)
    assert (good.json["state"], good.json["dag_id"]) == ("success", "quick")
    assert isinstance(good.json["run_id"], str)
    bad = stage.cli("run", "start", "fails", "--wait")
    assert bad.code == 1
    assert bad.json["state"] == "failed"
    people = stage.cli("run", "start", "fails", "--wait", is_json=False)
    assert people.code == 1
    assert people.out.strip().isdecimal(), "stdout is the number, for scripts"
    assert "failed after" in people.err
    number = people.out.strip()
    assert f"  breaks: failed (exited, exit code 7); tickless task logs {number} breaks\n" in people.err


def test_airflows_names_work_and_a_dag_is_tried_by_its_name(stage: Stage) -> None:
    made = stage.cli("dags", "trigger", "quick", "-r", "triggered", "-c", '{"a": 1}', "-l", "2026-11-22T00:00:00Z")
    assert made.code == 0, made
    shown = stage.cli("run", "show", "quick/triggered").json
    assert (shown["conf"], shown["logical_date"]) == ({"a": 1}, "2026-11-22T00:00:00Z")
    before = len(stage.cli("run", "list", "quick").json)
    tried = stage.cli("tasks", "test", "quick", "two", is_json=False)
    assert (tried.code, tried.out) == (0, "2\n"), tried
    tried = stage.cli("dags", "test", "quick", is_json=False)
    assert (tried.code, tried.out) == (0, "1\n2\n"), tried
    assert len(stage.cli("run", "list", "quick").json) == before, "no record"


def test_a_run_can_be_followed_and_cancelled(stage: Stage) -> None:
    started = stage.cli("run", "start", "hello", "--conf", '{"name": "wörld"}', "--run-id", "my first")
    assert started.code == 0
    run, name = started.json["run"], "hello/my first"
    assert (started.json["run_id"], started.json["is_new"]) == ("my first", True)
    stage.wait_state(run, "wait", "running")
    assert [item["run"] for item in stage.cli("run", "list", "hello", "--state", "running").json] == [run]
    shown = stage.cli("run", "show", name).json
    assert (shown["run"], shown["conf"], shown["state"]) == (run, {"name": "wörld"}, "running")
    tasks = {task["task_id"]: task["state"] for task in stage.cli("task", "list", name).json}
    assert tasks == {"greet": "success", "wait": "running", "bye": "none"}
    [why] = stage.cli("why", run, "bye").json
    assert (why["code"], why["message"]) == (
        "upstream",
        "Its trigger rule is all_success; 0 of 1 upstream tasks are finished. It waits for wait (running).",
    )
    assert "wait: It is running since" in stage.cli("why", run, is_json=False).out
    assert stage.cli("task", "logs", name, "greet", is_json=False).out == 'hello {"name": "wörld"}\n'
    assert stage.cli("run", "cancel", name).code == 0
    assert stage.end(run) == "failed"
    assert stage.states(run) == {"greet": "success", "wait": "failed", "bye": "skipped"}
    again = stage.cli("run", "cancel", run)
    assert (again.code, again.error["code"]) == (5, "refused")
    assert f"run {run} has ended already" in again.error["message"]


def test_mistakes_are_answered_with_what_is_wrong_and_a_way_out(stage: Stage) -> None:
    cases: list[tuple[list[object], int, str, str]] = [
        (["run", "start", "helo"], 3, "there is no DAG 'helo'", "dag errors"),
        (["run", "show", 4711], 3, "there is no run 4711", "run list"),
        (["run", "show", "hello"], 2, "'hello' is not a run", "DAG/RUN_ID"),
        (["run", "show", "hello/nope"], 3, "there is no run hello/nope", "run list hello"),
        (["run", "cancel", 4711], 3, "there is no run 4711", "run list"),
        (["run", "start", "quick", "--conf", "{day: 1}"], 2, "--conf is not JSON", '{"day": "2026-11-22"}'),
        (["run", "start", "quick", "--conf", "[]"], 2, "--conf must be a JSON object", '{"day": "2026-11-22"}'),
        (["run", "start", "quick", "--run-id", "x" * 251], 2, "run_id", ""),
        (["run", "list", "--state", "don"], 2, "'don' is not one of", "run list --help"),
        (["task", "list", 4711], 3, "there is no run 4711", "run list"),
        (["task", "logs", 1, "nope"], 3, "has no task nope", "task list 1"),
        (["why", 1, "nope"], 3, "has no task 'nope'", "task list 1"),
        (["pool", "set", "p", "lots"], 2, "'lots' is not a valid integer", "pool set --help"),
        (["runs", "strat"], 2, "No such command 'strat'", "run"),
    ]
    for words, code, message, hint in cases:
        answer = stage.cli(*words)
        assert (answer.code, answer.out) == (code, ""), (words, answer)
        assert message in answer.error["message"], words
        assert hint in answer.error.get("hint", ""), words
        assert "Traceback" not in answer.err
    people = stage.cli("run", "start", "helo", is_json=False).err
    assert people.startswith("error: there is no DAG 'helo'\nhint: ")


def test_a_run_id_is_used_once(stage: Stage) -> None:
    assert stage.cli("run", "start", "quick", "--run-id", "mine", "--wait").code == 0
    answer = stage.cli("run", "start", "quick", "--run-id", "mine")
    assert answer.code == 5
    assert "has a run 'mine' already" in answer.error["message"]


def test_the_database_can_be_reached(stage: Stage) -> None:
    url = stage.cli("db", "url", is_json=False).out.strip()
    assert url.startswith("postgresql://")
    assert stage.cli("db", "url").json == {"url": url}
    answer = stage.cli("db", "shell", "--", "-Atc", "select count(*) > 0 from dag_run", is_json=False)
    assert (answer.code, answer.out) == (0, "t\n")
    assert stage.cli("db", "shell", "--", "-c", "nonsense", is_json=False).code != 0


def test_a_second_dev_on_the_same_home_is_refused_and_says_by_whom(stage: Stage, tmp_path: Path) -> None:
    answer = stage.cli("dev", tmp_path, is_json=False)
    assert answer.code not in (0, 1)
    assert f"in use by process {stage.daemon.pid}" in answer.err
    assert str(stage.dags) in answer.err, "the folder that it serves"
    assert "--home" in answer.err
    assert "Traceback" not in answer.err
    assert stage.cli("status").code == 0


def test_stop_leaves_running_tasks_alone_and_the_next_dev_takes_them_over(stage: Stage) -> None:
    run = stage.go("hello")
    pid = stage.wait_state(run, "wait", "running")["attempt"]["pid"]
    answer = stage.cli("stop", is_json=False)
    assert (answer.code, answer.out) == (0, "")
    assert f"the daemon (pid {stage.daemon.pid}) has stopped" in answer.err
    stage.daemon.wait(10)
    assert is_alive(pid)
    left = stage.events("daemon.left_running")
    assert [event["running"] for event in left] == [1]
    for words, code in ((["status"], 3), (["stop"], 3), (["run", "list"], 6)):
        gone = stage.cli(*words)
        assert (gone.code, gone.error["code"]) == (code, "not_running"), words
        assert "no tickless daemon listens on" in gone.error["message"]
        assert "tickless dev" in gone.error["hint"]
        assert "--home" in gone.error["hint"]
    stage.start()
    assert stage.task(run, "wait")["attempt"]["pid"] == pid
    stage.open(run, "wait")
    assert stage.end(run) == "success"


def test_ctrl_c_with_nothing_running_leaves_nothing_behind(stage: Stage) -> None:
    os.killpg(stage.daemon.pid, signal.SIGINT)
    assert stage.daemon.wait(30) == 0
    stage.wait(lambda: not stage.processes(), "the end of launcher and Postgres")
    assert stage.cli("db", "shell", "--", "-Atc", "select 1", is_json=False).out == "1\n", "it is started for this"
    assert stage.processes() == []


def test_stop_all_ends_everything(stage: Stage) -> None:
    stage.start()
    run = stage.go("hello")
    stage.wait_state(run, "wait", "running")
    answer = stage.cli("stop", "--all")
    assert answer.code == 0
    assert answer.json["pid"] == stage.daemon.pid
    stage.daemon.wait(10)
    stage.wait(lambda: not stage.processes(), "the end of everything")
    idle = stage.cli("stop", "--all", is_json=False)
    assert (idle.code, idle.err) == (0, f"nothing of {stage.home} was running\n")
    # What was stopped with its launcher was not the task's fault: it runs again.
    stage.start()
    stage.wait_state(run, "wait", "running")
    stage.open(run, "wait")
    assert stage.end(run) == "success"
    assert [attempt["state"] for attempt in stage.attempts(run, "wait")] == ["success", "lost"]
    stage.assert_clean_log()


def test_a_daemon_killed_under_wait_is_waited_for(stage: Stage) -> None:
    with stage.cli_process("run", "start", "hello", "--run-id", "patient", "--wait") as waiting:
        run = stage.wait(
            lambda: next((r["run"] for r in stage.client.get("/runs")["items"] if r["run_id"] == "patient"), None),
            "the run",
        )
        stage.wait_state(run, "wait", "running")
        stage.kill_daemon()
        stage.start()
        stage.open(run, "wait")
        out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert json.loads(out)["state"] == "success"
    assert "trying again" in err
    assert "connected again" in err


def test_an_unknown_home_and_a_bad_config_are_said_in_plain_words(tmp_path: Path) -> None:
    with Stage({}) as stage:
        answer = stage.cli("run", "list", home=tmp_path / "nowhere")
        assert answer.code == 6
        assert str(tmp_path / "nowhere") in answer.error["message"]
        (stage.home / "tickless.toml").write_text("[limits]\nparalelism = 3\n")
        answer = stage.cli("daemon", is_json=False)
        assert answer.code == 78
        assert "tickless.toml:2" in answer.err
        assert "parallelism" in answer.err
        assert "Traceback" not in answer.err


def test_a_dag_folder_that_is_not_there_is_said_and_waited_for(tmp_path: Path) -> None:
    with Stage({}, dags=tmp_path / "later") as stage:
        stage.start()
        [error] = stage.cli("dag", "errors").json
        assert str(tmp_path / "later") in error["folder"] + error["error"]
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "x.py").write_text(stage.head + 'with DAG("x"): bash("a")')
        stage.wait(lambda: stage.dag("x"), "the DAG")
        assert stage.cli("dag", "errors").json == []
        assert stage.do("x")[1] == "success"
