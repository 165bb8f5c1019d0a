"""JSON or arrays? One flush in both forms, on a private Postgres with default durability.

    python -m benchmarks.flush [--rounds N] [--memory]

Both forms are one call of a plpgsql function that checks the epoch, writes each section with one statement and
compares the row counts. `json` is ours (migrations/r_flush.sql: a JSON text per section, json_to_recordset); `arrays`
is the same with an array per column and unnest, made here. A flush of n rows is what tasks that end make of it:
40 % updates of task instances, 20 % updates of attempts, 20 % new attempts, 20 % values; 5 rows are one hop of a
chain. `wall` is the median from rows in RAM to the answer, `client` and `server` the CPU time per flush.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from tests.support.postgres import make_temporary_home
from tickless.core.decision import Write
from tickless.model.id import UNMAPPED, AttemptId, RunKey, TaskId, VersionKey
from tickless.model.row import AttemptRow, InstanceRow, RunRow, VersionRow, XComRow
from tickless.model.state import AttemptState, EndReason, RunState, TaskState
from tickless.store.batch import Batch
from tickless.store.connect import Connection
from tickless.store.embedded import EmbeddedPostgres
from tickless.store.migrate import migrate
from tickless.store.postgres import PostgresStore
from tickless.store.sql import query

SIZES = (1, 5, 50, 2_000)
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

_INSTANCE = (
    *(("run", "bigint"), ("task_id", "text"), ("map_index", "int"), ("state", "text"), ("try_number", "int")),
    *(("attempt_id", "bigint"), ("lost_count", "int"), ("scheduled_at", "timestamptz"), ("queued_at", "timestamptz")),
    *(("started_at", "timestamptz"), ("ended_at", "timestamptz"), ("due_at", "timestamptz"), ("reason", "text")),
)
_END = (
    *(("attempt_id", "bigint"), ("state", "text"), ("started_at", "timestamptz"), ("ended_at", "timestamptz")),
    *(("stop_requested_at", "timestamptz"), ("stop_reason", "text"), ("exit_code", "int"), ("signal", "int")),
    *(("reason", "text"), ("error", "text"), ("pid", "int"), ("host", "text")),
)
_ATTEMPT = (
    *(_END[0], ("run", "bigint"), ("task_id", "text"), ("map_index", "int"), ("try_number", "int"), *_END[1:]),
    *(("executor", "text"), ("queue", "text"), ("pool", "text"), ("pool_slots", "int"), ("queued_at", "timestamptz")),
    *(("timeout_seconds", "float8"), ("log_path", "text")),
)
_XCOM = (
    *(("run", "bigint"), ("task_id", "text"), ("map_index", "int"), ("key", "text"), ("value", "text")),
    ("created_at", "timestamptz"),
)
_WAS, _HAD = ("was", "text"), ("had", "bigint")
_SECTIONS = {"i": (_WAS, _HAD, *_INSTANCE), "a": (_WAS, *_END), "n": _ATTEMPT, "x": _XCOM}
_COLUMN = {"run": "dag_run_key"}


def _function() -> str:
    """`bench_flush`: the array form."""
    parameters = ", ".join(f"{s}_{name} {kind}[]" for s, columns in _SECTIONS.items() for name, kind in columns)

    def source(section: str) -> str:
        columns = _SECTIONS[section]
        values = ", ".join(f"{section}_{name}" for name, _ in columns)
        return f"unnest({values}) as r({', '.join(name for name, _ in columns)})"

    def assignments(columns: Sequence[tuple[str, str]], skip: int) -> str:
        return ", ".join(
            f"{name} = " + ("nullif(r.state, 'none')" if name == "state" else f"r.{name}") for name, _ in columns[skip:]
        )

    def insert(section: str) -> str:
        columns = _SECTIONS[section]
        names = ", ".join(_COLUMN.get(name, name) for name, _ in columns)
        return f"({names}) select {', '.join('r.' + name for name, _ in columns)} from {source(section)}"

    check = "get diagnostics n = row_count; if n <> {} then raise exception 'conflict'; end if;"
    xcom_values = ", ".join("r.value::json" if name == "value" else f"r.{name}" for name, _ in _XCOM)
    return f"""
create function tickless.bench_flush(p_shard int, p_epoch bigint, {parameters}) returns void
language plpgsql as $$
declare n bigint;
begin
    perform from tickless.shard s where s.shard_id = p_shard and s.epoch = p_epoch for share;
    if not found then raise exception 'epoch'; end if;
    if i_run is not null then
        update tickless.task_instance t set {assignments(_INSTANCE, 3)} from {source("i")}
        where t.dag_run_key = r.run and t.task_id = r.task_id and t.map_index = r.map_index
            and t.state is not distinct from nullif(r.was, 'none') and t.attempt_id = r.had;
        {check.format("cardinality(i_run)")}
    end if;
    if a_attempt_id is not null then
        update tickless.task_attempt t set {assignments(_END, 1)} from {source("a")}
        where t.attempt_id = r.attempt_id and t.state = r.was;
        {check.format("cardinality(a_attempt_id)")}
    end if;
    if n_attempt_id is not null then
        insert into tickless.task_attempt {insert("n")} on conflict (attempt_id) do nothing;
        {check.format("cardinality(n_attempt_id)")}
    end if;
    if x_run is not null then
        insert into tickless.xcom ({", ".join(_COLUMN.get(name, name) for name, _ in _XCOM)}, dag_id, run_id)
        select {xcom_values}, d.dag_id, d.run_id from {source("x")} join tickless.dag_run d on d.key = r.run
        on conflict (dag_run_key, task_id, map_index, key) do update set
            value = excluded.value, created_at = excluded.created_at;
        {check.format("cardinality(x_run)")}
    end if;
end
$$
"""


def _columns(rows: Sequence[Any], columns: Sequence[tuple[str, str]]) -> list[list[Any] | None]:
    if not rows:
        return [None] * len(columns)
    return [list(map(attrgetter(name), rows)) for name, _ in columns]


def encode_arrays(batch: Batch) -> list[list[Any] | None]:
    """The sections as one list per column, in the order of `bench_flush`."""
    instances = [entry for _, entry in sorted(batch.instances.items())]
    attempts = [entry for _, entry in sorted(batch.attempts.items())]
    rows, guards = [row for row, _ in instances], [guard for _, guard in instances]
    return [
        [guard[0] for guard in guards] or None,
        [guard[1] for guard in guards] or None,
        *_columns(rows, _INSTANCE),
        [guard[0] for _, guard in attempts] or None,
        *_columns([row for row, _ in attempts], _END),
        *_columns([row for _, row in sorted(batch.new_attempts.items())], _ATTEMPT),
        *_columns([row for _, row in sorted(batch.xcoms.items())], _XCOM),
    ]


class Work:
    """Endless flushes of one size: in each, tasks end, hand on a value, and the next ones are admitted."""

    def __init__(self, run: RunKey, size: int) -> None:
        self.run = run
        self.tasks = max(1, round(size * 0.2))
        self.is_single = size == 1
        self.turn = 0

    def start(self) -> list[Write]:
        run = RunRow(
            *(),
            key=self.run,
            dag_id="bench",
            run_id=f"manual__{self.run}",
            version=VersionKey(1),
            state=RunState.RUNNING,
            run_type="manual",
            conf="{}",
            logical_date=None,
            queued_at=NOW,
        )
        instances = [self._instance(f"{side}{number}", 0) for side in "ab" for number in range(self.tasks)]
        attempts = [self._attempt(number, 0) for number in range(self.tasks)]
        rows: list[RunRow | InstanceRow | AttemptRow] = [run, *instances, *attempts]
        return [Write(row, None, True) for row in rows]

    def next(self) -> list[Write]:
        before, self.turn = self.turn, self.turn + 1
        writes: list[Write] = []
        for number in range(self.tasks):
            for side in "a" if self.is_single else "ab":
                was = (TaskState.RUNNING, self._id(0, before))
                writes.append(Write(self._instance(f"{side}{number}", self.turn), was))
            if self.is_single:
                continue
            ended = self._attempt(number, before, AttemptState.SUCCESS)
            writes.append(Write(ended, (AttemptState.QUEUED,)))
            writes.append(Write(self._attempt(number, self.turn), None, True))
            value = '{"rows": 12345, "path": "s3://bucket/some/where.parquet"}'
            writes.append(
                Write(
                    XComRow(
                        run=self.run,
                        task_id=TaskId(f"a{number}"),
                        map_index=UNMAPPED,
                        key="return_value",
                        value=value,
                        created_at=NOW,
                    )
                )
            )
        return writes

    def _id(self, number: int, turn: int) -> AttemptId:
        return AttemptId((self.run << 40) + turn * 10_000 + number + 1)

    def _instance(self, task_id: str, turn: int) -> InstanceRow:
        return InstanceRow(
            run=self.run,
            task_id=TaskId(task_id),
            map_index=UNMAPPED,
            state=TaskState.RUNNING,
            try_number=1,
            attempt_id=self._id(0, turn),
            scheduled_at=NOW,
            queued_at=NOW,
            started_at=NOW,
            reason=EndReason.EXITED,
        )

    def _attempt(self, number: int, turn: int, state: AttemptState = AttemptState.QUEUED) -> AttemptRow:
        is_over = state is AttemptState.SUCCESS
        return AttemptRow(
            attempt_id=self._id(number, turn),
            run=self.run,
            task_id=TaskId(f"a{number}"),
            map_index=UNMAPPED,
            try_number=1,
            state=state,
            executor="local",
            queue="default",
            pool="default_pool",
            pool_slots=1,
            queued_at=NOW,
            log_path=f"bench/{self.run}/a{number}/1-{self._id(number, turn)}.log",
            started_at=NOW if is_over else None,
            ended_at=NOW if is_over else None,
            exit_code=0 if is_over else None,
            reason=EndReason.EXITED if is_over else None,
            pid=4711 if is_over else None,
            host="host" if is_over else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Per flush, in milliseconds."""

    wall: float
    client: float
    server: float


def _server_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _measure(writer: Connection, work: Work, rounds: int, send: Callable[[Batch], Awaitable[Any]]) -> Figures:
    for _ in range(10):
        await send(Batch.of(work.next()))
    batches = [Batch.of(work.next()) for _ in range(rounds)]
    walls = []
    server, client = _server_cpu(writer.get_server_pid()), time.process_time()
    for batch in batches:
        began = time.perf_counter()
        await send(batch)
        walls.append(time.perf_counter() - began)
    client = time.process_time() - client
    server = _server_cpu(writer.get_server_pid()) - server
    return Figures(wall=statistics.median(walls) * 1e3, client=client / rounds * 1e3, server=server / rounds * 1e3)


def _least(figures: Sequence[Figures]) -> Figures:
    return Figures(
        wall=min(each.wall for each in figures),
        client=min(each.client for each in figures),
        server=min(each.server for each in figures),
    )


async def main(rounds: int, is_in_memory: bool) -> None:
    home = make_temporary_home(is_fast=is_in_memory)
    server = EmbeddedPostgres(home, settings={"fsync": "off"} if is_in_memory else None)
    try:
        started = await server.start()
        await migrate(server.dsn, owns_database=True)
        store = PostgresStore(server.dsn)
        await store.open()
        epoch = await store.take_epoch("bench")
        writer = store._writer
        assert writer is not None
        await writer.execute(_function())
        version = VersionRow(
            *(), key=VersionKey(1), dag_id="bench", number=1, spec="{}", hash="h", bundle="/b", file="f", created_at=NOW
        )
        await store.flush(epoch, [Write(version)])
        count = 2 + sum(len(columns) for columns in _SECTIONS.values())
        array_call = await writer.prepare(
            f"select tickless.bench_flush({', '.join(f'${number}' for number in range(1, count + 1))})"
        )

        json_call = query("flush")

        async def send_json(batch: Batch) -> None:
            await store._write(json_call, 1, epoch, batch.counts(), *batch.encode())

        async def send_arrays(batch: Batch) -> None:
            await array_call.fetchval(1, epoch, *encode_arrays(batch))

        print(f"PostgreSQL {started.version}, {os.cpu_count()} cores; milliseconds per flush")
        print("  rows  json: wall  client  server  arrays: wall  client  server")
        run = 0
        for size in SIZES:
            found: dict[str, list[Figures]] = {"json": [], "arrays": []}
            for _ in range(7):  # alternating, and the least of seven: the machine has other things to do
                for name, send in (("json", send_json), ("arrays", send_arrays)):
                    run += 1
                    work = Work(RunKey(run), size)
                    await store.flush(epoch, work.start())
                    found[name].append(await _measure(writer, work, max(20, rounds // max(1, size // 10)), send))
            j, a = _least(found["json"]), _least(found["arrays"])
            print(
                f"{size:>6}  {j.wall:>10.3f} {j.client:>7.3f} {j.server:>7.3f}"
                f"  {a.wall:>12.3f} {a.client:>7.3f} {a.server:>7.3f}"
            )
        await store.close()
    finally:
        await server.stop()
        shutil.rmtree(home)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--memory", action="store_true", help="no disk: shows what the two forms themselves cost")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.memory))
