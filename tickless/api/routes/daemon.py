"""The daemon itself: status, health, stop, its database."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from tickless.api.access import Access, access
from tickless.api.context import BackendOf
from tickless.api.views import StatusView

router = APIRouter(tags=["daemon"])
health = APIRouter(tags=["health"])


class StopBody(BaseModel):
    """How to stop."""

    model_config = ConfigDict(extra="forbid")

    kill_tasks: bool = False
    """Also end running tasks, the launcher and the embedded Postgres."""


class DatabaseView(BaseModel):
    """How to reach the database; the URL holds a password."""

    url: str


@router.get("/status", **access(Access.READ))
async def status(backend: BackendOf) -> StatusView:
    """The daemon in one look; 200 also when it is not ready."""
    return StatusView(**asdict(backend.status()))


@router.post("/stop", status_code=202, **access(Access.ADMIN))
async def stop(backend: BackendOf, body: StopBody) -> StatusView:
    """Begin to stop; it is done when the process has ended."""
    await backend.stop(kill_tasks=body.kill_tasks)
    return StatusView(**asdict(backend.status()))


@router.get("/database", **access(Access.ADMIN))
async def database(backend: BackendOf) -> DatabaseView:
    """The database's URL."""
    return DatabaseView(url=backend.database_url())


@health.get("/livez", **access(Access.PUBLIC))
async def livez() -> dict[str, str]:
    """The loop turns. Asks nobody else: a database that is away is no reason to restart the daemon."""
    return {"status": "ok"}


@health.get("/readyz", **access(Access.PUBLIC))
async def readyz(backend: BackendOf, response: Response) -> dict[str, str]:
    """200 when the daemon takes work, else 503."""
    now = backend.status()
    response.status_code = 200 if now.is_ready else 503
    return {"status": "ok" if now.is_ready else now.state}
