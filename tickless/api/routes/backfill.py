"""Backfills: a schedule run over the past."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from tickless.api.access import Access, access
from tickless.api.base import Backend
from tickless.api.context import ActorOf, BackendOf, conf_text, page_size
from tickless.api.shape import Body, Instant, Lax, Moment
from tickless.api.views import BackfillSlotView, BackfillView, Page
from tickless.core.commands import BackfillVerb, ControlBackfill, CreateBackfill
from tickless.errors import NotFound
from tickless.model.backfill import DEFAULT_MAX_ACTIVE, MOST_ACTIVE, BackfillKey, Reprocess
from tickless.model.dag import check_id

router = APIRouter(tags=["backfills"])


class BackfillBody(Body):
    """What is to be run again, and how."""

    from_at: Moment
    """The first slot is not before it. Without time zone: in that of the schedule."""
    to_at: Moment
    """The last slot is not after it."""
    reprocess: Annotated[Reprocess, Lax] = Reprocess.NONE
    """Slots that have a run already: none of them gets another one, those whose latest run has failed, or all whose
    latest run has ended."""
    max_active: int = Field(DEFAULT_MAX_ACTIVE, ge=1, le=MOST_ACTIVE)
    """How many of its runs may run at once; they do not count among the DAG's own."""
    backwards: bool = False
    """The newest slot first."""
    conf: dict[str, Any] = Field(default_factory=dict)
    """What the tasks of its runs are given."""

    def command(self, dag_id: str, actor: str) -> CreateBackfill:
        check_id("dag_id", dag_id)
        return CreateBackfill(
            dag_id=dag_id,
            from_at=self.from_at,
            to_at=self.to_at,
            reprocess=self.reprocess,
            max_active=self.max_active,
            is_backwards=self.backwards,
            conf=conf_text(self.conf),
            actor=actor,
        )


@router.post("/dags/{dag_id}/backfills", status_code=201, **access(Access.OPERATE))
async def create_backfill(backend: BackendOf, actor: ActorOf, dag_id: str, body: BackfillBody) -> BackfillView:
    """Run the schedule of a DAG over the past; answered when that is committed, before there are runs. One at a time
    for each DAG."""
    key = await backend.create_backfill(body.command(dag_id, actor))
    return await _view(backend, key)


@router.post("/dags/{dag_id}/backfills/preview", **access(Access.READ))
async def preview_backfill(
    backend: BackendOf,
    actor: ActorOf,
    dag_id: str,
    body: BackfillBody,
    after: Instant | None = None,
    limit: Annotated[int, Query(ge=1)] = 100,
) -> Page[BackfillSlotView]:
    """The slots that such a backfill would deal with, in its order, as things are now. Nothing is made."""
    limit = page_size(limit)
    plans = await backend.preview_backfill(body.command(dag_id, actor), after, limit)
    more = plans[-1].place.isoformat() if len(plans) == limit else None
    return Page(items=[BackfillSlotView.of(plan) for plan in plans], next=more)


@router.get("/backfills", **access(Access.READ))
async def list_backfills(
    backend: BackendOf,
    dag_id: str | None = None,
    open: bool = False,
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1)] = 50,
) -> Page[BackfillView]:
    """Backfills, newest first."""
    limit = page_size(limit)
    found = await backend.reader.backfills(dag_id=dag_id, is_open=open, before=before, limit=limit)
    more = str(found[-1].row.key) if len(found) == limit else None
    return Page(items=[BackfillView.of(info) for info in found], next=more)


@router.get("/backfills/{backfill}", **access(Access.READ))
async def show_backfill(backend: BackendOf, backfill: int) -> BackfillView:
    """One backfill, with the number of its runs by state."""
    return await _view(backend, backfill)


@router.post("/backfills/{backfill}/pause", **access(Access.OPERATE))
async def pause_backfill(backend: BackendOf, actor: ActorOf, backfill: int) -> BackfillView:
    """It makes no runs, and none of its queued ones starts; what runs goes on."""
    return await _control(backend, actor, backfill, BackfillVerb.PAUSE)


@router.post("/backfills/{backfill}/unpause", **access(Access.OPERATE))
async def unpause_backfill(backend: BackendOf, actor: ActorOf, backfill: int) -> BackfillView:
    """The opposite of pause."""
    return await _control(backend, actor, backfill, BackfillVerb.UNPAUSE)


@router.post("/backfills/{backfill}/cancel", **access(Access.OPERATE))
async def cancel_backfill(backend: BackendOf, actor: ActorOf, backfill: int) -> BackfillView:
    """It makes no more runs, and its queued ones end as failed; what runs goes on."""
    return await _control(backend, actor, backfill, BackfillVerb.CANCEL)


async def _control(backend: Backend, actor: str, backfill: int, verb: BackfillVerb) -> BackfillView:
    await backend.control_backfill(ControlBackfill(backfill=BackfillKey(backfill), verb=verb, actor=actor))
    return await _view(backend, backfill)


async def _view(backend: Backend, backfill: int) -> BackfillView:
    # Postgres would refuse a larger one; there is none.
    found = await backend.reader.backfill(backfill) if 0 < backfill < 2**63 else None
    if found is None:
        raise NotFound(f"there is no backfill {backfill}", hint="`tickless backfill list` shows all.")
    return BackfillView.of(found, backend.explain_backfill(found.row.key))
