"""Connections: list, show, set, remove. What is secret is hidden here; routes/secret.py shows it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from tickless.api.access import Access, access
from tickless.api.context import ActorOf, BackendOf, page_size
from tickless.api.shape import Body
from tickless.api.views import ConnectionView, Page
from tickless.errors import NotFound, UserError
from tickless.model.connection import ConnectionFields, from_dict, parse_connection

router = APIRouter(tags=["connections"])


class ConnectionBody(Body):
    """What a connection is set to: a `uri`, or fields."""

    uri: str | None = None
    """Airflow's form: TYPE://LOGIN:PASSWORD@HOST:PORT/SCHEMA?KEY=VALUE."""
    conn_type: str | None = None
    description: str | None = None
    host: str | None = None
    schema_: str | None = Field(None, alias="schema")
    login: str | None = None
    password: str | None = None
    port: int | None = None
    extra: dict[str, Any] | str | None = None

    def fields(self, conn_id: str) -> ConnectionFields:
        """The connection that is meant. Raises UserError."""
        given = self.model_dump(by_alias=True, exclude_none=True)
        uri = given.pop("uri", None)
        if uri is None:
            return ConnectionFields(**from_dict(conn_id, given))
        described = {name: given.pop(name) for name in ("description",) if name in given}
        if given:
            raise UserError(f"connection {conn_id!r} has a uri and {', '.join(given)}", hint="Give one or the other.")
        return ConnectionFields(**parse_connection(conn_id, uri), **described)


class NewConnectionBody(ConnectionBody):
    """A connection that is not there yet."""

    conn_id: str


@router.get("/connections", **access(Access.READ))
async def list_connections(
    backend: BackendOf, after: str | None = None, limit: Annotated[int, Query(ge=1)] = 100
) -> Page[ConnectionView]:
    """Connections by id."""
    limit = page_size(limit)
    found = await backend.secrets.connections(after=after, limit=limit)
    items = [ConnectionView.of(connection, is_open=False) for connection in found]
    return Page(items=items, next=found[-1].conn_id if len(found) == limit else None)


@router.get("/connections/{conn_id:path}", **access(Access.READ))
async def show_connection(backend: BackendOf, conn_id: str) -> ConnectionView:
    """One connection."""
    return ConnectionView.of(await backend.secrets.connection(conn_id), is_open=False)


@router.post("/connections", status_code=201, **access(Access.ADMIN))
async def add_connection(backend: BackendOf, actor: ActorOf, body: NewConnectionBody) -> ConnectionView:
    """Create a connection; 409 when there is one with this id."""
    given = ConnectionBody(**body.model_dump(by_alias=True, exclude={"conn_id"}))
    await backend.secrets.set_connection(given.fields(body.conn_id), actor=actor, is_new=True)
    return ConnectionView.of(await backend.secrets.connection(body.conn_id), is_open=False)


@router.put("/connections/{conn_id:path}", **access(Access.ADMIN))
async def set_connection(backend: BackendOf, actor: ActorOf, conn_id: str, body: ConnectionBody) -> ConnectionView:
    """Create a connection, or put it in the place of the one with its id."""
    await backend.secrets.set_connection(body.fields(conn_id), actor=actor)
    return ConnectionView.of(await backend.secrets.connection(conn_id), is_open=False)


@router.delete("/connections/{conn_id:path}", status_code=204, **access(Access.ADMIN))
async def delete_connection(backend: BackendOf, actor: ActorOf, conn_id: str) -> None:
    """Remove a connection."""
    if not await backend.secrets.delete_connection(conn_id, actor=actor):
        raise NotFound(f"there is no connection {conn_id!r}", hint="`tickless connection list` shows those there are.")
