"""Tasks that wait for the run before, on a whole daemon: a failed first run, kill -9 in between, mark and clear."""

from __future__ import annotations

from tests.support.stage import Stage

THREE_DAYS = """
from datetime import UTC, datetime
def load():
    note("S")
    if not os.path.exists(f"{GATES}/mended"):
        raise RuntimeError("the table is locked")
with DAG("etl", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=True,
         end_date=datetime(2026, 1, 3, tzinfo=UTC), max_active_runs=3):
    EmptyOperator(task_id="ready") >> PythonOperator(task_id="load", python_callable=load, depends_on_past=True)
"""


def reason(stage: Stage, run: int) -> tuple[str, str]:
    [found] = stage.why(run, "load")
    return found["code"], found["message"]


def test_a_failed_run_holds_the_next_ones_until_it_is_marked_or_cleared() -> None:
    with Stage({"etl.py": THREE_DAYS}) as stage:
        points = stage.arm(daemon__before_past="kill@2")
        stage.start(points, is_awaited=False)
        stage.wait_killed()
        points.assert_all_fired()
        stage.start()
        stage.wait(lambda: len(stage.client.get("/runs")["items"]) == 3, "three runs of the schedule")
        stage.wait_state(1, "load", "failed")
        assert stage.end(1) == "failed"
        for run in (2, 3):
            stage.wait_state(run, "ready", "success")
        failed = "depends_on_past: it waits for load of the previous run, 1, which is failed."
        stage.wait(lambda: reason(stage, 2) == ("depends_on_past", failed), "the past of run 2")
        stage.wait(lambda: "the previous run, 2," in reason(stage, 3)[1], "the past of run 3")
        assert stage.query("select key, previous_run from dag_run order by key") == [(1, 0), (2, 1), (3, 2)]

        stage.kill_daemon()
        stage.start()
        assert reason(stage, 2) == ("depends_on_past", failed)
        assert not stage.begun(2) and not stage.begun(3)
        assert stage.cli("task", "mark", "success", 1, "load", "--yes").code == 0
        assert stage.end(2) == "failed", "it was let through, and has failed itself"
        assert reason(stage, 3)[1].endswith("load of the previous run, 2, which is failed.")

        stage.open_gate("mended")
        stage.kill_daemon()
        stage.start()
        assert stage.cli("task", "clear", 2, "load", "--yes").code == 0
        assert [stage.end(run) for run in (1, 2, 3)] == ["success", "success", "success"]
        assert [len(stage.begun(run)) for run in (1, 2, 3)] == [1, 2, 1]
        stage.assert_clean_log()
