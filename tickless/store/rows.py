"""From a record of Postgres to a row image."""

from __future__ import annotations

import asyncpg
import msgspec

from tickless.model.backfill import BackfillKey, BackfillRow, Reprocess
from tickless.model.id import AttemptId, RunKey, TaskId, VersionKey
from tickless.model.row import (
    AttemptRow,
    DagRow,
    InstanceRow,
    InstanceTally,
    MapRow,
    NoteRow,
    PoolRow,
    RunRow,
    VersionRow,
)
from tickless.model.schedule import ScheduleSpec
from tickless.model.state import AttemptState, EndReason, RunState, TaskState

_TASK_STATES: dict[str | None, TaskState] = {state.value: state for state in TaskState} | {None: TaskState.NONE}
"""A look-up instead of a call: a rebuild reads a hundred thousand of them."""

_decode_schedule = msgspec.json.Decoder(ScheduleSpec).decode


def task_state(text: str | None) -> TaskState:
    """The state in a row; NULL is NONE."""
    return _TASK_STATES[text]


def version_row(record: asyncpg.Record) -> VersionRow:
    return VersionRow(
        key=VersionKey(record["key"]),
        dag_id=record["dag_id"],
        number=record["number"],
        spec=record["spec"],
        hash=record["hash"],
        bundle=record["bundle"],
        file=record["file"],
        created_at=record["created_at"],
    )


def run_row(record: asyncpg.Record, prefix: str = "") -> RunRow:
    """`prefix` stands before each column name, where several rows are in one record."""
    return RunRow(
        key=RunKey(record[prefix + "key"]),
        dag_id=record[prefix + "dag_id"],
        run_id=record[prefix + "run_id"],
        version=VersionKey(record[prefix + "version"]),
        state=RunState(record[prefix + "state"]),
        run_type=record[prefix + "run_type"],
        conf=record[prefix + "conf"],
        logical_date=record[prefix + "logical_date"],
        queued_at=record[prefix + "queued_at"],
        started_at=record[prefix + "started_at"],
        ended_at=record[prefix + "ended_at"],
        created_upto=record[prefix + "created_upto"],
        cancel_requested_at=record[prefix + "cancel_requested_at"],
        frozen=record[prefix + "frozen"],
        idempotency_key=record[prefix + "idempotency_key"],
        run_after=record[prefix + "run_after"],
        data_interval_start=record[prefix + "data_interval_start"],
        data_interval_end=record[prefix + "data_interval_end"],
        cancel_reason=record[prefix + "cancel_reason"],
        previous_run=record[prefix + "previous_run"],
        backfill=record[prefix + "backfill"],
    )


def backfill_row(record: asyncpg.Record) -> BackfillRow:
    return BackfillRow(
        key=BackfillKey(record["key"]),
        dag_id=record["dag_id"],
        schedule=_decode_schedule(record["schedule"]),
        from_at=record["from_at"],
        to_at=record["to_at"],
        reprocess=Reprocess(record["reprocess"]),
        max_active=record["max_active"],
        is_backwards=record["is_backwards"],
        conf=record["conf"],
        created_at=record["created_at"],
        place=record["place"],
        made=record["made"],
        passed=record["passed"],
        is_paused=record["is_paused"],
        cancelled_at=record["cancelled_at"],
        completed_at=record["completed_at"],
    )


def dag_row(record: asyncpg.Record) -> DagRow:
    return DagRow(
        dag_id=record["dag_id"],
        is_paused=record["is_paused"],
        last_interval_start=record["last_interval_start"],
        last_interval_end=record["last_interval_end"],
        scheduled_since=record["scheduled_since"],
        failed_in_a_row=record["failed_in_a_row"],
    )


def instance_row(record: asyncpg.Record) -> InstanceRow:
    return InstanceRow(
        run=RunKey(record["dag_run_key"]),
        task_id=TaskId(record["task_id"]),
        map_index=record["map_index"],
        state=_TASK_STATES[record["state"]],
        try_number=record["try_number"],
        attempt_id=AttemptId(record["attempt_id"]),
        lost_count=record["lost_count"],
        tries_cleared=record["tries_cleared"],
        scheduled_at=record["scheduled_at"],
        queued_at=record["queued_at"],
        started_at=record["started_at"],
        ended_at=record["ended_at"],
        due_at=record["due_at"],
        reason=record["reason"],
    )


def tally_row(record: asyncpg.Record) -> InstanceTally:
    return InstanceTally(
        run=RunKey(record["dag_run_key"]),
        task_id=TaskId(record["task_id"]),
        state=_TASK_STATES[record["state"]],
        count=record["count"],
        returned=record["returned"],
    )


def attempt_row(record: asyncpg.Record, prefix: str = "") -> AttemptRow:
    """`prefix` as in `run_row`."""

    stop_reason, reason = record[prefix + "stop_reason"], record[prefix + "reason"]
    return AttemptRow(
        attempt_id=AttemptId(record[prefix + "attempt_id"]),
        run=RunKey(record[prefix + "dag_run_key"]),
        task_id=TaskId(record[prefix + "task_id"]),
        map_index=record[prefix + "map_index"],
        try_number=record[prefix + "try_number"],
        state=AttemptState(record[prefix + "state"]),
        executor=record[prefix + "executor"],
        queue=record[prefix + "queue"],
        pool=record[prefix + "pool"],
        pool_slots=record[prefix + "pool_slots"],
        queued_at=record[prefix + "queued_at"],
        log_path=record[prefix + "log_path"],
        started_at=record[prefix + "started_at"],
        ended_at=record[prefix + "ended_at"],
        timeout_seconds=record[prefix + "timeout_seconds"],
        stop_requested_at=record[prefix + "stop_requested_at"],
        stop_reason=EndReason(stop_reason) if stop_reason is not None else None,
        exit_code=record[prefix + "exit_code"],
        signal=record[prefix + "signal"],
        reason=EndReason(reason) if reason is not None else None,
        error=record[prefix + "error"],
        pid=record[prefix + "pid"],
        host=record[prefix + "host"],
    )


def pool_row(record: asyncpg.Record) -> PoolRow:
    return PoolRow(name=record["pool"], slots=record["slots"])


def map_row(record: asyncpg.Record) -> MapRow:
    return MapRow(
        run=RunKey(record["dag_run_key"]),
        task_id=TaskId(record["task_id"]),
        length=record["length"],
        expanded_upto=record["expanded_upto"],
    )


def note_row(record: asyncpg.Record) -> NoteRow:
    return NoteRow(
        run=RunKey(record["dag_run_key"]),
        task_id=record["task_id"],
        map_index=record["map_index"],
        text=record["text"],
        author=record["author"],
        changed_at=record["changed_at"],
    )
