"""Rows of the request tables as commands of the engine: what SQL may ask for, by kind.

A kind has a function in store/migrations/r_request.sql that writes its payload, and a line here that reads it. What
cannot be read is refused, in the row, with words for whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tickless.core import commands
from tickless.core.runs import run_id_taken
from tickless.errors import UserError
from tickless.store.base import CommandRequest, TriggerRequest


def start_of(request: TriggerRequest) -> commands.StartRun:
    """A row of `trigger_request`. Raises UserError when another run has its name."""
    if request.name_of is not None and request.run_id is not None:
        raise run_id_taken(request.dag_id, request.run_id)
    return commands.StartRun(
        dag_id=request.dag_id,
        run_id=request.run_id,
        conf=request.conf,
        logical_date=request.logical_date,
        idempotency_key=request.idempotency_key,
        request_id=request.id,
    )


def command_of(request: CommandRequest) -> commands.Command:
    """A row of `command`. Raises UserError for a kind or a payload that nobody understands."""
    read = _READERS.get(request.kind)
    if read is None:
        raise UserError(f"there is no command {request.kind!r}", hint=f"There are: {', '.join(sorted(_READERS))}.")
    try:
        return read(request.payload, request.id)
    except msgspec.ValidationError as error:
        raise UserError(f"the payload of {request.kind} cannot be read: {error}") from None


class _Dag(msgspec.Struct, forbid_unknown_fields=True):
    dag_id: str


def _pause(payload: str, request_id: int) -> commands.PauseDag:
    return commands.PauseDag(dag_id=msgspec.json.decode(payload, type=_Dag).dag_id, request_id=request_id)


def _unpause(payload: str, request_id: int) -> commands.UnpauseDag:
    return commands.UnpauseDag(dag_id=msgspec.json.decode(payload, type=_Dag).dag_id, request_id=request_id)


_READERS: dict[str, Callable[[str, int], commands.Command]] = {
    "pause_dag": _pause,
    "unpause_dag": _unpause,
}
