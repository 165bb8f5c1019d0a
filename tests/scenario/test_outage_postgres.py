"""Postgres killed, frozen, restarted, and its backends ended one by one: tasks go on, and their ends count."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.house import House, eventually, is_alive, send_signal
from tests.support.ledger import Limits
from tests.support.workload import DAGS, HELD, HELD_PLAN, HELD_TASKS, PLANS, POOLS
from tickless.errors import Unavailable

# Long enough for every statement and probe that was under way to be noticed; the timeouts themselves are 10 to 20 s.
FREEZE_SECONDS = 30.0 if os.environ.get("TICKLESS_CHAOS") else 3.0


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One for all outages: each test leaves it running and at rest."""
    dags, plans = DAGS | {"held.py": HELD}, PLANS | {"held": HELD_PLAN}
    limits = Limits(parallelism=16, dag_concurrency=HELD_TASKS)
    with House(dags, plans, limits=limits, pools=POOLS, config="") as house:
        house.start()
        yield house


@pytest.fixture
def held(house: House) -> Iterator[dict[int, int]]:
    """Attempts that run until the test lets them go, with their pids."""
    house.ledger.go.unlink(missing_ok=True)
    before = set(house.ledger.started())
    house.run("held")

    def running() -> dict[int, int] | None:
        found = {a: line.pid for a, line in house.ledger.started().items() if a not in before}
        return found if len(found) == HELD_TASKS else None

    yield eventually(running, "running tasks")
    house.ledger.go.touch()


def assert_untouched(house: House, held: dict[int, int]) -> None:
    """They were all running through it, and their ends count."""
    rows = {row["attempt_id"]: (row["pid"], row["state"]) for row in house.rows().attempts}
    assert {a: rows[a] for a in held} == {a: (pid, "success") for a, pid in held.items()}


def backend(house: House, application: str) -> int | None:
    statement = "select pid from pg_stat_activity where application_name = $1 and pid <> pg_backend_pid()"
    return next((int(row["pid"]) for row in house.query(statement, f"tickless {application}")), None)


def postmaster(house: House) -> int:
    return eventually(house.postmaster_pid, "a postmaster")


def test_a_killed_postgres_is_started_again_while_tasks_run(house: House, held: dict[int, int]) -> None:
    keys = [house.ask("diamond") for _ in range(3)]
    killed = postmaster(house)
    os.kill(killed, signal.SIGKILL)
    for pid in house.postgres_pids():
        send_signal(pid, signal.SIGKILL)
    keys += [house.ask("flaky") for _ in range(2)]
    house.ledger.go.touch()  # their ends come while there is no Postgres
    for key in keys[:3]:
        house.run("diamond", key)
    for key in keys[3:]:
        house.run("flaky", key)
    house.check()
    assert postmaster(house) != killed
    assert_untouched(house, held)


def test_a_killed_postgres_is_started_again_by_an_idle_daemon(house: House) -> None:
    """Nobody asks for anything: others use this database, too, and a request by SQL must not find it gone."""
    killed = postmaster(house)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: not is_alive(killed))
    eventually(lambda: house.postmaster_pid() not in (None, killed), "another postmaster")
    eventually(lambda: trigger(house, "diamond"), "a database that takes requests")
    house.check()


def test_a_postgres_that_goes_while_the_lead_is_taken_back_is_started_again(house: House) -> None:
    """The rebuild has begun and waits for the lead, which waits for Postgres: nobody is left to look after that."""
    for _ in range(8):  # a race: three rounds let the bug through now and then
        for dag_id in PLANS:
            house.ask(dag_id)
        gone = postmaster(house)
        end_backends(house, "leader", "writer")
        os.kill(gone, signal.SIGINT)
        eventually(lambda gone=gone: house.postmaster_pid() not in (None, gone), "another postmaster")  # type: ignore[misc]  # mypy does not see the default's type
    house.check()


def test_a_postgres_that_is_shut_down_is_started_again(house: House, held: dict[int, int]) -> None:
    """By a hand that has no business there; with a clean shutdown, which says goodbye to every connection."""
    stopped = postmaster(house)
    os.kill(stopped, signal.SIGINT)
    eventually(lambda: not is_alive(stopped))
    house.ledger.go.touch()
    for dag_id in PLANS:
        house.run(dag_id)
    house.check()
    assert_untouched(house, held)


def test_a_crashed_backend_takes_all_others_along_and_they_come_back(house: House, held: dict[int, int]) -> None:
    """kill -9 of one: the postmaster ends all sessions and recovers."""
    for dag_id in PLANS:
        house.run(dag_id)
    before = postmaster(house)
    writer = eventually(lambda: backend(house, "writer"), "a writer")
    os.kill(writer, signal.SIGKILL)
    for dag_id in PLANS:
        house.run(dag_id)
    house.ledger.go.touch()
    house.check()
    assert_untouched(house, held)
    assert postmaster(house) == before


def test_a_frozen_postgres_delays_and_loses_nothing(house: House, held: dict[int, int]) -> None:
    keys = {dag_id: house.ask(dag_id) for dag_id in PLANS}
    with house.frozen(house.postgres_pids()):
        house.ledger.go.touch()  # their ends are reported to a daemon that cannot commit
        eventually(lambda: not [pid for pid in held.values() if is_alive(pid)], "their ends")
        daemon = house.daemon.pid
        wait(house, FREEZE_SECONDS)
    for dag_id, key in keys.items():
        house.run(dag_id, key)
    house.check()
    assert house.daemon.pid == daemon
    assert_untouched(house, held)


def test_nothing_starts_before_its_commit(house: House) -> None:
    """RAM decides at once; the order must not leave while Postgres has not said yes."""
    before = len(house.ledger.lines())
    asking = threading.Thread(target=house.client.post, args=("/dags/diamond/runs", {}))
    with house.frozen(house.postgres_pids()):
        asking.start()
        wait(house, 0.7)
        assert len(house.ledger.lines()) == before
    asking.join(60)
    assert not asking.is_alive()
    house.check()
    assert len(house.ledger.lines()) > before


@pytest.mark.parametrize("also", ["nothing else", "launcher"])
def test_a_result_is_kept_until_its_commit(house: House, held: dict[int, int], also: str) -> None:
    """The ends are reported, decided, and cannot be committed; then the daemon dies. Its successor hears them again."""
    with house.frozen(house.postgres_pids()):
        house.ledger.go.touch()
        eventually(lambda: not [pid for pid in held.values() if is_alive(pid)], "their ends")
        spool = house.home / "launcher" / "spool.jsonl"
        ends = [f'{{"type":"finished","report":{{"attempt_id":{attempt_id},' for attempt_id in held]
        eventually(lambda: all(end in spool.read_text() for end in ends), "their ends in the spool")
        wait(house, 0.3)
        if also == "launcher":
            killed = house.kill_launcher()
            eventually(lambda: house.launcher_pid() not in (None, killed), "another launcher")
            wait(house, 0.5)
        house.kill_daemon()
    house.start()
    house.check()
    assert_untouched(house, held)


@pytest.mark.parametrize("application", ["writer", "listener", "leader", "reader"])
def test_a_terminated_backend_is_replaced(house: House, application: str) -> None:
    old = eventually(lambda: backend(house, application), f"a {application}")
    for dag_id in PLANS:
        house.ask(dag_id)
    end_backends(house, application)
    trigger(house, "diamond")  # perhaps while nobody listens
    for dag_id in PLANS:
        house.run(dag_id)
    if application == "reader":
        house.client.get("/runs")
    new = eventually(lambda: backend(house, application) not in (None, old), f"another {application}")
    assert new
    house.check()


def test_backends_terminated_over_and_over_under_load_lose_nothing(house: House) -> None:
    for application in ("writer", "reader", "leader", "writer", "listener", "writer"):
        for dag_id in PLANS:
            house.run(dag_id)
        end_backends(house, application)
    house.check()


def test_requests_by_sql_are_each_served_once_through_an_outage_of_the_listener(house: House) -> None:
    for _ in range(5):
        trigger(house, "flaky")
        end_backends(house, "listener")
        trigger(house, "diamond")
    house.check()


def test_rows_changed_by_hand_are_found_by_the_audit_and_believed() -> None:
    """RAM is a cache: when the two differ, what is committed counts, and nobody has to restart anything."""
    with House({"held.py": HELD}, {"held": HELD_PLAN}) as house:
        house.start()
        run = house.run("held")
        eventually(lambda: len(house.ledger.started()) == HELD_TASKS, "running tasks")
        house.query("update task_instance set lost_count = 7 where dag_run_key = $1 and task_id = 'py3'", run)
        eventually(lambda: house.events("flush.conflicted"), "the audit")
        assert "py3" in house.events("audit.found")[0]["difference"]
        house.ledger.go.touch()
        house.wait_finished()
        assert house.is_up
        assert {row["state"] for row in house.rows().attempts} == {"success"}
        (row,) = house.query("select lost_count from task_instance where task_id = 'py3'")
        assert row["lost_count"] == 7


def trigger(house: House, dag_id: str) -> bool:
    key = secrets.token_hex(8)
    try:
        house.query("select tickless.trigger_dag($1, idempotency_key => $2)", dag_id, key)
    except Unavailable:
        return False
    house.accepted[key] = 0
    return True


def end_backends(house: House, *applications: str) -> None:
    statement = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = any ($1)"
    house.patiently(lambda: house.query(statement, [f"tickless {application}" for application in applications]))


def wait(house: House, seconds: float) -> None:
    """The length of an outage is what the test is about; the daemon must live through it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert house.is_up
        time.sleep(0.05)
