"""Works off the commands that delete: a run, all that fit a filter, or a DAG with all its runs.

First the row of a run goes, in one commit with the cursor that says so: from then on nobody sees the run, and nothing
can bring it back. What remains of it follows in batches: the logs of some attempts, then the rows of these attempts
and as many of its other rows. So a daemon that is killed anywhere leaves rows from which the next one goes on, and
never a log that no row names.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tickless.clock import Clock
from tickless.core.commands import DeleteDag, DeleteRun
from tickless.core.decision import Write
from tickless.core.revision import RowsBehind
from tickless.daemon.choice import DELETE_DAG, DeletionOrder, read_deletion
from tickless.daemon.term import Term
from tickless.errors import NotFound, UserError
from tickless.logs.base import LogStore
from tickless.model.id import RunKey
from tickless.model.row import CommandProgress, EventRow, RequestDone, RunRemains
from tickless.model.state import FINISHED_RUN_STATES
from tickless.store.base import CommandRequest, Store

BATCH = 300
"""Attempts, and rows of each other kind, per commit."""
MOST_TOLD = 20
"""Runs that could not be deleted, and logs, that the answer names."""


class Cursor(msgspec.Struct, omit_defaults=True):
    """How far a deletion has come. `RevisionDesk` answers with `tasks`, `runs` and `refused`."""

    run: int = 0
    """The last run that is dealt with, but for its remains."""
    remains: bool = False
    """Its row has gone, other rows of it are left."""
    dag_id: str | None = None
    """Of that run."""
    tasks: int = 0
    runs: int = 0
    refused: list[str] = []


class Deletions:
    """One slice after the other of commands that delete."""

    def __init__(self, *, store: Store, clock: Clock, logs: LogStore | None) -> None:
        self._store = store
        self._clock = clock
        self._logs = logs
        self.when_dag_deleted: Callable[[], None] = lambda: None
        """Called when a DAG has gone, for whoever knows that a file still defines it."""

    async def count(self, order: DeletionOrder) -> tuple[int, int]:
        """Task instances and runs that would be deleted now."""
        tasks = runs = 0
        at = RunKey(0)
        while (run := await self._next(order, at)) is not None:
            committed = await self._store.committed_run(run)
            if committed is not None and committed.row.state in FINISHED_RUN_STATES:
                runs += 1
                tasks += sum(tally.count for tally in committed.tallies)
            at = run
        return tasks, runs

    async def advance(self, term: Term, command: CommandRequest) -> None:
        """One slice of one command."""
        cursor = read_cursor(command.cursor)
        try:
            order = read_deletion(command.kind, command.payload)
            if cursor.remains:
                await self._sweep(term, command, order, cursor)
                return
            await term.drain()
            if order.dag_id is not None:
                term.offer(DeleteDag(dag_id=order.dag_id, is_forced=order.force, is_last=False))
            run = await self._next(order, RunKey(cursor.run))
            if run is not None:
                await self._delete_run(term, command, order, cursor, run)
            elif order.dag_id is not None:
                ending = self._ending(command, order, cursor)
                term.offer(DeleteDag(dag_id=order.dag_id, is_forced=order.force, is_last=True, along=ending))
                await term.drain()
                self.when_dag_deleted()
            else:
                self._close(term, command, order, cursor)
        except UserError as refused:
            self._close(term, command, None, cursor, in_full(refused))

    async def _next(self, order: DeletionOrder, after: RunKey) -> RunKey | None:
        if order.run is not None:
            return RunKey(order.run) if after == 0 else None
        return await self._store.next_run(order.query(), after)

    async def _delete_run(
        self, term: Term, command: CommandRequest, order: DeletionOrder, cursor: Cursor, run: RunKey
    ) -> None:
        committed = await self._store.committed_run(run)
        if committed is None:
            raise NotFound(f"there is no run {run}", hint="`tickless run list` shows the latest.")
        after = msgspec.structs.replace(
            cursor,
            run=run,
            remains=True,
            dag_id=committed.row.dag_id,
            runs=cursor.runs + 1,
            tasks=cursor.tasks + sum(tally.count for tally in committed.tallies),
        )
        progress = CommandProgress(id=command.id, cursor=_text(after))
        is_finished = committed.row.state in FINISHED_RUN_STATES
        try:
            term.offer(DeleteRun(run=run, is_finished=is_finished, along=(progress,)))
        except RowsBehind:
            return  # what was decided meanwhile is committed in a moment; it is looked at again
        except UserError as refused:
            if order.runs is None:
                raise
            _tell(cursor, f"run {run}: {in_full(refused)}")
            cursor.run = run
            term.write(Write(CommandProgress(id=command.id, cursor=_text(cursor))))

    async def _sweep(self, term: Term, command: CommandRequest, order: DeletionOrder, cursor: Cursor) -> None:
        run = RunKey(cursor.run)
        left = await self._store.remains(run, BATCH)
        if not left.is_over:
            if self._logs is not None:
                for problem in await self._logs.remove([path for _, path in left.attempts]):
                    _tell(cursor, problem)
            attempts = tuple(attempt_id for attempt_id, _ in left.attempts)
            term.write(
                Write(RunRemains(run=run, attempts=attempts, most=BATCH)),
                Write(CommandProgress(id=command.id, cursor=_text(cursor))),
            )
            return
        cursor.remains = False
        if order.run is not None:
            self._close(term, command, order, cursor)
        else:
            term.write(Write(CommandProgress(id=command.id, cursor=_text(cursor))))

    def _close(
        self,
        term: Term,
        command: CommandRequest,
        order: DeletionOrder | None,
        cursor: Cursor,
        error: str | None = None,
    ) -> None:
        term.write(*(Write(row) for row in self._ending(command, order, cursor, error)))

    def _ending(
        self, command: CommandRequest, order: DeletionOrder | None, cursor: Cursor, error: str | None = None
    ) -> tuple[CommandProgress | RequestDone | EventRow, ...]:
        detail: dict[str, object] = {"command": command.id, "asked": msgspec.Raw(command.payload.encode())}
        detail |= {"runs": cursor.runs, "tasks": cursor.tasks}
        if error is not None:
            detail["error"] = error
        run = RunKey(order.run) if order is not None and order.run is not None else None
        dag_id = cursor.dag_id
        if order is not None and order.runs is not None:
            dag_id = order.runs.dag_id
        elif order is not None and order.dag_id is not None:
            dag_id = order.dag_id
        return (
            CommandProgress(id=command.id, cursor=_text(cursor)),
            RequestDone(table="command", id=command.id, run=run, error=error),
            EventRow(
                at=self._clock.now(),
                actor=command.actor,
                action="delete_dag" if command.kind == DELETE_DAG else "delete",
                dag_id=dag_id,
                run=run,
                detail=msgspec.json.encode(detail).decode(),
            ),
        )


def read_cursor(text: str | None) -> Cursor:
    """What the row of the command says."""
    return msgspec.json.decode(text, type=Cursor) if text is not None else Cursor()


def _text(cursor: Cursor) -> str:
    return msgspec.json.encode(cursor).decode()


def in_full(error: UserError) -> str:
    """What is wrong and the way out, as one text: a row has room for one."""
    return error.message if error.hint is None else f"{error.message}. {error.hint}"


def _tell(cursor: Cursor, problem: str) -> None:
    if len(cursor.refused) < MOST_TOLD:
        cursor.refused.append(problem)
