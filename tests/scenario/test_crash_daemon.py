"""The daemon killed at every step of decide, commit, do: nothing is lost, nothing starts twice, tasks go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.house import ROOT, House, eventually, is_alive, send_signal
from tests.support.ledger import Limits
from tests.support.workload import DAGS, HELD, HELD_PLAN, HELD_TASKS, PLANS, POOLS

LIMITS = Limits(parallelism=8, dag_concurrency=4)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One for all kills: each test leaves it running and at rest."""
    with House(DAGS, PLANS, limits=LIMITS, pools=POOLS) as house:
        house.start()
        yield house


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("daemon.before_flush", 4),
        ("store.before_flush", 1),
        ("store.after_flush", 3),
        ("daemon.after_flush", 2),
        ("daemon.before_release", 5),
        ("daemon.before_ack", 1),
        ("daemon.before_ack", 4),
    ],
)
def test_a_daemon_killed_at_a_step_loses_and_repeats_nothing(house: House, point: str, nth: int) -> None:
    keys = {dag_id: house.ask(dag_id) for dag_id in PLANS}
    house.kill_daemon()
    points = house.arm(**{point.replace(".", "__"): f"kill@{nth}"})
    house.start(points, is_awaited=False)
    eventually(lambda: [house.ask(dag_id, key) for dag_id, key in keys.items()] and not house.is_up, "its death")
    house.wait_killed()
    points.assert_all_fired()
    house.start()
    for dag_id, key in keys.items():
        house.run(dag_id, key)
    house.check()


@pytest.mark.parametrize("point", ["store.before_epoch", "store.after_epoch"])
def test_a_daemon_killed_while_it_takes_the_lead_harms_nothing(house: House, point: str) -> None:
    for dag_id in PLANS:
        house.run(dag_id)
    house.kill_daemon()
    points = house.arm(**{point.replace(".", "__"): "kill"})
    house.start(points, is_awaited=False)
    house.wait_killed()
    points.assert_all_fired()
    house.start()
    house.check()


def test_a_frozen_daemon_goes_on_where_it_was(house: House) -> None:
    for dag_id in PLANS:
        house.run(dag_id)
    with house.frozen([house.daemon.pid]):
        eventually(lambda: not house.of_kind("attempt"), "the end of what was running")
    house.check()


def test_daemon_and_launcher_killed_together(house: House) -> None:
    for dag_id in PLANS:
        house.run(dag_id)
    eventually(house.ledger.started, "a task that has started")
    launcher = house.launcher_pid()
    assert launcher is not None
    house.daemon.kill()
    os.kill(launcher, signal.SIGKILL)
    house.daemon.wait()
    house.start()
    house.check()


def test_everything_killed_at_once(house: House) -> None:
    for dag_id in PLANS:
        house.run(dag_id)
    eventually(house.ledger.started, "a task that has started")
    postmaster = house.postmaster_pid()
    for process in house.processes():
        if process.kind in ("daemon", "launcher", "base zygote", "zygote"):
            send_signal(process.pid, signal.SIGKILL)
    assert postmaster is not None
    os.kill(postmaster, signal.SIGKILL)
    house.daemon.wait()
    house.start()
    house.check()


@pytest.mark.parametrize("mode", ["daemon", "dev"])
def test_a_daemon_killed_under_load_leaves_every_task_its_pid_and_its_result(mode: str) -> None:
    plans = {"held": HELD_PLAN}
    limits = Limits(parallelism=32, dag_concurrency=HELD_TASKS)
    with House({"held.py": HELD}, plans, limits=limits, is_dev=mode == "dev") as house:
        house.start()
        for _ in range(2):
            house.run("held")
        eventually(lambda: len(house.ledger.started()) == 2 * HELD_TASKS, "dozens of running tasks")
        pids = {attempt_id: line.pid for attempt_id, line in house.ledger.started().items()}
        others = (house.launcher_pid(), house.postmaster_pid())
        for _ in range(2):
            house.kill_daemon()
            assert [pid for pid in pids.values() if not is_alive(pid)] == []
            house.start()
            assert (house.launcher_pid(), house.postmaster_pid()) == others, "they are adopted, not started again"
        adopted = house.events("database.adopted")
        assert [event["pid"] for event in adopted] == [others[1]] * 2
        assert [pid for pid in pids.values() if not is_alive(pid)] == []
        house.ledger.go.touch()
        house.check()
        assert {row["attempt_id"]: row["pid"] for row in house.rows().attempts} == pids


def test_nothing_is_admitted_after_sigterm_and_what_runs_goes_on() -> None:
    plans = {"held": HELD_PLAN} | PLANS
    with House({"held.py": HELD} | DAGS, plans, limits=Limits(parallelism=6, dag_concurrency=4), pools=POOLS) as house:
        house.start()
        for dag_id in ("held", "held", *PLANS):
            house.run(dag_id)
        eventually(lambda: len(house.attempts("running")) == 6, "a full house")
        running = {row["attempt_id"]: row["pid"] for row in house.attempts("running")}
        eventually(lambda: running.keys() <= house.ledger.started().keys())
        assert house.terminate_daemon() == 0
        (stopping,) = house.events("daemon.stopping")
        assert stopping["running"] == 6
        assert [pid for pid in running.values() if not is_alive(pid)] == []
        house.ledger.go.touch()
        eventually(lambda: not [pid for pid in running.values() if is_alive(pid)], "their ends, with no daemon there")
        assert house.ledger.started().keys() == running.keys(), "a slot was freed, and nobody was there to give it away"
        stopped_at = datetime.fromisoformat(stopping["at"])
        assert [row for row in house.rows().attempts if row["queued_at"] > stopped_at] == []
        house.start()
        house.check()
        ends = {row["attempt_id"]: (row["pid"], row["state"]) for row in house.rows().attempts}
        assert {attempt_id: ends[attempt_id] for attempt_id in running} == {
            attempt_id: (pid, "success") for attempt_id, pid in running.items()
        }


def test_a_stop_that_kills_tasks_leaves_no_process_of_the_house() -> None:
    with House({"held.py": HELD}, {"held": HELD_PLAN}) as house:
        house.start()
        house.run("held")
        eventually(lambda: len(house.ledger.started()) == HELD_TASKS, "running tasks")
        house.client.post("/stop", {"kill_tasks": True})
        assert house.daemon.wait(60) == 0
        assert house.processes() == []


def test_a_killed_test_process_leaves_no_house_behind() -> None:
    """Of the harness itself: whoever kills pytest must not have to look for daemons."""
    script = (
        "import time\n"
        "from tests.support.house import House\n"
        "from tests.support.workload import DAGS, PLANS, POOLS\n"
        "house = House(DAGS, PLANS, pools=POOLS)\n"
        "house.start()\n"
        "print(house.folder, flush=True)\n"
        "time.sleep(1000)\n"
    )
    test = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert test.stdout is not None
    left = House.left_in(Path(test.stdout.readline().strip()))
    assert len(left.processes()) > 5
    test.kill()
    test.wait()
    eventually(lambda: not left.folder.exists() and not left.processes(), "the end of the house")


def test_a_second_daemon_on_the_same_home_is_refused(house: House) -> None:
    first = house.daemon
    house.start(is_awaited=False)
    second = house.daemon
    assert second.wait(60) != 0
    house._daemon = first
    assert house.is_up
    house.check()
