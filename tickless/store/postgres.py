"""The store on Postgres.

**One writer.** Everything that a leader writes goes through one connection, one statement at a time, in autocommit: a
flush costs one round trip and one commit. What it does is in migrations/r_flush.sql. `take_epoch` opens that
connection; after anything that leaves an outcome open it is thrown away, and writing is over until the next epoch.

**Fencing.** Each write checks the epoch and holds the shard's row FOR SHARE until it commits; `take_epoch` updates that
row. So when it returns, every older write has either committed or will be refused. An old writer that does not come
to its end within `lock_timeout` (its host is gone, its disk is stuck) is terminated by its recorded backend.

**Foreign locks.** Rows of requests are anybody's: one that somebody's open transaction holds is left alone until it is
free (`is_locked`). Nobody else should lock other rows of ours, but an operator can. A write that waits for a lock gives
up after `lock_timeout`, tries once more while we look who is in the way, and then raises Unavailable with the name.

Reading uses other connections (`read()`), so a large load does not hold up a flush, nor a slow query of the API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import asyncpg
import msgspec

from tickless import failpoint
from tickless.core.decision import Write
from tickless.core.snapshot import Snapshot
from tickless.errors import Conflict, TicklessError, Unavailable
from tickless.model.backfill import SlotRun
from tickless.model.id import AttemptId, Epoch, RunKey
from tickless.model.row import EventRow, InstanceRow, NoteRow
from tickless.model.setting import ConnectionRow, SettingRow, VariableRow
from tickless.model.state import TaskState
from tickless.store.base import (
    XCOM_PAGE,
    CommandOutcome,
    CommandRequest,
    CommittedRun,
    ImportProblem,
    PreviousRun,
    PulledXCom,
    QuarantinedEvent,
    Remains,
    RunQuery,
    TriggerRequest,
)
from tickless.store.batch import Batch
from tickless.store.connect import DRIVER_ERRORS, Connection, connect, map_error
from tickless.store.loading import read_snapshot
from tickless.store.pool import SEARCH_PATH, ReadPool
from tickless.store.rows import instance_row, map_row, note_row, run_row, tally_row, version_row
from tickless.store.setting import connection_row, encode_settings, too_much, variable_row
from tickless.store.sql import query
from tickless.store.storable import make_storable

MAX_OPEN_REQUESTS = 500

_ADD_COMMAND = query("add_command")
_COMMAND_OUTCOMES = query("command_outcomes")
_RUN = query("run")
_VERSION = query("version")
_RUN_TALLIES = query("run_tallies")
_RUN_MAPS = query("run_maps")
_PREVIOUS_RUN = query("run_before")
_CHOSEN_INSTANCES = query("chosen_instances")
_NEXT_RUN = query("next_run")
_FLUSH = query("flush")
_FLUSH_WITH_REQUESTS = query("flush_with_requests")
_FLUSH_WITH_REVISION = query("flush_with_revision")
_ATTEMPTS_OF_RUN = query("attempts_of_run")
_HAS_REMAINS = query("has_remains")
_NOTES = query("notes")
_TAKE_EPOCH = query("take_epoch")
_END_RECORDED_WRITER = query("end_recorded_writer")
_BLOCKERS = query("blockers")
_QUARANTINE = query("quarantine")
_SET_IMPORT_PROBLEMS = query("set_import_problems")
_OUTPUTS = query("outputs")
_PUSHED = query("pushed")
_OPEN_REQUESTS = query("open_requests")
_FREE_ROWS = query("free_rows")
_TAKEN_NAMES = query("taken_names")
_SLOT_RUNS = query("slot_runs")
_OPEN_COMMANDS = query("open_commands")
_PULL_XCOMS = query("pull_xcoms")
_PAGE_XCOMS = query("page_xcoms")
_WRITE_SETTINGS = query("write_settings")
_VARIABLE = query("variable")
_CONNECTION = query("connection")

_OUR_CONFLICTS = {"TK001", "TK002"}

# The writer only ever reaches rows by their keys. Its plans are made once (five custom ones first would be waste) and
# often while the tables are still empty, when a scan looks cheap: without these a later backlog would be scanned.
_WRITER_SETTINGS = {
    "search_path": SEARCH_PATH,
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "60s",
}


class PostgresStore:
    """See the module's docstring, and `store.base.Store` for the port."""

    def __init__(
        self,
        dsn: str,
        *,
        shard_id: int = 1,
        lock_timeout: timedelta = timedelta(seconds=2),
        statement_timeout: timedelta = timedelta(seconds=15),
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """`on_lost` is called when the writer's connection breaks by itself: writing is over until the next epoch."""
        self._dsn = dsn
        self._on_lost = on_lost
        self._shard_id = shard_id
        self._lock_timeout = lock_timeout
        self._statement_timeout = statement_timeout
        # The server ends a statement itself; if even that is not heard, it is stopped or gone.
        self._patience = statement_timeout.total_seconds() + 5
        self._pool = ReadPool(dsn)
        self._writer: Connection | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Get ready to read. The writer's connection comes with the first epoch."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection; a write that is under way has an unknown outcome. Closing twice is fine."""
        await self._pool.close()
        self._drop_writer()

    def read(self) -> ReadPool:
        """The connections for reading, for `Reader`."""
        return self._pool

    @property
    def is_writable(self) -> bool:
        """Whether there is a connection to write with; whose epoch it is, only a write can tell."""
        return self._writer is not None and not self._writer.is_closed()

    # ---- leading --------------------------------------------------------------------------------------------------

    async def take_epoch(self, owner: str) -> Epoch:
        async with self._turn:
            failpoint.hit("store.before_epoch")
            # Always a new connection: whatever the old one was in the middle of cannot reach us any more.
            self._drop_writer()
            self._writer = await self._open_writer()
            try:
                epoch = await self._raise_epoch(owner)
            except BaseException:
                self._drop_writer()
                raise
            failpoint.hit("store.after_epoch")
            return Epoch(epoch)

    async def _raise_epoch(self, owner: str) -> int:
        try:
            return int(await self._call(_TAKE_EPOCH, self._shard_id, owner))
        except asyncpg.LockNotAvailableError:
            async with self._pool.connection() as connection:
                await connection.execute(_END_RECORDED_WRITER, self._shard_id)
            return int(await self._call_naming_blockers(_TAKE_EPOCH, self._shard_id, owner))

    async def load(self) -> Snapshot:
        async with self._pool.connection() as connection:
            return await read_snapshot(connection)

    async def flush(self, epoch: Epoch, writes: Sequence[Write]) -> None:
        batch = Batch.of(writes)
        sections = batch.encode()
        failpoint.hit("store.before_flush")
        requested = batch.encode_requested()
        revised = batch.encode_revised()
        statement = _FLUSH if requested is None else _FLUSH_WITH_REQUESTS
        if revised is not None:
            statement, requested = _FLUSH_WITH_REVISION, (*(requested or (None, None, None)), *revised)
        await self._write(statement, self._shard_id, epoch, batch.counts(), *sections, *(requested or ()))
        failpoint.hit("store.after_flush")

    async def quarantine(self, epoch: Epoch, event: QuarantinedEvent) -> int:
        return int(
            await self._write(
                _QUARANTINE,
                *(self._shard_id, epoch, event.run, event.attempt_id, make_storable(event.kind)),
                *(make_storable(event.event), make_storable(event.traceback), event.at),
            )
        )

    async def set_import_problems(self, epoch: Epoch, problems: Sequence[ImportProblem]) -> None:
        by_file = {(make_storable(each.folder), make_storable(each.file)): each for each in problems}
        text = msgspec.json.encode(
            [
                {
                    "folder": folder,
                    "file": file,
                    "line": problem.line,
                    "error": problem.error and make_storable(problem.error),
                    "traceback": problem.traceback and make_storable(problem.traceback),
                }
                for (folder, file), problem in by_file.items()
            ]
        )
        await self._write(_SET_IMPORT_PROBLEMS, self._shard_id, epoch, text.decode())

    async def write_settings(
        self,
        epoch: Epoch,
        rows: Sequence[SettingRow],
        *,
        request: tuple[AttemptId, int] | None = None,
        event: EventRow | None = None,
    ) -> bool:
        attempt_id, number = request if request is not None else (None, None)
        told = await self._write(
            *(_WRITE_SETTINGS, self._shard_id, epoch, attempt_id, number, encode_settings(rows)),
            msgspec.json.encode([event]).decode() if event is not None else None,
        )
        return bool(told == "true")

    # ---- reading --------------------------------------------------------------------------------------------------

    async def outputs(self, run: RunKey, task_ids: Sequence[str]) -> dict[str, str]:
        rows = await self._pool.fetch(_OUTPUTS, run, list(task_ids))
        return {row["task_id"]: row["value"] for row in rows}

    async def pushed(self, run: RunKey, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        rows = await self._pool.fetch(_PUSHED, run, [task_id for task_id, _ in pairs], [key for _, key in pairs])
        return {(row["task_id"], row["key"]): row["value"] for row in rows}

    async def open_requests(self) -> list[TriggerRequest]:
        rows = await self._pool.fetch(_OPEN_REQUESTS, MAX_OPEN_REQUESTS)
        free = await self._free([row["id"] for row in rows], [])
        return [TriggerRequest(**row, is_locked=f"r{row['id']}" not in free) for row in rows]

    async def taken_names(self, names: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        rows = await self._pool.fetch(_TAKEN_NAMES, [dag_id for dag_id, _ in names], [run_id for _, run_id in names])
        return {(row["dag_id"], row["run_id"]) for row in rows}

    async def slot_runs(self, dag_id: str, dates: Collection[datetime], run_ids: Collection[str]) -> list[SlotRun]:
        rows = await self._pool.fetch(_SLOT_RUNS, dag_id, list(dates), list(run_ids))
        return [SlotRun(**row) for row in rows]

    async def add_command(self, kind: str, payload: str, actor: str) -> int:
        return int(await self._write(_ADD_COMMAND, kind, payload, actor))

    async def command_outcomes(self, numbers: Sequence[int]) -> list[CommandOutcome]:
        return [CommandOutcome(**row) for row in await self._pool.fetch(_COMMAND_OUTCOMES, list(numbers))]

    async def committed_run(self, run: RunKey) -> CommittedRun | None:
        row = await self._pool.fetchrow(_RUN, run)
        if row is None:
            return None
        version = await self._pool.fetchrow(_VERSION, row["version"])
        assert version is not None
        tallies = await self._pool.fetch(_RUN_TALLIES, run)
        maps = await self._pool.fetch(_RUN_MAPS, run)
        return CommittedRun(
            row=run_row(row),
            version=version_row(version),
            tallies=tuple(tally_row(each) for each in tallies),
            maps=tuple(map_row(each) for each in maps),
        )

    async def previous_run(
        self, run: RunKey, dag_id: str, logical_date: datetime, *, only_scheduled: bool
    ) -> PreviousRun | None:
        row = await self._pool.fetchrow(_PREVIOUS_RUN, dag_id, logical_date, run, only_scheduled)
        if row is None:
            return None
        tallies = await self._pool.fetch(_RUN_TALLIES, row["key"])
        return PreviousRun(key=RunKey(row["key"]), tallies=tuple(tally_row(each) for each in tallies))

    async def chosen_instances(
        self,
        run: RunKey,
        task_ids: Sequence[str],
        states: Sequence[TaskState],
        *,
        after: tuple[int, int],
        limit: int,
        single: Mapping[str, Collection[int]] = {},
    ) -> list[InstanceRow]:
        wanted = [state.value for state in states] or None
        pairs = [(task_id, index) for task_id, indexes in single.items() for index in indexes]
        rows = await self._pool.fetch(
            _CHOSEN_INSTANCES, run, list(task_ids), *after, wanted, limit, [p[0] for p in pairs], [p[1] for p in pairs]
        )
        return [instance_row(row) for row in rows]

    async def next_run(self, query: RunQuery, after: RunKey) -> RunKey | None:
        wanted = [state.value for state in query.states] or None
        row = await self._pool.fetchrow(_NEXT_RUN, query.dag_id, after, wanted, query.since, query.until)
        return RunKey(row["key"]) if row is not None else None

    async def remains(self, run: RunKey, limit: int) -> Remains:
        attempts = await self._pool.fetch(_ATTEMPTS_OF_RUN, run, limit)
        more = await self._pool.fetchrow(_HAS_REMAINS, run)
        return Remains(
            attempts=tuple((AttemptId(row["attempt_id"]), row["log_path"]) for row in attempts),
            has_more=more is not None and more["has_remains"],
        )

    async def notes(self, runs: Sequence[RunKey], *, only_of_runs: bool = False) -> list[NoteRow]:
        return [note_row(row) for row in await self._pool.fetch(_NOTES, list(runs), only_of_runs)]

    async def open_commands(self) -> list[CommandRequest]:
        rows = await self._pool.fetch(_OPEN_COMMANDS, MAX_OPEN_REQUESTS)
        free = await self._free([], [row["id"] for row in rows])
        return [CommandRequest(**row, is_locked=f"c{row['id']}" not in free) for row in rows]

    async def _free(self, requests: list[int], commands: list[int]) -> set[str]:
        """Those that nobody else has locked. Asked by the writer: its own flush is never in the way."""
        if not requests and not commands:
            return set()
        if self._writer is None:  # nobody leads, nobody will write
            return {*(f"r{number}" for number in requests), *(f"c{number}" for number in commands)}
        return set(await self._write(_FREE_ROWS, requests, commands))

    async def pull_xcoms(
        self,
        run: RunKey,
        key: str,
        *,
        task_ids: Sequence[str] | None = None,
        map_indexes: Sequence[int] | None = None,
        most_bytes: int,
    ) -> list[PulledXCom]:
        rows = await self._pool.fetch(_PULL_XCOMS, run, key, task_ids, map_indexes, most_bytes)
        if rows and rows[0]["bytes"] > most_bytes:
            raise too_much(len(rows), rows[0]["bytes"], most_bytes)
        return [PulledXCom(task_id=row["task_id"], map_index=row["map_index"], value=row["value"]) for row in rows]

    async def page_xcoms(self, run: RunKey, key: str, task_id: str, *, after: int, most_bytes: int) -> list[PulledXCom]:
        rows = await self._pool.fetch(_PAGE_XCOMS, run, key, task_id, after, most_bytes, XCOM_PAGE)
        return [PulledXCom(task_id=row["task_id"], map_index=row["map_index"], value=row["value"]) for row in rows]

    async def variable(self, key: str) -> VariableRow | None:
        row = await self._pool.fetchrow(_VARIABLE, key)
        return variable_row(row) if row is not None else None

    async def connection(self, conn_id: str) -> ConnectionRow | None:
        row = await self._pool.fetchrow(_CONNECTION, conn_id)
        return connection_row(row) if row is not None else None

    # ---- the writer -----------------------------------------------------------------------------------------------

    async def _write(self, statement: str, *arguments: Any) -> Any:
        async with self._turn:
            try:
                return await self._call(statement, *arguments)
            except asyncpg.LockNotAvailableError:
                return await self._call_naming_blockers(statement, *arguments)

    async def _call(self, statement: str, *arguments: Any) -> Any:
        """One statement on the writer. Raises ours, but LockNotAvailableError for the caller to deal with."""
        writer = self._writer
        if writer is None or writer.is_closed():
            raise Unavailable("there is no connection to write with", hint="Take a new epoch.")
        deadline = asyncio.get_running_loop().call_later(self._patience, writer.terminate)
        try:
            return await writer.fetchval(statement, *arguments)
        except asyncpg.LockNotAvailableError:
            raise  # rolled back for certain: the connection is as good as before
        except DRIVER_ERRORS as error:
            ours = self._explain(error)
            if ours is None:
                self._drop_writer()
                raise
            if isinstance(ours, Unavailable):
                self._drop_writer()  # its outcome is unknown
            raise ours from error
        except BaseException:
            self._drop_writer()  # cancelled in the middle: unknown, too
            raise
        finally:
            deadline.cancel()

    async def _call_naming_blockers(self, statement: str, *arguments: Any) -> Any:
        """The same statement again, after it waited for a lock in vain, and meanwhile see whose lock it is."""
        writer = self._writer
        if writer is None:
            raise Unavailable("there is no connection to write with", hint="Take a new epoch.")
        backend = writer.get_server_pid()
        blockers: list[asyncpg.Record] = []

        async def look() -> None:
            await anyio.sleep(self._lock_timeout.total_seconds() / 4)
            try:
                blockers.extend(await self._pool.fetch(_BLOCKERS, backend))
            except TicklessError:
                pass  # then the message is the poorer

        failure: Exception
        async with anyio.create_task_group() as group:
            group.start_soon(look)
            try:
                return await self._call(statement, *arguments)
            except Exception as error:
                failure = error  # outside of the group: it would wrap it
            finally:
                group.cancel_scope.cancel()
        if not isinstance(failure, asyncpg.LockNotAvailableError):
            raise failure
        raise _blocked(blockers, self._lock_timeout) from failure

    async def _open_writer(self) -> Connection:
        writer = await connect(
            self._dsn,
            application_name="tickless writer",
            statement_timeout=self._statement_timeout,
            lock_timeout=self._lock_timeout,
            settings=_WRITER_SETTINGS,
        )
        writer.add_termination_listener(self._hear_end)
        return writer

    def _drop_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.terminate()  # close() would wait for a server that may not answer

    def _hear_end(self, connection: object) -> None:
        """Called by the driver in the loop; of a writer that we dropped ourselves we know."""
        if connection is self._writer and self._on_lost is not None:
            self._on_lost()

    def _explain(self, error: BaseException) -> TicklessError | None:
        if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _OUR_CONFLICTS:
            return Conflict(str(error))
        return map_error(error)


def _blocked(blockers: Sequence[asyncpg.Record], waited: timedelta) -> Unavailable:
    message = f"a write waited {2 * waited.total_seconds():g} s for a lock and gave up"
    if not blockers:
        return Unavailable(f"{message}; who held it was not to be seen")
    who = "; ".join(
        f"backend {row['pid']} (user {row['usename']}, {row['application_name'] or 'no application name'}, "
        f"{row['state'] or 'state hidden'}, transaction open for {row['open_seconds'] or 0:.0f} s: {row['query']})"
        for row in blockers
    )
    return Unavailable(
        f"{message}; it is held by {who}",
        hint=f"Let it commit or roll back, or end it: SELECT pg_terminate_backend({blockers[0]['pid']});",
    )
