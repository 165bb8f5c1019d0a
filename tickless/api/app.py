"""The HTTP API as an ASGI app: routes, problems, access. Served by `api.server`; tests call it without a socket."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.types import ASGIApp

from tickless.api import problems
from tickless.api.access import Access, access, check_every_route
from tickless.api.base import Backend
from tickless.api.context import no_strangers
from tickless.api.document import ABOUT, document
from tickless.api.routes import (
    alteration,
    backfill,
    connection,
    daemon,
    dag,
    event,
    note,
    pool,
    run,
    secret,
    task,
    variable,
    why,
)

PREFIX = "/api/v1"
MAX_BODY_BYTES = 1024 * 1024
"""A run's conf goes to each of its tasks, so it is no place for data."""

_schema = APIRouter()


@_schema.get("/openapi.json", include_in_schema=False, **access(Access.READ))
async def openapi(request: Request) -> dict[str, Any]:
    """This API as OpenAPI."""
    return document(request.app)


def make_app(backend: Backend | None) -> FastAPI:
    """The app itself, every route of which declares its access. Without a backend it can only be described."""
    app = FastAPI(
        title="tickless",
        version="1",
        description=ABOUT,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # The function's name: it stays when a path changes, and generated clients call it so.
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.backend = backend
    for noun in (dag, run, task, why, pool, secret, variable, connection, daemon, alteration, backfill, note, event):
        app.include_router(noun.router, prefix=PREFIX, dependencies=[Depends(no_strangers)])
    app.include_router(_schema, prefix=PREFIX)
    app.include_router(daemon.health)
    problems.install(app)
    check_every_route(app)
    return app


def create_app(backend: Backend) -> ASGIApp:
    """What the server serves."""
    return problems.QuietlyFailed(problems.BoundedBody(make_app(backend), MAX_BODY_BYTES))
