"""Somebody's own transaction, left open: it stalls nothing of others, whatever of the request tables it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.stage import Stage
from tickless.store.connect import Connection, connect
from tickless.store.embedded import EmbeddedPostgres

FILES = {"d.py": 'with DAG("d"): bash("a")\nwith DAG("other"): bash("a")'}
BAD = ("database.lost", "flush.conflicted")


class Psql:
    """A connection that stays open between calls, in a loop of its own, as somebody's psql does."""

    def __init__(self, dsn: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection: Connection = self._loop.run_until_complete(connect(dsn, application_name="psql"))

    def __call__(self, statement: str, *arguments: Any) -> Any:
        return self._do(lambda connection: connection.fetchval(statement, *arguments))

    def _do(self, act: Callable[[Connection], Awaitable[Any]]) -> Any:
        async def go() -> Any:
            return await act(self._connection)

        return self._loop.run_until_complete(go())

    def close(self) -> None:
        self._do(lambda connection: connection.close())
        self._loop.close()


@contextmanager
def psql(stage: Stage) -> Iterator[Psql]:
    session = Psql(EmbeddedPostgres(stage.home).dsn)
    try:
        yield session
    finally:
        session.close()


def others_go_on(stage: Stage) -> None:
    """By API, by SQL, by a command of one commit and by one of several: everything of others is dealt with."""
    run, state = stage.do("other")
    assert state == "success"
    assert stage.cli("task", "clear", run, "--yes").json["tasks"] == 1
    assert stage.end(run) == "success"
    with psql(stage) as other:
        number = other("select tickless.trigger_dag('other')")
        asked = "select from trigger_request where id = $1 and handled_at is not null"
        stage.wait(lambda: stage.query(asked, number), "somebody else's run")
        for function in ("pause_dag", "unpause_dag"):
            number = other(f"select tickless.{function}('other')")
        handled = "select from command where id = $1 and handled_at is not null"
        stage.wait(lambda: stage.query(handled, number), "somebody else's commands")


def test_an_open_transaction_that_has_asked_for_everything_stalls_nothing() -> None:
    with Stage(FILES) as stage:
        stage.start()
        with psql(stage) as holder:
            holder("begin")
            holder("select tickless.trigger_dag('d')")
            holder("select tickless.pause_dag('other')")
            holder("select tickless.request_command('clear', '{\"run\": 1}')")
            others_go_on(stage)
            assert not stage.client.get("/runs", dag_id="d")["items"]
            holder("rollback")
            others_go_on(stage)
        assert not [event for event in stage.events() if event["event"] in BAD]
        stage.assert_clean_log()


def test_rows_of_requests_that_somebody_has_locked_wait_for_him_and_nobody_else_does() -> None:
    with Stage(FILES) as stage:
        stage.start()
        run, _ = stage.do("d")
        stage.kill_daemon()
        with psql(stage) as holder:
            request = holder("select tickless.trigger_dag('d')")
            pause = holder("select tickless.pause_dag('d')")
            clear = holder("select tickless.clear_task($1)", run)
            holder("begin")
            holder("select count(*) from (select from tickless.trigger_request for update) as held")
            # A share lock is enough to hold up an update.
            holder("select count(*) from (select from tickless.command for share) as held")
            stage.start()
            others_go_on(stage)
            open_now = "select from {} where id = any ($1) and handled_at is null"
            assert len(stage.query(open_now.format("trigger_request"), [request])) == 1
            assert len(stage.query(open_now.format("command"), [pause, clear])) == 2
            holder("commit")
            stage.wait(lambda: not stage.query(open_now.format("trigger_request"), [request]), "the run")
            stage.wait(lambda: not stage.query(open_now.format("command"), [pause, clear]), "the commands")
        assert [each["dag_id"] for each in stage.client.get("/runs", dag_id="d")["items"]] == ["d", "d"], "once"
        assert stage.client.get("/dags/d")["is_paused"]
        assert not [event for event in stage.events() if event["event"] in BAD], "nothing was rebuilt"
        stage.rest()
        stage.assert_clean_log()
