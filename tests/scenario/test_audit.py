"""The audit: whoever changes something, by whichever way, there is a line of it. The routes are those of the real app:
one that is added and changes something without a line fails here."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute

from tests.support.backend import FakeBackend
from tests.support.stage import Stage
from tickless.api.access import Access, access_of, every_route
from tickless.api.app import make_app

ME = f"unix:{pwd.getpwuid(os.getuid()).pw_name}"
FILES = {
    "d.py": """
from datetime import UTC, datetime
from tickless import Variable, trigger_dag
@task
def asks():
    Variable.set("by_task", "hidden1")
    Variable.delete("by_task")
    Variable.delete("nobody")
    trigger_dag("triggered")
with DAG("d"):
    held("a")
with DAG("asks"):
    asks()
with DAG("triggered"):
    bash("echo")
with DAG("past", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    held("b")
with DAG("fails", max_consecutive_failed_dag_runs=1):
    bash("no", "false")
"""
}


def mutating_routes(home: Path) -> dict[str, str]:
    """Method and path of each route that may change something, with the name of its function. Those that whoever reads
    may call change nothing."""
    app = make_app(FakeBackend(home))
    return {
        f"{method} {route.path}": route.name
        for route in every_route(app.routes)
        if isinstance(route, APIRoute) and access_of(route) is not Access.READ
        for method in (route.methods or set()) - {"GET", "HEAD", "OPTIONS"}
    }


def test_every_route_that_changes_something_writes_its_line_of_the_audit() -> None:
    with Stage(FILES) as stage:
        stage.start()
        client = stage.client
        ended, _ = stage.do("triggered")
        live = stage.go("d")
        stage.wait_running(live, "a")
        connection = {"conn_type": "http", "password": "hidden2"}
        # In this order; each answers with what its line must say. `stop` is the last one there is.
        calls: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
            "start_run": (lambda: client.post("/dags/triggered/runs", {"conf": {"x": "hidden3"}}), "start", {}),
            "pause_dag": (lambda: client.post("/dags/d/pause"), "pause", {"dag_id": "d"}),
            "unpause_dag": (lambda: client.post("/dags/d/unpause"), "unpause", {"dag_id": "d"}),
            "clear": (lambda: client.post(f"/runs/{ended}/clear", {}), "clear", {"run": ended, "dag_id": "triggered"}),
            "clear_runs": (lambda: client.post("/dags/fails/clear", {}), "clear", {"dag_id": "fails"}),
            "mark": (lambda: client.post(f"/runs/{ended}/mark", {"state": "success"}), "mark", {"run": ended}),
            "cancel_run": (lambda: client.post(f"/runs/{live}/cancel"), "cancel", {"run": live, "dag_id": "d"}),
            "set_pool": (lambda: client.put("/pools/p", {"slots": 3}), "set_pool", {}),
            "set_variable": (lambda: client.put("/variables/v", {"value": "hidden4"}), "set_variable", {}),
            "delete_variable": (lambda: client.call("DELETE", "/variables/v"), "delete_variable", {}),
            "add_connection": (
                lambda: client.post("/connections", {"conn_id": "c", **connection}),
                *("set_connection", {}),
            ),
            "set_connection": (lambda: client.put("/connections/c", connection), "set_connection", {}),
            "delete_connection": (lambda: client.call("DELETE", "/connections/c"), "delete_connection", {}),
            "rotate": (lambda: client.post("/secrets/rotate"), "rotate_secret_key", {}),
            "mark_run": (
                lambda: client.post(f"/runs/{ended}/mark-run", {"state": "failed"}),
                "mark_run",
                {"run": ended},
            ),
            "cancel_runs": (lambda: client.post("/dags/d/cancel-runs", {}), "cancel", {"dag_id": "d"}),
            "mark_runs": (lambda: client.post("/dags/d/mark-runs", {"state": "failed"}), "mark_run", {"dag_id": "d"}),
            "set_run_note": (lambda: client.put(f"/runs/{live}/note", {"text": "said"}), "set_note", {"run": live}),
            "delete_run_note": (lambda: client.call("DELETE", f"/runs/{live}/note"), "delete_note", {"run": live}),
            "set_task_note": (
                lambda: client.put(f"/runs/{live}/tasks/a/note", {"text": "said"}),
                *("set_note", {"run": live, "dag_id": "d"}),
            ),
            "delete_task_note": (
                lambda: client.call("DELETE", f"/runs/{live}/tasks/a/note"),
                *("delete_note", {"run": live, "dag_id": "d"}),
            ),
            "delete_run": (lambda: client.post(f"/runs/{live}/delete", {}), "delete", {"run": live, "dag_id": "d"}),
            "delete_runs": (lambda: client.post("/dags/fails/delete-runs", {}), "delete", {"dag_id": "fails"}),
            "delete_dag": (
                lambda: client.post("/dags/asks/delete", {"force": True}),
                *("delete_dag", {"dag_id": "asks"}),
            ),
            "create_backfill": (
                lambda: client.post("/dags/past/backfills", {"from_at": "2026-01-01", "to_at": "2026-02-01"}),
                *("create_backfill", {"dag_id": "past"}),
            ),
            "pause_backfill": (lambda: client.post("/backfills/1/pause"), "pause_backfill", {"dag_id": "past"}),
            "unpause_backfill": (lambda: client.post("/backfills/1/unpause"), "unpause_backfill", {"dag_id": "past"}),
            "cancel_backfill": (lambda: client.post("/backfills/1/cancel"), "cancel_backfill", {"dag_id": "past"}),
            "stop": (lambda: client.post("/stop", {}), "stop", {}),
        }
        routes = mutating_routes(stage.folder / "app")
        assert sorted(routes.values()) == sorted(calls), "a route that changes something is not tried here"
        for name, (call, action, about) in calls.items():
            last = stage.query("select coalesce(max(id), 0) as id from event_log")[0]["id"]
            if name == "delete_run":
                stage.end(live)
            call()
            if name == "stop":
                stage.daemon.wait()
            (line,) = stage.query("select * from event_log where id > $1", last)
            assert (name, line["action"], line["actor"]) == (name, action, ME)
            key = {"run": "dag_run_key", "dag_id": "dag_id"}
            assert {field: line[key[field]] for field in about} == about, name
        assert not stage.query("select from event_log where detail::text like '%hidden%'"), "a secret is in the audit"


def test_sql_tasks_and_the_daemon_itself_have_their_lines_and_filters_find_them() -> None:
    with Stage(FILES) as stage:
        stage.start()
        stage.query("select tickless.trigger_dag('d', idempotency_key => 'k')")
        stage.query("select tickless.trigger_dag('d', idempotency_key => 'k')")
        stage.wait(lambda: stage.query("select from trigger_request where handled_at is not null"), "a run")
        run = stage.query("select key from dag_run where dag_id = 'd'")[0]["key"]
        stage.query("select tickless.pause_dag('d')")
        stage.query("select tickless.unpause_dag('d')")
        stage.query("select tickless.pause_dag('nothing')")
        stage.query("select tickless.cancel_run($1)", run)
        assert stage.end(run) == "failed"
        stage.wait(lambda: not stage.query("select from command where handled_at is null"), "the commands")
        asking, state = stage.do("asks")
        assert state == "success"
        assert stage.do("fails")[1] == "failed"

        def lines(*words: object) -> list[tuple[str, str, str | None]]:
            found = stage.cli("audit", "list", *words)
            assert found.code == 0, found.err
            return [(each["actor"], each["action"], each["dag_id"]) for each in reversed(found.json)]

        sql = "sql:" + stage.query("select session_user as name")[0]["name"]
        by_sql = [(sql, "start", "d"), (sql, "pause", "d"), (sql, "unpause", "d"), (sql, "cancel", "d")]
        assert lines("--surface", "sql") == by_sql, "once each, and nothing of what was refused"
        asker = f"task:{asking}/asks"
        by_task = [(asker, "set_variable", None), (asker, "delete_variable", None), (asker, "start", "triggered")]
        assert lines("--surface", "task") == by_task
        assert lines("--actor", ME) == [(ME, "start", "asks"), (ME, "start", "fails")]
        assert lines("--surface", "tickless") == [("tickless", "pause", "fails")]
        assert lines("--run", run) == [(sql, "start", "d"), (sql, "cancel", "d")]
        assert lines("--dag", "d", "--action", "pause") == [(sql, "pause", "d")]
        times = [each["at"] for each in reversed(stage.cli("audit", "list").json)]
        assert len(lines("--since", times[2], "--until", times[4])) == 2
        assert stage.cli("audit", "list", "--since", "2026-11-22T00:00:00").code == 2
        stage.assert_clean_log()
