"""Who may call a route. Every route says it; an app with a route that does not is not served (and a test fails).

At present whoever can open the socket is the daemon's own user and may do everything. The marker is the place where
roles attach when the API listens on TCP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from tickless.errors import InvariantBroken

_MARK = "x-tickless-access"


class Access(StrEnum):
    """What a caller must be allowed to do."""

    PUBLIC = "public"  # anybody: tells nothing but up or down
    READ = "read"  # see DAGs, runs, logs
    OPERATE = "operate"  # start and cancel runs, change pools
    ADMIN = "admin"  # secrets, stopping the daemon


def access(level: Access) -> dict[str, Any]:
    """Keyword arguments for a route decorator: `@router.get("/dags", **access(Access.READ))`."""
    return {"openapi_extra": {_MARK: level.value}}


def access_of(route: BaseRoute) -> Access | None:
    """What the route declares; None = nothing."""
    extra = route.openapi_extra if isinstance(route, APIRoute) else None
    return Access(extra[_MARK]) if extra and _MARK in extra else None


def every_route(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """The routes themselves; from FastAPI 0.16x on an included router stands in the list as one entry."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from every_route(included.routes)


def check_every_route(app: FastAPI) -> None:
    """Raise InvariantBroken for a route without a declared access."""
    for route in every_route(app.routes):
        if access_of(route) is None:
            raise InvariantBroken(f"the route {getattr(route, 'path', route)!r} declares no access")
