"""Did you mean …? Of what a path names, and what is not there: the nearest of those that are."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from tickless.api.base import Backend
from tickless.errors import TicklessError, did_you_mean
from tickless.model.id import RunKey
from tickless.store.reader import MAX_PAGE


async def find_near(request: Request) -> str | None:
    """A hint for a request that named something unknown. Looks through one page of each kind; asked on errors only."""
    backend = cast(Backend, request.app.state.backend)
    asked = {**request.query_params, **request.path_params}
    try:
        for parameter, word in asked.items():
            names = await _names(backend, parameter, asked)
            if names and word not in names:
                return did_you_mean(str(word), names)
    except TicklessError:
        pass  # the answer is known; this was only to help
    return None


async def _names(backend: Backend, parameter: str, asked: dict[str, object]) -> list[str]:
    match parameter:
        case "dag_id":
            return [dag.dag_id for dag in await backend.reader.dags(limit=MAX_PAGE)]
        case "task_id":
            run = RunKey(int(str(asked["run"])))
            return [info.row.task_id for info in await backend.reader.instances(run, limit=MAX_PAGE)]
        case "key":
            return [variable.key for variable in await backend.secrets.variables(after=None, limit=MAX_PAGE)]
        case "conn_id":
            return [each.conn_id for each in await backend.secrets.connections(after=None, limit=MAX_PAGE)]
        case _:
            return []
