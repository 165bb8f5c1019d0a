"""The audit: who asked for what, by which surface, and when."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from tickless.api.access import Access, access
from tickless.api.context import BackendOf, page_size
from tickless.api.shape import Instant, View
from tickless.api.views import Page
from tickless.model.id import RunKey
from tickless.store.reader import EventInfo, EventQuery

router = APIRouter(tags=["audit"])


class EventView(View):
    """One line of the audit."""

    id: int
    at: datetime
    actor: str
    """SURFACE:NAME."""
    surface: str
    """unix (command line or API, over the socket), sql, task (a running one), or tickless itself."""
    action: str
    dag_id: str | None
    run: int | None
    task_id: str | None
    detail: dict[str, Any]

    @staticmethod
    def of(info: EventInfo) -> EventView:
        row = info.row
        return EventView(
            id=info.id,
            at=row.at,
            actor=row.actor,
            surface=row.actor.partition(":")[0],
            action=row.action,
            dag_id=row.dag_id,
            run=row.run,
            task_id=row.task_id,
            detail=json.loads(row.detail),
        )


@router.get("/events", **access(Access.READ))
async def list_events(
    backend: BackendOf,
    dag_id: str | None = None,
    run: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    actor: str | None = None,
    surface: str | None = None,
    action: str | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1)] = 50,
) -> Page[EventView]:
    """Who asked for what, newest first. Whatever is given must fit; `since` counts in, `until` does not."""
    limit = page_size(limit)
    choice = EventQuery(
        dag_id=dag_id,
        run=None if run is None else RunKey(run),
        actor=actor,
        surface=surface,
        action=action,
        since=since,
        until=until,
    )
    items = [EventView.of(info) for info in await backend.reader.events(choice, before=before, limit=limit)]
    return Page(items=items, next=str(items[-1].id) if len(items) == limit else None)
