"""docs/howto/sql.md: every statement of it is run, in order, and every function and grant of it is true."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from tests.support.store import connected, new, opened, run, version
from tickless.daemon.choice import AT_THE_DESK, DELETIONS, RUN_VERDICTS, read_alteration, read_deletion
from tickless.daemon.runmark import read_run_mark
from tickless.daemon.sqlcommands import command_of, start_of
from tickless.store.base import CommandRequest

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "sql.md").read_text()
STATEMENTS = [
    statement.strip()
    for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    for statement in block.split(";\n")
    if statement.strip()
]
NAMED = set(re.findall(r"tickless\.(\w+)\(", PAGE))
GRANTED = {
    name
    for statement in STATEMENTS
    if statement.startswith("GRANT EXECUTE")
    for name in re.findall(r"tickless\.(\w+)", statement)
}


def read(command: CommandRequest) -> None:
    """As the daemon reads it; raises for what it would not understand."""
    if command.kind not in AT_THE_DESK:
        command_of(command)
    elif command.kind in DELETIONS:
        read_deletion(command.kind, command.payload)
    elif command.kind in RUN_VERDICTS:
        read_run_mark(command.kind, command.payload)
    else:
        read_alteration(command.kind, command.payload)


async def test_every_statement_works_and_the_daemon_understands_what_it_asks_for(dsn: str) -> None:
    async with opened(dsn) as store, connected(dsn) as owner:
        epoch = await store.take_epoch("host:1")
        await store.flush(epoch, new(version(), run()))
        await owner.execute("create schema app; create table app.upload (day date, file text)")
        try:
            for statement in STATEMENTS:
                await owner.execute(statement)
            commands, requests = await store.open_commands(), await store.open_requests()
            for command in commands:
                read(command)
            assert [start_of(request).dag_id for request in requests] == ["etl", "etl"]
            asked = [line for line in STATEMENTS if line.startswith("SELECT") and "trigger_dag" not in line]
            assert len(commands) == len(asked) == 13
        finally:
            await owner.execute("drop owned by app; drop role app")


async def test_the_page_names_every_function_that_the_public_may_not_call_and_somebody_may(dsn: str) -> None:
    async with connected(dsn) as owner:
        rows = await owner.fetch(
            "select p.proname as name, p.prosecdef as is_definer, p.proconfig as config,"
            " has_function_privilege('public', p.oid, 'execute') as is_public"
            " from pg_proc p where p.pronamespace = 'tickless'::regnamespace"
        )
    assert not [row["name"] for row in rows if row["is_public"]]
    for_others = {row["name"] for row in rows if row["is_definer"]}
    assert for_others == NAMED
    assert {config for row in rows if row["is_definer"] for config in row["config"]} == {
        "search_path=pg_catalog, pg_temp"
    }
    assert for_others - GRANTED == {"request_command", "delete_run"}


async def test_a_role_may_do_what_it_was_granted_and_nothing_else(dsn: str) -> None:
    async with opened(dsn) as store, connected(dsn) as owner:
        await store.take_epoch("host:1")
        try:
            for statement in STATEMENTS:
                if statement.startswith(("CREATE ROLE", "GRANT", "REVOKE")):
                    await owner.execute(statement)
            async with connected(dsn) as app:
                await app.execute("set session authorization app")
                # What a caller puts in the way changes nothing.
                await app.execute("create temporary table trigger_request (id int); set search_path = pg_temp, public")
                await app.execute("select tickless.trigger_dag('etl'), tickless.clear_task(1), tickless.cancel_run(1)")
                await app.execute("select error from tickless.command")
                for refused in (
                    "select tickless.pause_dag('etl')",
                    "select tickless.delete_run(1)",
                    "select tickless.request_command('pause_dag', '{\"dag_id\": \"etl\"}')",
                    "insert into tickless.command (kind) values ('clear')",
                    "update tickless.command set kind = 'mark'",
                    "select from tickless.dag_run",
                ):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await app.execute(refused)
                for bad in ("select tickless.trigger_dag(null)", "select tickless.trigger_dag('')"):
                    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                        await app.execute(bad)
            assert {each.actor for each in await store.open_requests()} == {"sql:app"}
            assert {each.actor for each in await store.open_commands()} == {"sql:app"}
        finally:
            await owner.execute("drop owned by app; drop role app")
