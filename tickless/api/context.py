"""What every route starts with: the backend, and the run that the path names."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

from fastapi import Depends, Request

from tickless.api.base import Backend
from tickless.errors import NotFound, UserError, did_you_mean
from tickless.model.id import UNMAPPED, RunKey, TaskId, TaskKey
from tickless.store.reader import MAX_PAGE, DagInfo, InstanceInfo, RunInfo


async def _backend(request: Request) -> Backend:
    return cast(Backend, request.app.state.backend)


async def _actor(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"


ActorOf = Annotated[str, Depends(_actor)]
"""Who calls, for the audit: unix:NAME."""
BackendOf = Annotated[Backend, Depends(_backend)]


async def no_strangers(request: Request) -> None:
    """Refuse query parameters that the route does not have: a filter that is misspelt must not answer with everything.

    A dependency of every route.
    """
    known = {each.alias for each in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise UserError(f"there is no query parameter {name!r} here", hint=did_you_mean(name, known))


async def find_dag(backend: Backend, dag_id: str) -> DagInfo:
    """The DAG, or NotFound."""
    found = await backend.reader.dag(dag_id)
    if found is None:
        raise NotFound(f"there is no DAG {dag_id!r}", hint="`tickless dag list` shows the DAGs.")
    return found


async def find_run(backend: Backend, run: int) -> RunInfo:
    """The run with this number, or NotFound."""
    # Postgres would refuse a larger one; there is none.
    found = await backend.reader.run(RunKey(run)) if 0 < run < 2**63 else None
    if found is None:
        raise NotFound(f"there is no run {run}", hint="`tickless run list` shows the latest.")
    return found


async def find_instance(backend: Backend, run: int, task_id: str, map_index: int = UNMAPPED) -> InstanceInfo:
    """The task instance, or NotFound."""
    info = await find_run(backend, run)
    key = TaskKey(RunKey(run), TaskId(task_id), map_index)
    found = await backend.reader.instance(key)
    if found is None:
        raise NotFound(
            f"run {run} ({info.row.dag_id}/{info.row.run_id}) has no task {str(key).partition('/')[2]}",
            hint=f"`tickless task list {run}` shows its tasks.",
        )
    return found


def page_size(limit: int) -> int:
    """The limit that the store will use."""
    return max(1, min(limit, MAX_PAGE))


def conf_text(conf: dict[str, Any]) -> str:
    """The conf as JSON text that Postgres takes, or UserError."""
    try:
        text = json.dumps(conf, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"conf cannot be stored: {error}") from error
    if "\\u0000" in text and _has_nul(conf):  # the cheap look first: it also finds a backslash before u0000
        raise UserError("conf cannot be stored: it has a NUL character")
    return text


def _has_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_has_nul(part) for item in value.items() for part in item)
        case list():
            return any(_has_nul(part) for part in value)
        case _:
            return False
