"""Stores for tests: a migrated private Postgres, row images with defaults, and one handle for both kinds of store.

pytest_plugins = ["tests.support.store"]     for the fixtures `migrated_cluster`, `dsn` and `subject`
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import anyio
import pytest

from tests.support.postgres import TestCluster
from tickless.core.decision import Write
from tickless.model.id import UNMAPPED, AttemptId, RunKey, TaskId, VersionKey
from tickless.model.row import AttemptRow, InstanceRow, RunRow, VersionRow, XComRow
from tickless.model.state import AttemptState, RunState, TaskState
from tickless.store.base import Store
from tickless.store.connect import Connection, connect
from tickless.store.memory import MemoryStore
from tickless.store.migrate import migrate
from tickless.store.pool import SEARCH_PATH
from tickless.store.postgres import PostgresStore

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
SHORT = timedelta(milliseconds=200)


@pytest.fixture(scope="session")
def migrated_cluster() -> Iterator[TestCluster]:
    cluster = TestCluster()
    asyncio.run(cluster.start(migrate))
    yield cluster
    asyncio.run(cluster.stop())


@pytest.fixture
async def dsn(migrated_cluster: TestCluster) -> AsyncIterator[str]:
    """A fresh, migrated database."""
    dsn = await migrated_cluster.create_database()
    yield dsn
    await migrated_cluster.drop_database(dsn)


@asynccontextmanager
async def connected(dsn: str, **settings: str) -> AsyncIterator[Connection]:
    """An operator's connection: sees the tables by their bare names."""
    connection = await connect(dsn, application_name="operator", settings={"search_path": SEARCH_PATH} | settings)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def opened(dsn: str, **arguments: Any) -> AsyncIterator[PostgresStore]:
    """A Postgres store that does not wait long for locks."""
    store = PostgresStore(dsn, **({"lock_timeout": SHORT} | arguments))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def until(check: Callable[[], Any], *, patience: float = 10.0) -> None:
    """Wait for something in another process, which tells nobody; `check` may be a coroutine function."""
    with anyio.fail_after(patience):
        while True:
            is_so = check()
            if await is_so if isinstance(is_so, Awaitable) else is_so:
                return
            await anyio.sleep(0.005)


class Subject(Protocol):
    """A store under the contract, and what the world does to it behind its back."""

    store: Store

    async def request(self, dag_id: str, **arguments: Any) -> int:
        """Somebody's `tickless.trigger_dag`."""
        ...

    async def command(self, kind: str, payload: str) -> int:
        """Somebody's `tickless.request_command`."""
        ...

    async def edit(self, row: InstanceRow) -> None:
        """An operator's UPDATE of the state of a task instance."""
        ...

    async def break_next_write(self) -> None:
        """The next write is lost before it commits."""
        ...

    async def import_errors(self) -> dict[tuple[str, str], str]:
        """What is recorded, by folder and file."""
        ...

    async def audit(self) -> list[str]:
        """The actions in the audit, oldest first."""
        ...


class MemorySubject:
    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.store: Store = self.memory

    async def request(self, dag_id: str, **arguments: Any) -> int:
        return self.memory.add_request(dag_id, **arguments)

    async def command(self, kind: str, payload: str) -> int:
        return self.memory.request_command(kind, payload)

    async def edit(self, row: InstanceRow) -> None:
        self.memory.instances[row.key] = replace(self.memory.instances[row.key], state=row.state)

    async def break_next_write(self) -> None:
        self.memory.fail_next(commit=False)

    async def import_errors(self) -> dict[tuple[str, str], str]:
        return {key: problem.error or "" for key, problem in self.memory.import_problems.items()}

    async def audit(self) -> list[str]:
        return [event.action for event in self.memory.events]


class PostgresSubject:
    def __init__(self, store: PostgresStore, dsn: str) -> None:
        self.store: Store = store
        self._dsn = dsn

    async def request(self, dag_id: str, **arguments: Any) -> int:
        names = ("conf", "run_id", "logical_date", "idempotency_key")
        arguments = {"conf": "{}"} | arguments
        async with connected(self._dsn) as connection:
            number = await connection.fetchval(
                "select tickless.trigger_dag($1, $2, $3, $4, $5)", dag_id, *(arguments.get(name) for name in names)
            )
        return int(number)

    async def command(self, kind: str, payload: str) -> int:
        async with connected(self._dsn) as connection:
            number = await connection.fetchval("select tickless.request_command($1, $2)", kind, payload)
        return int(number)

    async def edit(self, row: InstanceRow) -> None:
        async with connected(self._dsn) as connection:
            await connection.execute(
                "update task_instance set state = nullif($2, 'none') where dag_run_key = $1 and task_id = $3",
                *(row.run, row.state.value, row.task_id),
            )

    async def break_next_write(self) -> None:
        async with connected(self._dsn) as connection:
            await connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where application_name = 'tickless writer' and datname = current_database()"
            )

    async def import_errors(self) -> dict[tuple[str, str], str]:
        async with connected(self._dsn) as connection:
            rows = await connection.fetch("select folder, file, error from import_error")
        return {(row["folder"], row["file"]): row["error"] for row in rows}

    async def audit(self) -> list[str]:
        async with connected(self._dsn) as connection:
            return [row["action"] for row in await connection.fetch("select action from event_log order by id")]


@pytest.fixture(params=["memory", "postgres"])
async def subject(request: pytest.FixtureRequest, migrated_cluster: TestCluster) -> AsyncIterator[Subject]:
    """Either store, empty."""
    if request.param == "memory":
        yield MemorySubject()
        return
    dsn = await migrated_cluster.create_database()
    async with opened(dsn) as store:
        yield PostgresSubject(store, dsn)
    await migrated_cluster.drop_database(dsn)


# ---- row images ---------------------------------------------------------------------------------------------------


def version(key: int = 1, *, dag_id: str = "etl", number: int = 1, **rest: Any) -> VersionRow:
    defaults: dict[str, Any] = {
        "spec": '{"dag_id": "etl"}',
        "hash": f"hash {key}",
        "bundle": "/bundle",
        "file": f"{dag_id}.py",
    }
    defaults |= {"key": key, "dag_id": dag_id, "number": number, "created_at": NOW}
    return VersionRow(**defaults | rest)


def run(key: int = 1, **rest: Any) -> RunRow:
    defaults: dict[str, Any] = {
        "key": RunKey(key),
        "dag_id": "etl",
        "run_id": f"manual__{key}",
        "version": VersionKey(1),
        "state": RunState.RUNNING,
        "run_type": "manual",
        "conf": '{"z": 1, "a": [1.50, "ü"]}',
        "logical_date": None,
        "queued_at": NOW,
    }
    return RunRow(**defaults | rest)


def instance(task_id: str = "extract", *, run: int = 1, map_index: int = UNMAPPED, **rest: Any) -> InstanceRow:
    defaults: dict[str, Any] = {
        "run": RunKey(run),
        "task_id": TaskId(task_id),
        "map_index": map_index,
        "state": TaskState.NONE,
    }
    return InstanceRow(**defaults | rest)


def attempt(attempt_id: int, task_id: str = "extract", *, run: int = 1, **rest: Any) -> AttemptRow:
    defaults: dict[str, Any] = {
        "attempt_id": AttemptId(attempt_id),
        "run": RunKey(run),
        "task_id": TaskId(task_id),
        "map_index": UNMAPPED,
        "try_number": 1,
        "state": AttemptState.QUEUED,
        "executor": "local",
        "queue": "default",
        "pool": "default_pool",
        "pool_slots": 1,
        "queued_at": NOW,
        "log_path": f"etl/{run}/{task_id}/1-{attempt_id}.log",
    }
    return AttemptRow(**defaults | rest)


def xcom(
    task_id: str = "extract", value: str = "1", *, run: int = 1, key: str = "return_value", **rest: Any
) -> XComRow:
    defaults: dict[str, Any] = {
        "run": RunKey(run),
        "task_id": TaskId(task_id),
        "map_index": UNMAPPED,
        "key": key,
        "value": value,
    }
    return XComRow(**defaults | {"created_at": NOW} | rest)


def new(*rows: Any) -> list[Write]:
    """Inserts; of unguarded kinds, upserts."""
    guarded = (RunRow, InstanceRow, AttemptRow)
    return [Write(row, None, isinstance(row, guarded)) for row in rows]


def change(row: RunRow | InstanceRow | AttemptRow, *was: object) -> Write:
    """An update, if the guarded columns are `was`."""
    return Write(row, was)
