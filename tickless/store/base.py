"""The store port: commits what the engine decided, reads it back, and fences old leaders. It decides nothing.

The contract, checked for Postgres and for the in-memory fake by tests/contract/test_store.py:

- `flush` is all or nothing. It raises Conflict when the epoch is not ours any more or a guard does not hold,
  Unstorable when Postgres refuses the data, Unavailable when the outcome is unknown (the connection broke).
  After Conflict or Unavailable the caller drops its RAM and calls `take_epoch` and `load`.
- `take_epoch` waits for a flush of an older epoch that is still in flight; when it returns, no older flush can commit.
- `load` reads one consistent snapshot.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tickless.core.decision import Write
from tickless.core.snapshot import Snapshot as Snapshot
from tickless.errors import UserError
from tickless.model.backfill import SlotRun
from tickless.model.id import AttemptId, Epoch, RunKey
from tickless.model.row import EventRow, InstanceRow, InstanceTally, MapRow, NoteRow, RunRow, VersionRow
from tickless.model.setting import ConnectionRow, SettingRow, VariableRow
from tickless.model.state import RunState, TaskState

XCOM_PAGE = 10_000
"""Most values in one answer of `page_xcoms`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRequest:
    """An open row of `trigger_request`, written by somebody's transaction."""

    id: int
    dag_id: str
    run_id: str | None
    conf: str
    logical_date: datetime | None
    idempotency_key: str | None
    key_of: RunKey | None = None
    """The run, finished or not, that has its idempotency key: that is the one it asks for."""
    name_of: RunKey | None = None
    """The run that has its run id."""
    actor: str = ""
    """Who asks: sql:NAME."""
    is_locked: bool = False
    """Somebody's open transaction holds its row: nobody can say now that it is dealt with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRequest:
    """An open row of `command`, written by somebody's transaction."""

    id: int
    kind: str
    payload: str
    """A JSON object."""
    cursor: str | None = None
    """How far it has come, a JSON object; None: nobody has begun."""
    actor: str = ""
    """Who asks: unix:NAME or sql:NAME."""
    is_locked: bool = False
    """As of a trigger request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledXCom:
    """One value that a running task asked for, as JSON text."""

    task_id: str
    map_index: int
    value: str


class TooMuch(UserError):
    """More was asked for than one answer holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutcome:
    """What has become of a command."""

    id: int
    error: str | None
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedRun:
    """A run, with its version and the number of its finished instances by task and state."""

    row: RunRow
    version: VersionRow
    tallies: tuple[InstanceTally, ...]
    maps: tuple[MapRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is left of a run that was deleted: some of its attempts with their logs, and whether there is more."""

    attempts: tuple[tuple[AttemptId, str], ...]
    has_more: bool

    @property
    def is_over(self) -> bool:
        """Nothing is left."""
        return not self.attempts and not self.has_more


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousRun:
    """The run before another one, with its finished instances."""

    key: RunKey
    tallies: tuple[InstanceTally, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs: all that is given must fit."""

    dag_id: str
    states: tuple[RunState, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProblem:
    """A DAG file that could not be parsed; `error` None clears it."""

    folder: str
    file: str
    error: str | None
    traceback: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedEvent:
    """An event that raised inside the engine, kept with all that is needed to debug it."""

    run: RunKey | None
    attempt_id: AttemptId | None
    kind: str
    event: str
    traceback: str
    at: datetime


class Store(Protocol):
    """See the module's docstring."""

    async def take_epoch(self, owner: str) -> Epoch:
        """Become the leader under a new, higher epoch; `owner` is host:pid, for people."""
        ...

    async def load(self) -> Snapshot: ...

    async def flush(self, epoch: Epoch, writes: Sequence[Write]) -> None:
        """Commit the writes in one statement, coalesced to one write per row."""
        ...

    async def quarantine(self, epoch: Epoch, event: QuarantinedEvent) -> int:
        """Keep an event that raised, freeze its run (`frozen` = a text naming the entry); returns the entry's id."""
        ...

    async def outputs(self, run: RunKey, task_ids: Sequence[str]) -> dict[str, str]:
        """JSON text of the return values (xcom key `return_value`, not mapped) of these tasks, where there is one."""
        ...

    async def pushed(self, run: RunKey, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """JSON text of what tasks (not mapped) pushed under keys, where it is there, by (task id, key)."""
        ...

    async def open_requests(self) -> list[TriggerRequest]:
        """Trigger requests that are not dealt with, oldest first, at most 500."""
        ...

    async def add_command(self, kind: str, payload: str, actor: str) -> int:
        """Write a row of `command` on somebody's behalf; returns its id. It is no flush: anybody may ask."""
        ...

    async def command_outcomes(self, numbers: Sequence[int]) -> list[CommandOutcome]:
        """Those of these commands that are dealt with."""
        ...

    async def committed_run(self, run: RunKey) -> CommittedRun | None:
        """A run as committed, finished or not."""
        ...

    async def previous_run(
        self, run: RunKey, dag_id: str, logical_date: datetime, *, only_scheduled: bool
    ) -> PreviousRun | None:
        """The run with the latest logical date before this one, among those that were made before `run`;
        `only_scheduled`: that somebody started one does not count."""
        ...

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
        """Instances of these tasks, in this order of tasks and then by map index: those after the place of a task and
        a map index, (-1, -1) = from the start. No states = any. Of the tasks in `single` only those with these map
        indexes."""
        ...

    async def next_run(self, query: RunQuery, after: RunKey) -> RunKey | None:
        """The next run in the order of keys that fits."""
        ...

    async def remains(self, run: RunKey, limit: int) -> Remains:
        """What is left of a run, at most so many of its attempts."""
        ...

    async def notes(self, runs: Sequence[RunKey], *, only_of_runs: bool = False) -> list[NoteRow]:
        """Notes of some runs and of their task instances."""
        ...

    async def open_commands(self) -> list[CommandRequest]:
        """Commands that are not dealt with, oldest first, at most 500."""
        ...

    async def taken_names(self, names: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these (dag_id, run_id) that a run has, finished or not."""
        ...

    async def slot_runs(self, dag_id: str, dates: Collection[datetime], run_ids: Collection[str]) -> list[SlotRun]:
        """Runs of a DAG, finished or not, that have one of these logical dates or run ids; oldest first."""
        ...

    async def set_import_problems(self, epoch: Epoch, problems: Sequence[ImportProblem]) -> None:
        """Record or clear import errors of DAG files."""
        ...

    async def pull_xcoms(
        self,
        run: RunKey,
        key: str,
        *,
        task_ids: Sequence[str] | None = None,
        map_indexes: Sequence[int] | None = None,
        most_bytes: int,
    ) -> list[PulledXCom]:
        """Values under one key, by task id and map index; None: of all. Raises TooMuch above `most_bytes`."""
        ...

    async def page_xcoms(self, run: RunKey, key: str, task_id: str, *, after: int, most_bytes: int) -> list[PulledXCom]:
        """The first values of a task under one key after a map index, as many as fit, but at least one; none: that was
        all. At most XCOM_PAGE of them."""
        ...

    async def write_settings(
        self,
        epoch: Epoch,
        rows: Sequence[SettingRow],
        *,
        request: tuple[AttemptId, int] | None = None,
        event: EventRow | None = None,
    ) -> bool:
        """Commit variables and connections in one statement; whether a row was written or removed. If so (or if there
        are no rows), `event` goes into the audit with it.

        `request` is the attempt and number of a task's request: carried out before, it only gives its answer again.
        An attempt's requests come one after the other.
        """
        ...

    async def variable(self, key: str) -> VariableRow | None: ...

    async def connection(self, conn_id: str) -> ConnectionRow | None: ...
