"""Clear and mark: of tasks of one run, or of all runs that fit a filter. And what deletes runs and DAGs."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from tickless.api.access import Access, access
from tickless.api.base import Backend
from tickless.api.context import ActorOf, BackendOf, find_dag, find_run
from tickless.api.shape import Body, Instant, Lax, View
from tickless.model.state import RunState, TaskState

router = APIRouter(tags=["alterations"])


class ChoiceBody(Body):
    """Which tasks; none = all of the run."""

    tasks: list[str] = Field(default_factory=list)
    upstream: bool = False
    """Also all tasks above those."""
    downstream: bool = False
    """Also all tasks below those."""
    only_failed: bool = False
    """Of these only what failed, or failed upstream."""
    dry_run: bool = False
    """Say what would be changed, and change nothing."""


class MarkBody(ChoiceBody):
    """Which tasks, and what becomes of them."""

    state: Literal["success", "failed"]


class RunsBody(ChoiceBody):
    """Which runs of a DAG."""

    states: list[Annotated[RunState, Lax]] = Field(default_factory=list)
    since: Instant | None = None
    """Queued at or after this moment."""
    until: Instant | None = None
    """Queued before it."""


class MarkRunBody(Body):
    """What becomes of the run."""

    state: Literal["success", "failed"]
    dry_run: bool = False
    """Say what would be marked, and mark nothing."""


class MarkRunsBody(MarkRunBody):
    """Which runs of a DAG, and what becomes of them."""

    states: list[Annotated[RunState, Lax]] = Field(default_factory=list)
    since: Instant | None = None
    """Queued at or after this moment."""
    until: Instant | None = None
    """Queued before it."""


class CancelRunsBody(Body):
    """Which unfinished runs of a DAG."""

    states: list[Annotated[RunState, Lax]] = Field(default_factory=list)
    """None = queued and running."""
    since: Instant | None = None
    """Queued at or after this moment."""
    until: Instant | None = None
    """Queued before it."""
    dry_run: bool = False
    """Say what would be cancelled, and cancel nothing."""


class DeleteBody(Body):
    """Whether only to ask."""

    dry_run: bool = False
    """Say what would be deleted, and delete nothing."""


class DeleteRunsBody(DeleteBody):
    """Which finished runs of a DAG."""

    states: list[Annotated[RunState, Lax]] = Field(default_factory=list)
    """None = success and failed."""
    since: Instant | None = None
    """Queued at or after this moment."""
    until: Instant | None = None
    """Queued before it."""


class DeleteDagBody(DeleteBody):
    """Which DAGs."""

    force: bool = False
    """Also a DAG that a file defines: it begins anew."""


class TaskRefView(View):
    """A task instance in short."""

    run: int
    task_id: str
    map_index: int
    state: TaskState


class AlteredView(View):
    """What has been changed, or would be."""

    tasks: int
    runs: int
    is_dry_run: bool
    first: list[TaskRefView] = Field(default_factory=list)
    """Of a dry run: the first of them."""
    refused: list[str] = Field(default_factory=list)
    """Runs that could not be changed, with why; the first of them."""


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
    await find_dag(backend, dag_id)
    return await _alter(backend, actor, "clear", body, {"runs": _filter(dag_id, body)})


@router.post("/runs/{run}/mark-run", **access(Access.OPERATE))
async def mark_run(backend: BackendOf, actor: ActorOf, run: int, body: MarkRunBody) -> AlteredView:
    """Declare a run done, or give it up. Its unfinished tasks are marked (given up: those that do not run are skipped);
    what runs is stopped first. Tasks that are finished stay as they are."""
    await find_run(backend, run)
    return await _carry_out(backend, actor, "mark_run", {"run": run, "state": body.state}, is_dry=body.dry_run)


@router.post("/dags/{dag_id}/mark-runs", **access(Access.OPERATE))
async def mark_runs(backend: BackendOf, actor: ActorOf, dag_id: str, body: MarkRunsBody) -> AlteredView:
    """The same for every run that fits."""
    await find_dag(backend, dag_id)
    order = {"runs": _filter(dag_id, body), "state": body.state}
    return await _carry_out(backend, actor, "mark_run", order, is_dry=body.dry_run)


@router.post("/dags/{dag_id}/cancel-runs", **access(Access.OPERATE))
async def cancel_runs(backend: BackendOf, actor: ActorOf, dag_id: str, body: CancelRunsBody) -> AlteredView:
    """Cancel every unfinished run that fits; answered when that is committed, not when they have ended."""
    await find_dag(backend, dag_id)
    return await _carry_out(backend, actor, "cancel_runs", {"runs": _filter(dag_id, body)}, is_dry=body.dry_run)


@router.post("/runs/{run}/delete", **access(Access.OPERATE))
async def delete_run(backend: BackendOf, actor: ActorOf, run: int, body: DeleteBody) -> AlteredView:
    """Delete a finished run, with its tasks, attempts, XComs, notes and logs; answered when all of it has gone."""
    await find_run(backend, run)
    return await _carry_out(backend, actor, "delete_run", {"run": run}, is_dry=body.dry_run)


@router.post("/dags/{dag_id}/delete-runs", **access(Access.OPERATE))
async def delete_runs(backend: BackendOf, actor: ActorOf, dag_id: str, body: DeleteRunsBody) -> AlteredView:
    """The same for every finished run that fits. Unfinished ones that are asked for are left alone, with why."""
    await find_dag(backend, dag_id)
    return await _carry_out(backend, actor, "delete_run", {"runs": _filter(dag_id, body)}, is_dry=body.dry_run)


@router.post("/dags/{dag_id}/delete", **access(Access.OPERATE))
async def delete_dag(backend: BackendOf, actor: ActorOf, dag_id: str, body: DeleteDagBody) -> AlteredView:
    """Delete a DAG with all its runs and versions. 409 when it has unfinished runs, or a file that defines it."""
    await find_dag(backend, dag_id)
    order = {"dag_id": dag_id, "force": body.force}
    return await _carry_out(backend, actor, "delete_dag", order, is_dry=body.dry_run)


async def _alter(backend: Backend, actor: str, kind: str, body: ChoiceBody, about: dict[str, Any]) -> AlteredView:
    order = {
        **about,
        **{name: getattr(body, name) for name in ("tasks", "upstream", "downstream", "only_failed")},
    }
    return await _carry_out(backend, actor, kind, order, is_dry=body.dry_run)


def _filter(dag_id: str, body: RunsBody | DeleteRunsBody | MarkRunsBody | CancelRunsBody) -> dict[str, Any]:
    runs: dict[str, Any] = {"dag_id": dag_id, "states": [state.value for state in body.states]}
    for name, moment in (("since", body.since), ("until", body.until)):
        if moment is not None:
            runs[name] = moment.isoformat()
    return runs


async def _carry_out(backend: Backend, actor: str, kind: str, order: dict[str, Any], *, is_dry: bool) -> AlteredView:
    payload = json.dumps(order)
    if is_dry:
        found = await backend.preview(kind, payload)
        first = [
            TaskRefView(run=row.run, task_id=row.task_id, map_index=row.map_index, state=row.state)
            for row in found.first
        ]
        return AlteredView(tasks=found.tasks, runs=found.runs, is_dry_run=True, first=first)
    done = await backend.alter(kind, payload, actor)
    return AlteredView(tasks=done.tasks, runs=done.runs, is_dry_run=False, refused=list(done.refused))
