"""Bringing the schema up to date: numbered files forward only, functions whenever they differ.

`NNNN_name.sql` runs once, in a transaction of its own, and never changes afterwards: its checksum is kept. `r_name.sql`
holds functions and is applied again whenever its text differs. Two daemons that start at once take turns through an
advisory lock. Everything lives in the schema `tickless`; nothing outside of it is touched, except the search path of
a database that is ours alone.

A migration's header says which locks it takes, for how long, and whether the previous release works on (`Compat: yes`).
A database with newer migrations than this release knows is refused, unless all of these are compatible; its functions
are then left as they are.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.resources import files

import asyncpg

from tickless.errors import InvariantBroken, Unavailable, UserError
from tickless.store.connect import DRIVER_ERRORS, SCHEMA, Connection, connect, map_error
from tickless.store.pool import SEARCH_PATH
from tickless.store.sql import query

LOCK_CLASS = 0x746B6C  # "tkl": the first key of every advisory lock of ours
_MIGRATION_LOCK = 0  # the second key; shards count from 1
_LOCK_SLICE = timedelta(seconds=10)
_LOCK_SLICES = 6

_PRESENT = query("migration_presence")
_APPLIED = query("applied_migrations")
_RECORD = query("record_migration")
_LOCK = query("lock_migrations")
_UNLOCK = query("unlock_migrations")
_LOCK_HOLDER = query("migration_lock_holder")

_LEDGER = f"""
create table {SCHEMA}.schema_migration (
    name text primary key,
    checksum text not null,
    is_compatible boolean not null,
    applied_at timestamptz not null default now()
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of migrations/."""

    name: str
    text: str
    checksum: str
    is_repeatable: bool
    is_compatible: bool
    """The previous release keeps working after it."""


@cache
def all_migrations() -> tuple[Migration, ...]:
    """Numbered ones in order, then the repeatable ones."""
    found = []
    for entry in (files("tickless.store") / "migrations").iterdir():
        if entry.name.endswith(".sql"):
            text = entry.read_text(encoding="utf-8")
            is_repeatable = entry.name.startswith("r_")
            found.append(
                Migration(
                    name=entry.name.removesuffix(".sql"),
                    text=text,
                    checksum=hashlib.sha256(text.encode()).hexdigest(),
                    is_repeatable=is_repeatable,
                    is_compatible=is_repeatable or re.search(r"^-- Compat: yes\b", text, re.MULTILINE) is not None,
                )
            )
    return tuple(sorted(found, key=lambda migration: (migration.is_repeatable, migration.name)))


async def migrate(dsn: str, *, owns_database: bool = False) -> list[str]:
    """Bring the database up to date; the names of what was applied.

    With `owns_database` (the private server) the database's search path is set, so that every client finds the tables
    by their bare names. In somebody else's database that is the clients' own business.

    Raises UserError for a database that a newer release has changed, Unavailable when it is away or being migrated.
    """
    connection = await connect(
        dsn,
        application_name="tickless migrate",
        lock_timeout=_LOCK_SLICE,
        settings={"search_path": SEARCH_PATH, "client_min_messages": "warning"},
    )
    try:
        await _lock(connection)
        done = await _apply(connection, all_migrations())
        if owns_database:
            await _set_search_path(connection)
        await connection.execute(_UNLOCK, LOCK_CLASS, _MIGRATION_LOCK)
    except DRIVER_ERRORS as error:
        raise (map_error(error) or error) from error
    finally:
        # Nothing is left to lose, and closing politely would wait for a server that may be stuck.
        connection.terminate()
    return done


async def _lock(connection: Connection) -> None:
    for _ in range(_LOCK_SLICES):
        try:
            # In slices: an endless wait would hold a snapshot, and with it all dead rows of the database.
            await connection.execute(_LOCK, LOCK_CLASS, _MIGRATION_LOCK)
        except asyncpg.LockNotAvailableError:
            continue
        return
    holder = await connection.fetchval(_LOCK_HOLDER, LOCK_CLASS, _MIGRATION_LOCK)
    raise Unavailable(
        f"another process (Postgres backend {holder}) has been migrating the database for a minute",
        hint=f"Look at what it does: SELECT * FROM pg_stat_activity WHERE pid = {holder};",
    )


async def _apply(connection: Connection, migrations: tuple[Migration, ...]) -> list[str]:
    applied: dict[str, asyncpg.Record] = {}
    present = await connection.fetchrow(_PRESENT)
    assert present is not None
    if present["has_ledger"]:
        applied = {row["name"]: row for row in await connection.fetch(_APPLIED)}
    known = {migration.name for migration in migrations}
    newer = [name for name in applied if name not in known and not name.startswith("r_")]
    if any(not applied[name]["is_compatible"] for name in newer):
        raise UserError(
            f"the database was changed by a newer release of tickless ({', '.join(sorted(newer))})",
            hint="Run that release, or restore a backup from before its first start.",
        )
    done: list[str] = []
    for migration in migrations:
        before = applied.get(migration.name)
        if before is not None and before["checksum"] == migration.checksum:
            continue
        if migration.is_repeatable and newer:
            continue  # the newer release's functions serve us, and ours may not serve it
        if before is not None and not migration.is_repeatable:
            raise InvariantBroken(f"migration {migration.name} is not what was applied to this database")
        async with connection.transaction():
            if not present["has_ledger"] and not done:
                if not present["has_schema"]:  # "if not exists" would still ask for the right to make one
                    await connection.execute(f"create schema {SCHEMA}")
                await connection.execute(_LEDGER)
            await connection.execute(migration.text)
            await connection.execute(_RECORD, migration.name, migration.checksum, migration.is_compatible)
        done.append(migration.name)
    return done


async def _set_search_path(connection: Connection) -> None:
    database = await connection.fetchval("select quote_ident(current_database())")
    await connection.execute(f"alter database {database} set search_path = {SEARCH_PATH}")
