"""Commands that need rows, or more than one commit: clear, mark and delete, of one run or of all that fit a filter.

Each is a row of `command`, whoever asks: SQL writes it, and so does the API, which then waits for its end. It is
worked off in slices: read how far it has come and the rows that are next, let the engine decide about them, and
commit the new cursor together with what was decided. Nothing of it is kept in RAM, so a daemon that is killed in the
middle leaves a row from which the next one goes on, exactly where it was. Every open command has one slice per round.

Tasks come upstream first: a task that is cleared finds what is above it cleared already, and waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import msgspec

from tickless import failpoint
from tickless.api.base import Altered, Preview
from tickless.clock import Clock
from tickless.core.choice import XCOM_CHOICE_KEY
from tickless.core.commands import AlterTasks, BranchChoice, FinishedRun, TaskVerb
from tickless.core.decision import Write
from tickless.core.revision import RowsBehind
from tickless.daemon.choice import ALTERATIONS, AT_THE_DESK, DELETIONS, RUN_VERDICTS, Alteration, Phase, read_alteration, read_deletion
from tickless.daemon.deletion import Deletions
from tickless.daemon.runmark import RunMarks, read_run_mark
from tickless.daemon.term import Term
from tickless.errors import NotFound, Refused, TicklessError, UserError
from tickless.logs.base import LogStore
from tickless.model.dag import DagSpec
from tickless.model.id import RunKey
from tickless.model.row import CommandProgress, EventRow, InstanceRow, RequestDone
from tickless.model.state import FINISHED_RUN_STATES
from tickless.store.base import CommandRequest, CommittedRun, Store

SLICE = 200
"""Task instances per commit."""
LOCKED_LOOK_SECONDS = 1.0
"""How often a request is looked at whose row somebody's open transaction holds. Nobody hints at its end."""
MOST_CHOICE_BYTES = 16 * 1024 * 1024
"""Of all choices of branches of a run. Each names the tasks below it at most."""
MOST_SHOWN = 100
"""Task instances that a preview names."""


class Cursor(msgspec.Struct, omit_defaults=True):
    """How far a command has come, and what it has done so far."""

    run: int = 0
    """By filter: the last run that is dealt with."""
    phase: int = 0
    place: int = -1
    map_index: int = -1
    """The last instance that is dealt with: its task's place among those that were chosen."""
    tasks: int = 0
    runs: int = 0
    refused: list[str] = []
    """By filter: runs that could not be changed, with why; the first ones of them."""


class RevisionDesk:
    """Works off the commands of its kinds, one term after the other; callers of `ask` wait here meanwhile."""

    def __init__(
        self, *, store: Store, clock: Clock, decode_spec: Callable[[str], DagSpec], logs: LogStore | None = None
    ) -> None:
        self.deletions = Deletions(store=store, clock=clock, logs=logs)
        self._run_marks = RunMarks(store=store, clock=clock)
        self._store = store
        self._clock = clock
        self._decode_spec = decode_spec
        self._dirty = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[Altered]] = {}

    def look(self) -> None:
        """There may be new commands."""
        self._dirty.set()

    async def ask(self, kind: str, payload: str, actor: str) -> Altered:
        """Commit a command, and wait until it is carried out. Raises what refuses it."""
        _check(kind, payload)  # else it need not be written
        if kind in ALTERATIONS and (order := read_alteration(kind, payload)).run is not None and order.tasks:
            order.phases(self._decode_spec((await self._committed(RunKey(order.run))).version.spec))
        number = await self._store.add_command(kind, payload, actor)
        future: asyncio.Future[Altered] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._dirty.set()
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    async def preview(self, kind: str, payload: str) -> Preview:
        """What would be changed now, as committed."""
        if kind in DELETIONS:
            tasks, runs = await self.deletions.count(read_deletion(kind, payload))
            return Preview(tasks=tasks, runs=runs, first=())
        if kind in RUN_VERDICTS:
            return Preview(tasks=0, runs=await self._run_marks.count(read_run_mark(kind, payload)), first=())
        order = read_alteration(kind, payload)
        cursor = Cursor()
        tasks = runs = 0
        first: list[InstanceRow] = []
        while (run := await self._run_of(order, cursor)) is not None:
            committed = await self._committed(run)
            for phase in order.phases(self._decode_spec(committed.version.spec)):
                after = (-1, -1)
                while rows := await self._store.chosen_instances(
                    run, phase.task_ids, phase.states, single=phase.single, after=after, limit=SLICE
                ):
                    after = (phase.task_ids.index(rows[-1].task_id), rows[-1].map_index)
                    changed = [row for row in rows if phase.changes(row)]
                    tasks += len(changed)
                    first += changed[: MOST_SHOWN - len(first)]
            runs += 1
            if order.run is not None:
                break
            _next(cursor, run)
        return Preview(tasks=tasks, runs=runs, first=tuple(first))

    async def serve(self, term: Term) -> None:
        """Until the term ends."""
        while True:
            self._dirty.clear()  # before the read: a hint during it is remembered
            found = [each for each in await self._store.open_commands() if each.kind in AT_THE_DESK]
            await self._answer({each.id for each in found})
            has_locked = any(each.is_locked for each in found)
            found = [each for each in found if not each.is_locked]
            for command in found:
                if command.kind in DELETIONS:
                    await self.deletions.advance(term, command)
                elif command.kind in RUN_VERDICTS:
                    await self._run_marks.advance(term, command)
                else:
                    await self._advance(term, command)
            await term.drain()
            if found:
                failpoint.hit("daemon.after_slice")
            else:
                with anyio.move_on_after(LOCKED_LOOK_SECONDS if has_locked else float("inf")):
                    await self._dirty.wait()

    async def _answer(self, still_open: set[int]) -> None:
        """Those whose command is closed, in whichever term that was."""
        numbers = [number for number in self._waiting if number not in still_open]
        if not numbers:
            return
        for outcome in await self._store.command_outcomes(numbers):
            future = self._waiting.get(outcome.id)
            if future is None or future.done():
                continue
            if outcome.error is not None:
                future.set_exception(Refused(outcome.error))
            else:
                cursor = _cursor(outcome.cursor)
                future.set_result(Altered(tasks=cursor.tasks, runs=cursor.runs, refused=tuple(cursor.refused)))

    async def _advance(self, term: Term, command: CommandRequest) -> None:
        """One slice of one command."""
        cursor = _cursor(command.cursor)
        try:
            order = read_alteration(command.kind, command.payload)
            run = await self._run_of(order, cursor)
            if run is None:
                self._close(term, command, order, cursor)
                return
            try:
                await self._slice(term, command, order, cursor, run)
            except UserError as refused:
                if order.run is not None:
                    raise
                if len(cursor.refused) < 20:
                    cursor.refused.append(f"run {run}: {refused.message}")
                _next(cursor, run)
                term.write(Write(CommandProgress(id=command.id, cursor=_text(cursor))))
        except UserError as refused:
            self._close(term, command, None, cursor, refused.message)

    async def _run_of(self, order: Alteration, cursor: Cursor) -> RunKey | None:
        """The run that is next."""
        if order.runs is None:
            assert order.run is not None
            return RunKey(order.run)
        return await self._store.next_run(order.runs.query(), RunKey(cursor.run))

    async def _committed(self, run: RunKey) -> CommittedRun:
        found = await self._store.committed_run(run)
        if found is None:
            raise NotFound(f"there is no run {run}", hint="`tickless run list` shows the latest.")
        return found

    async def _slice(self, term: Term, command: CommandRequest, order: Alteration, cursor: Cursor, run: RunKey) -> None:
        while True:
            await term.drain()
            committed = await self._committed(run)
            spec = self._decode_spec(committed.version.spec)
            phases = order.phases(spec)
            phase = phases[cursor.phase]
            rows = await self._store.chosen_instances(
                run, phase.task_ids, phase.states, single=phase.single, after=(cursor.place, cursor.map_index), limit=SLICE
            )
            after = msgspec.structs.replace(cursor, tasks=cursor.tasks + sum(phase.changes(row) for row in rows))
            is_last = len(rows) < SLICE and cursor.phase + 1 == len(phases)
            if len(rows) == SLICE:
                after.place, after.map_index = phase.task_ids.index(rows[-1].task_id), rows[-1].map_index
            elif not is_last:
                after.phase, after.place, after.map_index = cursor.phase + 1, -1, -1
            else:
                after.runs += 1
                if order.run is None:
                    _next(after, run)
            along: list[CommandProgress | RequestDone | EventRow] = [
                CommandProgress(id=command.id, cursor=_text(after))
            ]
            if is_last and order.run is not None:
                along += self._ending(command, after, run, committed.row.dag_id, None)
            try:
                term.offer(
                    AlterTasks(
                        verb=phase.verb,
                        run=run,
                        rows=tuple(rows),
                        finished_run=_finished(committed),
                        choices=await self._choices(run) if phase.verb is TaskVerb.CLEAR else (),
                        along=tuple(along),
                    )
                )
                return
            except RowsBehind:
                continue  # what was decided meanwhile is committed in a moment

    async def _choices(self, run: RunKey) -> tuple[BranchChoice, ...]:
        """What the branches of a run have chosen, as committed."""
        found = await self._store.pull_xcoms(run, XCOM_CHOICE_KEY, most_bytes=MOST_CHOICE_BYTES)
        return tuple(BranchChoice(task_id=each.task_id, map_index=each.map_index, value=each.value) for each in found)

    def _close(
        self, term: Term, command: CommandRequest, order: Alteration | None, cursor: Cursor, error: str | None = None
    ) -> None:
        dag_id = order.runs.dag_id if order is not None and order.runs is not None else None
        run = RunKey(order.run) if order is not None and order.run is not None else None
        for row in self._ending(command, cursor, run, dag_id, error):
            term.write(Write(row))

    def _ending(
        self, command: CommandRequest, cursor: Cursor, run: RunKey | None, dag_id: str | None, error: str | None
    ) -> list[CommandProgress | RequestDone | EventRow]:
        detail = {"command": command.id, "asked": msgspec.Raw(command.payload.encode()), "tasks": cursor.tasks}
        if error is not None:
            detail["error"] = error
        return [
            RequestDone(table="command", id=command.id, run=run, error=error),
            EventRow(
                at=self._clock.now(),
                actor=command.actor,
                action=command.kind,
                dag_id=dag_id,
                run=run,
                detail=msgspec.json.encode(detail).decode(),
            ),
        ]


def _finished(committed: CommittedRun) -> FinishedRun | None:
    if committed.row.state not in FINISHED_RUN_STATES:
        return None
    return FinishedRun(
        row=committed.row, version=committed.version, tallies=committed.tallies, maps=committed.maps
    )


def _check(kind: str, payload: str) -> None:
    """Raise UserError for a payload that nobody understands."""
    if kind in DELETIONS:
        read_deletion(kind, payload)
    elif kind in RUN_VERDICTS:
        read_run_mark(kind, payload)
    else:
        read_alteration(kind, payload)


def _cursor(text: str | None) -> Cursor:
    return msgspec.json.decode(text, type=Cursor) if text is not None else Cursor()


def _text(cursor: Cursor) -> str:
    return msgspec.json.encode(cursor).decode()


def _next(cursor: Cursor, run: RunKey) -> None:
    """This run is dealt with; the next one begins at its first task."""
    cursor.run, cursor.phase, cursor.place, cursor.map_index = run, 0, -1, -1
