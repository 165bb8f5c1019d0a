"""Schedules on a whole daemon: every slot gives one run through kill -9, pauses and restarts."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.support.house import eventually
from tests.support.stage import Stage

EVERY_SECOND = """
from datetime import datetime, timedelta, UTC
with DAG("tick", schedule="* * * * * *", start_date=datetime.fromisoformat("{start}"), catchup={catchup},
         max_active_runs=100):
    EmptyOperator(task_id="a") >> EmptyOperator(task_id="b")
"""
HELD = """
with DAG("slow", schedule=None):
    held("work") >> held("more")
"""


def source(*, catchup: bool) -> str:
    start = datetime.now().astimezone() - timedelta(seconds=3)
    return EVERY_SECOND.format(start=start.isoformat(), catchup=catchup)


def slots(stage: Stage, dag_id: str = "tick") -> list[datetime]:
    """When the slots of the finished and unfinished runs were due, in the order in which they were made."""
    found: list[dict[str, Any]] = []
    before = None
    while True:
        page = stage.client.get("/runs", dag_id=dag_id, limit=500, before=before)
        found += page["items"]
        if page["next"] is None:
            break
        before = page["next"]
    assert all(run["run_id"] == f"scheduled__{datetime.fromisoformat(run['run_after']).isoformat()}" for run in found)
    assert all(run["state"] in ("queued", "running", "success") for run in found)
    return [datetime.fromisoformat(run["run_after"]) for run in reversed(found)]


@pytest.mark.parametrize("catchup", [True, False])
def test_each_slot_gives_one_run_however_often_the_daemon_is_killed(catchup: bool) -> None:
    with Stage({"tick.py": source(catchup=catchup)}) as stage:
        stage.start()
        for point in ("store.before_flush", "store.after_flush", "daemon.before_release"):
            done = len(slots(stage))
            eventually(lambda done=done: len(slots(stage)) > done + 1, "runs by the clock")  # type: ignore[misc]  # bound now
            stage.kill_daemon()
            points = stage.arm(**{point.replace(".", "__"): "kill@6"})  # at a slot, or while it starts
            stage.start(points, is_awaited=False)
            stage.wait_killed()
            points.assert_all_fired()
            stage.start()
        done = len(slots(stage))
        eventually(lambda: len(slots(stage)) > done + 1, "runs by the clock")
        found = slots(stage)
        assert found == sorted(set(found)), "in order, none twice"
        if catchup:
            first = found[0]
            assert found == [first + timedelta(seconds=number) for number in range(len(found))], "none left out"
        else:
            gaps = {(b - a) for a, b in pairwise(found)} - {timedelta(seconds=1)}
            assert not gaps or stage.events("schedule.skipped"), "what is skipped is told"
        eventually(lambda: stage.client.get("/runs", state="success", limit=500)["items"], "ends of runs")
        stage.assert_clean_log()


def test_a_paused_dag_makes_no_runs_and_sends_off_no_task() -> None:
    with Stage({"tick.py": source(catchup=False), "slow.py": HELD}) as stage:
        stage.start()
        eventually(lambda: len(slots(stage)) > 1, "runs by the clock")
        assert stage.cli("dag", "pause", "tick").json["is_paused"]
        before = slots(stage)
        run = stage.go("slow")
        stage.wait_running(run, "work")
        stage.query("select tickless.pause_dag('slow')")
        stage.wait(lambda: stage.dag("slow")["is_paused"], "a pause by SQL")  # type: ignore[index]  # it is there
        stage.open(run, "work")
        stage.wait(lambda: stage.states(run)["work"] == "success", "the end of what ran")
        stage.wait(lambda: stage.states(run)["more"] == "scheduled", "a task that is held back")
        [reason] = stage.client.get(f"/runs/{run}/tasks/more/why")["items"]
        assert (reason["code"], "unpause slow" in reason["hint"]) == ("paused", True)
        stage.kill_daemon()
        stage.start()
        assert slots(stage) == before, "nothing is made by the clock, nor after a restart"
        assert stage.states(run)["more"] == "scheduled"
        assert stage.client.get("/dags/tick/why")["items"][0]["code"] == "paused"
        stage.query("select tickless.unpause_dag('slow')")
        stage.wait_running(run, "more")
        stage.open(run, "more")
        assert not stage.cli("dag", "unpause", "tick").json["is_paused"]
        eventually(lambda: len(slots(stage)) > len(before) + 1, "runs by the clock")
        stage.query("select tickless.request_command('dance', '{}'), tickless.pause_dag('nothing')")
        stage.wait(lambda: stage.query("select 1 from command where handled_at is null") == [], "answers")
        errors = stage.query("select error from command where error is not null order by id")
        assert [row[0] for row in errors] == ["there is no command 'dance'", "there is no DAG 'nothing'"]
        stage.assert_clean_log()
