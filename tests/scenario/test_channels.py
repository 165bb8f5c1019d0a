"""The channel between a task and its launcher, and what hostile code can do with it: on a real launcher."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.launcher import LauncherProcess, Orders, dag_source, soon
from tests.support.recorder import Recorder
from tickless.executors.launcher_client import LauncherClient
from tickless.executors.local import LocalExecutor
from tickless.model.id import AttemptId, Epoch
from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished
from tickless.model.state import AttemptState
from tickless.wire.request import Answer, AttemptAnswer, AttemptRequest, VariableGet

pytestmark = pytest.mark.anyio

TASKS = """
import socket, struct, subprocess, threading
from tickless import Variable
from tickless.authoring.daemon import daemon

def raw():
    return socket.socket(fileno=os.dup(3))

def frame(text):
    return struct.pack(">I", len(text)) + text

def read(sock):
    data = b""
    while part := sock.recv(65536):
        data += part
    return json.loads(data[4:])

@task
def asks():
    return Variable.get("k")

@task
def pretends():
    sock = raw()
    sock.sendall(frame(b'{"number": 1, "attempt_id": 7, "ask": {"type": "variable_get", "key": "k", "attempt_id": 7}}'))
    length = struct.unpack(">I", sock.recv(4))[0]
    return json.loads(sock.recv(length))["value"]

@task
def talks_nonsense(data):
    sock = raw()
    sock.sendall(bytes.fromhex(data))
    return read(sock)

@task
def floods():
    sock = raw()
    sock.setblocking(False)
    text = b"".join(frame(b'{"number": %d, "ask": {"type": "variable_get", "key": "k"}}' % n) for n in range(1, 2000))
    text += frame(b" " * 1000000 + b'{"number": 2000, "ask": {"type": "variable_get", "key": "k"}}') * 50
    sent = 0
    try:
        while sent < len(text):
            sent += sock.send(text[sent:])
    except BlockingIOError:
        pass
    with open(RAN, "a") as file:
        file.write("full\\n")
    time.sleep(1000)

@task
def never_reads():
    sock = raw()
    sock.sendall(frame(b'{"number": 1, "ask": {"type": "variable_get", "key": "k"}}'))
    time.sleep(1000)

@task
def forks():
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            Variable.get("k")
        except Exception as error:
            os.write(writer, repr(error).encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 4096).decode()
    return [said, Variable.get("k")]

@task
def closes():
    Variable.get("k")
    os.close(3)
    with open("other", "w") as other:
        assert other.fileno() == 3
        try:
            Variable.get("k")
        except Exception as error:
            said = str(error)
    assert open("other").read() == ""
    return said

@task
def has_children():
    return subprocess.run(["test", "-e", "/proc/self/fd/3"], close_fds=False).returncode == 0

@task
def has_threads():
    found = {}
    def ask(number):
        found[number] = [Variable.get(f"{number}.{turn}") for turn in range(10)]
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return all(found[n] == [f"value of {n}.{turn}" for turn in range(10)] for n in range(8))

@task
def is_interrupted():
    import signal
    def ring(*_):
        raise TimeoutError("rang")
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        Variable.get("slow")
    except TimeoutError:
        return Variable.get("after")

@task
def asks_too_much():
    said = []
    for value in ("x" * 2000000, "a\\0b", "\\ud800"):
        try:
            Variable.set("k", value)
        except Exception as error:
            said.append(str(error))
    try:
        Variable.get("")
    except Exception as error:
        said.append(str(error))
    return said + [Variable.get("k")]

asks(); pretends(); talks_nonsense(""); floods(); never_reads(); forks(); closes(); has_children(); has_threads()
is_interrupted(); asks_too_much()
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LauncherProcess]:
    process = LauncherProcess(tmp_path_factory.mktemp("channels") / "home")
    process.start()
    yield process
    process.terminate()


_next_epoch = iter(range(1, 100_000))


class Shop:
    """An executor that plays the daemon: it answers what is asked for, unless it is told not to."""

    def __init__(self, launcher: LauncherProcess, folder: Path) -> None:
        self.launcher = launcher
        self.epoch = Epoch(next(_next_epoch))
        self.orders = Orders(folder, epoch=self.epoch)
        source = dag_source(self.orders, TASKS).replace(
            "import os,", f"import json\nRAN = {str(folder / 'ran')!r}\nimport os,"
        )
        self.orders.dag_file(source)
        self.asked: list[AttemptRequest] = []
        self.answers = True
        self.value = "value of {key}"
        self.sink = Recorder()
        self.executor = self.new_executor()

    def new_executor(self) -> LocalExecutor:
        executor = LocalExecutor("local", LauncherClient(self.launcher.home), slots=8)
        executor.on_requests(self._on_requests)
        self.executor = executor
        return executor

    def _on_requests(self, requests: Sequence[AttemptRequest]) -> None:
        self.asked += requests
        for request in requests:
            assert isinstance(request.ask, VariableGet)
            if self.answers and request.ask.key != "slow":
                self.answer(request)

    def answer(self, request: AttemptRequest, *, number: int | None = None, attempt_id: int | None = None) -> None:
        assert isinstance(request.ask, VariableGet)
        answer = Answer(number=number or request.number, value=json.dumps(self.value.format(key=request.ask.key)))
        self.executor.answer([AttemptAnswer(attempt_id=attempt_id or request.attempt_id, answer=answer)])

    def order(self, task_id: str) -> Order:
        return self.orders.python(task_id, version=f"v{self.epoch}")

    async def run(self, order: Order) -> Any:
        """The return value of a task that succeeds."""
        self.executor.submit([order])
        return await self.output(order)

    async def output(self, order: Order) -> Any:
        end = await self.sink.finished(order.attempt_id)
        assert isinstance(end, Finished)
        assert end.state is AttemptState.SUCCESS, end.error
        self.executor.ack([AttemptId(order.attempt_id)])
        return json.loads(end.output or "null")

    def nonsense(self, data: bytes) -> Order:
        source = (self.orders.bundle / "dag.py").read_text()
        name = f"nonsense_{len(data)}.py"
        (self.orders.bundle / name).write_text(source.replace('talks_nonsense("")', f'talks_nonsense("{data.hex()}")'))
        return self.orders.python("talks_nonsense", file=name, version=f"v{self.epoch}{name}")


@pytest.fixture
async def shop(launcher: LauncherProcess, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(launcher, tmp_path)
    await shop.executor.connect(shop.epoch, {}, shop.sink)
    yield shop
    shop.executor.disconnect()


async def test_a_request_is_answered_under_its_own_attempts_id(shop: Shop) -> None:
    order = shop.order("pretends")
    assert json.loads(await shop.run(order)) == "value of k"
    assert [request.attempt_id for request in shop.asked] == [order.attempt_id], "whatever the task says"


async def test_what_cannot_be_read_ends_the_channel_and_nothing_else(shop: Shop) -> None:
    for data in (
        b"\xff" * 8,
        b"\x00\x20\x00\x00" + b"x" * 100,  # a frame of 2 MiB
        b"\x00\x00\x00\x02{}",
        b'\x00\x00\x00\x11{"number": "one"}',
        b'\x00\x00\x00\x39{"number": 1, "ask": {"type": "variable_get", "key": ""}}',
    ):
        said = await shop.run(shop.nonsense(data))
        assert (said["number"], said["code"]) == (0, "invalid"), data
    assert shop.asked == []
    assert await shop.run(shop.order("asks")) == "value of k"


async def test_a_flood_is_one_request_and_holds_nobody_up(shop: Shop) -> None:
    shop.answers = False
    flood = shop.order("floods")
    before = _resident_mib(shop.launcher.pid)
    shop.executor.submit([flood])
    await soon(lambda: shop.asked and shop.orders.ran_file.exists(), "a full channel")
    shop.answers = True
    assert await shop.run(shop.order("asks")) == "value of k"
    mine = [request for request in shop.asked if request.attempt_id == flood.attempt_id]
    assert [request.number for request in mine] == [1], "nothing is read before the answer"
    shop.answers = False
    shop.answer(mine[0])
    await soon(lambda: shop.asked[-1].number == 2, "the next one, once that is answered")
    assert _resident_mib(shop.launcher.pid) - before < 20
    shop.executor.stop([_stop(flood)])
    await shop.sink.finished(flood.attempt_id)


async def test_an_answer_that_nobody_reads_holds_nobody_up(shop: Shop) -> None:
    shop.value = "{key}" * 4_000_000
    deaf = shop.order("never_reads")
    shop.executor.submit([deaf])
    await soon(lambda: shop.asked)
    shop.value = "small"
    assert await shop.run(shop.order("asks")) == "small"
    shop.executor.stop([_stop(deaf)])
    await shop.sink.finished(deaf.attempt_id)


async def test_a_request_waits_for_the_next_leader(shop: Shop) -> None:
    shop.answers = False
    order = shop.order("asks")
    shop.executor.submit([order])
    await soon(lambda: shop.asked)
    shop.executor.disconnect()
    shop.answers = True
    shop.new_executor()
    shop.epoch = Epoch(next(_next_epoch))
    live = {AttemptId(order.attempt_id): AttemptState.RUNNING}
    await shop.executor.connect(shop.epoch, live, shop.sink)
    assert await shop.output(order) == "value of k"
    first, second = shop.asked
    assert first == second


async def test_answers_to_other_numbers_and_other_attempts_are_dropped(shop: Shop) -> None:
    shop.answers = False
    one, two = shop.order("asks"), shop.order("asks")
    shop.executor.submit([one, two])
    await soon(lambda: len(shop.asked) == 2)
    first = next(request for request in shop.asked if request.attempt_id == one.attempt_id)
    shop.value = "wrong"
    shop.answer(first, number=2)
    shop.answer(first, attempt_id=12345)
    shop.value = "right"
    for request in shop.asked:
        shop.answer(request)
    assert [await shop.output(one), await shop.output(two)] == ["right", "right"]


async def test_a_forked_child_is_refused_and_its_parent_is_not(shop: Shop) -> None:
    said, value = await shop.run(shop.order("forks"))
    assert "forked" in said
    assert value == "value of k"


async def test_a_closed_channel_is_told_and_nothing_is_written_to_what_took_its_number(shop: Shop) -> None:
    assert "closed by its own code" in await shop.run(shop.order("closes"))


async def test_the_channel_is_not_inherited(shop: Shop) -> None:
    assert await shop.run(shop.order("has_children")) is False
    bash = shop.orders.bash("test -e /proc/self/fd/3 && echo open || echo closed")
    assert await shop.run(bash) == "closed"


async def test_threads_get_their_own_answers(shop: Shop) -> None:
    assert await shop.run(shop.order("has_threads")) is True


async def test_an_answer_that_was_not_waited_for_is_not_taken_for_the_next(shop: Shop) -> None:
    order = shop.order("is_interrupted")
    shop.executor.submit([order])
    await soon(lambda: shop.asked)
    slow = shop.asked[0]
    await asyncio.sleep(0.2)  # not for an outcome: so that the answer comes after the interruption, as it may
    shop.answer(slow)
    assert await shop.output(order) == "value of after"


async def test_what_cannot_be_asked_is_refused_before_it_leaves(shop: Shop) -> None:
    large, nul, surrogate, nameless, then = await shop.run(shop.order("asks_too_much"))
    assert "over the limit of 1,048,576" in large
    assert "NUL" in nul
    assert "cannot be asked" in surrogate
    assert "cannot be asked" in nameless
    assert then == "value of k"
    assert len(shop.asked) == 1


async def test_the_launcher_keeps_no_descriptor_of_an_attempt_that_has_ended(shop: Shop) -> None:
    await shop.run(shop.order("asks"))
    folder = f"/proc/{shop.launcher.pid}/fd"
    before = len(os.listdir(folder))
    for task_id in ("asks", "forks", "closes", "pretends") * 3:
        await shop.run(shop.order(task_id))
    stopped = shop.order("never_reads")
    shop.executor.submit([stopped])
    await shop.sink.started(stopped.attempt_id)
    shop.executor.stop([_stop(stopped)])
    await shop.sink.finished(stopped.attempt_id)
    await soon(lambda: len(os.listdir(folder)) <= before, "as many descriptors as before")


def _stop(order: Order) -> StopOrder:
    return StopOrder(attempt_id=order.attempt_id, reason="stopped")


def _resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/statm").read_text()
    return int(text.split()[1]) * 4096 / 1024 / 1024
