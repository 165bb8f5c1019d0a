"""The daemon itself: status, health, stop, its database."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response

from tickless.api.access import Access, access
from tickless.api.context import ActorOf, BackendOf
from tickless.api.shape import Body, View
from tickless.api.views import StatusView

router = APIRouter(tags=["daemon"])
health = APIRouter(tags=["health"])


class StopBody(Body):
    """How to stop."""

    kill_tasks: bool = False
    """Also end running tasks, the launcher and the embedded Postgres."""


class DatabaseView(View):
    """How to reach the database; the URL holds a password."""

    url: str


@router.get("/status", **access(Access.READ))
async def status(backend: BackendOf) -> StatusView:
    """The daemon in one look; 200 also when it is not ready."""
    return StatusView(**asdict(backend.status()))


@router.post("/stop", status_code=202, **access(Access.ADMIN))
async def stop(backend: BackendOf, actor: ActorOf, body: StopBody) -> StatusView:
    """Begin to stop; it is done when the process has ended."""
    await backend.stop(kill_tasks=body.kill_tasks, actor=actor)
    return StatusView(**asdict(backend.status()))


@router.get("/database", **access(Access.ADMIN))
async def database(backend: BackendOf) -> DatabaseView:
    """The database's URL."""
    return DatabaseView(url=backend.database_url())


class HealthView(View):
    """Up or down."""

    status: str
    """ok, or the daemon's state."""


@health.get("/livez", **access(Access.PUBLIC))
async def livez() -> HealthView:
    """The loop turns. Asks nobody else: a database that is away is no reason to restart the daemon."""
    return HealthView(status="ok")


@health.get("/readyz", responses={503: {"model": HealthView, "description": "Not ready."}}, **access(Access.PUBLIC))
async def readyz(backend: BackendOf, response: Response) -> HealthView:
    """200 when the daemon takes work, else 503."""
    now = backend.status()
    response.status_code = 200 if now.is_ready else 503
    return HealthView(status="ok" if now.is_ready else now.state)
