"""What the API offers, on top of the scheduler. Live things are asked of the engine, finished ones of the rows."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from tickless.api.base import Altered, Preview, Reason, Status
from tickless.api.watch import RunWatch
from tickless.clock import Clock
from tickless.core.commands import (
    BackfillCreated,
    CancelRun,
    ControlBackfill,
    CreateBackfill,
    PauseDag,
    RunStarted,
    SetPool,
    StartRun,
    UnpauseDag,
)
from tickless.core.runs import run_id_taken
from tickless.core.explain import explain_backfill, explain_run, explain_schedule, explain_task
from tickless.daemon.layouts import Layouts
from tickless.core.decision import Write
from tickless.model.row import EventRow, NoteRow
from tickless.daemon.scheduler import Scheduler
from tickless.daemon.secrets import Secrets
from tickless.daemon.signals import StopKind
from tickless.errors import NotFound, Refused, Unavailable, UserError
from tickless.logs.base import LogStore
from tickless.model.backfill import BackfillKey, SlotPlan
from tickless.model.id import RunKey, TaskId, TaskKey
from tickless.model.layout import Layout
from tickless.model.row import VersionRow
from tickless.model.schedule import ScheduleRules, Slot
from tickless.schedule.timetable import upcoming
from tickless.store.reader import DagInfo, Reader


@dataclass(slots=True)
class Health:
    """What the parts of the daemon say of themselves; written by the composition root, read by `status`."""

    mode: str
    version: str
    home: Path
    started_at: datetime
    database: str = ""
    database_url: str = ""
    launcher: Callable[[], str] = lambda: ""
    import_errors: Callable[[], int] = lambda: 0
    is_leader: bool = False
    has_read_dags: bool = False
    """Every DAG file has been read once since the start, but for those that hang, and what came of it is committed."""
    is_stopping: bool = False


class DaemonBackend:
    """Implements `api.base.Backend`."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        reader: Reader,
        logs: LogStore,
        secrets: Secrets,
        watch: RunWatch,
        health: Health,
        clock: Clock,
        schedule_rules: ScheduleRules,
        stop: Callable[[StopKind], None],
    ) -> None:
        self._scheduler = scheduler
        self._reader = reader
        self._logs = logs
        self._secrets = secrets
        self._watch = watch
        self._health = health
        self._layouts = Layouts(health.home / "layouts")
        self._clock = clock
        self._schedule_rules = schedule_rules
        self._stop = stop

    @property
    def reader(self) -> Reader:
        return self._reader

    @property
    def logs(self) -> LogStore:
        return self._logs

    @property
    def secrets(self) -> Secrets:
        return self._secrets

    @property
    def watch(self) -> RunWatch:
        return self._watch

    def _check_running(self) -> None:
        if self._health.is_stopping:
            raise Unavailable("the daemon is stopping", hint="Start it again with `tickless daemon`.")

    async def start_run(self, command: StartRun) -> RunStarted:
        self._check_running()
        if command.idempotency_key is not None:
            found = await self._reader.run_by_idempotency_key(command.idempotency_key)
            if found is not None:
                return RunStarted(run=found.row.key, run_id=found.row.run_id, is_new=False)
        if command.run_id is not None:
            # The engine knows unfinished runs only; Postgres would refuse the name, at the price of a rebuild.
            other = await self._reader.run_by_id(command.dag_id, command.run_id)
            if other is not None:
                if command.idempotency_key is None or command.idempotency_key != other.row.idempotency_key:
                    raise run_id_taken(command.dag_id, command.run_id)
                return RunStarted(run=other.row.key, run_id=other.row.run_id, is_new=False)
        started = await self._scheduler.decide(command)
        assert isinstance(started, RunStarted)
        return started

    async def cancel_run(self, run: RunKey, actor: str) -> None:
        await self._scheduler.decide(CancelRun(run=run), self._event(actor, "cancel", run=run))

    async def create_backfill(self, command: CreateBackfill) -> BackfillKey:
        self._check_running()
        created = await self._scheduler.decide(command)
        assert isinstance(created, BackfillCreated)
        return created.backfill

    async def preview_backfill(self, command: CreateBackfill, after: datetime | None, limit: int) -> Sequence[SlotPlan]:
        return await self._scheduler.backfills.preview(self._scheduler.term, command, after, limit)

    async def control_backfill(self, command: ControlBackfill) -> None:
        await self._scheduler.decide(command)

    def explain_backfill(self, key: BackfillKey) -> str | None:
        return explain_backfill(self._scheduler.engine, key)

    async def alter(self, kind: str, payload: str, actor: str) -> Altered:
        self._check_running()
        return await self._scheduler.desk.ask(kind, payload, actor)

    async def preview(self, kind: str, payload: str) -> Preview:
        return await self._scheduler.desk.preview(kind, payload)

    async def set_note(self, key: TaskKey, text: str | None, actor: str) -> None:
        info = await self._reader.run(key.run)
        if info is None:
            raise NotFound(f"there is no run {key.run}", hint="`tickless run list` shows the latest.")
        now = self._clock.now()
        note = NoteRow(
            run=key.run, task_id=key.task_id, map_index=key.map_index, text=text, author=actor, changed_at=now
        )
        action = "set_note" if text is not None else "delete_note"
        event = EventRow(
            at=now,
            actor=actor,
            action=action,
            dag_id=info.row.dag_id,
            run=key.run,
            task_id=key.task_id or None,
            detail=json.dumps({"map_index": key.map_index} if key.map_index >= 0 else {}),
        )
        await self._scheduler.commit(Write(note), Write(event))

    async def set_pool(self, name: str, slots: int, actor: str) -> None:
        event = self._event(actor, "set_pool", detail={"pool": name, "slots": slots})
        await self._scheduler.decide(SetPool(name=name, slots=slots), event)

    async def pause_dag(self, dag_id: str, *, is_paused: bool, actor: str) -> None:
        event = self._event(actor, "pause" if is_paused else "unpause", dag_id=dag_id)
        await self._scheduler.decide(PauseDag(dag_id=dag_id) if is_paused else UnpauseDag(dag_id=dag_id), event)

    def _event(
        self,
        actor: str,
        action: str,
        *,
        dag_id: str | None = None,
        run: RunKey | None = None,
        detail: dict[str, str | int] | None = None,
    ) -> Write:
        """A line of the audit, for the commit of what it tells of."""
        live = self._scheduler.engine.runs.get(run) if run is not None else None
        return Write(
            EventRow(
                at=self._clock.now(),
                actor=actor,
                action=action,
                dag_id=live.row.dag_id if live is not None else dag_id,
                run=run,
                detail=json.dumps(detail or {}),
            )
        )

    async def layout(self, version: VersionRow) -> Layout:
        return await self._layouts.get(version)

    def upcoming(self, dag: DagInfo, count: int) -> Sequence[Slot]:
        if dag.schedule is None:
            return []
        slots = upcoming(dag.schedule, self._schedule_rules, dag.last_interval, self._clock.now(), dag.scheduled_since)
        try:
            return list(islice(slots, count))
        except (UserError, OverflowError):
            return []  # it cannot be read on this machine: `explain_schedule` says why

    def explain_schedule(self, dag_id: str) -> Sequence[Reason]:
        try:
            return explain_schedule(self._scheduler.engine, dag_id, self._clock.now())
        except Unavailable as error:
            return [self._undecided(error)]

    async def explain(self, run: RunKey, task_id: str | None, map_index: int) -> Sequence[Reason]:
        try:
            engine = self._scheduler.engine
        except Unavailable as error:
            return [self._undecided(error)]
        now = self._clock.now()
        live = engine.runs.get(run)
        if live is None:
            return await self._explain_finished(run, task_id, map_index)
        if task_id is None:
            return explain_run(engine, live, now)
        instance = engine.instance(TaskKey(run, TaskId(task_id), map_index))
        if instance is not None:
            return explain_task(engine, instance, now)
        if task_id not in live.plan.index_of:
            raise NotFound(f"run {run} has no task {task_id!r}", hint=f"`tickless task list {run}` shows its tasks.")
        if live.created_upto <= live.plan.index_of[task_id]:
            return explain_run(engine, live, now)[:1]
        return await self._explain_finished(run, task_id, map_index)

    def _undecided(self, error: Unavailable) -> Reason:
        """Why nothing at all is decided here now."""
        if self._health.is_leader:
            return Reason(code="recovering", message=f"Nothing is decided now: {error.message}.", hint=error.hint)
        return Reason(
            code="standby",
            message="This daemon stands by: another one on the same database leads, and decides.",
            hint="Ask that one; this one takes over when it ends.",
        )

    async def _explain_finished(self, run: RunKey, task_id: str | None, map_index: int) -> Sequence[Reason]:
        found = await self._reader.run(run)
        if found is None:
            raise NotFound(f"there is no run {run}", hint="`tickless run list` shows the latest.")
        if task_id is None:
            return [Reason(code="finished", message=f"The run is over: it ended as {found.row.state}.")]
        instance = await self._reader.instance(TaskKey(run, TaskId(task_id), map_index))
        if instance is None:
            raise NotFound(f"run {run} has no task {task_id!r}", hint=f"`tickless task list {run}` shows its tasks.")
        why = f" ({instance.row.reason})" if instance.row.reason else ""
        message = f"The task is over: it ended as {instance.row.state}{why}."
        return [Reason(code="finished", message=message, task_id=task_id, map_index=map_index)]

    def status(self) -> Status:
        health = self._health
        status = Status(
            state="stopping",
            is_ready=False,
            version=health.version,
            pid=os.getpid(),
            host=socket.gethostname(),
            home=str(health.home),
            started_at=health.started_at,
            mode=health.mode,
            database=health.database,
            launcher=health.launcher(),
            import_errors=health.import_errors(),
        )
        if health.is_stopping:
            return status
        try:
            engine = self._scheduler.engine
        except Unavailable as error:
            state = "recovering" if health.is_leader else "standby"
            return replace(status, state=state, problems=(error.message,))
        tasks = Counter(i.state.value for run in engine.runs.values() for i in run.instances.values())
        return replace(
            status,
            state="leader" if health.has_read_dags else "starting",
            is_ready=health.has_read_dags,
            problems=() if health.has_read_dags else ("DAG files are being read for the first time",),
            epoch=engine.epoch,
            dags=len(engine.current),
            runs=dict(Counter(run.state.value for run in engine.runs.values())),
            tasks={state: count for state, count in tasks.items() if state != "none"},
            parallelism=engine.limits.parallelism,
        )

    def database_url(self) -> str:
        return self._health.database_url

    async def stop(self, *, kill_tasks: bool, actor: str) -> None:
        if self._health.is_stopping and not kill_tasks:
            raise Refused("the daemon is stopping already")
        try:
            self._scheduler.term.write(self._event(actor, "stop", detail={"kill_tasks": kill_tasks}))
        except Unavailable:
            pass  # the database is away, or another daemon leads: that is no reason to go on
        self._stop(StopKind.KILL_TASKS if kill_tasks else StopKind.LEAVE_TASKS)
