"""Errors as application/problem+json (RFC 9457): detail, hint, and a code for programs."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from tickless.api.near import find_near
from tickless.api.shape import View
from tickless.errors import ConfigError, Conflict, NotFound, Refused, TicklessError, Unavailable, Unstorable, UserError
from tickless.store.storable import make_storable
from tickless.telemetry.log import get_log

log = get_log()

MEDIA_TYPE = "application/problem+json"


class Problem(View):
    """Why a request was not carried out (RFC 9457)."""

    title: str
    """The status in words."""
    status: int
    code: str
    """For programs: not_found, refused, invalid, bad_config, unavailable, internal, no_such_route,
    method_not_allowed."""
    detail: str
    """What is wrong, in a sentence."""
    hint: str | None = None
    """The way out."""


# The first match counts: subclasses stand before their bases.
_BY_FAMILY: tuple[tuple[type[TicklessError], int, str], ...] = (
    (NotFound, 404, "not_found"),
    (Refused, 409, "refused"),
    (ConfigError, 422, "bad_config"),
    (UserError, 422, "invalid"),
    (Unstorable, 422, "invalid"),
    (Unavailable, 503, "unavailable"),
    (Conflict, 503, "unavailable"),  # the daemon is about to rebuild: asking again is right
    (TicklessError, 500, "internal"),
)


def problem(
    status: int, code: str, message: str, hint: str | None = None, *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The response."""
    # What was sent is quoted in messages, and half of a surrogate pair cannot be sent back.
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=make_storable(message),
        hint=None if hint is None else make_storable(hint),
    )
    return JSONResponse(
        body.model_dump(exclude_none=True),
        status_code=status,
        headers={**(headers or {}), **({"Retry-After": "1"} if status == 503 else {})},
        media_type=MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(TicklessError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_bug)


class QuietlyFailed:
    """Outermost layer: what Starlette raises again after `_of_bug` answered and logged it ends here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if not getattr(error, "_tickless_logged", False):
                _log_bug(scope["method"], scope["path"], error)
                raise  # uvicorn cuts the connection: an answer that is half out must not look whole


class BoundedBody:
    """Refuses a request whose body is over a limit, before anybody reads it into memory."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers:
            answer = problem(411, "invalid", "a request body needs a Content-Length")
        elif not length.isdigit() or int(length) > self._limit:
            answer = problem(413, "invalid", f"the request body is over the limit of {self._limit} bytes")
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)


async def _of_ours(request: Request, error: Exception) -> JSONResponse:
    ours = cast(TicklessError, error)
    if isinstance(ours, NotFound) and (near := await find_near(request)):
        ours.hint = " ".join(filter(None, (near, ours.hint)))
    for family, status, code in _BY_FAMILY:
        if isinstance(ours, family):
            return problem(status, code, ours.message, ours.hint)
    raise error


async def _of_validation(_: Request, error: Exception) -> JSONResponse:
    found = []
    for detail in cast(RequestValidationError, error).errors():
        if detail["type"] == "json_invalid":
            found.append(f"the body is not JSON: {detail['ctx']['error']} (at character {detail['loc'][-1]})")
            continue
        if "datetime" in detail["type"]:
            detail["msg"] = f"{detail['input']!r} is no moment; write it as 2026-11-22T00:00:00Z"
        where = ".".join(str(part) for part in detail["loc"] if part not in ("body", "query", "path"))
        said = str(detail["msg"]).removeprefix("Value error, ")
        found.append(f"{where}: {said}" if where else said)
    return problem(422, "invalid", "; ".join(found))


async def _of_http(_: Request, error: Exception) -> JSONResponse:
    ours = cast(HTTPException, error)
    if ours.status_code == 400:  # FastAPI's for a body of which it cannot say where it is wrong
        return problem(422, "invalid", "the body cannot be read", "Send JSON in UTF-8, not nested hundreds deep.")
    code = {404: "no_such_route", 405: "method_not_allowed"}.get(ours.status_code, "invalid")
    return problem(ours.status_code, code, str(ours.detail), headers=ours.headers)


async def _of_bug(request: Request, error: Exception) -> JSONResponse:
    _log_bug(request.method, request.url.path, error)
    error._tickless_logged = True  # type: ignore[attr-defined]  # read by QuietlyFailed, through which it passes next
    return problem(500, "internal", f"internal error: {type(error).__name__}", "The daemon's log has the traceback.")


def _log_bug(method: str, path: str, error: Exception) -> None:
    trace = "".join(traceback.format_exception(error)).strip()
    log.warning("request.failed", method=method, path=path, error=repr(error), traceback=trace)
