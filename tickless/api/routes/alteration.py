"""Clear and mark: of tasks of one run, or of all runs that fit a filter. And the audit of who asked for what."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from tickless.api.access import Access, access
from tickless.api.base import Backend
from tickless.api.context import ActorOf, BackendOf, find_run, page_size
from tickless.api.views import Page
from tickless.model.state import RunState

router = APIRouter(tags=["alterations"])


class ChoiceBody(BaseModel):
    """Which tasks; none = all of the run."""

    model_config = ConfigDict(extra="forbid")

    tasks: list[str] = []
    upstream: bool = False
    downstream: bool = False
    only_failed: bool = False
    dry_run: bool = False
    """Say what would be changed, and change nothing."""


class MarkBody(ChoiceBody):
    state: Literal["success", "failed"]


class RunsBody(ChoiceBody):
    """Which runs of a DAG."""

    states: list[RunState] = []
    since: datetime | None = None
    """Queued at or after this moment."""
    until: datetime | None = None
    """Queued before it."""


class TaskRefView(BaseModel):
    run: int
    task_id: str
    map_index: int
    state: str


class AlteredView(BaseModel):
    """What has been changed, or would be."""

    tasks: int
    runs: int
    is_dry_run: bool
    first: list[TaskRefView] = []
    """Of a dry run: the first of them."""
    refused: list[str] = []
    """Runs that could not be changed, with why; the first of them."""


class EventView(BaseModel):
    """One line of the audit."""

    id: int
    at: datetime
    actor: str
    action: str
    dag_id: str | None
    run: int | None
    task_id: str | None
    detail: dict[str, Any]


@router.post("/runs/{run}/clear", **access(Access.OPERATE))
async def clear(backend: BackendOf, actor: ActorOf, run: int, body: ChoiceBody) -> AlteredView:
    """Run tasks again. What runs is stopped first; a run that was finished is queued again."""
    await find_run(backend, run)
    return await _alter(backend, actor, "clear", body, {"run": run})


@router.post("/runs/{run}/mark", **access(Access.OPERATE))
async def mark(backend: BackendOf, actor: ActorOf, run: int, body: MarkBody) -> AlteredView:
    """Declare tasks done, or give them up. What runs is stopped first."""
    await find_run(backend, run)
    return await _alter(backend, actor, "mark", body, {"run": run, "state": body.state})


@router.post("/dags/{dag_id}/clear", **access(Access.OPERATE))
async def clear_runs(backend: BackendOf, actor: ActorOf, dag_id: str, body: RunsBody) -> AlteredView:
    """The same for every run that fits; answered when all of it is committed."""
    runs = {"dag_id": dag_id, "states": [state.value for state in body.states]}
    for name, moment in (("since", body.since), ("until", body.until)):
        if moment is not None:
            runs[name] = moment.isoformat()
    return await _alter(backend, actor, "clear", body, {"runs": runs})


@router.get("/events", **access(Access.READ))
async def list_events(
    backend: BackendOf,
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1)] = 50,
) -> Page[EventView]:
    """Who asked for what, newest first."""
    limit = page_size(limit)
    found = await backend.reader.events(before=before, limit=limit)
    items = [
        EventView(
            id=each.id,
            at=each.row.at,
            actor=each.row.actor,
            action=each.row.action,
            dag_id=each.row.dag_id,
            run=each.row.run,
            task_id=each.row.task_id,
            detail=json.loads(each.row.detail),
        )
        for each in found
    ]
    return Page(items=items, next=str(items[-1].id) if len(items) == limit else None)


async def _alter(backend: Backend, actor: str, kind: str, body: ChoiceBody, about: dict[str, Any]) -> AlteredView:
    order = {
        **about,
        **{name: getattr(body, name) for name in ("tasks", "upstream", "downstream", "only_failed")},
    }
    payload = json.dumps(order)
    if body.dry_run:
        found = await backend.preview(kind, payload)
        first = [
            TaskRefView(run=row.run, task_id=row.task_id, map_index=row.map_index, state=row.state.value)
            for row in found.first
        ]
        return AlteredView(tasks=found.tasks, runs=found.runs, is_dry_run=True, first=first)
    done = await backend.alter(kind, payload, actor)
    return AlteredView(tasks=done.tasks, runs=done.runs, is_dry_run=False, refused=list(done.refused))
