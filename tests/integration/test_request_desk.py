"""Requests of running tasks at the daemon's end: who is served, and that nothing is answered before its commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.support.clock import VirtualClock
from tests.support.playbook import Outcome, Playbook
from tickless.api.watch import RunWatch
from tickless.core.commands import RunStarted, StartRun
from tickless.daemon import requests
from tickless.daemon.requests import RequestDesk
from tickless.daemon.secrets import Secrets
from tickless.errors import NotFound, Unavailable
from tickless.executors.base import Executor
from tickless.executors.launcher_client import LauncherClient
from tickless.executors.local import LocalExecutor
from tickless.model.id import AttemptId, Epoch
from tickless.model.setting import SettingRow
from tickless.model.state import FINISHED_RUN_STATES, RunState
from tickless.store.memory import MemoryStore
from tickless.store.pool import ReadPool
from tickless.store.reader import Reader, RunInfo
from tickless.store.vault import Vault
from tickless.wire.request import (
    Answer,
    Ask,
    AttemptAnswer,
    AttemptRequest,
    RunStateGet,
    TriggerRun,
    VariableDelete,
    VariableGet,
    VariableSet,
    XComGet,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class HeldExecutor(LocalExecutor):
    """Keeps what it is to answer."""

    def __init__(self, name: str, home: Path) -> None:
        super().__init__(name, LauncherClient(home), slots=1)
        self.answers: list[AttemptAnswer] = []

    def ask(self, attempt_id: int, number: int, ask: Ask) -> None:
        self._requests([AttemptRequest(attempt_id=attempt_id, number=number, ask=ask)])

    def answer(self, answers: Sequence[AttemptAnswer]) -> None:
        self.answers += answers


class Desk:
    """A run with the task `a` running and `b` after it, and a desk that serves them."""

    def __init__(self, folder: Path) -> None:
        self.book = Playbook("a >> b")
        self.book.start()
        self.store: MemoryStore = self.book.store
        self.executor = HeldExecutor("local", folder)
        self.other = HeldExecutor("other", folder)
        self.commit = asyncio.Event()
        self.commit.set()
        self.began = asyncio.Event()
        self.failures = 0
        self.started: list[StartRun] = []
        write = self.store.write_settings

        async def write_settings(epoch: Epoch, rows: Sequence[SettingRow], **request: Any) -> bool:
            self.began.set()
            await self.commit.wait()
            if self.failures:
                self.failures -= 1
                raise Unavailable("the connection broke")
            return await write(epoch, rows, **request)

        self.store.write_settings = write_settings  # type: ignore[method-assign]  # a gate before the real one
        reader = Reader(ReadPool("postgresql://nowhere/"))
        self.reads = 0

        async def run_by_id(dag_id: str, run_id: str) -> RunInfo | None:
            self.reads += 1
            found = [row for row in self.store.runs.values() if (row.dag_id, row.run_id) == (dag_id, run_id)]
            return RunInfo(row=found[0], version_number=1) if found else None

        reader.run_by_id = run_by_id  # type: ignore[method-assign]  # the rows are in the store in memory
        self.secrets = Secrets(
            store=self.store,
            reader=reader,
            vault=Vault(folder),
            clock=VirtualClock(),
            epoch=lambda: self.book.engine.epoch,
            on_lost=lambda error: None,
        )
        executors: list[Executor] = [self.executor, self.other]
        self.watch = RunWatch()
        self.desk = RequestDesk(
            engine=lambda: self.book.engine,
            executors=executors,
            store=self.store,
            reader=reader,
            secrets=self.secrets,
            start_run=self._start_run,
            watch=self.watch,
            clock=Instantly(),
        )

    async def _start_run(self, command: StartRun) -> RunStarted:
        self.began.set()
        await self.commit.wait()
        if command.dag_id != "dag":
            raise NotFound(f"there is no DAG {command.dag_id!r}")
        self.started.append(command)
        return RunStarted(run=self.book.store.load_now().runs[0].key, run_id="r", is_new=True)

    def attempt(self, task_id: str = "a") -> AttemptId:
        return next(row.attempt_id for row in self.store.attempts.values() if row.task_id == task_id)

    async def answer(self, ask: Ask, number: int = 1, attempt_id: int | None = None) -> Answer:
        count = len(self.executor.answers)
        self.executor.ask(self.attempt() if attempt_id is None else attempt_id, number, ask)
        with anyio.fail_after(10):
            while len(self.executor.answers) == count:
                await checkpoint()
        return self.executor.answers[-1].answer


class Instantly(VirtualClock):
    """Time that nobody waits for."""

    async def sleep(self, seconds: float) -> None:
        await checkpoint()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    async with anyio.create_task_group() as tasks:
        await tasks.start(desk.desk.run)
        yield desk
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("ask", [VariableSet(key="k", value="v"), TriggerRun(dag_id="dag"), VariableDelete(key="k")])
async def test_nothing_is_answered_before_its_commit(desk: Desk, ask: Ask) -> None:
    desk.commit.clear()
    desk.executor.ask(desk.attempt(), 1, ask)
    await desk.began.wait()
    for _ in range(100):
        await checkpoint()
    assert desk.executor.answers == []
    desk.commit.set()
    with anyio.fail_after(10):
        while not desk.executor.answers:
            await checkpoint()
    assert desk.executor.answers[0].answer.error is None


async def test_only_a_live_attempt_is_served_and_only_by_its_own_executor(desk: Desk) -> None:
    ask = VariableSet(key="k", value="v")
    attempt_id = desk.attempt()
    assert (await desk.answer(ask, attempt_id=attempt_id + 1)).code == "refused"
    desk.other.ask(attempt_id, 1, ask)
    with anyio.fail_after(10):
        while not desk.other.answers:
            await checkpoint()
    assert desk.other.answers[0].answer.code == "refused"
    desk.book.finish("a")
    assert (await desk.answer(ask, attempt_id=attempt_id)).code == "refused"
    assert desk.store.variables == {}
    assert (await desk.answer(ask, attempt_id=desk.attempt("b"))).error is None
    assert list(desk.store.variables) == ["k"]


async def test_an_attempt_whose_run_is_over_is_not_served(desk: Desk) -> None:
    attempt_id = desk.attempt()
    desk.book.engine.attempts[attempt_id].instance = None  # as after a restore
    assert (await desk.answer(VariableSet(key="k", value="v"))).code == "refused"
    assert desk.store.variables == {}


async def test_what_cannot_be_committed_is_tried_again_until_it_is(desk: Desk) -> None:
    desk.failures = 3
    assert (await desk.answer(VariableSet(key="k", value="v"))).error is None
    assert (await desk.answer(VariableGet(key="k"), 2)).value == '"v"'


async def test_a_request_that_comes_again_meanwhile_is_served_once(desk: Desk) -> None:
    desk.commit.clear()
    for _ in range(3):
        desk.executor.ask(desk.attempt(), 1, TriggerRun(dag_id="dag"))
    await desk.began.wait()
    desk.commit.set()
    with anyio.fail_after(10):
        while not desk.executor.answers:
            await checkpoint()
    for _ in range(50):
        await checkpoint()
    assert len(desk.executor.answers) == len(desk.started) == 1


async def test_a_repeated_change_is_made_once_and_answered_alike(desk: Desk) -> None:
    await desk.answer(VariableSet(key="k", value="first"))
    assert (await desk.answer(VariableDelete(key="k"), 2)).value == "true"
    assert (await desk.answer(VariableDelete(key="k"), 2)).value == "true", "asked again by the next daemon"
    assert (await desk.answer(VariableDelete(key="k"), 3)).value == "false"
    await desk.answer(TriggerRun(dag_id="dag"), 4)
    await desk.answer(TriggerRun(dag_id="dag"), 4)
    await desk.answer(TriggerRun(dag_id="dag"), 5)
    keys = [command.idempotency_key for command in desk.started]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("ask", "code", "text"),
    [
        (VariableGet(key="no"), "not_found", "no variable 'no'"),
        (TriggerRun(dag_id="no"), "not_found", "no DAG 'no'"),
        (TriggerRun(dag_id="dag", conf="[1]"), "invalid", "not a JSON object"),
        (TriggerRun(dag_id="dag", conf='{"a": "\\u0000"}'), "invalid", "cannot be stored"),
        (TriggerRun(dag_id="dag", conf='{"a": NaN}'), "invalid", "cannot be stored"),
        (TriggerRun(dag_id="dag", run_id="a\nb"), "invalid", "cannot be shown"),
        (VariableSet(key="a\nb", value=""), "invalid", "cannot be the name"),
        (VariableSet(key="k", value="a\0b"), "invalid", "NUL"),
        (VariableSet(key="k", value="x" * 1_048_577), "invalid", "1,048,576"),
    ],
)
async def test_what_is_wrong_is_told(desk: Desk, ask: Ask, code: str, text: str) -> None:
    answer = await desk.answer(ask)
    assert answer.code == code
    assert text in (answer.error or "")


async def test_a_lost_key_is_told_and_ends_nobody(desk: Desk, tmp_path: Path) -> None:
    await desk.answer(VariableSet(key="k", value="v"))
    (tmp_path / "secret.key").unlink()
    desk.secrets._vault = Vault(tmp_path)
    answer = await desk.answer(VariableGet(key="k"), 2)
    assert answer.code == "internal"
    assert "secret.key" in (answer.error or "")
    assert (await desk.answer(VariableSet(key="k", value="again"), 3)).error is None
    assert (await desk.answer(VariableGet(key="k"), 4)).value == '"again"'


async def test_values_of_the_own_run_are_pulled(desk: Desk) -> None:
    attempt_id = desk.attempt()
    desk.book.finish("a", output='{"n": 1}')
    assert (await desk.answer(XComGet(task_ids=["a"]), attempt_id=desk.attempt("b"))).value == (
        '[{"task_id":"a","map_index":-1,"value":{"n": 1}}]'
    )
    assert attempt_id != desk.attempt("b")


class Waiting:
    """The task `a` of the desk's run waits for the end of a second run."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        desk.book.start(run_id="second")
        self.ask = RunStateGet(dag_id="dag", run_id="second", until=sorted(FINISHED_RUN_STATES))

    async def begin(self) -> None:
        self.desk.executor.ask(self.desk.attempt(), 1, self.ask)
        await self.settle()
        assert self.values == []

    def release(self, outcome: Outcome) -> None:
        """The daemon releases the effects of a step."""
        for effect in outcome.effects:
            self.desk.watch.publish(effect)
            self.desk.desk.publish(effect)

    async def settle(self) -> None:
        for _ in range(50):
            await checkpoint()

    @property
    def values(self) -> list[str]:
        return [each.answer.error or each.answer.value for each in self.desk.executor.answers]


async def test_who_waits_for_a_run_is_answered_by_the_commit_of_its_end(desk: Desk) -> None:
    waiting = Waiting(desk)
    await waiting.begin()
    reads = desk.reads
    waiting.release(desk.book.finish("2/a"))
    await waiting.settle()
    assert (waiting.values, desk.reads) == ([], reads), "the row is not read for what is no change of the run"
    waiting.release(desk.book.finish("2/b", "failed"))
    await waiting.settle()
    assert waiting.values == ['"failed"']


async def test_who_waits_holds_up_nobody(desk: Desk) -> None:
    waiting = Waiting(desk)
    desk.book.start()
    await waiting.begin()
    for number in range(2, 2 + 2 * requests.AT_ONCE):
        desk.executor.ask(desk.attempt(), number, waiting.ask)
    await waiting.settle()
    assert (await desk.answer(VariableGet(key="no"), 99)).code == "not_found"


async def test_a_waiter_looks_again_after_a_rebuild(desk: Desk) -> None:
    waiting = Waiting(desk)
    await waiting.begin()
    desk.book.finish("2/a")
    desk.book.finish("2/b")  # committed, but the effect was lost with the RAM
    await waiting.settle()
    assert waiting.values == []
    desk.book.restart()
    desk.watch.resync()
    await waiting.settle()
    assert waiting.values == ['"success"']


async def test_a_waiter_goes_with_its_attempt(desk: Desk) -> None:
    waiting = Waiting(desk)
    await waiting.begin()
    assert list(desk.desk._waiting) == [desk.attempt()]
    waiting.release(desk.book.finish("a"))
    await waiting.settle()
    assert desk.desk._waiting == {}
    assert desk.watch._watchers == {}
    assert waiting.values == ["this attempt is over"], "which nobody hears: its launcher drops it"


async def test_one_waiter_too_many_is_told_the_present_state(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(desk)
    await waiting.begin()
    monkeypatch.setattr(requests, "MAX_WAITERS", 1)
    desk.book.finish("2/a")
    answer = await desk.answer(waiting.ask, attempt_id=next(reversed(desk.store.attempts)))
    assert answer.value == '"running"'
    assert len(desk.desk._waiting) == 1


@pytest.mark.parametrize("until", [None, [RunState.RUNNING], [RunState.SUCCESS, RunState.RUNNING]])
async def test_a_state_that_is_there_is_told_at_once(desk: Desk, until: list[RunState] | None) -> None:
    waiting = Waiting(desk)
    ask = RunStateGet(dag_id="dag", run_id="second", until=until)
    assert (await desk.answer(ask)).value == '"running"'
    missing = RunStateGet(dag_id="dag", run_id="third", until=waiting.ask.until)
    assert (await desk.answer(missing, 2)).code == "not_found"
