"""What Postgres refuses to store, and what raised in the engine: kept over the terms, so that no term falls twice over
the same thing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tickless.core import commands, events
from tickless.core.commands import Reply
from tickless.core.decision import Decision
from tickless.core.runs import SCHEDULED, run_id_taken
from tickless.errors import Refused, TicklessError, Unstorable, UserError
from tickless.model.id import AttemptId
from tickless.model.report import Finished, Lost
from tickless.model.row import RequestDone, RunRow
from tickless.telemetry.log import get_log

UNIQUE_VIOLATION = "23505"

log = get_log()

Input = events.Event | commands.Command


@dataclass(slots=True)
class Entry:
    """One step's decision on its way through a flush. `reply` is the caller's future, if somebody waits."""

    input: Input | None
    decision: Decision
    reply: asyncio.Future[Reply | None] | None = None

    def fail(self, error: TicklessError) -> None:
        """Tell the caller, if there is one."""
        if self.reply is not None:
            fail(self.reply, error)


@dataclass(slots=True)
class Poison:
    """Reports that Postgres refused, by attempt: on their next arrival their data is left out."""

    unstorable: dict[AttemptId, str] = field(default_factory=dict)
    quarantined: set[AttemptId] = field(default_factory=set)
    """Attempts whose end was set aside. Their senders have forgotten them, so only a cancel can still end them."""
    given_up: set[AttemptId] = field(default_factory=set)
    """Those among them which not even that could end."""
    requests: dict[tuple[str, int], str] = field(default_factory=dict)
    """Requests, by table and id, that Postgres refused, with why."""
    run_ids: set[tuple[str, str]] = field(default_factory=set)
    """(dag_id, run_id) of scheduled runs of which Postgres may have one already: those that it has are passed over."""
    dags: dict[str, str] = field(default_factory=dict)
    """The same of DAG versions, by hash: every new term is told of them again."""

    def remember(self, entry: Entry, error: Unstorable) -> None:
        """Postgres refuses what this entry decided: whoever waits for it is told, and the next term leaves it out."""
        event = entry.input
        attempt_id = event.attempt_id if isinstance(event, Finished | Lost) else None
        log.error(
            "flush.refused",
            sqlstate=error.sqlstate,
            error=error.message,
            attempt_id=attempt_id,
            rows=len(entry.decision.writes),
        )
        if isinstance(event, Finished | Lost):
            self.unstorable[AttemptId(event.attempt_id)] = error.message
        elif isinstance(event, events.DagParsed):
            self.dags[event.hash] = f"DAG {event.spec.dag_id!r} cannot be stored: {error.message}"
        refusal = UserError(f"Postgres refuses this: {error.message}", hint=error.hint)
        if isinstance(event, commands.StartRun) and error.sqlstate == UNIQUE_VIOLATION:
            # By a finished run, which the engine does not know.
            if event.run_id is not None and event.idempotency_key is None:
                refusal = run_id_taken(event.dag_id, event.run_id)
            else:
                refusal = Refused(f"a run with this run id or idempotency key exists already: {error.message}")
        entry.fail(refusal)
        request = next((w.row for w in entry.decision.writes if isinstance(w.row, RequestDone)), None)
        if request is not None:
            self.requests[request.table, request.id] = refusal.message
        if error.sqlstate == UNIQUE_VIOLATION and not isinstance(event, commands.StartRun):
            self.run_ids |= {
                (w.row.dag_id, w.row.run_id)
                for w in entry.decision.writes
                if isinstance(w.row, RunRow) and w.is_insert and w.row.run_type == SCHEDULED
            }


def fail(reply: asyncio.Future[Reply | None], error: TicklessError) -> None:
    """Tell the caller, if he still waits."""
    if not reply.done():
        reply.set_exception(error)
