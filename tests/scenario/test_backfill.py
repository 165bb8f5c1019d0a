"""Backfills on a whole daemon and a real Postgres: every slot gives one run, through kill -9 at any commit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.house import eventually
from tests.support.stage import Stage

DAILY = """
with DAG("daily", schedule="0 6 * * *", max_active_runs=1, start_date=datetime.datetime(2099, 1, 1)):
    EmptyOperator(task_id="a") >> EmptyOperator(task_id="b")
with DAG("held", schedule="@daily", start_date=datetime.datetime(2099, 1, 1), max_active_runs=1):
    held("work")
with DAG("bare", schedule=None):
    EmptyOperator(task_id="a")
"""
SOURCE = "import datetime\n" + DAILY
FIRST = datetime(2025, 1, 1, 6, tzinfo=UTC)


def runs(stage: Stage, backfill: int = 1) -> list[dict[str, Any]]:
    """Oldest first."""
    found: list[dict[str, Any]] = stage.cli("run", "list", "--backfill", backfill, "--limit", 5000).json
    return found[::-1]


def show(stage: Stage, backfill: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = stage.cli("backfill", "show", backfill).json
    return found


def test_every_slot_gives_one_run_however_often_the_daemon_is_killed() -> None:
    with Stage({"d.py": SOURCE}) as stage:
        stage.start()
        asked = ("daily", "--from", "2025-01-01", "--to", "2026-02-15", "--max-active", 3)
        planned = stage.cli("backfill", "create", *asked, "--dry-run").json
        assert len(planned) == 410 and all(slot["is_run"] for slot in planned)
        assert stage.cli("backfill", "list").json == []
        points = stage.arm(daemon__after_backfill_slice="kill@3")
        stage.kill_daemon()
        stage.start(points)
        assert stage.cli("backfill", "create", *asked).json["backfill"] == 1
        stage.wait_killed()
        points.assert_all_fired()
        for point in ("store.before_flush", "store.after_flush", "daemon.before_release"):
            points = stage.arm(**{point.replace(".", "__"): "kill@9"})
            stage.start(points, is_awaited=False)
            stage.wait_killed()
            points.assert_all_fired()
        stage.start()
        eventually(lambda: show(stage)["state"] == "completed", "the end of the backfill")
        found = runs(stage)
        due = [datetime.fromisoformat(run["run_after"]) for run in found]
        assert due == [FIRST + timedelta(days=number) for number in range(410)], "in order, none twice, none left out"
        assert {run["state"] for run in found} == {"success"}
        assert {run["run_type"] for run in found} == {"backfill"}
        shown = show(stage)
        assert (shown["made"], shown["passed"], shown["runs"]) == (410, 0, {"success": 410})
        again = stage.cli("backfill", "create", *asked).json["backfill"]
        eventually(lambda: show(stage, again)["state"] == "completed", "the end of the second one")
        assert (show(stage, again)["made"], show(stage, again)["passed"]) == (0, 410)
        stage.assert_clean_log()


def test_a_backfill_from_its_creation_to_its_cancel() -> None:
    with Stage({"d.py": SOURCE}) as stage:
        stage.start()
        made = stage.cli(
            *("backfill", "create", "held", "--from", "2026-01-01", "--to", "2026-01-09", "--max-active", 2),
            *("--backwards", "--conf", '{"x": 1}'),
        )
        assert made.code == 0 and made.json["dag_id"] == "held"
        eventually(lambda: len(runs(stage)) == 2, "two runs")
        first, second = (run["run"] for run in runs(stage))
        stage.wait_running(first, "work")
        stage.wait_running(second, "work")
        assert [run["run_id"] for run in runs(stage)] == [f"backfill__2026-01-0{day}T00:00:00+00:00" for day in (9, 8)]
        assert runs(stage)[0]["conf"] == {"x": 1}
        own = stage.go("held")  # the DAG's own limit is not touched by the backfill
        stage.wait_running(own, "work")
        assert show(stage)["why"] == "max_active: 2 of 2 runs of it are unfinished."

        refused = stage.cli("backfill", "create", "held", "--from", "2026-01-01", "--to", "2026-01-02")
        assert refused.code == 5 and "backfill 1 of DAG 'held' is not completed" in refused.err

        assert stage.cli("backfill", "pause", 1).json["state"] == "paused"
        stage.open(first, "work")
        assert stage.end(first) == "success"
        assert stage.do("bare")[1] == "success"
        assert len(runs(stage)) == 2, "paused, it makes none"
        assert stage.cli("run", "rerun", first, "--yes").code == 0
        (reason,) = stage.why(first)
        assert reason["code"] == "backfill_paused"
        stage.kill_daemon()
        stage.start()
        assert stage.cli("backfill", "unpause", 1).json["state"] == "running"
        assert stage.end(first) == "success"  # its gate is open still
        eventually(lambda: len(runs(stage)) == 3, "a third run")
        third = runs(stage)[-1]["run"]
        stage.wait_running(third, "work")

        assert stage.cli("backfill", "cancel", 1).json["state"] == "cancelled"
        stage.open(second, "work")
        assert stage.end(second) == "success", "what runs goes on"
        stage.open(third, "work")
        assert stage.end(third) == "success"
        eventually(lambda: show(stage)["state"] == "completed", "its end")
        assert len(runs(stage)) == 3
        stage.open(own, "work")
        assert stage.end(own) == "success"

        lines = stage.cli("audit", "list", "--dag", "held").json
        actions = [line["action"] for line in lines if "backfill" in line["action"]]
        assert actions == ["cancel_backfill", "unpause_backfill", "pause_backfill", "create_backfill"]
        assert all(line["actor"].startswith("unix:") for line in lines)
        stage.assert_clean_log()


def test_it_can_be_asked_for_in_sql_and_says_what_is_wrong() -> None:
    with Stage({"d.py": SOURCE}) as stage:
        stage.start()
        for words, code, text in (
            (("bare", "--from", "2026-01-01", "--to", "2026-01-02"), 2, "has no schedule"),
            (("daily", "--from", "2026-01-03", "--to", "2026-01-02"), 2, "is after to"),
            (
                ("daily", "--from", "2026-01-03T07:00", "--to", "2026-01-03T08:00"),
                2,
                "no slot of the schedule '0 6 * * *'",
            ),
            (("daily", "--from", "yesterday", "--to", "2026-01-02"), 2, "from_at"),
            (("nothing", "--from", "2026-01-01", "--to", "2026-01-02"), 3, "there is no DAG 'nothing'"),
        ):
            answer = stage.cli("backfill", "create", *words)
            assert answer.code == code and text in answer.err, answer
        assert stage.cli("backfill", "show", 7).code == 3
        stage.query("SELECT tickless.create_backfill('daily', '2026-01-01', '2026-01-03', backwards => true)")
        eventually(lambda: stage.cli("backfill", "list").json, "the backfill")
        eventually(lambda: show(stage)["state"] == "completed", "its end")
        assert [run["run_after"][:10] for run in runs(stage)] == ["2026-01-02", "2026-01-01"]
        stage.query("SELECT tickless.cancel_backfill(1)")
        refused = "SELECT error FROM tickless.command WHERE kind = 'cancel_backfill' AND handled_at IS NOT NULL"
        eventually(lambda: stage.query(refused), "an answer")
        assert stage.query(refused)[0]["error"] == "backfill 1 is completed"
        stage.assert_clean_log()
