"""The HTTP API over a real unix socket, with a fake backend behind it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from tests.support.backend import FakeBackend, Served, served
from tests.support.builders import cron
from tickless.api.access import Access, access_of, check_every_route, every_route
from tickless.api.app import make_app
from tickless.cli.client import Client, ConnectionBroke
from tickless.core.explain import Reason
from tickless.errors import InvariantBroken, NotFound, Refused, Unavailable, UserError
from tickless.model.state import AttemptState

SLOTS = b'Content-Type: application/json\r\nContent-Length: 11\r\n\r\n{"slots":1}'


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as it:
        yield it


@pytest.fixture
def client(daemon: Served) -> Client:
    return Client(daemon.socket)


def start(client: Client, **body: object) -> Any:
    return client.post("/dags/etl/runs", body)


def eventually(holds: Any) -> None:
    """Wait for another thread to get there; a ceiling, not a pace."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_route_declares_its_access(tmp_path: Path) -> None:
    app = make_app(FakeBackend(tmp_path))
    levels = {getattr(route, "path", ""): access_of(route) for route in every_route(app.routes)}
    assert None not in levels.values()
    assert levels["/database"] is Access.ADMIN
    assert {path for path, level in levels.items() if level is Access.PUBLIC} == {"/livez", "/readyz"}


def test_an_app_with_a_route_that_declares_no_access_is_refused() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/leak", lambda: "everything")
    with pytest.raises(InvariantBroken, match="/leak"):
        check_every_route(app)


def test_a_dag_is_drawn(client: Client) -> None:
    graph = client.get("/dags/etl/graph")
    assert [(node["task_id"], node["layer"]) for node in graph["nodes"]] == [
        ("extract", 0),
        ("left", 1),
        ("right", 1),
        ("load", 2),
    ]
    assert len(graph["edges"]) == 4
    with pytest.raises(NotFound):
        client.get("/dags/nope/graph")


def test_only_our_own_user_may_open_the_socket(daemon: Served) -> None:
    assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o600


def test_a_socket_folder_that_is_missing_is_made_for_us_alone(tmp_path: Path) -> None:
    it = Served(FakeBackend(tmp_path), tmp_path / "run" / "api.sock")
    it.start()
    it.stop()
    assert stat.S_IMODE(os.stat(tmp_path / "run").st_mode) == 0o700


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    home = tmp_path / ("h" * 120)
    with served(home) as it:
        assert Client(it.socket).get("/status")["state"] == "leader"


def test_the_socket_of_a_dead_daemon_is_replaced_and_ours_is_removed_at_the_end(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "api.sock"))
    dead.close()
    with served(tmp_path) as it:
        assert Client(it.socket).get("/status")["is_ready"]
    assert not (tmp_path / "api.sock").exists()


def test_a_run_starts_once_however_often_it_is_asked_for(client: Client) -> None:
    first = start(client, idempotency_key="k", conf={"day": "x"})
    again = start(client, idempotency_key="k", conf={"day": "x"})
    assert (first["is_new"], again["is_new"]) == (True, False)
    assert first["run"] == again["run"]
    assert client.get(f"/runs/{first['run']}")["conf"] == {"day": "x"}


def test_a_run_is_found_by_its_name_whatever_is_in_it(client: Client) -> None:
    name = "manual__2026-11-22T10:00:00+00:00/x y"
    run = start(client, run_id=name)["run"]
    assert client.get("/dags/etl/runs/manual__2026-11-22T10%3A00%3A00%2B00%3A00%2Fx%20y")["run"] == run


@pytest.mark.parametrize(
    ("error", "method", "path", "body"),
    [
        (NotFound, "GET", "/runs/7", None),
        (NotFound, "GET", f"/runs/{2**70}", None),
        (NotFound, "POST", "/dags/nope/runs", {}),
        (NotFound, "GET", "/runs/1/tasks/nope/logs", None),
        (Refused, "POST", "/dags/etl/runs", {"run_id": "taken"}),
        (UserError, "POST", "/dags/etl/runs", {"colour": "red"}),
        (UserError, "POST", "/dags/etl/runs", {"conf": [1]}),
        (UserError, "POST", "/dags/etl/runs", {"logical_date": "2026-11-22T00:00:00"}),
        (UserError, "POST", "/dags/..%20/runs", {}),
        (UserError, "POST", "/dags/etl/runs", {"conf": {"a": ["x\0"]}}),
        (UserError, "POST", "/dags/etl/runs", {"conf": {"a": float("nan")}}),
        (UserError, "POST", "/dags/etl/runs", {"conf": {"\ud800": 1}}),
        (UserError, "POST", "/dags/etl/runs", {"conf": {"a": "x" * 2_000_000}}),
        (UserError, "POST", "/dags/etl/runs", {"run_id": "two\nlines"}),
        (UserError, "PUT", "/pools/p", {"slots": -1}),
        (UserError, "GET", "/runs?state=sleeping", None),
        (UserError, "GET", "/runs?stat=failed", None),
        (InvariantBroken, "GET", "/nothing-here", None),
        (InvariantBroken, "DELETE", "/pools", None),
    ],
)
def test_errors_come_back_as_their_family(client: Client, error: Any, method: str, path: str, body: object) -> None:
    start(client, run_id="taken")
    with pytest.raises(error) as caught:
        client.call(method, path, body=body)
    assert type(caught.value) is error


def test_a_problem_has_detail_hint_and_code(daemon: Served, client: Client) -> None:
    daemon.backend.is_away = True
    with pytest.raises(Unavailable) as caught:
        start(client)
    assert caught.value.hint == "Try again in a moment."
    response = raw(daemon.socket, b"PUT /api/v1/pools/p HTTP/1.1\r\nHost: x\r\n" + SLOTS)
    assert response.status == 503
    assert response.getheader("content-type") == "application/problem+json"
    assert json.loads(response.read())["code"] == "unavailable"


@pytest.mark.parametrize(
    ("request_line", "body", "says", "hint"),
    [
        ("GET /api/v1/runs?stat=failed", b"", "no query parameter 'stat'", "Did you mean 'state'?"),
        ("GET /api/v1/runs/1?state=failed", b"", "no query parameter 'state'", None),
        (
            "PUT /api/v1/pools/p",
            b"{\xff}",
            "the body cannot be read",
            "Send JSON in UTF-8, not nested hundreds deep.",
        ),
        (
            "PUT /api/v1/pools/p",
            b"[" * 100_000,
            "the body cannot be read",
            "Send JSON in UTF-8, not nested hundreds deep.",
        ),
        ("PUT /api/v1/pools/p", b'{"slots": 1, "slot": 2}', "slot: Extra inputs are not permitted", None),
        ("PUT /api/v1/pools/p", b'{"slots": 1e400}', "slots: ", None),
        ("PUT /api/v1/pools/p", b'{"slots"', "the body is not JSON: Expecting ':' delimiter (at character 8)", None),
        ("GET /api/v1/runs/" + "9" * 5000, b"", "run: ", None),
        ("GET /api/v1/dags?limit=0", b"", "limit: ", None),
        ("PUT /api/v1/pools/p", b'{"slots": false}', "slots: Input should be a valid integer", None),
        ("POST /api/v1/dags/etl/runs", b'{"logical_date": 88252}', "logical_date: 88252 is no moment", None),
        (
            "POST /api/v1/dags/etl/runs",
            b'{"logical_date": "0001-01-01T00:00:00+05:00"}',
            "logical_date: is too far away",
            None,
        ),
        ("GET /api/v1/events?since=88252", b"", "since: '88252' is no moment", None),
    ],
)
def test_what_makes_no_sense_is_said_where(
    daemon: Served, request_line: str, body: bytes, says: str, hint: str | None
) -> None:
    head = (
        f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    response = raw(daemon.socket, head.encode() + body)
    found = json.loads(response.read())
    assert (response.status, found["code"]) == (422, "invalid")
    assert says in found["detail"]
    assert found.get("hint") == hint


def test_a_moment_with_an_offset_that_postgres_refuses_is_kept_in_utc(client: Client) -> None:
    run = start(client, logical_date="6271-05-27T16:35:02-16:01")["run"]
    assert client.get(f"/runs/{run}")["logical_date"] == "6271-05-28T08:36:02Z"


def test_a_bug_of_ours_is_answered_and_the_next_request_works(daemon: Served, client: Client) -> None:
    daemon.backend.reader.pool_sizes = None  # type: ignore[assignment]  # breaks the route
    with pytest.raises(InvariantBroken, match="AttributeError"):
        client.get("/pools")
    assert client.get("/status")["is_ready"]


def test_what_is_not_http_is_answered_with_400(daemon: Served) -> None:
    assert raw(daemon.socket, b"\x00\x01\x02 nonsense\r\n\r\n").status == 400


def test_health_tells_up_or_down_and_nothing_else(daemon: Served) -> None:
    assert raw(daemon.socket, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
    daemon.backend.is_ready = False
    response = raw(daemon.socket, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (response.status, json.loads(response.read())) == (503, {"status": "recovering"})
    assert raw(daemon.socket, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").status == 200


def test_waiting_for_a_run_tells_each_end_and_the_result(daemon: Served, client: Client) -> None:
    run = start(client)["run"]
    lines: list[Any] = []
    waiter = threading.Thread(target=lambda: lines.extend(client.lines(f"/runs/{run}/wait")))
    waiter.start()
    eventually(daemon.has_watchers)
    backend = daemon.backend
    key = next(iter(backend.reader.instance_rows))
    daemon.do(lambda: backend.begin_attempt(key))
    daemon.do(lambda: backend.end_attempt(key, AttemptState.FAILED, "Traceback …\nValueError: boom"))
    daemon.do(lambda: backend.end_run(run))
    waiter.join(10)
    assert [(line.get("task_id"), line.get("state"), line.get("error")) for line in lines[:1]] == [
        ("work", "failed", "ValueError: boom")
    ]
    assert lines[-1]["run"]["is_finished"]
    assert lines[-1]["run"]["tasks"] == {"failed": 1}
    assert not daemon.has_watchers()


def test_waiting_for_a_finished_run_ends_at_once(daemon: Served, client: Client) -> None:
    run = start(client)["run"]
    daemon.do(lambda: daemon.backend.end_run(run))
    assert [line["run"]["state"] for line in client.lines(f"/runs/{run}/wait")] == ["success"]


def test_an_end_whose_news_was_lost_in_a_rebuild_is_found_in_the_rows(daemon: Served, client: Client) -> None:
    run = start(client)["run"]
    lines: list[Any] = []
    waiter = threading.Thread(target=lambda: lines.extend(client.lines(f"/runs/{run}/wait")))
    waiter.start()
    eventually(daemon.has_watchers)
    daemon.do(lambda: daemon.backend.end_run(run, is_told=False))
    daemon.do(daemon.backend.watch.resync)
    waiter.join(10)
    assert lines[-1]["run"]["state"] == "success"


def test_waiting_with_a_timeout_ends_unfinished(client: Client) -> None:
    run = start(client)["run"]
    (line,) = client.lines(f"/runs/{run}/wait", timeout_seconds=0.05)
    assert line["run"]["is_finished"] is False


def test_a_client_that_goes_away_leaves_no_watcher_behind(daemon: Served, client: Client) -> None:
    run = start(client)["run"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.socket))
        connection.sendall(b"GET /api/v1/runs/%d/wait HTTP/1.1\r\nHost: x\r\n\r\n" % run)
        eventually(daemon.has_watchers)
    eventually(lambda: not daemon.has_watchers())


def test_a_follower_that_leaves_before_the_start_leaves_no_watcher_behind(daemon: Served, client: Client) -> None:
    run = start(client)["run"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.socket))
        connection.sendall(b"GET /api/v1/runs/%d/tasks/work/logs?follow=true HTTP/1.1\r\nHost: x\r\n\r\n" % run)
        eventually(daemon.has_watchers)
    eventually(lambda: not daemon.has_watchers())


def test_text_that_only_looks_like_a_nul_is_taken(client: Client) -> None:
    run = start(client, conf={"pattern": "\\u0000", "name": "Zoë"})["run"]
    assert client.get(f"/runs/{run}")["conf"] == {"pattern": "\\u0000", "name": "Zoë"}


def test_a_log_is_followed_from_before_its_start_to_its_end(daemon: Served, client: Client) -> None:
    run = start(client)["run"]
    backend = daemon.backend
    key = next(iter(backend.reader.instance_rows))
    chunks: list[bytes] = []
    follower = threading.Thread(
        target=lambda: chunks.extend(client.stream(f"/runs/{run}/tasks/work/logs", follow=True))
    )
    follower.start()
    eventually(daemon.has_watchers)
    attempt = daemon.do(lambda: backend.begin_attempt(key))
    path = backend.home / "logs" / attempt.log_path
    path.parent.mkdir(parents=True)
    with path.open("wb", buffering=0) as log:
        for number in range(3):
            log.write(f"line {number}\n".encode())
            eventually(lambda: b"".join(chunks).count(b"\n") == number + 1)  # noqa: B023  # called before the next round
        log.write(b"last words")
    daemon.do(lambda: backend.end_attempt(key))
    follower.join(10)
    assert not follower.is_alive()
    assert b"".join(chunks) == b"line 0\nline 1\nline 2\nlast words"


def test_a_log_is_read_from_an_offset_and_by_try(daemon: Served, client: Client) -> None:
    run = start(client)["run"]
    backend = daemon.backend
    key = next(iter(backend.reader.instance_rows))
    for text in (b"first try", b"second try"):
        attempt = daemon.do(lambda: backend.begin_attempt(key))
        path = backend.home / "logs" / attempt.log_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
        daemon.do(lambda: backend.end_attempt(key))
    url = f"/runs/{run}/tasks/work/logs"
    assert b"".join(client.stream(url)) == b"second try"
    assert b"".join(client.stream(url, try_number=1)) == b"first try"
    assert b"".join(client.stream(url, offset=7, follow=True)) == b"try"
    with pytest.raises(NotFound):
        list(client.stream(url, try_number=3))


def test_a_log_before_the_first_attempt_says_where_to_look(client: Client) -> None:
    run = start(client)["run"]
    with pytest.raises(NotFound) as caught:
        list(client.stream(f"/runs/{run}/tasks/work/logs"))
    assert caught.value.hint == f"`tickless why {run} work` says why."


def test_reasons_carry_their_numbers(daemon: Served, client: Client) -> None:
    run = start(client)["run"]
    daemon.backend.reasons = [Reason(code="dag_concurrency", message="2 of 2 …", task_id="work", used=2, limit=2)]
    (reason,) = client.get(f"/runs/{run}/tasks/work/why")["items"]
    assert (reason["code"], reason["used"], reason["limit"]) == ("dag_concurrency", 2, 2)


def test_lists_come_in_pages(client: Client) -> None:
    for _ in range(5):
        start(client)
    first = client.get("/runs", limit=2)
    assert [run["run"] for run in first["items"]] == [5, 4]
    assert [run["run"] for run in client.get("/runs", limit=2, before=first["next"])["items"]] == [3, 2]
    last = client.get("/runs", limit=2, before=2)
    assert ([run["run"] for run in last["items"]], last["next"]) == ([1], None)
    tasks = client.get("/runs/1/tasks", limit=1)
    assert client.get("/runs/1/tasks", limit=1, after=tasks["next"])["items"] == []


def test_a_daemon_that_stops_cuts_the_streams(daemon: Served, client: Client) -> None:
    run = start(client)["run"]
    outcome: list[object] = []

    def wait() -> None:
        try:
            outcome.extend(client.lines(f"/runs/{run}/wait"))
        except ConnectionBroke as error:
            outcome.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    eventually(daemon.has_watchers)
    daemon.stop()
    waiter.join(10)
    assert [type(item) for item in outcome] == [ConnectionBroke]


def test_nothing_runs_in_the_loop_while_nobody_asks(daemon: Served, client: Client) -> None:
    client.get("/status")
    before = daemon.context_switches()
    time.sleep(1)
    assert daemon.context_switches() - before <= 2
    assert daemon.do(daemon.timers) == 0


def test_the_schema_is_served(client: Client) -> None:
    assert "/api/v1/runs/{run}/cancel" in client.get("/openapi.json")["paths"]


def raw(path: Path, request: bytes) -> http.client.HTTPResponse:
    """The answer to these very bytes."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    connection.sendall(request)
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


# ---- schedules ----------------------------------------------------------------------------------------------------


def test_a_dag_tells_of_its_schedule_and_can_be_paused(daemon: Served, client: Client) -> None:
    daemon.backend.reader.schedules["etl"] = cron("0 6 * * *", timezone="Europe/Berlin", interval_seconds=3600.0)
    found = client.get("/dags/etl")
    assert (found["is_paused"], found["schedule"], found["timezone"]) == (False, "0 6 * * *", "Europe/Berlin")
    slots = client.get("/dags/etl/next", limit=3)["items"]
    assert len(slots) == 3 and slots[0]["run_after"] == found["next_run_at"]
    first = {key: datetime.fromisoformat(value) for key, value in slots[0].items()}
    assert first["run_after"].hour == 5 and first["data_interval_end"] == first["run_after"]
    assert first["data_interval_end"] - first["data_interval_start"] == timedelta(hours=1)
    assert client.get("/dags/etl/why")["items"] == []

    paused = client.post("/dags/etl/pause")
    assert (paused["is_paused"], paused["next_run_at"]) == (True, None)
    assert len(client.get("/dags/etl/next")["items"]) == 5, "as if it were not paused"
    assert [reason["code"] for reason in client.get("/dags/etl/why")["items"]] == ["paused"]
    assert client.get("/dags")["items"][0]["is_paused"]
    assert client.post("/dags/etl/unpause")["is_paused"] is False
    for path in ("/dags/nothing/next", "/dags/nothing/why"):
        with pytest.raises(NotFound):
            client.get(path)
    with pytest.raises(NotFound):
        client.post("/dags/nothing/pause")
