"""What the API and the CLI read: committed rows, straight from Postgres, so that a standby can answer, too.

Lists are pages: newest or first `limit` rows, and the next page starts after the last key of this one (keyset, so a
page costs the same however deep it is). Row images are the engine's own (`model.row`); the `…Info` types add what a
reader needs from other tables. A row that is not there is None; the caller knows what to say of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from tickless.core.snapshot import Snapshot
from tickless.model.backfill import BackfillRow
from tickless.model.id import AttemptId, RunKey, TaskKey, VersionKey
from tickless.model.row import AttemptRow, EventRow, InstanceRow, NoteRow, RunRow, VersionRow, XComRow
from tickless.model.schedule import Interval, ScheduleSpec
from tickless.model.setting import ConnectionRow, VariableRow
from tickless.model.state import FINISHED_RUN_STATES, RunState, TaskState
from tickless.store.loading import read_snapshot
from tickless.store.pool import ReadPool, Record
from tickless.store.rows import attempt_row, backfill_row, instance_row, note_row, run_row, task_state, version_row
from tickless.store.setting import connection_row, variable_row
from tickless.store.sql import query

_decode_schedule = msgspec.json.Decoder(ScheduleSpec | None).decode

MAX_PAGE = 1000
"""Larger limits are cut down to this."""

_DAGS = query("dags")
_DAG = query("dag")
_VERSION = query("version")
_CURRENT_VERSION = query("current_version")
_IMPORT_ERRORS = query("import_errors")
_RUNS = query("runs")
_LIVE_RUNS = query("live_runs")
_RUNS_OF_DAG = query("runs_of_dag")
_RUNS_OF_BACKFILL = query("runs_of_backfill")
_BACKFILLS = query("backfills")
_BACKFILL = query("backfill")
_BACKFILL_RUN_COUNTS = query("backfill_run_counts")
_RUN = query("run")
_RUN_BY_ID = query("run_by_id")
_PREVIOUS_RUN = query("previous_run")
_RUN_BY_IDEMPOTENCY_KEY = query("run_by_idempotency_key")
_INSTANCE_COUNTS = query("instance_counts")
_INSTANCES = query("instances")
_INSTANCE = query("instance")
_ATTEMPTS = query("attempts")
_ATTEMPT = query("attempt")
_XCOMS = query("xcoms")
_NOTES = query("notes")
_POOLS = query("pools")
_LEADER = query("leader")
_TRIGGER_REQUEST = query("trigger_request")
_EVENTS = query("events")
_QUARANTINED = query("quarantined")
_VARIABLES = query("variables")
_CONNECTIONS = query("connections")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which lines of the audit: all that is given must fit."""

    dag_id: str | None = None
    run: RunKey | None = None
    actor: str | None = None
    surface: str | None = None
    """What stands before the name of an actor: unix, sql, task."""
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventInfo:
    """One line of the audit."""

    id: int
    row: EventRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportErrorInfo:
    """A DAG file that cannot be parsed now; the last good version of its DAGs goes on."""

    folder: str
    file: str
    error: str
    traceback: str | None
    line: int | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A dag run, with the number of the version that it is pinned to."""

    row: RunRow
    version_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillInfo:
    """A backfill, and how many of its runs are in each state."""

    row: BackfillRow
    runs: dict[RunState, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DagInfo:
    """A DAG. Without a current version (`version` None) no file defines it any more."""

    dag_id: str
    version: VersionKey | None
    version_number: int | None
    hash: str | None
    file: str | None
    bundle: str | None
    changed_at: datetime
    """When its present version was stored, or when it vanished."""
    import_error: str | None
    """Why its file cannot be parsed now: the DAG shown is the last good one."""
    live_runs: int
    """Queued and running."""
    is_paused: bool
    schedule: ScheduleSpec | None
    """Of its current version."""
    last_interval: Interval | None
    """Data interval of the last run that its schedule made."""
    scheduled_since: datetime | None
    last_run: RunInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceInfo:
    """A task instance with its latest attempt, if it ever had one."""

    dag_id: str
    run_id: str
    row: InstanceRow
    attempt: AttemptRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolInfo:
    """A pool and the slots that live attempts hold of it."""

    name: str
    slots: int
    queued: int
    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderInfo:
    """Who leads the shard, or led it last."""

    epoch: int
    owner: str | None
    taken_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """A trigger request and what became of it: open, a run, or an error."""

    id: int
    dag_id: str
    requested_by: str
    requested_at: datetime
    handled_at: datetime | None
    run: RunKey | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineInfo:
    """An event that raised inside the engine."""

    id: int
    run: RunKey | None
    attempt_id: AttemptId | None
    kind: str
    event: str
    traceback: str
    at: datetime


class Reader:
    """Every method is one statement. Raises Unavailable when the database is away."""

    def __init__(self, pool: ReadPool) -> None:
        self._pool = pool

    # DAGs

    async def dags(
        self, *, after: str | None = None, limit: int = 100, include_vanished: bool = False
    ) -> list[DagInfo]:
        """DAGs by dag_id, those after `after`."""
        rows = await self._pool.fetch(_DAGS, after, _page(limit), include_vanished)
        return [_dag_info(row) for row in rows]

    async def dag(self, dag_id: str) -> DagInfo | None:
        """One DAG, also one that has vanished."""
        row = await self._pool.fetchrow(_DAG, dag_id)
        return _dag_info(row) if row is not None else None

    async def version(self, key: VersionKey) -> VersionRow | None:
        """One stored version, with its spec."""
        row = await self._pool.fetchrow(_VERSION, key)
        return version_row(row) if row is not None else None

    async def current_version(self, dag_id: str) -> VersionRow | None:
        """The current version of a DAG, with its spec."""
        row = await self._pool.fetchrow(_CURRENT_VERSION, dag_id)
        return version_row(row) if row is not None else None

    async def import_errors(self, *, limit: int = 100) -> list[ImportErrorInfo]:
        """DAG files that cannot be parsed, by folder and file."""
        rows = await self._pool.fetch(_IMPORT_ERRORS, _page(limit))
        return [ImportErrorInfo(**row) for row in rows]

    # Runs

    async def runs(
        self,
        *,
        dag_id: str | None = None,
        states: Sequence[RunState] = (),
        before: RunKey | None = None,
        limit: int = 50,
        backfill: int | None = None,
    ) -> list[RunInfo]:
        """Runs, newest first: those with a key below `before`. No states = all."""
        wanted = [state.value for state in states] or None
        if backfill is not None:
            rows = await self._pool.fetch(_RUNS_OF_BACKFILL, backfill, before, wanted, _page(limit), dag_id)
            return [_run_info(row) for row in rows]
        if dag_id is not None:
            rows = await self._pool.fetch(_RUNS_OF_DAG, dag_id, before, wanted, _page(limit))
        elif states and FINISHED_RUN_STATES.isdisjoint(states):
            rows = await self._pool.fetch(_LIVE_RUNS, before, wanted, _page(limit))
        else:
            rows = await self._pool.fetch(_RUNS, before, wanted, _page(limit))
        return [_run_info(row) for row in rows]

    async def run(self, key: RunKey) -> RunInfo | None:
        row = await self._pool.fetchrow(_RUN, key)
        return _run_info(row) if row is not None else None

    async def run_by_id(self, dag_id: str, run_id: str) -> RunInfo | None:
        row = await self._pool.fetchrow(_RUN_BY_ID, dag_id, run_id)
        return _run_info(row) if row is not None else None

    async def previous_run(self, dag_id: str, before: datetime, state: RunState | None) -> RunInfo | None:
        """The last run of a DAG before this instant, by logical date; one without it counts from when it was made."""
        row = await self._pool.fetchrow(_PREVIOUS_RUN, dag_id, before, state)
        return _run_info(row) if row is not None else None

    async def run_by_idempotency_key(self, idempotency_key: str) -> RunInfo | None:
        row = await self._pool.fetchrow(_RUN_BY_IDEMPOTENCY_KEY, idempotency_key)
        return _run_info(row) if row is not None else None

    async def instance_counts(self, runs: Sequence[RunKey]) -> dict[RunKey, dict[TaskState, int]]:
        """How many task instances of each run are in each state. A run without instances is not in it."""
        counts: dict[RunKey, dict[TaskState, int]] = {}
        for row in await self._pool.fetch(_INSTANCE_COUNTS, list(runs)):
            counts.setdefault(RunKey(row["dag_run_key"]), {})[task_state(row["state"])] = row["count"]
        return counts

    async def notes(self, runs: Sequence[RunKey], *, only_of_runs: bool = False) -> list[NoteRow]:
        """Notes of some runs and of their task instances."""
        return [note_row(row) for row in await self._pool.fetch(_NOTES, list(runs), only_of_runs)]

    async def backfills(
        self, *, dag_id: str | None = None, is_open: bool = False, before: int | None = None, limit: int = 50
    ) -> list[BackfillInfo]:
        """Backfills, newest first; `is_open`: only those that are not completed."""
        rows = await self._pool.fetch(_BACKFILLS, before, _page(limit), dag_id, is_open)
        return await self._backfill_infos([backfill_row(row) for row in rows])

    async def backfill(self, key: int) -> BackfillInfo | None:
        row = await self._pool.fetchrow(_BACKFILL, key)
        return (await self._backfill_infos([backfill_row(row)]))[0] if row is not None else None

    async def _backfill_infos(self, rows: list[BackfillRow]) -> list[BackfillInfo]:
        counts: dict[int, dict[RunState, int]] = {}
        for each in await self._pool.fetch(_BACKFILL_RUN_COUNTS, [row.key for row in rows]):
            counts.setdefault(each["backfill"], {})[RunState(each["state"])] = each["count"]
        return [BackfillInfo(row=row, runs=counts.get(row.key, {})) for row in rows]

    # Task instances and attempts

    async def instances(
        self,
        run: RunKey,
        *,
        states: Sequence[TaskState] = (),
        after: tuple[str, int] | None = None,
        limit: int = 500,
    ) -> list[InstanceInfo]:
        """Task instances of a run by (task_id, map_index), those after `after`. No states = all."""
        wanted = [state.value for state in states] or None
        task_id, map_index = after if after is not None else (None, None)
        rows = await self._pool.fetch(_INSTANCES, run, wanted, task_id, map_index, _page(limit))
        return [_instance_info(row) for row in rows]

    async def instance(self, key: TaskKey) -> InstanceInfo | None:
        row = await self._pool.fetchrow(_INSTANCE, *key)
        return _instance_info(row) if row is not None else None

    async def attempts(self, key: TaskKey, *, before: AttemptId | None = None, limit: int = 50) -> list[AttemptRow]:
        """Attempts of a task instance, newest first."""
        rows = await self._pool.fetch(_ATTEMPTS, *key, before, _page(limit))
        return [attempt_row(row) for row in rows]

    async def attempt(self, attempt_id: AttemptId) -> AttemptRow | None:
        row = await self._pool.fetchrow(_ATTEMPT, attempt_id)
        return attempt_row(row) if row is not None else None

    async def xcoms(self, key: TaskKey, *, limit: int = 100) -> list[XComRow]:
        """What a task instance handed on, by key."""
        rows = await self._pool.fetch(_XCOMS, *key, _page(limit))
        return [
            XComRow(
                run=RunKey(row["dag_run_key"]),
                task_id=row["task_id"],
                map_index=row["map_index"],
                key=row["key"],
                value=row["value"],
                created_at=row["created_at"],
            )
            for row in rows
        ]

    # The installation

    async def pools(self) -> list[PoolInfo]:
        rows = await self._pool.fetch(_POOLS)
        return [
            PoolInfo(name=row["pool"], slots=row["slots"], queued=row["queued"], running=row["running"]) for row in rows
        ]

    async def leader(self) -> LeaderInfo:
        row = await self._pool.fetchrow(_LEADER, 1)
        assert row is not None
        return LeaderInfo(**row)

    async def request(self, request_id: int) -> RequestInfo | None:
        """What became of a trigger request."""
        row = await self._pool.fetchrow(_TRIGGER_REQUEST, request_id)
        if row is None:
            return None
        return RequestInfo(
            id=row["id"],
            dag_id=row["dag_id"],
            requested_by=row["requested_by"],
            requested_at=row["requested_at"],
            handled_at=row["handled_at"],
            run=row["dag_run_key"],
            error=row["error"],
        )

    async def events(
        self, choice: EventQuery | None = None, *, before: int | None = None, limit: int = 50
    ) -> list[EventInfo]:
        """The audit, newest first."""
        asked = choice or EventQuery()
        return [
            EventInfo(
                id=row["id"],
                row=EventRow(
                    at=row["at"],
                    actor=row["actor"],
                    action=row["action"],
                    dag_id=row["dag_id"],
                    run=row["dag_run_key"],
                    task_id=row["task_id"],
                    detail=row["detail"],
                ),
            )
            for row in await self._pool.fetch(
                *(_EVENTS, before, _page(limit), asked.dag_id, asked.run, asked.actor, asked.surface, asked.action),
                *(asked.since, asked.until),
            )
        ]

    async def quarantine(self, *, before: int | None = None, limit: int = 50) -> list[QuarantineInfo]:
        """Quarantined events, newest first."""
        rows = await self._pool.fetch(_QUARANTINED, before, _page(limit))
        return [
            QuarantineInfo(
                id=row["id"],
                run=row["dag_run_key"],
                attempt_id=row["attempt_id"],
                kind=row["kind"],
                event=row["event"],
                traceback=row["traceback"],
                at=row["at"],
            )
            for row in rows
        ]

    async def variables(self, *, after: str | None = None, limit: int = 100) -> list[VariableRow]:
        """Variables by key, those after `after`; their values are sealed."""
        rows = await self._pool.fetch(_VARIABLES, after, _page(limit))
        return [variable_row(row) for row in rows]

    async def connections(self, *, after: str | None = None, limit: int = 100) -> list[ConnectionRow]:
        """Connections by id, those after `after`; their secrets are sealed."""
        rows = await self._pool.fetch(_CONNECTIONS, after, _page(limit))
        return [connection_row(row) for row in rows]

    async def rows_for_audit(self) -> Snapshot:
        """What RAM must agree with, as one picture: unfinished runs and instances, live attempts, tallies, pools.

        `versions` is empty: versions never change, and their specs are most of the bytes.
        """
        async with self._pool.connection() as connection:
            return await read_snapshot(connection, with_versions=False)


def _page(limit: int) -> int:
    return max(1, min(limit, MAX_PAGE))


def _run_info(row: Record, prefix: str = "") -> RunInfo:
    return RunInfo(row=run_row(row, prefix), version_number=row[prefix + "version_number"])


def _dag_info(row: Record) -> DagInfo:
    end = row["last_interval_end"]
    return DagInfo(
        dag_id=row["dag_id"],
        version=row["current_version"],
        version_number=row["version_number"],
        hash=row["hash"],
        file=row["file"],
        bundle=row["bundle"],
        changed_at=row["changed_at"],
        import_error=row["import_error"],
        live_runs=row["live_runs"],
        is_paused=row["is_paused"],
        schedule=_decode_schedule(row["schedule"]) if row["schedule"] is not None else None,
        scheduled_since=row["scheduled_since"],
        last_interval=Interval(row["last_interval_start"], end) if end is not None else None,
        last_run=_run_info(row, "run_") if row["run_key"] is not None else None,
    )


def _instance_info(row: Record) -> InstanceInfo:
    return InstanceInfo(
        dag_id=row["dag_id"],
        run_id=row["run_id"],
        row=instance_row(row),
        attempt=attempt_row(row, "a_") if row["a_attempt_id"] is not None else None,
    )
