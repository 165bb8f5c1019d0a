"""Dag runs: start, list, show, cancel, wait."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from tickless.api.access import Access, access
from tickless.api.base import Backend
from tickless.api.context import ActorOf, BackendOf, conf_text, find_dag, find_run, page_size
from tickless.api.shape import Body, Instant
from tickless.api.views import Page, RunStartedView, RunView
from tickless.core.commands import StartRun
from tickless.core.decision import AttemptEnded, RunChanged
from tickless.errors import NotFound, UserError
from tickless.model.dag import check_id
from tickless.model.id import RunKey
from tickless.model.state import FINISHED_RUN_STATES, RunState
from tickless.store.reader import EventQuery

router = APIRouter(tags=["runs"])

_LINES_TYPE = "application/x-ndjson"
_PROGRESS_SECONDS = 0.25


class StartRunBody(Body):
    """What a new run is given."""

    run_id: str | None = Field(None, min_length=1, max_length=250)
    """Its name within the DAG; by default manual__ and the time."""
    conf: dict[str, Any] = Field(default_factory=dict)
    """What its tasks are given."""
    logical_date: Instant | None = None
    """With time zone."""
    idempotency_key: str | None = Field(None, min_length=1, max_length=200)
    """The same key never starts a second run, however often a lost request is sent again."""


@router.post(
    "/dags/{dag_id}/runs",
    status_code=201,
    responses={200: {"model": RunStartedView, "description": "The idempotency key had started it before."}},
    **access(Access.OPERATE),
)
async def start_run(
    backend: BackendOf, actor: ActorOf, dag_id: str, body: StartRunBody, response: Response
) -> RunStartedView:
    """Start a run; answered when it is committed. 200 instead of 201: the idempotency key had started it before."""
    check_id("dag_id", dag_id)
    if body.run_id is not None and not body.run_id.isprintable():
        raise UserError(f"run_id {body.run_id!r} has characters that cannot be shown")
    started = await backend.start_run(
        StartRun(
            dag_id=dag_id,
            run_id=body.run_id,
            conf=conf_text(body.conf),
            logical_date=body.logical_date,
            idempotency_key=body.idempotency_key,
            actor=actor,
        )
    )
    if not started.is_new:
        response.status_code = 200
    return RunStartedView(run=started.run, dag_id=dag_id, run_id=started.run_id, is_new=started.is_new)


@router.get("/runs", responses={404: {"description": "There is no such DAG."}}, **access(Access.READ))
async def list_runs(
    backend: BackendOf,
    dag_id: str | None = None,
    state: Annotated[list[RunState] | None, Query()] = None,
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    backfill: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1)] = 50,
) -> Page[RunView]:
    """Runs, newest first."""
    limit = page_size(limit)
    if dag_id is not None:
        await find_dag(backend, dag_id)
    key = None if before is None else RunKey(before)
    runs = await backend.reader.runs(dag_id=dag_id, states=state or (), before=key, backfill=backfill, limit=limit)
    return Page(items=[RunView.of(run) for run in runs], next=str(runs[-1].row.key) if len(runs) == limit else None)


@router.get("/runs/{run}", **access(Access.READ))
async def show_run(backend: BackendOf, run: int) -> RunView:
    """One run by its number, with the number of its task instances by state."""
    return await _view(backend, run)


@router.get("/dags/{dag_id}/runs/{run_id:path}", **access(Access.READ))
async def show_run_by_id(backend: BackendOf, dag_id: str, run_id: str) -> RunView:
    """One run by its name."""
    found = await backend.reader.run_by_id(dag_id, run_id)
    if found is None:
        raise NotFound(f"there is no run {dag_id}/{run_id}", hint=f"`tickless run list {dag_id}` shows its runs.")
    return await _view(backend, found.row.key)


@router.post("/runs/{run}/cancel", **access(Access.OPERATE))
async def cancel_run(backend: BackendOf, actor: ActorOf, run: int) -> RunView:
    """Stop what runs of it, skip the rest; it ends as failed."""
    await find_run(backend, run)
    await backend.cancel_run(RunKey(run), actor)
    return await _view(backend, run)


@router.get(
    "/runs/{run}/wait",
    response_class=StreamingResponse,
    responses={200: {"content": {_LINES_TYPE: {"schema": {"type": "string"}}}}},
    **access(Access.READ),
)
async def wait_run(
    backend: BackendOf,
    run: int,
    timeout_seconds: Annotated[float | None, Query(ge=0, le=86400)] = None,
    progress: bool = False,
) -> StreamingResponse:
    """JSON lines: one per finished attempt ({"task_id", "state", …}), and at the end {"run": …} as GET /runs/{run}.

    With `progress` also {"tasks": {state: count}}, at the beginning and after what happens, at most four a second.

    Ends when the run is finished, or after `timeout_seconds` (then `is_finished` is false). Driven by events.
    """
    await find_run(backend, run)
    return StreamingResponse(_follow(backend, run, timeout_seconds, progress), media_type=_LINES_TYPE)


async def _follow(
    backend: Backend, run: int, timeout_seconds: float | None, has_progress: bool
) -> AsyncIterator[bytes]:
    deadline = None if timeout_seconds is None else anyio.current_time() + timeout_seconds
    with backend.watch.subscribe(run) as watcher:
        is_finished = (await find_run(backend, run)).row.state in FINISHED_RUN_STATES
        while not is_finished:
            with anyio.move_on_at(float("inf") if deadline is None else deadline) as patience:
                if has_progress:
                    counts = await backend.reader.instance_counts([RunKey(run)])
                    yield _line({"tasks": {state.value: n for state, n in counts.get(RunKey(run), {}).items()}})
                    await anyio.sleep(_PROGRESS_SECONDS)  # what happens meanwhile is one line
                await watcher.wake.wait()
            if patience.cancelled_caught:
                break
            must_look = watcher.must_look
            for effect in watcher.take():
                if isinstance(effect, AttemptEnded):
                    yield _line(_attempt_line(effect))
                elif isinstance(effect, RunChanged):
                    must_look = True
            if must_look:
                is_finished = (await find_run(backend, run)).row.state in FINISHED_RUN_STATES
    view = await _view(backend, run)
    yield _line({"run": view.model_dump(mode="json")})


def _attempt_line(effect: AttemptEnded) -> dict[str, Any]:
    row = effect.attempt
    seconds = (row.ended_at - row.started_at).total_seconds() if row.started_at and row.ended_at else None
    return {
        "task_id": row.task_id,
        "map_index": row.map_index,
        "try_number": row.try_number,
        "state": row.state.value,
        "task_state": effect.task_state.value,
        "reason": row.reason.value if row.reason else None,
        "seconds": seconds,
        "error": row.error.strip().splitlines()[-1] if row.error and row.error.strip() else None,
    }


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


async def _view(backend: Backend, run: int) -> RunView:
    info = await find_run(backend, run)
    counts = await backend.reader.instance_counts([info.row.key])
    who = None
    if info.row.cancel_requested_at is not None and info.row.cancel_reason is None:
        asked = await backend.reader.events(EventQuery(run=info.row.key, action="cancel"), limit=1)
        who = asked[0].row.actor if asked else None
    notes = await backend.reader.notes([info.row.key], only_of_runs=True)
    return RunView.of(info, counts.get(info.row.key, {}), notes[0] if notes else None, cancelled_by=who)
