"""Rows of the request tables as commands of the engine: what SQL may ask for, by kind.

A kind has a function in store/migrations/r_request.sql that writes its payload, and a line here that reads it. What
cannot be read is refused, in the row, with words for whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from tickless.core import commands
from tickless.core.engine import Engine
from tickless.core.runs import run_id_taken
from tickless.errors import UserError
from tickless.model.backfill import DEFAULT_MAX_ACTIVE, BackfillKey, Reprocess
from tickless.model.id import RunKey
from tickless.model.row import EventRow
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
        actor=request.actor,
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


def event_of(request: CommandRequest, command: commands.Command, engine: Engine, at: datetime) -> EventRow:
    """Its line of the audit, for the commit in which it is obeyed."""
    run = command.run if isinstance(command, commands.CancelRun) else None
    live = engine.runs.get(run) if run is not None else None
    if isinstance(command, commands.PauseDag | commands.UnpauseDag | commands.CreateBackfill):
        dag_id: str | None = command.dag_id
    elif isinstance(command, commands.ControlBackfill):
        backfill = engine.backfills.active.get(command.backfill)
        dag_id = backfill.row.dag_id if backfill is not None else None
    else:
        dag_id = live.row.dag_id if live is not None else None
    return EventRow(
        at=at,
        actor=request.actor,
        action=_ACTIONS.get(request.kind, request.kind),
        dag_id=dag_id,
        run=run,
        detail=msgspec.json.encode({"command": request.id}).decode(),
    )


class _Dag(msgspec.Struct, forbid_unknown_fields=True):
    dag_id: str


def _pause(payload: str, request_id: int) -> commands.PauseDag:
    return commands.PauseDag(dag_id=msgspec.json.decode(payload, type=_Dag).dag_id, request_id=request_id)


def _unpause(payload: str, request_id: int) -> commands.UnpauseDag:
    return commands.UnpauseDag(dag_id=msgspec.json.decode(payload, type=_Dag).dag_id, request_id=request_id)


class _Run(msgspec.Struct, forbid_unknown_fields=True):
    run: int


def _cancel(payload: str, request_id: int) -> commands.CancelRun:
    return commands.CancelRun(run=RunKey(msgspec.json.decode(payload, type=_Run).run), request_id=request_id)


class _Backfill(msgspec.Struct, forbid_unknown_fields=True):
    dag_id: str
    from_at: datetime
    to_at: datetime
    reprocess: Reprocess = Reprocess.NONE
    max_active: int = DEFAULT_MAX_ACTIVE
    backwards: bool = False
    conf: dict[str, Any] = {}


def _create_backfill(payload: str, request_id: int) -> commands.CreateBackfill:
    asked = msgspec.json.decode(payload, type=_Backfill)
    return commands.CreateBackfill(
        dag_id=asked.dag_id,
        from_at=asked.from_at,
        to_at=asked.to_at,
        reprocess=asked.reprocess,
        max_active=asked.max_active,
        is_backwards=asked.backwards,
        conf=msgspec.json.encode(asked.conf).decode(),
        request_id=request_id,
    )


class _BackfillKey(msgspec.Struct, forbid_unknown_fields=True):
    backfill: int


def _control(verb: commands.BackfillVerb) -> Callable[[str, int], commands.Command]:
    def read(payload: str, request_id: int) -> commands.ControlBackfill:
        key = BackfillKey(msgspec.json.decode(payload, type=_BackfillKey).backfill)
        return commands.ControlBackfill(backfill=key, verb=verb, request_id=request_id)

    return read


_READERS: dict[str, Callable[[str, int], commands.Command]] = {
    "pause_dag": _pause,
    "unpause_dag": _unpause,
    "cancel": _cancel,
    "create_backfill": _create_backfill,
    **{f"{verb}_backfill": _control(verb) for verb in commands.BackfillVerb},
}
_ACTIONS = {"pause_dag": "pause", "unpause_dag": "unpause"}
"""What the audit calls it, where that is another name: the same one whoever asks."""
