"""Launcher, zygotes and tasks killed under a living daemon, which brings back what it needs and loses nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.house import House, eventually, is_alive, send_signal
from tests.support.ledger import Limits
from tests.support.workload import DAGS, HELD, HELD_PLAN, HELD_TASKS, PLANS, POOLS

LIMITS = Limits(parallelism=12, dag_concurrency=HELD_TASKS)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One for all kills: each test leaves it running and at rest."""
    dags, plans = DAGS | {"held.py": HELD}, PLANS | {"held": HELD_PLAN}
    with House(dags, plans, limits=LIMITS, pools=POOLS) as house:
        house.start()
        yield house


@pytest.fixture
def go(house: House) -> Iterator[None]:
    """Tasks of the DAG `held` wait until the test lets them go."""
    house.ledger.go.unlink(missing_ok=True)
    yield
    house.ledger.go.touch()


def run_all(house: House) -> None:
    for dag_id in DAGS:
        house.run(dag_id.removesuffix(".py"))


@pytest.mark.parametrize(
    ("point", "action"),
    [
        ("launcher.before_accept", "kill@3"),
        ("launcher.before_fork", "kill@2"),
        ("launcher.at_gate", "kill@4"),
        ("launcher.before_outcome", "kill@3"),
        ("launcher.before_report", "kill@2"),
        ("zygote.before_fork", "kill@2"),
        ("runner.before_outcome", "kill@2"),
        ("runner.after_outcome", "kill@2"),
    ],
)
def test_a_kill_below_the_daemon_is_made_good_by_it(house: House, point: str, action: str) -> None:
    points = house.arm(**{point.replace(".", "__"): action})
    # The launcher has the failpoints of the daemon that started it.
    house.kill_daemon()
    house.kill_launcher()
    house.start(points)
    before = house.launcher_pid()
    run_all(house)
    eventually(points.fired, f"{point} to be reached")
    house.check()
    points.assert_all_fired()
    was_launcher = point.startswith("launcher.")
    assert (house.launcher_pid() != before) is was_launcher, "a killed launcher is restarted by the daemon, at once"


def test_running_tasks_outlive_both_zygotes(house: House, go: None) -> None:
    run = house.run("held")
    mine = eventually(lambda: held_lines(house, run), "running tasks")
    zygotes = house.of_kind("base zygote") + house.of_kind("zygote")
    assert len(zygotes) >= 2
    for pid in zygotes:
        send_signal(pid, signal.SIGKILL)  # the process that stands by goes with its zygote
    eventually(lambda: not [pid for pid in zygotes if is_alive(pid)])
    assert [pid for pid in mine.values() if not is_alive(pid)] == []
    house.ledger.go.touch()
    house.check()
    rows = {row["attempt_id"]: row for row in house.rows().attempts}
    assert {rows[attempt_id]["pid"] for attempt_id in mine} == set(mine.values())
    assert {rows[attempt_id]["state"] for attempt_id in mine} == {"success"}


def test_a_killed_launcher_takes_its_tasks_with_it_and_they_run_again(house: House, go: None) -> None:
    run = house.run("held")
    mine = eventually(lambda: held_lines(house, run), "running tasks")
    house.kill_launcher()
    eventually(lambda: held_lines(house, run, 2 * HELD_TASKS), "their second attempts")
    assert [pid for pid in mine.values() if is_alive(pid)] == []
    house.ledger.go.touch()
    house.check()
    states = {row["attempt_id"]: row["state"] for row in house.rows().attempts}
    assert {states[attempt_id] for attempt_id in mine} == {"lost"}


def test_a_frozen_launcher_delays_and_loses_nothing(house: House) -> None:
    pid = eventually(house.launcher_pid, "a launcher")
    with house.frozen([pid]):
        run_all(house)
        eventually(lambda: len(house.attempts("queued")) >= 4, "orders that wait")
    house.check()
    assert house.launcher_pid() == pid


def test_killed_process_groups_are_failed_tries_with_their_signal_and_are_retried(house: House) -> None:
    runs = [house.run("diamond") for _ in range(4)]
    killed: set[int] = set()

    def kill_some() -> bool:
        for line in list(house.ledger.started().values()):
            if line.attempt_id not in killed and is_alive(line.pid) and "/right" in line.key:
                killed.add(line.attempt_id)
                os.killpg(line.pid, signal.SIGKILL)
        return len(killed) >= 3

    eventually(kill_some, "three running groups")
    house.check()
    rows = {row["attempt_id"]: row for row in house.rows().attempts}
    hit = [rows[attempt_id] for attempt_id in killed if rows[attempt_id]["state"] != "success"]
    assert hit, "all of them had just ended"
    assert {(row["state"], row["reason"], row["signal"]) for row in hit} == {("failed", "signaled", signal.SIGKILL)}
    assert {row["dag_run_key"] for row in hit} <= set(runs)


def test_a_killed_task_without_retries_fails_and_so_does_its_run(house: House, go: None) -> None:
    """Nothing else of the run is touched."""
    run = house.run("held")
    mine = eventually(lambda: held_lines(house, run), "running tasks")
    (attempt,) = [row for row in house.attempts("running") if row["dag_run_key"] == run and row["task_id"] == "sh0"]
    os.killpg(attempt["pid"], signal.SIGKILL)
    eventually(lambda: attempt["attempt_id"] in {row["attempt_id"] for row in house.attempts("failed")})
    others = [pid for attempt_id, pid in mine.items() if attempt_id != attempt["attempt_id"]]
    assert [pid for pid in others if not is_alive(pid)] == []
    house.ledger.go.touch()
    house.wait_finished()
    (row,) = house.query("select state from dag_run where key = $1", run)
    assert row["state"] == "failed"
    # Not what the plan of this DAG says; the other tests are to judge by it.
    house.forget(run)
    house.check()


def has_started_more_than(house: House, tasks: int) -> bool:
    return len(house.ledger.started()) > tasks


def test_a_launcher_killed_again_and_again_is_back_each_time(house: House) -> None:
    for killed in range(4):
        run_all(house)
        eventually(partial(has_started_more_than, house, killed), "one task more that has started")
        house.kill_launcher()
    house.check()


def test_orphans_of_killed_tasks_do_not_outlive_their_attempts(house: House, go: None) -> None:
    run = house.run("held")
    mine = eventually(lambda: held_lines(house, run), "running tasks")
    for pid in mine.values():
        send_signal(pid, signal.SIGSTOP)
    house.kill_launcher()
    eventually(lambda: not [pid for pid in mine.values() if is_alive(pid)], "the death of stopped tasks")
    house.ledger.go.touch()
    house.check()


def held_lines(house: House, run: int, count: int = HELD_TASKS) -> dict[int, int] | None:
    """attempt id -> pid of a held run, once so many of its attempts have begun."""
    of_run = {
        row["attempt_id"] for row in house.query("select attempt_id from task_attempt where dag_run_key = $1", run)
    }
    found = {attempt_id: line.pid for attempt_id, line in house.ledger.started().items() if attempt_id in of_run}
    return found if len(found) >= count else None
