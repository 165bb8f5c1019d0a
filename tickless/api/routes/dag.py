"""DAGs and the errors in their files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from tickless.api.access import Access, access
from tickless.api.base import Backend
from tickless.api.context import ActorOf, BackendOf, find_dag, page_size
from tickless.api.views import DagView, GraphView, ImportErrorView, Page, ReasonView, SlotView
from tickless.errors import NotFound
from tickless.store.reader import DagInfo

router = APIRouter(tags=["dags"])


@router.get("/dags", **access(Access.READ))
async def list_dags(
    backend: BackendOf, after: str | None = None, limit: Annotated[int, Query(ge=1)] = 100
) -> Page[DagView]:
    """DAGs by dag_id."""
    limit = page_size(limit)
    dags = await backend.reader.dags(after=after, limit=limit)
    views = [_view(backend, dag) for dag in dags]
    return Page(items=views, next=dags[-1].dag_id if len(dags) == limit else None)


@router.get("/dags/{dag_id}", **access(Access.READ))
async def show_dag(backend: BackendOf, dag_id: str) -> DagView:
    """One DAG, also one that is in no file any more."""
    return _view(backend, await find_dag(backend, dag_id))


@router.get("/dags/{dag_id}/next", **access(Access.READ))
async def next_slots(
    backend: BackendOf, dag_id: str, limit: Annotated[int, Query(ge=1, le=1000)] = 5
) -> Page[SlotView]:
    """The next slots of its schedule, as if the DAG were not paused. The first may be due already."""
    found = await find_dag(backend, dag_id)
    slots = backend.upcoming(found, limit) if found.version is not None else []
    return Page(items=[SlotView.of(slot) for slot in slots])


@router.get("/dags/{dag_id}/graph", **access(Access.READ))
async def graph(backend: BackendOf, dag_id: str) -> GraphView:
    """Its current version as a picture: boxes and lines, laid out from left to right."""
    await find_dag(backend, dag_id)
    version = await backend.reader.current_version(dag_id)
    if version is None:
        raise NotFound(f"no file defines DAG {dag_id!r} any more", hint="`tickless dag list` shows the DAGs.")
    return GraphView.of(version, await backend.layout(version))


@router.get("/dags/{dag_id}/why", **access(Access.READ))
async def why_not_scheduled(backend: BackendOf, dag_id: str) -> Page[ReasonView]:
    """Why its schedule makes no run now; empty when nothing but time holds it back."""
    await find_dag(backend, dag_id)
    return Page(items=[ReasonView(**asdict(reason)) for reason in backend.explain_schedule(dag_id)])


@router.post("/dags/{dag_id}/pause", **access(Access.OPERATE))
async def pause_dag(backend: BackendOf, actor: ActorOf, dag_id: str) -> DagView:
    """No run of it starts and no task is sent off from now on; what runs goes on."""
    await backend.pause_dag(dag_id, is_paused=True, actor=actor)
    return _view(backend, await find_dag(backend, dag_id))


@router.post("/dags/{dag_id}/unpause", **access(Access.OPERATE))
async def unpause_dag(backend: BackendOf, actor: ActorOf, dag_id: str) -> DagView:
    """It goes on. What was due meanwhile: the latest slot, or with catchup every one."""
    await backend.pause_dag(dag_id, is_paused=False, actor=actor)
    return _view(backend, await find_dag(backend, dag_id))


@router.get("/import-errors", **access(Access.READ))
async def list_import_errors(backend: BackendOf, limit: Annotated[int, Query(ge=1)] = 100) -> Page[ImportErrorView]:
    """DAG files that cannot be parsed now."""
    return Page(items=[ImportErrorView.of(info) for info in await backend.reader.import_errors(limit=page_size(limit))])


def _view(backend: Backend, dag: DagInfo) -> DagView:
    slots = backend.upcoming(dag, 1) if dag.version is not None and not dag.is_paused else []
    return DagView.of(dag, slots[0] if slots else None)
