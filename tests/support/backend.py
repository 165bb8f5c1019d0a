"""A backend in memory for the API and the CLI: a real class with a few runs, and the real server on a unix socket.

It holds what a daemon would have committed, and publishes the effects that a daemon would release.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

import anyio

from tests.support.builders import decode_spec, encode_spec, make_dag
from tickless.api.app import create_app
from tickless.api.base import Altered, Preview, Reason, Status
from tickless.api.server import ApiServer
from tickless.api.watch import RunWatch
from tickless.clock import SystemClock
from tickless.core.commands import ControlBackfill, CreateBackfill, RunStarted, StartRun
from tickless.core.decision import AttemptEnded, Launch, RunChanged
from tickless.daemon.secrets import Secrets
from tickless.errors import NotFound, Refused, Unavailable, UserError
from tickless.logs.files import LogFiles
from tickless.model.backfill import BackfillKey, SlotPlan
from tickless.model.id import UNMAPPED, AttemptId, Epoch, RunKey, TaskId, TaskKey, VersionKey
from tickless.model.layout import Layout, lay_out
from tickless.model.row import AttemptRow, EventRow, InstanceRow, NoteRow, RunRow, VersionRow
from tickless.model.schedule import ScheduleRules, ScheduleSpec, Slot
from tickless.model.setting import ConnectionRow, VariableRow
from tickless.model.state import FINISHED_RUN_STATES, AttemptState, EndReason, RunState, TaskState
from tickless.schedule.timetable import upcoming
from tickless.store.memory import MemoryStore
from tickless.store.pool import ReadPool
from tickless.store.reader import (
    BackfillInfo,
    DagInfo,
    EventInfo,
    EventQuery,
    ImportErrorInfo,
    InstanceInfo,
    PoolInfo,
    Reader,
    RunInfo,
)
from tickless.store.vault import Vault

T = TypeVar("T")
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class FakeReader(Reader):
    """The reader's answers, from dicts."""

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.schedules: dict[str, ScheduleSpec] = {}
        super().__init__(ReadPool("postgresql://nowhere/"))
        self.dag_ids = ["etl", "fan"]
        self.run_rows: dict[int, RunRow] = {}
        self.instance_rows: dict[TaskKey, InstanceRow] = {}
        self.attempt_rows: dict[int, AttemptRow] = {}
        self.note_rows: dict[TaskKey, NoteRow] = {}
        self.pool_sizes = {"default_pool": 128}
        self.settings = MemoryStore()
        self.problems: list[ImportErrorInfo] = []
        self.audit: list[EventInfo] = []

    async def dags(
        self, *, after: str | None = None, limit: int = 100, include_vanished: bool = False
    ) -> list[DagInfo]:
        found = [await self.dag(dag_id) for dag_id in sorted(self.dag_ids) if after is None or dag_id > after]
        return [dag for dag in found if dag is not None][:limit]

    async def dag(self, dag_id: str) -> DagInfo | None:
        if dag_id not in self.dag_ids:
            return None
        runs = await self.runs(dag_id=dag_id)
        return DagInfo(
            dag_id=dag_id,
            version=VersionKey(1),
            version_number=1,
            hash="0" * 64,
            file=f"{dag_id}.py",
            bundle="/bundle",
            changed_at=START,
            import_error=None,
            live_runs=sum(run.row.state not in FINISHED_RUN_STATES for run in runs),
            is_paused=dag_id in self.paused,
            schedule=self.schedules.get(dag_id),
            last_interval=None,
            scheduled_since=None,
            last_run=runs[0] if runs else None,
        )

    async def current_version(self, dag_id: str) -> VersionRow | None:
        spec = encode_spec(make_dag("extract >> [left, right] >> load", dag_id=dag_id))
        return VersionRow(
            key=VersionKey(1),
            dag_id=dag_id,
            number=1,
            spec=spec,
            hash="0" * 64,
            bundle="/bundle",
            file=f"{dag_id}.py",
            created_at=START,
        )

    async def events(
        self, choice: EventQuery | None = None, *, before: int | None = None, limit: int = 50
    ) -> list[EventInfo]:
        asked = choice or EventQuery()
        fitting = [
            each
            for each in reversed(self.audit)
            if asked.run in (None, each.row.run) and asked.action in (None, each.row.action)
        ]
        return fitting[:limit]

    async def import_errors(self, *, limit: int = 100) -> list[ImportErrorInfo]:
        return self.problems[:limit]

    async def runs(
        self,
        *,
        dag_id: str | None = None,
        states: Sequence[RunState] = (),
        before: RunKey | None = None,
        limit: int = 50,
        backfill: int | None = None,
    ) -> list[RunInfo]:
        rows = [
            row
            for key, row in sorted(self.run_rows.items(), reverse=True)
            if dag_id in (None, row.dag_id)
            and backfill in (None, row.backfill)
            and (not states or row.state in states)
            and (before is None or key < before)
        ]
        return [RunInfo(row=row, version_number=1) for row in rows[:limit]]

    async def backfills(
        self, *, dag_id: str | None = None, is_open: bool = False, before: int | None = None, limit: int = 50
    ) -> list[BackfillInfo]:
        return []

    async def backfill(self, key: int) -> BackfillInfo | None:
        return None

    async def run(self, key: RunKey) -> RunInfo | None:
        row = self.run_rows.get(key)
        return None if row is None else RunInfo(row=row, version_number=1)

    async def run_by_id(self, dag_id: str, run_id: str) -> RunInfo | None:
        for info in await self.runs(dag_id=dag_id):
            if info.row.run_id == run_id:
                return info
        return None

    async def instance_counts(self, runs: Sequence[RunKey]) -> dict[RunKey, dict[TaskState, int]]:
        return {
            run: dict(Counter(row.state for key, row in self.instance_rows.items() if key.run == run)) for run in runs
        }

    async def notes(self, runs: Sequence[RunKey], *, only_of_runs: bool = False) -> list[NoteRow]:
        return [
            row
            for key, row in sorted(self.note_rows.items())
            if key.run in runs and row.text is not None and (not only_of_runs or not key.task_id)
        ]

    async def instances(
        self,
        run: RunKey,
        *,
        states: Sequence[TaskState] = (),
        after: tuple[str, int] | None = None,
        limit: int = 500,
    ) -> list[InstanceInfo]:
        keys = sorted(key for key in self.instance_rows if key.run == run and (after is None or key[1:] > after))
        found = [await self.instance(key) for key in keys]
        return [info for info in found if info is not None and (not states or info.row.state in states)][:limit]

    async def instance(self, key: TaskKey) -> InstanceInfo | None:
        row = self.instance_rows.get(key)
        if row is None:
            return None
        run = self.run_rows[key.run]
        return InstanceInfo(
            dag_id=run.dag_id, run_id=run.run_id, row=row, attempt=self.attempt_rows.get(row.attempt_id)
        )

    async def attempts(self, key: TaskKey, *, before: AttemptId | None = None, limit: int = 50) -> list[AttemptRow]:
        return [row for _, row in sorted(self.attempt_rows.items(), reverse=True) if row.key == key][:limit]

    async def attempt(self, attempt_id: AttemptId) -> AttemptRow | None:
        return self.attempt_rows.get(attempt_id)

    async def variables(self, *, after: str | None = None, limit: int = 100) -> list[VariableRow]:
        rows = [row for key, row in sorted(self.settings.variables.items()) if after is None or key > after]
        return rows[:limit]

    async def connections(self, *, after: str | None = None, limit: int = 100) -> list[ConnectionRow]:
        rows = [row for key, row in sorted(self.settings.connections.items()) if after is None or key > after]
        return rows[:limit]

    async def pools(self) -> list[PoolInfo]:
        return [PoolInfo(name=name, slots=slots, queued=0, running=0) for name, slots in self.pool_sizes.items()]


class FakeBackend:
    """Implements `api.base.Backend`. `start_run` makes a running run with the task `work`."""

    def __init__(self, home: Path) -> None:
        self.altered: list[tuple[str, str, str]] = []
        self.home = home
        self.reader = FakeReader()
        self.logs = LogFiles(home / "logs")
        self.secrets = Secrets(
            store=self.reader.settings,
            reader=self.reader,
            vault=Vault(home),
            clock=SystemClock(),
            epoch=self._epoch,
            on_lost=lambda error: None,
        )
        self.watch = RunWatch()
        self.keys: dict[str, RunStarted] = {}
        self.reasons: list[Reason] = []
        self.stopped: list[bool] = []
        self.is_away = False
        """True: everything that decides raises Unavailable."""
        self.is_ready = True
        (home / "logs").mkdir(parents=True, exist_ok=True)

    async def start_run(self, command: StartRun) -> RunStarted:
        self._check()
        if command.dag_id not in self.reader.dag_ids:
            raise NotFound(f"there is no DAG {command.dag_id!r}", hint="`tickless dag list` shows the DAGs.")
        if command.idempotency_key in self.keys:
            return replace(self.keys[command.idempotency_key], is_new=False)
        run_id = command.run_id or f"manual__{len(self.reader.run_rows) + 1}"
        if await self.reader.run_by_id(command.dag_id, run_id):
            raise Refused(f"DAG {command.dag_id!r} has a run {run_id!r} already")
        key = RunKey(len(self.reader.run_rows) + 1)
        self.reader.run_rows[key] = RunRow(
            key=key,
            dag_id=command.dag_id,
            run_id=run_id,
            version=VersionKey(1),
            state=RunState.RUNNING,
            run_type="manual",
            conf=command.conf,
            logical_date=command.logical_date,
            queued_at=START,
            started_at=START,
        )
        self.add_task(key, "work")
        started = RunStarted(run=key, run_id=run_id, is_new=True)
        if command.idempotency_key:
            self.keys[command.idempotency_key] = started
        return started

    def _epoch(self) -> Epoch:
        self._check()
        return self.reader.settings.epoch

    async def cancel_run(self, run: RunKey, actor: str) -> None:
        self._check()
        row = self.reader.run_rows[run]
        if row.state in FINISHED_RUN_STATES:
            raise Refused(f"run {run} is finished: {row.state}")
        self.reader.run_rows[run] = replace(row, cancel_requested_at=START)
        event = EventRow(at=START, actor=actor, action="cancel", dag_id=row.dag_id, run=run)
        self.reader.audit.append(EventInfo(id=len(self.reader.audit) + 1, row=event))

    async def pause_dag(self, dag_id: str, *, is_paused: bool, actor: str) -> None:
        self._check()
        if dag_id not in self.reader.dag_ids:
            raise NotFound(f"there is no DAG {dag_id!r}")
        (self.reader.paused.add if is_paused else self.reader.paused.discard)(dag_id)

    async def create_backfill(self, command: CreateBackfill) -> BackfillKey:
        self._check()
        raise UserError(f"DAG {command.dag_id!r} has no schedule, so it has no slots to run")

    async def preview_backfill(self, command: CreateBackfill, after: datetime | None, limit: int) -> Sequence[SlotPlan]:
        self._check()
        raise UserError(f"DAG {command.dag_id!r} has no schedule, so it has no slots to run")

    async def control_backfill(self, command: ControlBackfill) -> None:
        self._check()
        raise NotFound(f"there is no backfill {command.backfill}")

    def explain_backfill(self, key: BackfillKey) -> str | None:
        return None

    def upcoming(self, dag: DagInfo, count: int) -> Sequence[Slot]:
        if dag.schedule is None:
            return []
        return list(islice(upcoming(dag.schedule, ScheduleRules(), dag.last_interval, START), count))

    def explain_schedule(self, dag_id: str) -> Sequence[Reason]:
        self._check()
        return [Reason(code="paused", message=f"DAG {dag_id!r} is paused.")] if dag_id in self.reader.paused else []

    async def alter(self, kind: str, payload: str, actor: str) -> Altered:
        self._check()
        self.altered.append((kind, payload, actor))
        return Altered(tasks=1, runs=1)

    async def preview(self, kind: str, payload: str) -> Preview:
        return Preview(tasks=1, runs=1, first=tuple(self.reader.instance_rows.values())[:1])

    async def set_note(self, key: TaskKey, text: str | None, actor: str) -> None:
        self._check()
        self.reader.note_rows[key] = NoteRow(
            run=key.run, task_id=key.task_id, map_index=key.map_index, text=text, author=actor, changed_at=START
        )

    async def set_pool(self, name: str, slots: int, actor: str) -> None:
        self._check()
        self.reader.pool_sizes[name] = slots

    async def explain(self, run: RunKey, task_id: str | None, map_index: int) -> Sequence[Reason]:
        self._check()
        if task_id is not None and TaskKey(run, TaskId(task_id), map_index) not in self.reader.instance_rows:
            raise NotFound(f"run {run} has no task {task_id!r}")
        return [reason for reason in self.reasons if task_id in (None, reason.task_id)]

    async def layout(self, version: VersionRow) -> Layout:
        return lay_out(decode_spec(version.spec))

    def status(self) -> Status:
        return Status(
            state="leader" if self.is_ready else "recovering",
            is_ready=self.is_ready,
            version="0",
            pid=os.getpid(),
            host="here",
            home=str(self.home),
            started_at=START,
            mode="dev",
            runs={"running": len(self.reader.run_rows)},
        )

    def database_url(self) -> str:
        return "postgresql://tickless:secret@127.0.0.1:1/tickless"

    async def stop(self, *, kill_tasks: bool, actor: str) -> None:
        self.stopped.append(kill_tasks)

    # What a test makes happen, in the server's loop.

    def add_task(self, run: RunKey, task_id: str, state: TaskState = TaskState.SCHEDULED) -> TaskKey:
        key = TaskKey(run, TaskId(task_id), UNMAPPED)
        self.reader.instance_rows[key] = InstanceRow(run=run, task_id=key.task_id, map_index=UNMAPPED, state=state)
        return key

    def begin_attempt(self, key: TaskKey) -> AttemptRow:
        number = AttemptId(len(self.reader.attempt_rows) + 1)
        row = AttemptRow(
            attempt_id=number,
            run=key.run,
            task_id=key.task_id,
            map_index=key.map_index,
            try_number=self.reader.instance_rows[key].try_number + 1,
            state=AttemptState.RUNNING,
            executor="local",
            queue="default",
            pool="default_pool",
            pool_slots=1,
            queued_at=START,
            started_at=START,
            log_path=f"etl/{key.run}/{key.task_id}/{number}.log",
        )
        self.reader.attempt_rows[number] = row
        self._set(key, TaskState.RUNNING, try_number=row.try_number, attempt_id=number, started_at=START)
        self.watch.publish(Launch(attempt_id=number, key=key, executor="local", try_number=row.try_number))
        return row

    def end_attempt(self, key: TaskKey, state: AttemptState = AttemptState.SUCCESS, error: str | None = None) -> None:
        instance = self.reader.instance_rows[key]
        ended_at = START + timedelta(seconds=2)
        reason = EndReason.EXITED if error is None else EndReason.RAISED
        row = replace(
            self.reader.attempt_rows[instance.attempt_id], state=state, ended_at=ended_at, reason=reason, error=error
        )
        self.reader.attempt_rows[row.attempt_id] = row
        self._set(key, TaskState(state.value), ended_at=ended_at, reason=reason)
        run = self.reader.run_rows[key.run]
        self.watch.publish(
            AttemptEnded(
                attempt=row, dag_id=run.dag_id, run_id=run.run_id, task_state=TaskState(state.value), due_at=None
            )
        )

    def end_run(self, run: RunKey, state: RunState = RunState.SUCCESS, *, is_told: bool = True) -> None:
        row = replace(self.reader.run_rows[run], state=state, ended_at=START + timedelta(seconds=3))
        self.reader.run_rows[run] = row
        if is_told:
            self.watch.publish(RunChanged(run=run, dag_id=row.dag_id, run_id=row.run_id, state=state, seconds=3.0))

    def _set(self, key: TaskKey, state: TaskState, **changes: object) -> None:
        self.reader.instance_rows[key] = replace(self.reader.instance_rows[key], state=state, **changes)  # type: ignore[arg-type]  # names of fields

    def _check(self) -> None:
        if self.is_away:
            raise Unavailable("the scheduler is reading its state from Postgres", hint="Try again in a moment.")


class Served:
    """The backend behind the real server, in a loop of its own thread."""

    def __init__(self, backend: FakeBackend, socket: Path) -> None:
        self.backend = backend
        self.socket = socket
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_up = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve; returns when the socket takes connections."""
        self._is_up.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._is_up.wait(10)

    def stop(self) -> None:
        """Stop serving, as a daemon does at its end."""
        if self._thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
            assert not self._thread.is_alive()
            self._thread = None

    def do(self, action: Callable[[], T]) -> T:
        """Run something in the server's loop, and wait for it."""
        assert self._loop is not None

        async def act() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    def has_watchers(self) -> bool:
        """Whether somebody waits for news of a run."""
        return self.do(lambda: bool(self.backend.watch._watchers))

    def timers(self) -> int:
        """Timers in the server's loop that will ring (anyio.sleep_forever is one at infinity)."""
        assert self._loop is not None
        armed = self._loop._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
        return len([handle for handle in armed if not handle.cancelled() and handle.when() < float("inf")])

    def context_switches(self) -> int:
        """How often the server's thread has gone to sleep."""
        assert self._thread is not None
        status = Path(f"/proc/self/task/{self._thread.native_id}/status").read_text()
        return int(status.partition("voluntary_ctxt_switches:")[2].split()[0])

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with anyio.create_task_group() as tasks:
            await tasks.start(ApiServer(create_app(self.backend), self.socket).run)
            self._is_up.set()
            await self._stop.wait()
            tasks.cancel_scope.cancel()


@contextmanager
def served(home: Path) -> Iterator[Served]:
    """A fake daemon on HOME/api.sock."""
    it = Served(FakeBackend(home), home / "api.sock")
    it.start()
    try:
        yield it
    finally:
        it.stop()
