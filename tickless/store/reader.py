"""What the API and the CLI read: committed rows, straight from Postgres, so that a standby can answer, too.

Lists are pages: newest or first `limit` rows, and the next page starts after the last key of this one (keyset, so a
page costs the same however deep it is). Row images are the engine's own (`model.row`); the `…Info` types add what a
reader needs from other tables. A row that is not there is None; the caller knows what to say of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tickless.core.snapshot import Snapshot
from tickless.model.id import AttemptId, RunKey, TaskKey, VersionKey
from tickless.model.row import AttemptRow, InstanceRow, RunRow, VersionRow, XComRow
from tickless.model.state import RunState, TaskState
from tickless.store.pool import ReadPool

MAX_PAGE = 1000
"""Larger limits are cut down to this."""


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
        raise NotImplementedError

    async def dag(self, dag_id: str) -> DagInfo | None:
        """One DAG, also one that has vanished."""
        raise NotImplementedError

    async def version(self, key: VersionKey) -> VersionRow | None:
        """One stored version, with its spec."""
        raise NotImplementedError

    async def current_version(self, dag_id: str) -> VersionRow | None:
        """The current version of a DAG, with its spec."""
        raise NotImplementedError

    async def import_errors(self, *, limit: int = 100) -> list[ImportErrorInfo]:
        """DAG files that cannot be parsed, by folder and file."""
        raise NotImplementedError

    # Runs

    async def runs(
        self,
        *,
        dag_id: str | None = None,
        states: Sequence[RunState] = (),
        before: RunKey | None = None,
        limit: int = 50,
    ) -> list[RunInfo]:
        """Runs, newest first: those with a key below `before`. No states = all."""
        raise NotImplementedError

    async def run(self, key: RunKey) -> RunInfo | None:
        raise NotImplementedError

    async def run_by_id(self, dag_id: str, run_id: str) -> RunInfo | None:
        raise NotImplementedError

    async def run_by_idempotency_key(self, idempotency_key: str) -> RunInfo | None:
        raise NotImplementedError

    async def instance_counts(self, runs: Sequence[RunKey]) -> dict[RunKey, dict[TaskState, int]]:
        """How many task instances of each run are in each state. A run without instances is not in it."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def instance(self, key: TaskKey) -> InstanceInfo | None:
        raise NotImplementedError

    async def attempts(self, key: TaskKey, *, before: AttemptId | None = None, limit: int = 50) -> list[AttemptRow]:
        """Attempts of a task instance, newest first."""
        raise NotImplementedError

    async def attempt(self, attempt_id: AttemptId) -> AttemptRow | None:
        raise NotImplementedError

    async def xcoms(self, key: TaskKey, *, limit: int = 100) -> list[XComRow]:
        """What a task instance handed on, by key."""
        raise NotImplementedError

    # The installation

    async def pools(self) -> list[PoolInfo]:
        raise NotImplementedError

    async def leader(self) -> LeaderInfo:
        raise NotImplementedError

    async def request(self, request_id: int) -> RequestInfo | None:
        """What became of a trigger request."""
        raise NotImplementedError

    async def quarantine(self, *, before: int | None = None, limit: int = 50) -> list[QuarantineInfo]:
        """Quarantined events, newest first."""
        raise NotImplementedError

    async def rows_for_audit(self) -> Snapshot:
        """What RAM must agree with, as one picture: unfinished runs and instances, live attempts, tallies, pools.

        `versions` is empty: versions never change, and their specs are most of the bytes.
        """
        raise NotImplementedError
