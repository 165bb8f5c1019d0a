"""Why a run or a task does not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from fastapi import APIRouter

from tickless.api.access import Access, access
from tickless.api.base import Reason
from tickless.api.context import BackendOf, find_run
from tickless.api.routes.task import MapIndex
from tickless.api.views import Page, ReasonView
from tickless.model.id import UNMAPPED, RunKey

router = APIRouter(tags=["why"])


@router.get("/runs/{run}/why", **access(Access.READ))
async def why_run(backend: BackendOf, run: int) -> Page[ReasonView]:
    """What holds the run back, and its unfinished tasks."""
    await find_run(backend, run)
    return _page(await backend.explain(RunKey(run), None, UNMAPPED))


@router.get("/runs/{run}/tasks/{task_id}/why", **access(Access.READ))
async def why_task(backend: BackendOf, run: int, task_id: str, map_index: MapIndex = UNMAPPED) -> Page[ReasonView]:
    """What holds the task back: the very predicate, with its numbers."""
    await find_run(backend, run)
    return _page(await backend.explain(RunKey(run), task_id, map_index))


def _page(reasons: Sequence[Reason]) -> Page[ReasonView]:
    return Page(items=[ReasonView(**asdict(reason)) for reason in reasons])
