"""The executor port, on every executor of this release, each over a real launcher process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.launcher import LauncherProcess, Orders, dag_source, is_alive, soon
from tests.support.recorder import Recorder
from tickless.errors import Conflict, Unavailable
from tickless.executors.base import Executor
from tickless.executors.launcher_client import LauncherClient
from tickless.executors.local import LocalExecutor
from tickless.executors.sequential import SequentialExecutor
from tickless.model.id import AttemptId, Epoch
from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished, Lost, Started
from tickless.model.state import AttemptState, EndReason
from tickless.wire.request import Answer, AttemptAnswer, AttemptRequest

pytestmark = pytest.mark.anyio
FIRST, SECOND, THIRD = Epoch(1), Epoch(2), Epoch(3)
MakeExecutor = Callable[[str], Executor]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LauncherProcess]:
    """One for all tests of a kind: epochs only rise, so each test gets a range of its own."""
    process = LauncherProcess(tmp_path_factory.mktemp("launcher") / "home")
    process.start()
    yield process
    process.terminate()


_next_epoch = iter(range(10, 100_000, 10))


class Bench:
    """Executors of one kind on one launcher, and orders for them."""

    def __init__(self, kind: str, launcher: LauncherProcess, folder: Path) -> None:
        self.kind = kind
        self.home = launcher.home
        self.client = LauncherClient(launcher.home)
        self.epoch = Epoch(next(_next_epoch))
        self.orders = Orders(folder, executor="x", epoch=self.epoch)
        self.sink = Recorder()

    def executor(self, name: str = "x", client: LauncherClient | None = None) -> Executor:
        client = client or self.client
        return SequentialExecutor(name, client) if self.kind == "sequential" else LocalExecutor(name, client, slots=4)

    async def connected(self) -> Executor:
        executor = self.executor()
        await executor.connect(self.epoch, {}, self.sink)
        return executor

    def wait_order(self, **fields: object) -> Order:
        """One that runs until it is ended."""
        return self.orders.bash("while :; do sleep 0.05; done", **fields)


@pytest.fixture(params=["local", "sequential"])
async def bench(request: pytest.FixtureRequest, launcher: LauncherProcess, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(request.param, launcher, tmp_path)
    yield bench
    for name in ("x", "y"):
        bench.client.leave(name)


def stop(order: Order, reason: EndReason = EndReason.STOPPED) -> list[StopOrder]:
    return [StopOrder(attempt_id=order.attempt_id, reason=reason)]


def ids(*orders: Order) -> list[AttemptId]:
    return [AttemptId(order.attempt_id) for order in orders]


async def test_an_order_ends_in_started_then_one_finished(bench: Bench) -> None:
    executor = await bench.connected()
    order = bench.orders.bash("sleep 0.1; echo hello")
    executor.submit([order])
    end = await bench.sink.finished(order.attempt_id)
    assert (end.state, end.reason, end.exit_code, end.output) == ("success", "exited", 0, '"hello"')
    assert [type(report) for report in bench.sink.of(order.attempt_id)] == [Started, Finished]
    assert bench.orders.ran() == [order.attempt_id]


async def test_a_finished_says_all_that_a_started_would_have_said(bench: Bench) -> None:
    """Of a short attempt nothing else may be heard."""
    executor = await bench.connected()
    order = bench.orders.bash("echo $$")
    executor.submit([order])
    end = await bench.sink.finished(order.attempt_id)
    assert end.output == f'"{end.pid}"'
    assert end.host
    assert end.started_at is not None
    assert end.started_at <= end.at
    assert isinstance(bench.sink.of(order.attempt_id)[-1], Finished)


async def test_a_python_task_gets_its_inputs_and_gives_its_value(bench: Bench) -> None:
    bench.orders.dag_file(
        dag_source(
            bench.orders,
            """
@task
def one():
    return 1
@task
def t(x):
    note()
    print("seen", x)
    return {"twice": [x, x], "try": os.environ["TICKLESS_TRY_NUMBER"]}
t(one())
""",
        )
    )
    executor = await bench.connected()
    order = bench.orders.python("t", inputs={"one": '{"k":"ü"}'}, try_number=2)
    executor.submit([order])
    end = await bench.sink.finished(order.attempt_id)
    assert end.state is AttemptState.SUCCESS, end
    assert end.output == '{"twice":[{"k":"ü"},{"k":"ü"}],"try":"2"}'
    log = (bench.home / "logs" / order.log_path).read_text()
    assert log == "seen {'k': 'ü'}\n"


async def test_the_same_order_twice_runs_once(bench: Bench) -> None:
    executor = await bench.connected()
    order = bench.orders.bash(":")
    executor.submit([order])
    executor.submit([order])
    await bench.sink.finished(order.attempt_id)
    executor.submit([order])
    executor.ack(ids(order))
    executor.submit([order])
    other = bench.orders.bash(":")
    executor.submit([other])
    await bench.sink.finished(other.attempt_id)
    assert bench.orders.ran() == [order.attempt_id, other.attempt_id]
    assert len(bench.sink.ends(order.attempt_id)) == 1


async def test_an_end_is_offered_after_each_connect_until_it_is_acked(bench: Bench) -> None:
    executor = await bench.connected()
    order = bench.orders.bash(":")
    executor.submit([order])
    await bench.sink.finished(order.attempt_id)
    live = {AttemptId(order.attempt_id): AttemptState.RUNNING}
    for _ in range(2):
        again = Recorder()
        await executor.connect(bench.epoch, live, again)
        assert await again.finished(order.attempt_id) == bench.sink.ends(order.attempt_id)[0]
    executor.ack(ids(order))
    marker = bench.orders.bash(":")
    executor.submit([marker])
    await again.finished(marker.attempt_id)
    later = Recorder()
    await executor.connect(Epoch(bench.epoch + 1), {AttemptId(marker.attempt_id): AttemptState.RUNNING}, later)
    await later.finished(marker.attempt_id)
    assert later.of(order.attempt_id) == []


async def test_running_attempts_outlive_a_disconnect(bench: Bench) -> None:
    executor = await bench.connected()
    order = bench.orders.bash("while ! test -e go; do sleep 0.02; done; echo done", cwd=str(bench.orders.bundle))
    executor.submit([order])
    started = await bench.sink.started(order.attempt_id)
    executor.disconnect()
    seen = len(bench.sink.reports)
    (bench.orders.bundle / "go").touch()
    await soon(lambda: not is_alive(started.pid), "the end of the task")
    assert len(bench.sink.reports) == seen, "nothing may reach the sink after disconnect"
    again = Recorder()
    await executor.connect(bench.epoch, {AttemptId(order.attempt_id): AttemptState.RUNNING}, again)
    end = await again.finished(order.attempt_id)
    assert (end.pid, end.output) == (started.pid, '"done"')


async def test_running_in_the_database_and_unknown_here_is_lost(bench: Bench) -> None:
    ghost, waiting = bench.orders.bash(":"), bench.orders.bash(":")
    executor = bench.executor()
    live = {
        AttemptId(ghost.attempt_id): AttemptState.RUNNING,
        AttemptId(waiting.attempt_id): AttemptState.QUEUED,
    }
    await executor.connect(bench.epoch, live, bench.sink)
    await bench.sink.lost(ghost.attempt_id)
    executor.submit([waiting])
    await bench.sink.finished(waiting.attempt_id)
    assert len([report for report in bench.sink.reports if not isinstance(report, Started)]) == 2
    assert bench.orders.ran() == [waiting.attempt_id]


async def test_known_here_and_not_live_in_the_database_is_killed_and_forgotten(bench: Bench) -> None:
    executor = await bench.connected()
    order = bench.wait_order()
    executor.submit([order])
    started = await bench.sink.started(order.attempt_id)
    await soon(bench.orders.ran)
    later = Recorder()
    await executor.connect(Epoch(bench.epoch + 1), {}, later)
    await soon(lambda: not is_alive(started.pid), "the death of the forgotten")
    marker = bench.orders.bash(":")
    executor.submit([order, marker])
    await later.finished(marker.attempt_id)
    assert later.of(order.attempt_id) == []
    assert bench.orders.ran() == [order.attempt_id, marker.attempt_id]


async def test_stop_ends_the_whole_group_and_says_why(bench: Bench) -> None:
    executor = await bench.connected()
    order = bench.orders.bash("sleep 1000 & setsid sleep 1000 & echo $! > pids; jobs -p >> pids; wait",
                              cwd=str(bench.orders.bundle))  # fmt: skip
    executor.submit([order])
    await bench.sink.started(order.attempt_id)
    path = bench.orders.bundle / "pids"
    pids = await soon(lambda: path.exists() and len(path.read_text().split()) == 3 and path.read_text().split())
    executor.stop(stop(order, EndReason.TIMEOUT))
    end = await bench.sink.finished(order.attempt_id)
    assert (end.state, end.reason, end.signal) == ("failed", "timeout", 15)
    assert [pid for pid in pids if is_alive(int(pid))] == [], "left behind"  # type: ignore[union-attr]  # soon gives the list


async def test_a_stop_gives_the_whole_group_its_grace(bench: Bench) -> None:
    """The shell dies of its TERM at once; what it runs may still save its work."""
    executor = await bench.connected()
    order = bench.orders.bash(
        """sh -c 'trap "sleep 0.2; touch saved; exit" TERM; touch armed; while :; do sleep 0.02; done'; true""",
        cwd=str(bench.orders.bundle),
    )
    executor.submit([order])
    await soon((bench.orders.bundle / "armed").exists)
    executor.stop(stop(order))
    end = await bench.sink.finished(order.attempt_id)
    assert (end.reason, end.signal) == ("stopped", 15)
    assert (bench.orders.bundle / "saved").exists(), "killed before its grace was over"


async def test_what_ignores_term_outside_of_the_group_is_killed_after_the_grace(bench: Bench) -> None:
    executor = await bench.connected()
    order = bench.orders.bash(
        "setsid sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 0.02; done' & wait",
        kill_grace_seconds=0.3,
        cwd=str(bench.orders.bundle),
    )
    executor.submit([order])
    path = bench.orders.bundle / "pid"
    await soon(lambda: path.exists() and path.read_text().strip())
    executor.stop(stop(order))
    assert (await bench.sink.finished(order.attempt_id)).reason is EndReason.STOPPED
    assert not is_alive(int(path.read_text()))


async def test_an_attempt_that_ignores_term_is_killed_after_its_grace(bench: Bench) -> None:
    executor = await bench.connected()
    order = bench.orders.bash(
        "trap '' TERM; touch armed; while :; do sleep 0.05; done",
        kill_grace_seconds=0.2,
        cwd=str(bench.orders.bundle),
    )
    executor.submit([order])
    await soon((bench.orders.bundle / "armed").exists)
    executor.stop(stop(order))
    end = await bench.sink.finished(order.attempt_id)
    assert (end.state, end.reason, end.signal) == ("failed", "stopped", 9)


async def test_stopping_what_is_unknown_or_over_is_ignored(bench: Bench) -> None:
    executor = await bench.connected()
    order = bench.orders.bash(":")
    executor.stop(stop(order))
    executor.submit([order])
    end = await bench.sink.finished(order.attempt_id)
    executor.stop(stop(order))
    executor.stop(stop(order))
    assert end.state is AttemptState.SUCCESS
    assert len(bench.sink.ends(order.attempt_id)) == 1


async def test_a_higher_epoch_shuts_out_the_lower(bench: Bench) -> None:
    old = await bench.connected()
    lost = []
    old.on_lost_connection(lambda: lost.append(1))
    await old.connect(bench.epoch, {}, bench.sink)
    other = LauncherClient(bench.home)
    new, seen = bench.executor(client=other), Recorder()
    await new.connect(Epoch(bench.epoch + 1), {}, seen)
    order = bench.orders.bash(":")
    old.submit([order])
    marker = bench.orders.bash(":")
    new.submit([marker])
    await seen.finished(marker.attempt_id)
    assert bench.orders.ran() == [marker.attempt_id], "an order of the former leader got through"
    with pytest.raises(Conflict):
        await old.connect(bench.epoch, {}, bench.sink)
    assert lost == [1]
    other.leave("x")


async def test_several_executors_share_a_client_and_hear_only_their_own(bench: Bench) -> None:
    x, y = bench.executor("x"), bench.executor("y")
    y_sink = Recorder()
    await x.connect(bench.epoch, {}, bench.sink)
    await y.connect(bench.epoch, {}, y_sink)
    mine, theirs = bench.orders.bash(":"), bench.orders.bash(":", executor="y")
    x.submit([mine])
    y.submit([theirs])
    await bench.sink.finished(mine.attempt_id)
    await y_sink.finished(theirs.attempt_id)
    assert {report.attempt_id for report in bench.sink.reports} == {mine.attempt_id}
    assert {report.attempt_id for report in y_sink.reports} == {theirs.attempt_id}
    # After a reconnect the inventory is split the same way: neither forgets the other's.
    x2, y2 = Recorder(), Recorder()
    await x.connect(Epoch(bench.epoch + 1), {AttemptId(mine.attempt_id): AttemptState.RUNNING}, x2)
    await y.connect(Epoch(bench.epoch + 1), {AttemptId(theirs.attempt_id): AttemptState.RUNNING}, y2)
    await x2.finished(mine.attempt_id)
    await y2.finished(theirs.attempt_id)
    x.disconnect()
    again = bench.orders.bash(":", executor="y")
    y.submit([again])
    await y2.finished(again.attempt_id)


async def test_no_launcher_is_unavailable_and_says_how_to_start_one(bench: Bench, tmp_path: Path) -> None:
    executor = bench.executor(client=LauncherClient(tmp_path))
    with pytest.raises(Unavailable) as caught:
        await executor.connect(bench.epoch, {}, bench.sink)
    assert str(tmp_path) in caught.value.message
    assert "tickless.launcher" in (caught.value.hint or "")


@pytest.mark.parametrize("bench", ["sequential"], indirect=True)
async def test_sequential_runs_one_at_a_time_in_order(bench: Bench) -> None:
    executor = await bench.connected()
    assert executor.capabilities().slots == 1
    orders = [bench.orders.bash("mkdir lock && sleep 0.02; rmdir lock", cwd=str(bench.orders.bundle)) for _ in range(5)]
    executor.submit(orders)
    for order in orders:
        assert (await bench.sink.finished(order.attempt_id)).state is AttemptState.SUCCESS, "two at once"
    assert bench.orders.ran() == [order.attempt_id for order in orders]
    assert not any(isinstance(report, Lost) for report in bench.sink.reports)


@pytest.mark.parametrize("bench", ["sequential"], indirect=True)
async def test_sequential_ends_a_held_order_that_is_stopped(bench: Bench) -> None:
    executor = await bench.connected()
    first, held = bench.wait_order(), bench.orders.bash(":")
    executor.submit([first, held])
    await soon(bench.orders.ran)
    executor.stop(stop(held))
    end = await bench.sink.finished(held.attempt_id)
    assert (end.state, end.reason) == ("failed", "stopped")
    executor.stop(stop(first))
    await bench.sink.finished(first.attempt_id)
    assert bench.orders.ran() == [first.attempt_id]


@pytest.mark.parametrize("bench", ["local"], indirect=True)
async def test_local_runs_side_by_side(bench: Bench) -> None:
    executor = await bench.connected()
    # Each waits for the other: only side by side can they end.
    orders = [
        bench.orders.bash(f"touch {a}; while ! test -e {b}; do sleep 0.01; done", cwd=str(bench.orders.bundle))
        for a, b in (("a", "b"), ("b", "a"))
    ]
    executor.submit(orders)
    for order in orders:
        assert (await bench.sink.finished(order.attempt_id)).state is AttemptState.SUCCESS


async def test_a_request_is_offered_after_each_connect_until_it_is_answered(bench: Bench) -> None:
    tasks = """
@task
def asks():
    from tickless import Variable
    return [Variable.get("one"), Variable.get("two")]
asks()
"""
    bench.orders.dag_file(dag_source(bench.orders, tasks))
    asked: list[AttemptRequest] = []
    executor = bench.executor()
    executor.on_requests(asked.extend)
    await executor.connect(bench.epoch, {}, bench.sink)
    order = bench.orders.python("asks", version=f"v{bench.epoch}{bench.kind}")
    executor.submit([order])
    await soon(lambda: len(asked) == 1)
    live = {AttemptId(order.attempt_id): AttemptState.RUNNING}
    await executor.connect(bench.epoch, live, bench.sink)
    await soon(lambda: len(asked) == 2)
    assert asked[0] == asked[1]
    for number in (1, 2):
        await soon(lambda number=number: asked[-1].number == number)  # type: ignore[misc]  # mypy does not see the default's type
        answer = Answer(number=number, value=f'"{number}"')
        executor.answer([AttemptAnswer(attempt_id=order.attempt_id, answer=answer)])
    end = await bench.sink.finished(order.attempt_id)
    assert end.output == '["1","2"]'
    assert [request.number for request in asked] == [1, 1, 2]
    await executor.connect(bench.epoch, {}, bench.sink)
    executor.ack(ids(order))
    assert [request.number for request in asked] == [1, 1, 2], "nothing is held of an attempt that has ended"
