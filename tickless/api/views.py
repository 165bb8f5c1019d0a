"""What the API answers with. Names are the database's and Airflow's; instants are ISO 8601 in UTC."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import Field

from tickless.api.shape import View
from tickless.core.record import MARKED_RUN
from tickless.model.backfill import Reprocess, SlotPlan
from tickless.model.dag import DagSpec
from tickless.model.layout import Layout
from tickless.model.row import AttemptRow, NoteRow, VersionRow
from tickless.model.schedule import Slot
from tickless.model.secret import is_sensitive
from tickless.model.setting import Connection, Variable
from tickless.model.state import FINISHED_RUN_STATES, AttemptState, EndReason, RunState, TaskState
from tickless.store.reader import BackfillInfo, DagInfo, ImportErrorInfo, InstanceInfo, PoolInfo, RunInfo

V = TypeVar("V")

_decode_spec = msgspec.json.Decoder(DagSpec).decode
HIDDEN = "***"


class Page(View, Generic[V]):
    """A page of a list."""

    items: list[V]
    next: str | None = None
    """What to pass on to get the next page; None = this was the last."""


class NoteView(View):
    """What somebody wrote about a run or a task instance."""

    text: str
    author: str
    """SURFACE:NAME, as in the audit."""
    changed_at: datetime

    @staticmethod
    def of(row: NoteRow | None) -> NoteView | None:
        if row is None or row.text is None:
            return None
        return NoteView(text=row.text, author=row.author, changed_at=row.changed_at)


class RunView(View):
    """A dag run."""

    run: int
    """The short global number."""
    dag_id: str
    run_id: str
    state: RunState
    is_finished: bool
    run_type: str
    version: int
    conf: Any
    logical_date: datetime | None
    run_after: datetime | None
    """When its slot was due; None = somebody started it."""
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    is_cancelled: bool
    cancelled_at: datetime | None
    """When that was asked for."""
    cancelled_by: str | None = None
    """Who asked, as the audit has it; None: nobody did, it is not known, or this is a list."""
    cancel_reason: str | None
    """dagrun_timeout, fail_fast, marked_success or marked_failed, in a sentence. None: somebody cancelled it, or nobody
    ended it."""
    frozen: str | None
    backfill: int | None
    """The backfill that made it."""
    tasks: dict[str, int] | None = None
    """Task instances by state; None = not asked for."""
    note: NoteView | None = None
    """What somebody wrote about it."""

    @staticmethod
    def of(
        info: RunInfo,
        counts: dict[TaskState, int] | None = None,
        note: NoteRow | None = None,
        *,
        cancelled_by: str | None = None,
    ) -> RunView:
        row = info.row
        return RunView(
            run=row.key,
            dag_id=row.dag_id,
            run_id=row.run_id,
            state=row.state,
            is_finished=row.state in FINISHED_RUN_STATES,
            run_type=row.run_type,
            version=info.version_number,
            conf=json.loads(row.conf),
            logical_date=row.logical_date,
            run_after=row.run_after,
            data_interval_start=row.data_interval_start,
            data_interval_end=row.data_interval_end,
            queued_at=row.queued_at,
            started_at=row.started_at,
            ended_at=row.ended_at,
            is_cancelled=row.cancel_requested_at is not None and row.cancel_reason not in MARKED_RUN,
            cancelled_at=row.cancel_requested_at,
            cancelled_by=cancelled_by,
            cancel_reason=row.cancel_reason,
            frozen=row.frozen,
            backfill=row.backfill,
            tasks=None if counts is None else {state.value: count for state, count in counts.items()},
            note=NoteView.of(note),
        )


class BackfillView(View):
    """A backfill."""

    backfill: int
    """Its number."""
    dag_id: str
    state: str
    """running, paused, cancelled (runs of it have not ended yet) or completed."""
    schedule: str
    from_at: datetime
    to_at: datetime
    reprocess: Reprocess
    max_active: int
    backwards: bool
    conf: Any
    created_at: datetime
    place: datetime | None
    """Of the last slot that it has dealt with."""
    made: int
    """Runs that it has made."""
    passed: int
    """Slots that it has passed over because they have a run already."""
    runs: dict[str, int]
    """Its runs by state; deleted ones are not in it."""
    cancelled_at: datetime | None
    completed_at: datetime | None
    why: str | None = None
    """What holds it back; only of one that is not completed, and where one is asked for."""

    @staticmethod
    def of(info: BackfillInfo, why: str | None = None) -> BackfillView:
        row = info.row
        state = "paused" if row.is_paused else "running"
        if row.completed_at is not None:
            state = "completed"
        elif row.cancelled_at is not None:
            state = "cancelled"
        return BackfillView(
            backfill=row.key,
            dag_id=row.dag_id,
            state=state,
            schedule=row.schedule.text,
            from_at=row.from_at,
            to_at=row.to_at,
            reprocess=row.reprocess,
            max_active=row.max_active,
            backwards=row.is_backwards,
            conf=json.loads(row.conf),
            created_at=row.created_at,
            place=row.place,
            made=row.made,
            passed=row.passed,
            runs={state.value: count for state, count in info.runs.items()},
            cancelled_at=row.cancelled_at,
            completed_at=row.completed_at,
            why=why,
        )


class BackfillSlotView(View):
    """What a backfill would do with a slot."""

    run_after: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    is_run: bool
    """It gets a run; false: it is passed over."""
    run: int | None
    """The latest run that it has already."""
    run_state: str | None

    @staticmethod
    def of(plan: SlotPlan) -> BackfillSlotView:
        return BackfillSlotView(
            run_after=plan.slot.run_after,
            data_interval_start=plan.slot.start,
            data_interval_end=plan.slot.end,
            is_run=plan.is_run,
            run=plan.run.key if plan.run is not None else None,
            run_state=plan.run.state if plan.run is not None else None,
        )


class RunStartedView(View):
    """Answer to a start."""

    run: int
    dag_id: str
    run_id: str
    is_new: bool
    """False: this idempotency key had started it before."""


class DagView(View):
    """A DAG."""

    dag_id: str
    version: int | None
    file: str | None
    """Within its folder."""
    bundle: str | None
    """The folder as it was when this version was read: a copy on the daemon's host."""
    changed_at: datetime
    import_error: str | None
    is_paused: bool
    schedule: str | None
    """As it is written in the file."""
    timezone: str | None
    """Of the schedule; None = the configured default."""
    next_run_at: datetime | None
    """When its next slot is due; None while it is paused, or when there is none."""
    live_runs: int
    last_run: RunView | None

    @staticmethod
    def of(info: DagInfo, next_slot: Slot | None) -> DagView:
        schedule = info.schedule if info.version is not None else None
        return DagView(
            dag_id=info.dag_id,
            version=info.version_number,
            file=info.file,
            bundle=info.bundle,
            changed_at=info.changed_at,
            import_error=info.import_error,
            is_paused=info.is_paused,
            schedule=schedule.text if schedule is not None else None,
            timezone=schedule.timezone if schedule is not None else None,
            next_run_at=next_slot.run_after if next_slot is not None and not info.is_paused else None,
            live_runs=info.live_runs,
            last_run=RunView.of(info.last_run) if info.last_run else None,
        )


class GraphNodeView(View):
    """A task of a graph: its box, and what it is."""

    task_id: str
    layer: int
    x: int
    y: int
    width: int
    height: int
    operator: str
    trigger_rule: str
    group: str | None


class GraphEdgeView(View):
    """A dependency, and the points that its line goes through."""

    upstream: str
    downstream: str
    label: str
    points: list[tuple[int, int]]


class GraphView(View):
    """A version of a DAG, drawn. Tasks are in an order in which they may run."""

    dag_id: str
    version: int
    width: int
    height: int
    nodes: list[GraphNodeView]
    edges: list[GraphEdgeView]

    @staticmethod
    def of(version: VersionRow, layout: Layout) -> GraphView:
        tasks = {task.task_id: task for task in _decode_spec(version.spec).tasks}
        return GraphView(
            dag_id=version.dag_id,
            version=version.number,
            width=layout.width,
            height=layout.height,
            nodes=[
                GraphNodeView(
                    **asdict(node),
                    operator=tasks[node.task_id].operator,
                    trigger_rule=tasks[node.task_id].trigger_rule,
                    group=tasks[node.task_id].group,
                )
                for node in layout.nodes
            ],
            edges=[GraphEdgeView(**asdict(edge)) for edge in layout.edges],
        )


class SlotView(View):
    """A slot of a schedule, and the data interval of its run."""

    run_after: datetime
    data_interval_start: datetime
    data_interval_end: datetime

    @staticmethod
    def of(slot: Slot) -> SlotView:
        return SlotView(run_after=slot.run_after, data_interval_start=slot.start, data_interval_end=slot.end)


class ImportErrorView(View):
    """A DAG file that cannot be parsed."""

    folder: str
    file: str
    line: int | None
    error: str
    traceback: str | None
    at: datetime

    @staticmethod
    def of(info: ImportErrorInfo) -> ImportErrorView:
        return ImportErrorView(
            folder=info.folder,
            file=info.file,
            line=info.line,
            error=info.error,
            traceback=info.traceback,
            at=info.at,
        )


class AttemptView(View):
    """The record of one process."""

    attempt_id: int
    try_number: int
    state: AttemptState
    reason: EndReason | None
    """Why it ended as it did."""
    exit_code: int | None
    signal: int | None
    error: str | None
    executor: str
    queue: str
    pool: str
    pool_slots: int
    pid: int | None
    host: str | None
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @staticmethod
    def of(row: AttemptRow) -> AttemptView:
        return AttemptView(**{name: getattr(row, name) for name in AttemptView.model_fields})


class TaskView(View):
    """A task instance with its latest attempt."""

    run: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: TaskState
    try_number: int
    reason: str | None
    scheduled_at: datetime | None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None
    attempt: AttemptView | None
    note: NoteView | None = None
    """What somebody wrote about it."""

    @staticmethod
    def of(info: InstanceInfo, note: NoteRow | None = None) -> TaskView:
        row = info.row
        return TaskView(
            run=row.run,
            dag_id=info.dag_id,
            run_id=info.run_id,
            task_id=row.task_id,
            map_index=row.map_index,
            state=row.state,
            try_number=row.try_number,
            reason=row.reason,
            scheduled_at=row.scheduled_at,
            queued_at=row.queued_at,
            started_at=row.started_at,
            ended_at=row.ended_at,
            due_at=row.due_at,
            attempt=AttemptView.of(info.attempt) if info.attempt else None,
            note=NoteView.of(note),
        )


class PoolView(View):
    """A pool and what is taken of it."""

    name: str
    slots: int
    running: int
    queued: int
    open: int

    @staticmethod
    def of(info: PoolInfo) -> PoolView:
        free = max(0, info.slots - info.running - info.queued)
        return PoolView(name=info.name, slots=info.slots, running=info.running, queued=info.queued, open=free)


class VariableView(View):
    """A variable. Without the right to see secrets the value of one whose name tells that it is one is `***`."""

    key: str
    value: str
    description: str | None
    changed_at: datetime

    @staticmethod
    def of(variable: Variable, *, is_open: bool) -> VariableView:
        hides = not is_open and is_sensitive(variable.key)
        return VariableView(
            key=variable.key,
            value=HIDDEN if hides else variable.value,
            description=variable.description,
            changed_at=variable.changed_at,
        )


class ConnectionView(View):
    """A connection. Without the right to see secrets they are `***`."""

    conn_id: str
    conn_type: str
    description: str | None
    host: str | None
    schema_: str | None = Field(serialization_alias="schema")
    login: str | None
    password: str | None
    port: int | None
    extra: dict[str, Any] | None

    changed_at: datetime

    @staticmethod
    def of(connection: Connection, *, is_open: bool) -> ConnectionView:
        extra = connection.extra_dejson if connection.extra is not None else None
        password = connection.password
        return ConnectionView(
            conn_id=connection.conn_id,
            conn_type=connection.conn_type,
            description=connection.description,
            host=connection.host,
            schema_=connection.schema,
            login=connection.login,
            password=HIDDEN if password is not None and not is_open else password,
            port=connection.port,
            extra=_hidden(extra) if extra is not None and not is_open else extra,
            changed_at=connection.changed_at,
        )


def _hidden(extra: dict[str, Any]) -> dict[str, Any]:
    return {
        key: HIDDEN if is_sensitive(key) else _hidden(value) if isinstance(value, dict) else value
        for key, value in extra.items()
    }


class ReasonView(View):
    """One thing that holds a run or a task back."""

    code: str
    message: str
    hint: str | None
    task_id: str | None
    map_index: int
    used: int | None
    limit: int | None
    needed: int | None


class StatusView(View):
    """The daemon in one look; the fields are those of `api.base.Status`."""

    state: str
    is_ready: bool
    version: str
    pid: int
    host: str
    home: str
    started_at: datetime
    mode: str
    epoch: int | None
    database: str
    launcher: str
    dags: int
    import_errors: int
    runs: dict[str, int]
    tasks: dict[str, int]
    parallelism: int
    problems: list[str]
