"""Pools."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from tickless.api.access import Access, access
from tickless.api.context import ActorOf, BackendOf
from tickless.api.shape import Body
from tickless.api.views import Page, PoolView
from tickless.model.dag import check_id

router = APIRouter(tags=["pools"])


class PoolBody(Body):
    """What a pool is set to."""

    slots: int = Field(ge=0, lt=2**31)


@router.get("/pools", **access(Access.READ))
async def list_pools(backend: BackendOf) -> Page[PoolView]:
    """All pools, with what is taken of them."""
    return Page(items=[PoolView.of(info) for info in await backend.reader.pools()])


@router.put("/pools/{name}", **access(Access.OPERATE))
async def set_pool(backend: BackendOf, actor: ActorOf, name: str, body: PoolBody) -> PoolView:
    """Create a pool or change its size. A smaller size drains: it stops nothing."""
    check_id("pool", name)
    await backend.set_pool(name, body.slots, actor)
    for info in await backend.reader.pools():
        if info.name == name:
            return PoolView.of(info)
    # Committed, and removed by somebody else since.
    return PoolView(name=name, slots=body.slots, running=0, queued=0, open=body.slots)
