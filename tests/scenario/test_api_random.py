"""Every operation of the API with random input, on a whole daemon: whatever is sent, it is answered as documented.

schemathesis makes the requests from the OpenAPI document, good ones and broken ones (wrong types, huge numbers, NULs,
odd Unicode, dates that are none), and holds each answer against it. More of them with TICKLESS_CHAOS=1.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from tests.support.stage import Stage
from tickless.api.app import make_app
from tickless.api.document import document, operations

IS_CHAOS = bool(os.environ.get("TICKLESS_CHAOS"))
EXAMPLES = 500 if IS_CHAOS else 20
PATIENCE_SECONDS = {"read_log": 1}
"""To follow the log of a task that waits means to wait."""
NOT_CALLED = {"stop"}
"""It would be obeyed."""

FILES = {
    "etl.py": """
with DAG("etl", schedule="@daily", catchup=False):
    bash("a") >> bash("b", "exit 3")
""",
    "broken.py": "with DAG('broken'): 1 / 0\n",
}
KNOWN: dict[str, list[Any]] = {
    "dag_id": ["etl"],
    "run": [1, 2, 3],
    "run_id": ["one", "two/2 x"],
    "task_id": ["a", "b"],
    "key": ["day", "a/b"],
    "conn_id": ["db", "x/y"],
    "name": ["default_pool", "other"],
}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
DOCUMENT = document(make_app(None))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {operation["operationId"]: (path, method) for path, method, operation in operations(DOCUMENT)}


class _UnixPool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> HTTPConnection:
        return _UnixConnection(self._path)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _UnixAdapter(HTTPAdapter):
    """Sends everything to one socket."""

    def __init__(self, path: str) -> None:
        self._unix = _UnixPool(path)
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._unix


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Where the requests go: a daemon with a little of everything in it."""
    with Stage(FILES) as stage:
        stage.start()
        for run_id in KNOWN["run_id"]:
            stage.client.post("/dags/etl/runs", {"run_id": run_id})
        for key in KNOWN["key"]:
            stage.client.put(f"/variables/{key}", {"value": "1"})
        for conn_id in KNOWN["conn_id"]:
            stage.client.put(f"/connections/{conn_id}", {"uri": "http://user:secret@host/"})
        with requests.Session() as session:
            session.mount("http://", _UnixAdapter(str(stage.home / "api.sock")))
            yield session
        assert stage.is_up
        assert stage.client.get("/status")["is_ready"]
        assert [event for event in stage.events() if event["event"] == "request.failed"] == []
        stage.assert_clean_log()


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - NOT_CALLED))
def test_whatever_is_sent_is_answered_as_documented(name: str, session: requests.Session) -> None:
    path, method = OPERATIONS[name]
    operation = SCHEMA[path][method]
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=not IS_CHAOS,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(data.draw(st.sampled_from(modes))))
        for parameter, values in KNOWN.items():
            # Random names are never those of anything.
            if case.path_parameters and parameter in case.path_parameters and data.draw(st.integers(0, 3)):
                case.path_parameters[parameter] = data.draw(st.sampled_from(values))
        if name == "wait_run":
            case.query = {"timeout_seconds": 0} | (case.query or {})
        try:
            answer = case.call(base_url="http://localhost", session=session, timeout=PATIENCE_SECONDS.get(name, 30))
        except requests.ReadTimeout:
            assert name in PATIENCE_SECONDS
        else:
            case.validate_response(answer, checks=CHECKS)

    run()
