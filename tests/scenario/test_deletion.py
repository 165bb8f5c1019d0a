"""Runs and DAGs deleted through the real command line, with whole daemons, killed in the middle."""

from __future__ import annotations

import pytest

from tests.support.stage import Stage
from tickless.errors import Unavailable

WIDE = 700
FILES = {
    "d.py": """
with DAG("d"):
    bash("a", "echo said") >> held("b")
""",
    "wide.py": f"""
with DAG("wide"):
    for n in range({WIDE}):
        EmptyOperator(task_id=f"t{{n}}") >> bash("last") if n == 0 else EmptyOperator(task_id=f"t{{n}}")
""",
}
TABLES = ("dag_run", "task_instance", "task_attempt", "xcom", "task_map", "note")


def left_of(stage: Stage, run: int) -> dict[str, int]:
    """Rows of a run, by table."""
    counts = {}
    for table in TABLES:
        column = "key" if table == "dag_run" else "dag_run_key"
        counts[table] = stage.query(f"select count(*) as n from {table} where {column} = $1", run)[0]["n"]
    return {table: count for table, count in counts.items() if count}


def test_a_finished_run_goes_with_its_rows_and_logs_and_its_number_is_never_given_again() -> None:
    with Stage(FILES) as stage:
        stage.start()
        kept = stage.go("d")
        stage.wait_running(kept, "b")
        run = stage.go("d")
        stage.wait_running(run, "b")
        refused = stage.cli("run", "delete", run, "--yes")
        assert (refused.code, f"tickless run delete {run} --cancel" in refused.error["message"]) == (5, True)
        folder = stage.home / "logs" / "d" / str(run)
        outside = stage.folder / "outside"
        outside.write_text("not a log")
        (stage.home / "logs" / "d" / str(run) / "planted").symlink_to(outside)
        # A path that leads out, as if somebody had written it into the database.
        stage.query("update task_attempt set log_path = '../../outside' where dag_run_key = $1 and task_id = 'a'", run)
        assert {"dag_run", "task_instance", "task_attempt"} <= left_of(stage, run).keys()
        dry = stage.cli("run", "delete", run, "--cancel", "--dry-run")
        assert (dry.json["runs"], stage.states(run)["b"]) == (0, "running"), "unfinished: nothing would be deleted now"
        done = stage.cli("run", "delete", run, "--cancel", "--yes")
        assert (done.json["runs"], done.json["tasks"]) == (1, 2), done.err
        assert "../../outside" in done.json["refused"][0]
        assert left_of(stage, run) == {}
        assert outside.read_text() == "not a log"
        assert sorted(path.name.partition(".")[0] for path in folder.iterdir()) == ["a", "planted"], "the log of b went"
        gone = stage.cli("run", "delete", run, "--yes")
        assert (gone.code, stage.cli("run", "show", run).code) == (3, 3)
        events = [(each["action"], each["run"]) for each in stage.cli("audit", "list", "--run", run).json]
        assert events == [("delete", run), ("cancel", run), ("start", run)], "the audit keeps its lines"
        stage.kill_daemon()
        stage.start()
        assert stage.go("d") == run + 1
        assert stage.states(kept)["b"] == "running"
        stage.rest()
        stage.assert_clean_log()


def test_a_filter_deletes_what_is_finished_and_a_daemon_killed_in_the_middle_goes_on() -> None:
    with Stage(FILES) as stage:
        stage.start()
        runs = [stage.do("wide")[0] for _ in range(2)]
        live = stage.go("d")
        stage.wait_running(live, "b")
        assert stage.cli("run", "delete", "--dag", "wide", "--dry-run").json["runs"] == 2
        stage.kill_daemon()
        points = stage.arm(daemon__after_slice="kill@2")
        stage.start(points)
        with pytest.raises(Unavailable):
            stage.client.post("/dags/wide/delete-runs", {})
        stage.wait_killed()
        points.assert_all_fired()
        first = left_of(stage, runs[0])
        assert "dag_run" not in first and first["task_instance"] > 0, "the first run is half gone"
        stage.start()
        stage.wait(lambda: stage.client.get("/events", action="delete")["items"], "the end of the deletion")
        assert [left_of(stage, run) for run in runs] == [{}, {}]
        assert not list((stage.home / "logs" / "wide").iterdir())
        (event,) = stage.client.get("/events", action="delete")["items"]
        assert (event["detail"]["runs"], event["detail"]["tasks"]) == (2, 2 * (WIDE + 1)), "each once"
        assert stage.cli("run", "delete", "--dag", "d", "--state", "running", "--yes").json["runs"] == 0
        stage.open(live, "b")
        assert stage.end(live) == "success"
        assert stage.query("select tickless.delete_run($1)", live)
        stage.wait(lambda: not left_of(stage, live), "what SQL asked for")
        stage.assert_clean_log()


def test_a_dag_goes_when_its_file_is_gone_and_begins_anew_when_forced() -> None:
    with Stage(FILES) as stage:
        stage.start()
        old, _ = stage.do("wide")
        in_file = stage.cli("dag", "delete", "wide", "--yes")
        assert (in_file.code, "wide.py" in in_file.error["message"]) == (5, True)
        forced = stage.cli("dag", "delete", "wide", "--force", "--yes")
        assert (forced.code, forced.json["runs"]) == (0, 1), forced.err
        assert left_of(stage, old) == {}
        found = stage.wait(lambda: stage.dag("wide"), "the DAG, from its file")
        assert (found["version"], found["last_run"]) == (1, None)
        new, state = stage.do("wide")
        assert (new > old, state) == (True, "success")
        (stage.dags / "wide.py").unlink()
        stage.wait(lambda: stage.dag("wide") is None, "its end")
        assert stage.cli("dag", "delete", "wide", "--yes").json["runs"] == 1
        for table in ("dag", "dag_version", "dag_run"):
            assert not stage.query(f"select from {table} where dag_id = 'wide'"), table
        stage.kill_daemon()
        stage.start()
        live = stage.go("d")
        busy = stage.cli("dag", "delete", "d", "--force", "--yes")
        assert (busy.code, f"run {live}" in busy.error["message"]) == (5, True)
        stage.rest()
        stage.assert_clean_log()
