"""Variables and connections with their secrets, and the key that seals them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from tickless.api.access import Access, access
from tickless.api.context import ActorOf, BackendOf, page_size
from tickless.api.shape import View
from tickless.api.views import ConnectionView, Page, VariableView

router = APIRouter(tags=["secrets"])


class RotatedView(View):
    """What a rotation of the key has done."""

    sealed: int
    """Variables and connections that were sealed with the new key."""


@router.get("/secrets/variables", **access(Access.ADMIN))
async def open_variables(
    backend: BackendOf, after: str | None = None, limit: Annotated[int, Query(ge=1)] = 100
) -> Page[VariableView]:
    """Variables by key, with every value."""
    limit = page_size(limit)
    found = await backend.secrets.variables(after=after, limit=limit)
    items = [VariableView.of(variable, is_open=True) for variable in found]
    return Page(items=items, next=found[-1].key if len(found) == limit else None)


@router.get("/secrets/variables/{key:path}", **access(Access.ADMIN))
async def open_variable(backend: BackendOf, key: str) -> VariableView:
    """One variable with its value."""
    return VariableView.of(await backend.secrets.variable(key), is_open=True)


@router.get("/secrets/connections", **access(Access.ADMIN))
async def open_connections(
    backend: BackendOf, after: str | None = None, limit: Annotated[int, Query(ge=1)] = 100
) -> Page[ConnectionView]:
    """Connections by id, with every secret."""
    limit = page_size(limit)
    found = await backend.secrets.connections(after=after, limit=limit)
    items = [ConnectionView.of(connection, is_open=True) for connection in found]
    return Page(items=items, next=found[-1].conn_id if len(found) == limit else None)


@router.get("/secrets/connections/{conn_id:path}", **access(Access.ADMIN))
async def open_connection(backend: BackendOf, conn_id: str) -> ConnectionView:
    """One connection with its secrets."""
    return ConnectionView.of(await backend.secrets.connection(conn_id), is_open=True)


@router.post("/secrets/rotate", **access(Access.ADMIN))
async def rotate(backend: BackendOf, actor: ActorOf) -> RotatedView:
    """Seal everything with a new key and forget the old one."""
    return RotatedView(sealed=await backend.secrets.rotate(actor=actor))
