"""Works off the commands that end whole runs, marked or cancelled: one, or all that fit a filter, a run per commit."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from tickless.clock import Clock
from tickless.core.commands import CancelRun, MarkRun
from tickless.core.decision import Write
from tickless.core.revision import RowsBehind
from tickless.daemon.choice import CANCEL_RUNS, MARK_RUN, RunFilter, check_moments
from tickless.daemon.deletion import MOST_TOLD, in_full
from tickless.daemon.term import Term
from tickless.errors import NotFound, UserError
from tickless.model.id import RunKey
from tickless.model.row import CommandProgress, EventRow, RequestDone
from tickless.model.state import FINISHED_RUN_STATES, RunState
from tickless.store.base import CommandRequest, Store


class RunMark(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The payload of `mark_run` (either `run` or `runs`) and `cancel_runs` (`runs`)."""

    state: RunState | None = None
    """None: cancelled."""
    run: int | None = None
    runs: RunFilter | None = None

    def changes(self, state: RunState) -> bool:
        """Whether there is anything to change of a run."""
        return state not in FINISHED_RUN_STATES if self.state is None else state is not self.state


class Cursor(msgspec.Struct, omit_defaults=True):
    """How far it has come. `RevisionDesk` answers with `tasks`, `runs` and `refused`."""

    run: int = 0
    tasks: int = 0
    runs: int = 0
    refused: list[str] = []


def read_run_mark(kind: str, payload: str) -> RunMark:
    """The payload of a command. Raises UserError."""
    try:
        order = msgspec.json.decode(payload, type=RunMark)
    except msgspec.ValidationError as error:
        raise UserError(f"the payload of {kind} cannot be read: {error}") from None
    if kind == CANCEL_RUNS:
        if order.runs is None or order.run is not None or order.state is not None:
            raise UserError(f"{kind} needs a filter of runs, and nothing else", hint="Of one run: cancel.")
    elif (order.run is None) == (order.runs is None):
        raise UserError(f"{kind} needs a run or a filter of runs, one of them")
    elif order.state not in FINISHED_RUN_STATES:
        raise UserError(f"a run can be marked success or failed, not {order.state}")
    if order.runs is not None:
        check_moments(order.runs)
    return order


class RunMarks:
    """One run after the other."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def count(self, order: RunMark) -> int:
        """Runs that would be changed now."""
        runs, at = 0, RunKey(0)
        while (run := await self._next(order, at)) is not None:
            committed = await self._store.committed_run(run)
            runs += committed is not None and order.changes(committed.row.state)
            at = run
        return runs

    async def advance(self, term: Term, command: CommandRequest) -> None:
        """One run of one command."""
        cursor = msgspec.json.decode(command.cursor, type=Cursor) if command.cursor is not None else Cursor()
        try:
            order = read_run_mark(command.kind, command.payload)
            await term.drain()
            run = await self._next(order, RunKey(cursor.run))
            if run is None:
                term.write(*(Write(row) for row in self._ending(command, order, cursor, None)))
                return
            committed = await self._store.committed_run(run)
            if committed is None:
                raise NotFound(f"there is no run {run}", hint="`tickless run list` shows the latest.")
            row = committed.row
            after = msgspec.structs.replace(cursor, run=run, runs=cursor.runs + order.changes(row.state))
            along: tuple[CommandProgress | RequestDone | EventRow, ...]
            if order.run is not None:
                along = self._ending(command, order, after, row.dag_id)
            else:
                along = (CommandProgress(id=command.id, cursor=_text(after)),)
            finished = row if row.state in FINISHED_RUN_STATES else None
            try:
                if order.state is not None:
                    term.offer(MarkRun(run=run, state=order.state, finished=finished, along=along))
                elif finished is not None:
                    term.write(*(Write(each) for each in along))
                else:
                    term.offer(CancelRun(run=run), along=[Write(each) for each in along])
            except RowsBehind:
                return  # what was decided meanwhile is committed in a moment; it is looked at again
            except UserError as refused:
                if order.run is not None:
                    raise
                if len(cursor.refused) < MOST_TOLD:
                    cursor.refused.append(f"run {run}: {in_full(refused)}")
                cursor.run = run
                term.write(Write(CommandProgress(id=command.id, cursor=_text(cursor))))
        except UserError as refused:
            term.write(*(Write(row) for row in self._ending(command, None, cursor, None, in_full(refused))))

    async def _next(self, order: RunMark, after: RunKey) -> RunKey | None:
        if order.runs is None:
            return RunKey(order.run or 0) if after == 0 else None
        asked = order.runs.query()
        if order.state is None and not asked.states:
            asked = replace(asked, states=(RunState.QUEUED, RunState.RUNNING))
        return await self._store.next_run(asked, after)

    def _ending(
        self, command: CommandRequest, order: RunMark | None, cursor: Cursor, dag_id: str | None, error: str | None = None
    ) -> tuple[CommandProgress | RequestDone | EventRow, ...]:
        detail: dict[str, object] = {"command": command.id, "asked": msgspec.Raw(command.payload.encode())}
        detail["runs"] = cursor.runs
        if error is not None:
            detail["error"] = error
        run = RunKey(order.run) if order is not None and order.run is not None else None
        if order is not None and order.runs is not None:
            dag_id = order.runs.dag_id
        return (
            CommandProgress(id=command.id, cursor=_text(cursor)),
            RequestDone(table="command", id=command.id, run=run, error=error),
            EventRow(
                at=self._clock.now(),
                actor=command.actor,
                action="cancel" if command.kind == CANCEL_RUNS else MARK_RUN,
                dag_id=dag_id,
                run=run,
                detail=msgspec.json.encode(detail).decode(),
            ),
        )


def _text(cursor: Cursor) -> str:
    return msgspec.json.encode(cursor).decode()
