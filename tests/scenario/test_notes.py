"""Whole runs marked and cancelled, notes, and DAG@latest, through the real command line and SQL."""

from __future__ import annotations

from tests.support.stage import Stage

FILES = {"d.py": 'with DAG("d"): held("a") >> held("b") >> bash("c")\nwith DAG("never"): bash("x")'}


def test_a_run_is_marked_by_command_line_filter_and_sql() -> None:
    with Stage(FILES) as stage:
        stage.start()
        run = stage.go("d")
        stage.wait_running(run, "a")
        assert stage.cli("run", "mark", run, "success", "--dry-run").json["runs"] == 1
        assert stage.cli("run", "mark", run, "success", "--yes").json["runs"] == 1
        assert stage.end(run) == "success"
        assert stage.states(run) == {"a": "success", "b": "success", "c": "success"}
        assert stage.begun(run) == ["a"]
        shown = stage.cli("run", "show", "d@latest").json
        assert (shown["is_cancelled"], shown["cancel_reason"].partition(":")[0]) == (False, "marked_success")
        assert stage.query("select tickless.mark_run($1, 'failed')", run)
        stage.wait(lambda: stage.cli("run", "show", run).json["state"] == "failed", "what SQL asked for")
        others = [stage.go("d") for _ in range(2)]
        for other in others:
            stage.wait_running(other, "a")
        done = stage.cli("run", "mark", "failed", "--dag", "d", "--state", "running", "--yes")
        assert done.json["runs"] == 2, done.err
        assert [stage.end(other) for other in others] == ["failed", "failed"]
        assert stage.states(others[0]) == {"a": "failed", "b": "skipped", "c": "skipped"}
        assert stage.cli("task", "clear", "d@latest", "--yes").json["tasks"] == 3
        stage.wait_running(others[1], "a")
        assert stage.cli("run", "mark", run, "--yes").error["message"] == "marked as what?"
        nothing = stage.query("select tickless.mark_run($1, 'running')", run)[0]["mark_run"]
        stage.wait(lambda: stage.query("select from command where id = $1 and error is not null", nothing), "a refusal")
        stage.rest()
        stage.assert_clean_log()


def test_runs_are_cancelled_by_filter_and_finished_ones_left_alone() -> None:
    with Stage(FILES) as stage:
        stage.start()
        ended, state = stage.do("never")
        runs = [stage.go("d") for _ in range(3)]
        for run in runs:
            stage.wait_running(run, "a")
        assert stage.cli("run", "cancel", "--dag", "d", "--dry-run").json["runs"] == 3
        assert stage.cli("run", "cancel", "--dag", "d", "--state", "queued", "--yes").json["runs"] == 0
        assert stage.cli("run", "cancel", "--dag", "d", "--yes").json["runs"] == 3
        assert [stage.end(run) for run in runs] == ["failed"] * 3
        assert stage.states(runs[0]) == {"a": "failed", "b": "skipped", "c": "skipped"}
        assert stage.cli("run", "cancel", "--dag", "never", "--state", "success", "--yes").json["runs"] == 0
        assert (stage.cli("run", "show", ended).json["is_cancelled"], state) == (False, "success")
        assert [
            stage.cli("run", "cancel", *words).code for words in ((), (ended, "--dag", "d"), (ended, "--dry-run"))
        ] == [2] * 3
        (event,) = stage.cli("audit", "list", "--action", "cancel", "--dag", "d", "--limit", 1).json
        assert (event["run"], event["detail"]["runs"]) == (None, 3)
        unread = stage.query("select tickless.request_command('cancel_runs', '{\"run\": 1}') as id")[0]["id"]
        stage.wait(lambda: stage.query("select from command where id = $1 and error is not null", unread), "a refusal")
        stage.assert_clean_log()


def test_notes_are_written_shown_and_removed_and_go_with_their_run() -> None:
    with Stage(FILES) as stage:
        stage.start()
        run = stage.go("d")
        stage.wait_running(run, "a")
        assert stage.cli("run", "note", "d@latest", "bad data on Monday").json["text"] == "bad data on Monday"
        assert stage.cli("task", "note", run, "a", "look at this").code == 0
        stage.kill_daemon()
        stage.start()
        assert stage.cli("run", "note", run, is_json=False).out == "bad data on Monday\n"
        assert "bad data on Monday" in stage.cli("run", "show", run, is_json=False).out
        listed = stage.cli("task", "list", run, is_json=False).out
        assert "NOTE" in listed.splitlines()[0] and "look at this" in listed
        author = stage.cli("audit", "list", "--action", "set_note").json[0]["actor"]
        assert stage.client.get(f"/runs/{run}/tasks/a")["note"]["author"] == author
        assert stage.cli("run", "note", run, "better").json["text"] == "better"
        assert stage.cli("task", "note", run, "a", "--delete").json is None
        assert stage.task(run, "a")["note"] is None
        assert stage.cli("task", "note", run, "nobody", "x").code == 3
        assert stage.cli("run", "note", run, "x" * 1001).code == 2
        assert stage.cli("run", "note", run, "x", "--delete").code == 2
        assert stage.cli("run", "show", "never@latest").error["message"] == "DAG 'never' has no run"
        assert stage.cli("run", "show", "nobody@latest").code == 3
        stage.rest()
        assert stage.cli("run", "delete", run, "--yes").code == 0
        assert not stage.query("select from note")
        stage.assert_clean_log()
