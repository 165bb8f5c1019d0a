"""The API as OpenAPI: what FastAPI finds in the routes, and what is the same for all of them.

The errors of a route follow from what it is asked: what it names may not exist (404), what it is given may be wrong
(422), what it changes may be refused (409), and the database may be away (503). A test calls every operation with
random input and holds the answers against this document.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from tickless.api.problems import MEDIA_TYPE, Problem

ABOUT = """\
The HTTP API of a tickless daemon, served on its unix socket HOME/api.sock:
`curl --unix-socket ~/.tickless/api.sock http://localhost/api/v1/dags`.

Whatever changes something is answered after its COMMIT. Lists come in pages: pass what `next` says as `after` (or
`before`) to get the next one; a larger `limit` than the largest page is taken for that. Errors are
application/problem+json with a `code` for programs. Instants are ISO 8601 in UTC.
"""

PARAMETERS = {
    "action": "Only this action, as `cancel_run`.",
    "actor": "Only what this one asked for, as `unix:ann`.",
    "after": "Continue behind this item: `next` of the page before.",
    "after_attempt": "The first attempt that comes after this one; waits for it while the task may still get one.",
    "attempt_id": "This attempt.",
    "backfill": "The backfill's number.",
    "before": "Continue before this item: `next` of the page before.",
    "conn_id": "The connection; it may contain slashes.",
    "dag_id": "The DAG.",
    "follow": "Go on as the task writes, until the attempt ends.",
    "key": "The variable; it may contain slashes.",
    "limit": "How many at most.",
    "map_index": "Which instance of a mapped task; -1 = the task is not mapped.",
    "name": "The pool.",
    "open": "Only what is not completed.",
    "offset": "Skip so many bytes.",
    "progress": "Also say how many tasks are in which state.",
    "run": "The run's number.",
    "since": "Only from this moment on; with time zone.",
    "run_id": "The run's name within its DAG; it may contain slashes.",
    "state": "Only what is in one of these states; may be given more than once.",
    "surface": "Only what came this way: unix, sql, task or tickless.",
    "task_id": "The task.",
    "timeout_seconds": "Wait so long at most.",
    "until": "Only before this moment; with time zone.",
    "try_number": "The latest attempt of this try.",
}
"""What parameters mean, unless the route says something else."""

_MEANINGS = {
    404: "There is no such thing.",
    409: "Refused as things are.",
    413: "The body is over the limit.",
    411: "The body comes without a Content-Length.",
    422: "What was sent makes no sense: `detail` says where and why.",
    503: "The daemon starts, stops or is overloaded, or its database is away. Nothing was changed; try again.",
}
_METHODS = ("get", "put", "post", "delete", "patch")
_SCHEMA = "#/components/schemas/Problem"


def document(app: FastAPI) -> dict[str, Any]:
    """The app as OpenAPI 3.1."""
    found: dict[str, Any] = app.openapi()  # FastAPI makes it once and keeps it
    schemas = found["components"]["schemas"]
    if Problem.__name__ in schemas:
        return found
    for own in ("HTTPValidationError", "ValidationError"):
        schemas.pop(own, None)  # FastAPI's form of a 422; ours is a problem like every other
    schemas[Problem.__name__] = Problem.model_json_schema(mode="serialization")
    for path, method, operation in operations(found):
        for parameter in operation.get("parameters", ()):
            parameter.setdefault("description", PARAMETERS.get(parameter["name"], ""))
        responses = operation["responses"]
        for status in _errors(path, method, operation):
            responses.setdefault(str(status), {"description": _MEANINGS[status]})
            responses[str(status)]["content"] = {MEDIA_TYPE: {"schema": {"$ref": _SCHEMA}}}
        for status, response in responses.items():
            if response.get("description") in (None, "", "Successful Response"):
                response["description"] = HTTPStatus(int(status)).phrase
        operation["responses"] = dict(sorted(responses.items()))
    return found


def operations(found: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of each operation of a document."""
    for path, item in found["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def _errors(path: str, method: str, operation: dict[str, Any]) -> Iterator[int]:
    if "health" in operation.get("tags", ()):
        return
    if "{" in path or "404" in operation["responses"]:
        yield 404
    if method != "get":
        yield 409
    if "requestBody" in operation:
        yield from (411, 413)
    if "requestBody" in operation or operation.get("parameters"):
        yield 422
    yield 503
