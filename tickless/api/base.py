"""The port between the API and the daemon. `daemon/` implements `Backend`; tests/support has a fake.

Every method that changes something returns only after the COMMIT of the change, or raises: `NotFound` (404),
`Refused` (409), another `UserError` (422), `Unavailable` (503: starting, stopping, overloaded, no database).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from tickless.api.watch import RunWatch
from tickless.core.commands import ControlBackfill, CreateBackfill, RunStarted, StartRun
from tickless.core.explain import Reason as Reason
from tickless.logs.base import LogStore
from tickless.model.backfill import BackfillKey, SlotPlan
from tickless.model.connection import ConnectionFields
from tickless.model.id import RunKey, TaskKey
from tickless.model.layout import Layout
from tickless.model.row import InstanceRow, VersionRow
from tickless.model.schedule import Slot
from tickless.model.setting import Connection, Variable
from tickless.store.reader import DagInfo, Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The daemon in one look. Made without any I/O."""

    state: str
    """starting, leader, standby, recovering (database or launcher away), stopping."""
    is_ready: bool
    """Takes work: what /readyz and the exit code of `tickless status` say."""
    version: str
    pid: int
    host: str
    home: str
    started_at: datetime
    mode: str
    """dev or daemon."""
    epoch: int | None = None
    database: str = ""
    """One line, without password: `embedded PostgreSQL 18.1, port 41234` or host and name of a server."""
    launcher: str = ""
    """One line: `pid 4711` or why it is away."""
    dags: int = 0
    import_errors: int = 0
    runs: dict[str, int] = field(default_factory=dict)
    """Unfinished runs by state (queued, running)."""
    tasks: dict[str, int] = field(default_factory=dict)
    """Unfinished task instances by state (scheduled, queued, running, up_for_retry)."""
    parallelism: int = 0
    problems: tuple[str, ...] = ()
    """Sentences; empty when all is well."""


class SecretStore(Protocol):
    """Variables and connections, opened. What is not there is NotFound."""

    async def variable(self, key: str) -> Variable: ...

    async def variables(self, *, after: str | None, limit: int) -> list[Variable]: ...

    async def set_variable(self, key: str, value: str, description: str | None = None, *, actor: str) -> None:
        """Create it or change its value. Without a description it keeps the one it has."""
        ...

    async def delete_variable(self, key: str, *, actor: str) -> bool:
        """Whether there was one."""
        ...

    async def connection(self, conn_id: str) -> Connection: ...

    async def connections(self, *, after: str | None, limit: int) -> list[Connection]: ...

    async def set_connection(self, connection: ConnectionFields, *, actor: str, is_new: bool = False) -> None:
        """Create it, or put it in the place of the one with its id: with `is_new` that is Refused."""
        ...

    async def delete_connection(self, conn_id: str, *, actor: str) -> bool:
        """Whether there was one."""
        ...

    async def rotate(self, *, actor: str) -> int:
        """Seal everything with a new key; how much that was."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Altered:
    """What a clear or a mark has come to."""

    tasks: int
    runs: int
    refused: tuple[str, ...] = ()
    """By filter: runs that could not be changed, with why; the first ones of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a clear or a mark would change."""

    tasks: int
    runs: int
    first: tuple[InstanceRow, ...]
    """Some of the task instances."""


class Backend(Protocol):
    """What the daemon offers to its surfaces."""

    @property
    def reader(self) -> Reader:
        """Reads of committed rows, on connections of its own."""
        ...

    @property
    def logs(self) -> LogStore: ...

    @property
    def secrets(self) -> SecretStore: ...

    @property
    def watch(self) -> RunWatch:
        """The daemon calls `watch.publish(effect)` for each effect that it releases, `watch.resync()` at a rebuild."""
        ...

    async def start_run(self, command: StartRun) -> RunStarted:
        """Start a run of the current version, or find the one that has this idempotency key (also a finished one)."""
        ...

    async def cancel_run(self, run: RunKey, actor: str) -> None:
        """Refused when the run is finished."""
        ...

    async def alter(self, kind: str, payload: str, actor: str) -> Altered:
        """Carry out a clear or a mark (`daemon.choice.Alteration` as JSON); returns when all of it is committed."""
        ...

    async def preview(self, kind: str, payload: str) -> Preview:
        """What `alter` would change now."""
        ...

    async def set_note(self, key: TaskKey, text: str | None, actor: str) -> None:
        """Write a note about a task instance, or (no task_id) about its run; None removes it."""
        ...

    async def set_pool(self, name: str, slots: int, actor: str) -> None: ...

    async def pause_dag(self, dag_id: str, *, is_paused: bool, actor: str) -> None:
        """Pause or unpause a DAG. NotFound for one that was never known."""
        ...

    async def create_backfill(self, command: CreateBackfill) -> BackfillKey: ...

    async def preview_backfill(self, command: CreateBackfill, after: datetime | None, limit: int) -> Sequence[SlotPlan]:
        """The slots behind a place that it would deal with, and how, as things are now."""
        ...

    async def control_backfill(self, command: ControlBackfill) -> None:
        """Refused when it is completed."""
        ...

    def explain_backfill(self, key: BackfillKey) -> str | None:
        """What holds an uncompleted backfill back, in a sentence."""
        ...

    async def layout(self, version: VersionRow) -> Layout:
        """Where its tasks lie when it is drawn: computed once per version, and kept."""
        ...

    def upcoming(self, dag: DagInfo, count: int) -> Sequence[Slot]:
        """The next slots of its schedule, as if it were not paused; the first may be due already."""
        ...

    def explain_schedule(self, dag_id: str) -> Sequence[Reason]:
        """Why the schedule makes no run now; empty when nothing but time holds it back."""
        ...

    async def explain(self, run: RunKey, task_id: str | None, map_index: int) -> Sequence[Reason]:
        """Why the run (every unfinished task of it) or the task does not run; never empty."""
        ...

    def status(self) -> Status: ...

    def database_url(self) -> str:
        """The DSN, with password: whoever may open the socket is the daemon's own user."""
        ...

    async def stop(self, *, kill_tasks: bool, actor: str) -> None:
        """Begin to stop; returns when the daemon is about to. `kill_tasks` also ends running tasks, the launcher and
        the embedded Postgres; without it tasks go on under the launcher."""
        ...
