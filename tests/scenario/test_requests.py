"""SQL is an API: a run starts when, and only when, somebody else's transaction commits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.stage import Stage
from tickless.store.connect import Connection, connect
from tickless.store.embedded import EmbeddedPostgres

FILES = {
    "x.py": 'with DAG("x"): bash("a", \'echo "$TICKLESS_CONF"\')',
    "y.py": 'with DAG("y"): held("a")',
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES) as stage:
        stage.start()
        yield stage


@asynccontextmanager
async def foreign(stage: Stage, **settings: str) -> AsyncIterator[Connection]:
    """Somebody's own connection, without our search_path."""
    connection = await connect(EmbeddedPostgres(stage.home).dsn, application_name="an app", settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


def by_sql(stage: Stage, act: Callable[[Connection], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        async with foreign(stage) as connection:
            return await act(connection)

    return asyncio.run(go())


def request(stage: Stage, number: int) -> Any:
    """The request's row once it is handled."""

    def handled() -> Any:
        [row] = stage.query("select * from trigger_request where id = $1", number)
        return row if row["handled_at"] else None

    return stage.wait(handled, f"request {number} handled")


def runs_of(stage: Stage, dag_id: str) -> list[int]:
    return [run["run"] for run in stage.client.get("/runs", dag_id=dag_id)["items"]]


def trigger(stage: Stage, arguments: str) -> int:
    return int(by_sql(stage, lambda connection: connection.fetchval(f"select tickless.trigger_dag({arguments})")))


def test_a_run_starts_with_its_conf(stage: Stage) -> None:
    done = request(stage, trigger(stage, """'x', conf => '{"day": 1}'"""))
    assert done["error"] is None
    run = done["dag_run_key"]
    assert stage.end(run) == "success"
    assert json.loads(stage.log(run, "a")) == {"day": 1}
    assert stage.client.get(f"/runs/{run}")["conf"] == {"day": 1}


def test_it_starts_when_and_only_when_the_transaction_commits(stage: Stage) -> None:
    before = runs_of(stage, "x")

    async def act(connection: Connection) -> int:
        await connection.execute("begin")
        number = await connection.fetchval("select tickless.trigger_dag('x', run_id => 'of a transaction')")
        # What is committed meanwhile is started; what is not committed is not.
        other = await asyncio.to_thread(stage.do, "x")
        assert other[1] == "success"
        assert await asyncio.to_thread(runs_of, stage, "x") == [other[0], *before]
        await connection.execute("commit")
        return int(number)

    run = request(stage, by_sql(stage, act))["dag_run_key"]
    assert stage.client.get(f"/runs/{run}")["run_id"] == "of a transaction"
    assert stage.end(run) == "success"


def test_a_rolled_back_request_never_was(stage: Stage) -> None:
    before = runs_of(stage, "x")

    async def act(connection: Connection) -> None:
        await connection.execute("begin")
        await connection.fetchval("select tickless.trigger_dag('x')")
        await connection.execute("rollback")

    by_sql(stage, act)
    run = request(stage, trigger(stage, "'x'"))["dag_run_key"]
    assert stage.end(run) == "success"
    assert runs_of(stage, "x") == [run, *before]


def test_an_unknown_dag_is_said_in_the_request_and_stops_nobody(stage: Stage) -> None:
    async def act(connection: Connection) -> list[int]:
        async with connection.transaction():
            return [
                int(await connection.fetchval("select tickless.trigger_dag($1)", dag_id))
                for dag_id in ("x", "nope", "x")
            ]

    first, bad, last = (request(stage, number) for number in by_sql(stage, act))
    assert bad["error"] == "there is no DAG 'nope'"
    assert bad["dag_run_key"] is None
    assert [stage.end(row["dag_run_key"]) for row in (first, last)] == ["success", "success"]


def test_one_key_starts_one_run_whoever_asks(stage: Stage) -> None:
    numbers = [trigger(stage, "'y', idempotency_key => 'only once'") for _ in range(2)]
    runs = {request(stage, number)["dag_run_key"] for number in numbers}
    [run] = runs
    again = stage.client.post("/dags/y/runs", {"idempotency_key": "only once"})
    assert (again["run"], again["is_new"]) == (run, False)
    stage.open(run, "a")
    assert stage.end(run) == "success"
    assert stage.client.post("/dags/y/runs", {"idempotency_key": "only once"})["run"] == run


def test_a_used_run_id_is_refused_in_the_request_and_stops_nobody(stage: Stage) -> None:
    numbers = [trigger(stage, f"'x', run_id => '{name}'") for name in ("taken", "taken", "free")]
    first, second, third = (request(stage, number) for number in numbers)
    assert second["error"] == "DAG 'x' has a run 'taken' already"
    assert [stage.end(row["dag_run_key"]) for row in (first, third)] == ["success", "success"]
    # Also when it has ended, and the engine knows nothing of it any more.
    late, after = (request(stage, trigger(stage, f"'x', run_id => '{name}'")) for name in ("taken", "free again"))
    assert late["error"] == "DAG 'x' has a run 'taken' already"
    assert stage.end(after["dag_run_key"]) == "success"


def test_an_open_foreign_transaction_stalls_nothing(stage: Stage) -> None:
    async def act(connection: Connection) -> None:
        await connection.execute("begin isolation level serializable")
        await connection.fetchval("select tickless.trigger_dag('x')")
        await connection.fetch("select * from tickless.dag_run")
        await connection.fetch("select * from tickless.task_instance")
        assert (await asyncio.to_thread(stage.do, "x"))[1] == "success"
        assert (await asyncio.to_thread(stage.cli, "pool", "set", "some", 3)).code == 0
        await asyncio.to_thread(stage.terminate_daemon)
        await asyncio.to_thread(stage.start)
        assert (await asyncio.to_thread(stage.do, "x"))[1] == "success"
        await connection.execute("rollback")

    by_sql(stage, act)


def test_requests_made_while_no_daemon_runs_are_served_by_the_next(stage: Stage) -> None:
    assert stage.terminate_daemon() == 0
    numbers = [trigger(stage, "'x'") for _ in range(3)]
    assert stage.query("select count(*) from trigger_request where handled_at is null")[0]["count"] == 3
    stage.start()
    runs = [request(stage, number)["dag_run_key"] for number in numbers]
    assert [stage.end(run) for run in runs] == ["success"] * 3
    assert runs == sorted(runs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [("''", "check"), ("'x', conf => '[1]'", "check"), ("'x', conf => '{\"a\": \"\\u0000\"}'", "u0000")],
)
def test_nonsense_fails_in_the_askers_own_transaction(stage: Stage, arguments: str, words: str) -> None:
    with pytest.raises(Exception, match=words):
        trigger(stage, arguments)


def test_a_role_needs_nothing_but_the_right_to_call_it(stage: Stage) -> None:
    async def act(connection: Connection) -> int:
        await connection.execute("create role app login")
        await connection.execute("grant usage on schema tickless to app")
        await connection.execute("set role app")
        with pytest.raises(Exception, match="permission denied"):
            await connection.fetchval("select tickless.trigger_dag('x')")
        await connection.execute("reset role")
        await connection.execute("grant execute on function tickless.trigger_dag to app")
        await connection.execute("set role app")
        number = await connection.fetchval("select tickless.trigger_dag('x')")
        with pytest.raises(Exception, match="permission denied"):
            await connection.fetch("select * from tickless.trigger_request")
        return int(number)

    assert stage.end(request(stage, by_sql(stage, act))["dag_run_key"]) == "success"


def test_nothing_of_all_this_was_an_error_of_ours(stage: Stage) -> None:
    stage.assert_clean_log(but=["flush.refused"])  # the run id of a finished run is found out by Postgres
    assert len(stage.events("flush.refused")) <= 2
