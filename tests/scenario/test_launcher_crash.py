"""The launcher, its zygotes and its attempts killed at every named point: nothing starts twice, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.failpoints import Failpoints
from tests.support.launcher import LauncherProcess, Orders, dag_source, is_alive, soon
from tests.support.recorder import Recorder
from tickless.executors.launcher_client import LauncherClient
from tickless.executors.local import LocalExecutor
from tickless.launcher.processes import BOOT_ID_ENV
from tickless.model.id import AttemptId, Epoch
from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished, Lost
from tickless.model.state import AttemptState, EndReason

pytestmark = pytest.mark.anyio

TASKS = """
@task
def t():
    note()
    return "done"
@task
def waits():
    note()
    while not os.path.exists("{go}"):
        time.sleep(0.01)
    return "waited"
@task
def leaves_a_child():
    note()
    import subprocess
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    return child.pid
t(), waits(), leaves_a_child()
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class World:
    """A home with a launcher that may die, and a daemon's view of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launcher = LauncherProcess(folder / "home")
        self.orders = Orders(folder)
        self.go = folder / "go"
        self.orders.dag_file(dag_source(self.orders, TASKS.replace("{go}", str(self.go))))
        self.client = LauncherClient(self.launcher.home)
        self.executor = LocalExecutor("local", self.client, slots=8)
        self.sink = Recorder()
        self.live: dict[AttemptId, AttemptState] = {}
        self._epoch = 0

    async def connect(self) -> None:
        """As a new leader, with what the database says is live; unknown queued attempts are submitted again."""
        self._epoch += 1
        self.sink = Recorder()
        await self.executor.connect(Epoch(self._epoch), self.live, self.sink)

    async def submit(self, *orders: Order) -> None:
        for order in orders:
            self.live[AttemptId(order.attempt_id)] = AttemptState.QUEUED
        self.executor.submit(orders)

    async def restart_and_resubmit(self, *orders: Order) -> None:
        """What a daemon does after its launcher came back: all queued attempts again."""
        self.launcher.kill()
        self.launcher.start()
        await self.connect()
        self.executor.submit([o for o in orders if self.live[AttemptId(o.attempt_id)] is AttemptState.QUEUED])

    def zygotes(self) -> list[int]:
        """Pids of DAG zygotes: children of the launcher's children that are no attempts."""
        found = []
        for base in [pid for pid in _children_of(self.launcher.pid) if "runner.zygote" in _command_line(pid)]:
            found += _children_of(base)
        return found

    def base_zygote(self) -> int:
        (pid,) = [pid for pid in _children_of(self.launcher.pid) if "runner.zygote" in _command_line(pid)]
        return pid


def _children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    world.executor.disconnect()
    world.go.touch()
    if world.launcher.process is not None and world.launcher.process.poll() is None:
        world.launcher.terminate()


def makers(world: World, kind: str) -> Order:
    return world.orders.bash(":") if kind == "bash" else world.orders.python("t")


@pytest.mark.parametrize("kind", ["bash", "python"])
@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("launcher.before_accept", "runs"),  # the daemon sends it again
        ("launcher.before_fork", "runs"),  # the next launcher starts it
        ("launcher.at_gate", "lost"),  # it may have run, says the spool; the gate says that it has not
        ("launcher.before_outcome", "ended"),  # it ran; only a Python task has left a record of how
        ("launcher.before_report", "finished"),
    ],
)
async def test_kill_of_the_launcher_at(world: World, kind: str, point: str, expected: str) -> None:
    points = Failpoints(world.folder, **{point.replace(".", "__"): "kill"})
    world.launcher.start(points.env)
    await world.connect()
    order = makers(world, kind)
    await world.submit(order)
    await soon(lambda: world.launcher.process is not None and world.launcher.process.poll() is not None)
    points.assert_all_fired()
    await world.restart_and_resubmit(order)
    await world.sink.until(lambda: bool(world.sink.ends(order.attempt_id)))
    (end,) = world.sink.ends(order.attempt_id)
    ran = world.orders.ran()
    if expected == "runs":
        assert isinstance(end, Finished)
        assert end.state is AttemptState.SUCCESS
    elif expected == "lost":
        assert isinstance(end, Lost)
        assert ran == []
        return
    elif expected == "ended" and kind == "bash":
        assert isinstance(end, Lost)
    else:
        assert isinstance(end, Finished)
        assert end.output == ('"done"' if kind == "python" else None)
    assert ran == [order.attempt_id], "it must run exactly once"


@pytest.mark.parametrize("point", ["runner.before_outcome", "runner.after_outcome"])
async def test_kill_of_the_runner_at(world: World, point: str) -> None:
    points = Failpoints(world.folder, **{point.replace(".", "__"): "kill"})
    world.launcher.start(points.env)
    await world.connect()
    order = world.orders.python("t")
    await world.submit(order)
    end = await world.sink.finished(order.attempt_id)
    points.assert_all_fired()
    if point == "runner.before_outcome":
        assert (end.state, end.reason, end.signal) == ("failed", "signaled", 9)
    else:
        assert (end.state, end.output) == ("success", '"done"')
    assert world.orders.ran() == [order.attempt_id]


async def test_a_zygote_killed_with_an_order_in_hand_costs_one_retry(world: World) -> None:
    points = Failpoints(world.folder, zygote__before_fork="kill")
    world.launcher.start(points.env)
    await world.connect()
    order = world.orders.python("t")
    await world.submit(order)
    end = await world.sink.finished(order.attempt_id)
    points.assert_all_fired()
    assert end.state is AttemptState.SUCCESS
    assert world.orders.ran() == [order.attempt_id]


async def test_a_zygote_that_always_dies_ends_the_attempt_as_not_started(world: World) -> None:
    points = Failpoints(world.folder, zygote__before_fork="kill@*")
    world.launcher.start(points.env)
    await world.connect()
    order = world.orders.python("t")
    await world.submit(order)
    end = await world.sink.finished(order.attempt_id)
    assert points.fired() == ["zygote.before_fork"] * 2
    assert (end.state, end.reason) == ("failed", "not_started")
    assert "died 2 times" in (end.error or "")
    assert "died 2 times" in (world.launcher.home / "logs" / order.log_path).read_text()


async def test_tasks_outlive_their_zygotes(world: World) -> None:
    world.launcher.start()
    await world.connect()
    order = world.orders.python("waits")
    await world.submit(order)
    started = await world.sink.started(order.attempt_id)
    await soon(world.orders.ran)
    (zygote,) = world.zygotes()
    base = world.base_zygote()
    os.kill(base, signal.SIGKILL)
    os.kill(zygote, signal.SIGKILL)
    await soon(lambda: not is_alive(zygote) and not is_alive(base))
    assert is_alive(started.pid)
    second = world.orders.python("t")
    await world.submit(second)
    assert (await world.sink.finished(second.attempt_id)).output == '"done"'
    world.go.touch()
    end = await world.sink.finished(order.attempt_id)
    assert (end.output, end.pid) == ('"waited"', started.pid)
    assert world.orders.ran() == [order.attempt_id, second.attempt_id]


async def test_a_task_killed_after_its_zygote_is_reported_with_its_signal(world: World) -> None:
    world.launcher.start()
    await world.connect()
    order = world.orders.python("waits")
    await world.submit(order)
    started = await world.sink.started(order.attempt_id)
    await soon(world.orders.ran)
    (zygote,) = world.zygotes()
    os.kill(zygote, signal.SIGKILL)
    await soon(lambda: not is_alive(zygote))
    os.kill(started.pid, signal.SIGSEGV)
    end = await world.sink.finished(order.attempt_id)
    assert (end.reason, end.signal) == ("signaled", signal.SIGSEGV)


async def test_a_hanging_zygote_holds_up_no_end_that_is_on_record(world: World) -> None:
    world.launcher.start()
    await world.connect()
    order = world.orders.python("waits")
    await world.submit(order)
    await world.sink.started(order.attempt_id)
    await soon(world.orders.ran)
    (zygote,) = world.zygotes()
    os.kill(zygote, signal.SIGSTOP)
    world.go.touch()
    end = await world.sink.finished(order.attempt_id)
    assert end.output == '"waited"'
    assert is_alive(zygote)
    os.kill(zygote, signal.SIGCONT)  # so that it sees the end of its launcher


async def test_a_hanging_zygote_is_killed_when_only_it_knows_how_its_attempt_has_ended(world: World) -> None:
    """There is no outcome record: after a while the zygote is killed, and the launcher reaps."""
    world.launcher.start()
    await world.connect()
    order = world.orders.python("waits")
    await world.submit(order)
    started = await world.sink.started(order.attempt_id)
    await soon(world.orders.ran)
    (zygote,) = world.zygotes()
    os.kill(zygote, signal.SIGSTOP)
    os.kill(started.pid, signal.SIGSEGV)
    end = await world.sink.finished(order.attempt_id)
    assert (end.reason, end.signal) == ("signaled", signal.SIGSEGV)
    assert not is_alive(zygote)


async def test_a_new_launcher_kills_what_is_left_before_it_says_lost(world: World) -> None:
    world.launcher.start()
    await world.connect()
    bash = world.orders.bash("setsid sleep 1000 & echo $! > sleeper; wait", cwd=str(world.orders.bundle))
    python = world.orders.python("waits")
    await world.submit(bash, python)
    await soon(lambda: len(world.orders.ran()) == 2)
    sleeper_file = world.orders.bundle / "sleeper"
    await soon(lambda: sleeper_file.exists() and sleeper_file.read_text().strip())
    pids = [(await world.sink.started(o.attempt_id)).pid for o in (bash, python)] + [int(sleeper_file.read_text())]
    assert all(is_alive(pid) for pid in pids)
    for order in (bash, python):
        world.live[AttemptId(order.attempt_id)] = AttemptState.RUNNING
    await world.restart_and_resubmit()
    for order in (bash, python):
        await world.sink.lost(order.attempt_id)
        assert [pid for pid in pids if is_alive(pid)] == [] or order is bash
    assert [pid for pid in pids if is_alive(pid)] == []
    assert len(world.orders.ran()) == 2


async def test_a_next_attempt_waits_until_the_former_of_its_task_is_dead(world: World) -> None:
    world.launcher.start()
    await world.connect()
    same = {"run_key": 77, "task_id": "t"}
    first = world.orders.bash("trap '' TERM; while :; do sleep 0.02; done", kill_grace_seconds=0.3, **same)
    second = world.orders.bash(f"kill -0 $(cat {world.folder}/first) && echo BOTH ALIVE", **same)
    await world.submit(first)
    started = await world.sink.started(first.attempt_id)
    (world.folder / "first").write_text(str(started.pid))
    await soon(world.orders.ran)
    world.executor.stop([StopOrder(attempt_id=first.attempt_id, reason=EndReason.STOPPED)])
    await world.submit(second)
    await world.sink.finished(second.attempt_id)
    assert world.sink.ends(first.attempt_id), "the second ended before the first"
    assert "BOTH ALIVE" not in (world.launcher.home / "logs" / second.log_path).read_text()


async def test_after_a_reboot_everything_unfinished_is_lost(world: World) -> None:
    world.launcher.start({BOOT_ID_ENV: "boot-one"})
    await world.connect()
    running, done = world.orders.bash("sleep 1000"), world.orders.bash(":")
    await world.submit(running, done)
    await world.sink.finished(done.attempt_id)
    started = await world.sink.started(running.attempt_id)
    await soon(lambda: len(world.orders.ran()) == 2)
    world.launcher.kill()
    os.killpg(started.pid, signal.SIGKILL)
    await soon(lambda: not is_alive(started.pid))
    # Accepted, and of what came after it nothing reached the disk before the power went.
    spool = world.launcher.home / "launcher" / "spool.jsonl"
    records = [json.loads(line) for line in spool.read_text().splitlines()]
    accepted = next(r for r in records if r["type"] == "accepted")
    accepted["order"]["attempt_id"] += 1000
    with spool.open("a") as file:
        file.write(json.dumps(accepted) + "\n")
    world.launcher.start({BOOT_ID_ENV: "boot-two"})
    third = AttemptId(accepted["order"]["attempt_id"])
    world.live[third] = AttemptState.QUEUED
    await world.connect()
    for attempt_id in (running.attempt_id, third):
        assert "restarted" in (await world.sink.lost(attempt_id)).why
    assert (await world.sink.finished(done.attempt_id)).state is AttemptState.SUCCESS
    assert len(world.orders.ran()) == 2


async def test_a_torn_last_line_of_the_spool_is_ignored(world: World) -> None:
    world.launcher.start()
    await world.connect()
    order = world.orders.bash(":")
    await world.submit(order)
    end = await world.sink.finished(order.attempt_id)
    world.launcher.kill()
    with (world.launcher.home / "launcher" / "spool.jsonl").open("ab") as file:
        file.write(b'{"type":"accepted","order":{"attempt_id":12')
    world.launcher.start()
    await world.connect()
    assert await world.sink.finished(order.attempt_id) == end
    assert "spool.damaged" in world.launcher.stderr()
    after = world.orders.bash(":")
    await world.submit(after)
    await world.sink.finished(after.attempt_id)


async def test_acked_attempts_are_remembered_by_the_next_launcher(world: World) -> None:
    world.launcher.start()
    await world.connect()
    order, marker = world.orders.bash(":"), world.orders.bash(":")
    await world.submit(order)
    await world.sink.finished(order.attempt_id)
    world.executor.ack([AttemptId(order.attempt_id)])
    await world.submit(marker)
    await world.sink.finished(marker.attempt_id)
    await world.restart_and_resubmit(order, marker)
    after = world.orders.bash(":")
    await world.submit(after)
    await world.sink.finished(after.attempt_id)
    assert world.sink.of(order.attempt_id) == []
    assert world.orders.ran() == [order.attempt_id, marker.attempt_id, after.attempt_id]


async def test_a_launcher_that_is_told_to_stop_ends_its_tasks_and_keeps_their_ends(world: World) -> None:
    world.launcher.start()
    await world.connect()
    order = world.orders.bash("sleep 1000")
    await world.submit(order)
    started = await world.sink.started(order.attempt_id)
    assert world.launcher.terminate() == 0
    assert not is_alive(started.pid)
    world.launcher.start()
    await world.connect()
    end = await world.sink.finished(order.attempt_id)
    assert (end.state, end.reason) == ("failed", "stopped")


async def test_whatever_a_task_leaves_behind_is_gone_when_its_end_is_reported(world: World) -> None:
    world.launcher.start()
    await world.connect()
    order = world.orders.python("leaves_a_child")
    await world.submit(order)
    end = await world.sink.finished(order.attempt_id)
    assert end.state is AttemptState.SUCCESS
    assert not is_alive(int(end.output or 0))


async def test_a_stop_that_finds_no_process_yet_ends_the_attempt(world: World) -> None:
    world.orders.dag_file("import time\nwhile True: time.sleep(0.05)\n", "slow.py")
    world.launcher.start()
    await world.connect()
    order = world.orders.python("t", file="slow.py", version="slow")
    await world.submit(order)
    await soon(world.zygotes)
    world.executor.stop([StopOrder(attempt_id=order.attempt_id, reason=EndReason.TIMEOUT)])
    end = await world.sink.finished(order.attempt_id)
    assert (end.state, end.reason, end.pid) == ("failed", "timeout", None)
    zygotes = world.zygotes()
    world.launcher.kill()
    for pid in zygotes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the base zygote has heard of its launcher's end


async def test_the_spool_never_holds_less_than_what_has_run(world: World) -> None:
    """Many attempts, and a launcher that is killed again and again while they run."""
    world.launcher.start()
    await world.connect()
    orders = [world.orders.bash("sleep 0.02") if n % 2 else world.orders.python("t") for n in range(40)]
    ended: dict[int, str] = {}
    await world.submit(*orders)
    for _ in range(3):
        await world.sink.until(lambda: sum(bool(world.sink.ends(o.attempt_id)) for o in orders) >= 5, seconds=5)
        world.launcher.kill()
        world.launcher.start()
        await world.connect()
        world.executor.submit(orders)
    for order in orders:
        await world.sink.until(lambda o=order: bool(world.sink.ends(o.attempt_id)))  # type: ignore[misc]  # mypy does not see the default's type
        (end,) = world.sink.ends(order.attempt_id)
        ended[order.attempt_id] = type(end).__name__
        if isinstance(end, Finished):
            assert end.state is AttemptState.SUCCESS, end
    ran = world.orders.ran()
    assert len(ran) == len(set(ran)), "an attempt started twice"
    assert {i for i, kind in ended.items() if kind == "Finished"} <= set(ran)
