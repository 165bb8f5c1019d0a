"""Rows of requests that somebody else has locked, on a real Postgres."""

from __future__ import annotations

import pytest

from tests.support.store import connected, new, opened, run, version
from tickless.errors import Unavailable
from tickless.model.row import CommandProgress, RequestDone
from tickless.store.postgres import PostgresStore

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio


async def locked(store: PostgresStore) -> tuple[list[int], list[int]]:
    """Ids of the requests, and of the commands, that are told to be locked."""
    requests, commands = await store.open_requests(), await store.open_commands()
    return [each.id for each in requests if each.is_locked], [each.id for each in commands if each.is_locked]


@pytest.mark.parametrize("how", ["update", "no key update", "share"])
async def test_a_locked_row_is_told_from_a_free_one_and_free_again_afterwards(dsn: str, how: str) -> None:
    async with opened(dsn) as store, connected(dsn) as holder:
        epoch = await store.take_epoch("host:1")
        for _ in range(2):
            await holder.execute("select tickless.trigger_dag('etl'), tickless.pause_dag('etl')")
        assert await locked(store) == ([], [])
        await holder.execute("begin")
        await holder.execute(f"select from trigger_request where id = 1 for {how}")
        await holder.execute(f"select from command where id = 2 for {how}")
        assert await locked(store) == ([1], [2])
        await store.flush(epoch, new(RequestDone(table="trigger_request", id=2), RequestDone(table="command", id=1)))
        assert [each.id for each in await store.open_requests()] == [1]
        await holder.execute("commit")
        assert await locked(store) == ([], [])


@pytest.mark.parametrize("row", [RequestDone(table="command", id=1), CommandProgress(id=1, cursor="{}")])
async def test_a_row_that_is_locked_after_all_ends_the_flush_and_says_who_holds_it(
    dsn: str, row: RequestDone | CommandProgress
) -> None:
    async with opened(dsn) as store, connected(dsn) as holder:
        epoch = await store.take_epoch("host:1")
        await holder.execute("select tickless.pause_dag('etl')")
        await holder.execute("begin")
        await holder.execute("select from command for update")
        with pytest.raises(Unavailable):
            await store.flush(epoch, new(version(), run(), row))
        await holder.execute("rollback")
        assert (await store.load()).runs == [], "all or nothing"
        epoch = await store.take_epoch("host:1")
        await store.flush(epoch, new(version(), run(), row))
