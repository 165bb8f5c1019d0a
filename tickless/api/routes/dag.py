"""DAGs and the errors in their files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from tickless.api.access import Access, access
from tickless.api.context import BackendOf, page_size
from tickless.api.views import DagView, ImportErrorView, Page
from tickless.errors import NotFound

router = APIRouter(tags=["dags"])


@router.get("/dags", **access(Access.READ))
async def list_dags(
    backend: BackendOf, after: str | None = None, limit: Annotated[int, Query(ge=1)] = 100
) -> Page[DagView]:
    """DAGs by dag_id."""
    limit = page_size(limit)
    dags = await backend.reader.dags(after=after, limit=limit)
    return Page(items=[DagView.of(dag) for dag in dags], next=dags[-1].dag_id if len(dags) == limit else None)


@router.get("/dags/{dag_id}", **access(Access.READ))
async def show_dag(backend: BackendOf, dag_id: str) -> DagView:
    """One DAG, also one that is in no file any more."""
    found = await backend.reader.dag(dag_id)
    if found is None:
        raise NotFound(f"there is no DAG {dag_id!r}", hint="`tickless dag list` shows the DAGs.")
    return DagView.of(found)


@router.get("/import-errors", **access(Access.READ))
async def list_import_errors(backend: BackendOf, limit: Annotated[int, Query(ge=1)] = 100) -> Page[ImportErrorView]:
    """DAG files that cannot be parsed now."""
    return Page(items=[ImportErrorView.of(info) for info in await backend.reader.import_errors(limit=page_size(limit))])
