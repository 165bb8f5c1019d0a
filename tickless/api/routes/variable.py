"""Variables: list, show, set, remove. What is secret is hidden here; routes/secret.py shows it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from tickless.api.access import Access, access
from tickless.api.context import ActorOf, BackendOf, page_size
from tickless.api.shape import Body
from tickless.api.views import Page, VariableView
from tickless.errors import NotFound

router = APIRouter(tags=["variables"])


class VariableBody(Body):
    """What a variable is set to."""

    value: str
    description: str | None = None


@router.get("/variables", **access(Access.READ))
async def list_variables(
    backend: BackendOf, after: str | None = None, limit: Annotated[int, Query(ge=1)] = 100
) -> Page[VariableView]:
    """Variables by key."""
    limit = page_size(limit)
    found = await backend.secrets.variables(after=after, limit=limit)
    items = [VariableView.of(variable, is_open=False) for variable in found]
    return Page(items=items, next=found[-1].key if len(found) == limit else None)


@router.get("/variables/{key:path}", **access(Access.READ))
async def show_variable(backend: BackendOf, key: str) -> VariableView:
    """One variable."""
    return VariableView.of(await backend.secrets.variable(key), is_open=False)


@router.put("/variables/{key:path}", **access(Access.OPERATE))
async def set_variable(backend: BackendOf, actor: ActorOf, key: str, body: VariableBody) -> VariableView:
    """Create a variable or change its value. Without a description it keeps the one it has."""
    await backend.secrets.set_variable(key, body.value, body.description, actor=actor)
    return VariableView.of(await backend.secrets.variable(key), is_open=False)


@router.delete("/variables/{key:path}", status_code=204, **access(Access.OPERATE))
async def delete_variable(backend: BackendOf, actor: ActorOf, key: str) -> None:
    """Remove a variable."""
    if not await backend.secrets.delete_variable(key, actor=actor):
        raise NotFound(f"there is no variable {key!r}", hint="`tickless variable list` shows those there are.")
