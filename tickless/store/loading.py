"""Reading a Snapshot: one consistent picture, streamed, so that the loop turns while a large one comes in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import asyncpg

from tickless.core.snapshot import Snapshot
from tickless.model.backfill import BackfillKey
from tickless.model.id import RunKey
from tickless.store.connect import Connection
from tickless.store.rows import (
    attempt_row,
    backfill_row,
    dag_row,
    instance_row,
    map_row,
    pool_row,
    run_row,
    tally_row,
    version_row,
)
from tickless.store.sql import query

_BATCH = 500
"""Rows per round trip: about 3 ms of our time."""

_VERSIONS = query("load_versions")
_CURRENT = query("load_current")
_DAGS = query("load_dags")
_LAST_NUMBERS = query("load_last_numbers")
_RUNS = query("load_runs")
_INSTANCES = query("load_instances")
_TALLIES = query("load_tallies")
_PAST_TALLIES = query("load_past_tallies")
_MAPS = query("load_maps")
_ATTEMPTS = query("load_attempts")
_BACKFILLS = query("load_backfills")
_POOLS = query("load_pools")
_HIGHEST = query("load_highest")

T = TypeVar("T")


async def read_snapshot(connection: Connection, *, with_versions: bool = True) -> Snapshot:
    """Everything unfinished, as of one moment. Without versions it is a good deal smaller."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        highest = await connection.fetchrow(_HIGHEST)
        assert highest is not None
        return Snapshot(
            versions=await _all(connection, _VERSIONS, version_row) if with_versions else [],
            current={row["dag_id"]: row["current_version"] async for row in _stream(connection, _CURRENT)},
            dags=await _all(connection, _DAGS, dag_row),
            last_numbers={row["dag_id"]: row["number"] async for row in _stream(connection, _LAST_NUMBERS)},
            runs=await _all(connection, _RUNS, run_row),
            instances=await _all(connection, _INSTANCES, instance_row),
            tallies=await _all(connection, _TALLIES, tally_row),
            past_tallies=await _all(connection, _PAST_TALLIES, tally_row),
            maps=await _all(connection, _MAPS, map_row),
            attempts=await _all(connection, _ATTEMPTS, attempt_row),
            backfills=await _all(connection, _BACKFILLS, backfill_row),
            last_backfill=BackfillKey(highest["last_backfill"]),
            pools=await _all(connection, _POOLS, pool_row),
            last_run=RunKey(highest["last_run"]),
            last_version=highest["last_version"],
        )


async def _all(connection: Connection, query: str, make: Callable[[asyncpg.Record], T]) -> list[T]:
    return [make(record) async for record in _stream(connection, query)]


async def _stream(connection: Connection, query: str) -> AsyncIterator[asyncpg.Record]:
    async for record in connection.cursor(query, prefetch=_BATCH):
        yield record
