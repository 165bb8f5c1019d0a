"""Decide, commit, do: the scheduler over the store in memory, with an executor that writes down what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from tests.support.builders import decode_spec, make_dag, parsed
from tickless.clock import SystemClock
from tickless.core.attempts import Attempts
from tickless.core.commands import CancelRun, RunStarted, SetPool, StartRun
from tickless.core.control import Control
from tickless.core.decision import Decision, Effect, RunChanged, Write
from tickless.core.explain import explain_run
from tickless.daemon import term as term_module
from tickless.daemon.orders import OrderRules
from tickless.daemon.scheduler import FIRST_BACKOFF_SECONDS, Scheduler
from tickless.errors import InvariantBroken, Refused, Unavailable, UserError
from tickless.executors.base import Capabilities, ReportSink, RequestSink
from tickless.model.id import AttemptId, Epoch, RunKey
from tickless.model.limit import Limits, Routing
from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished, Lost, Report, Started
from tickless.model.row import AttemptRow, DagRow, PoolRow, XComRow
from tickless.model.schedule import ScheduleKind, ScheduleSpec
from tickless.model.state import AttemptState, EndReason, TaskState
from tickless.store.memory import MemoryStore
from tickless.wire.request import AttemptAnswer

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()


def now() -> datetime:
    return CLOCK.now()


class GatedStore(MemoryStore):
    """Its flushes wait for the gate; `story` has every commit."""

    def __init__(self, story: list[str]) -> None:
        super().__init__()
        self.story = story
        self.gate = asyncio.Event()
        self.gate.set()
        self.sizes: list[int] = []
        self.waiting = asyncio.Event()

    async def flush(self, epoch: Epoch, writes: Sequence[Write]) -> None:
        self.waiting.set()
        await self.gate.wait()
        self.sizes.append(len(writes))
        await super().flush(epoch, writes)
        self.story.append("commit")

    @contextmanager
    def held(self) -> Iterator[None]:
        """No flush is answered meanwhile."""
        self.gate.clear()
        self.waiting.clear()
        try:
            yield
        finally:
            self.gate.set()


class FakeExecutor:
    """Keeps reports until they are acknowledged and offers them again at each connect, as the port demands."""

    name = "local"

    def __init__(self, store: GatedStore, story: list[str]) -> None:
        self._store = store
        self._story = story
        self.orders: dict[int, Order] = {}
        self.submitted: list[str] = []
        self.stops: list[int] = []
        self.unacked: dict[int, Report] = {}
        self.connects = 0
        self.sink: ReportSink | None = None

    def capabilities(self) -> Capabilities:
        return Capabilities(slots=100)

    async def connect(self, epoch: Epoch, live: Mapping[AttemptId, AttemptState], sink: ReportSink) -> None:
        self.connects += 1
        self.sink = sink
        if self.unacked:
            sink(list(self.unacked.values()))

    def submit(self, orders: Sequence[Order]) -> None:
        for order in orders:
            row = self._store.attempts.get(AttemptId(order.attempt_id))
            assert row is not None, "an order left before its commit"
            self.orders[order.attempt_id] = order
            self.submitted.append(order.task_id)
            self._story.append(f"submit {order.task_id}")

    def stop(self, stops: Sequence[StopOrder]) -> None:
        for stop in stops:
            row = self._store.attempts[AttemptId(stop.attempt_id)]
            assert row.stop_requested_at is not None, "a stop left before its commit"
            self.stops.append(stop.attempt_id)
            self._story.append(f"stop {row.task_id}")

    def ack(self, attempt_ids: Iterable[AttemptId]) -> None:
        for attempt_id in attempt_ids:
            row = self._store.attempts.get(attempt_id)
            self.unacked.pop(attempt_id, None)
            self._story.append(f"ack {row.task_id if row is not None else attempt_id}")

    def disconnect(self) -> None:
        self.sink = None

    def on_lost_connection(self, callback: Callable[[], Awaitable[None] | None]) -> None:
        pass

    def on_requests(self, sink: RequestSink) -> None:
        pass

    def answer(self, answers: Sequence[AttemptAnswer]) -> None:
        pass

    def report(self, *reports: Report) -> None:
        """What the other end says; what is not heard is said again after the next connect."""
        self.unacked |= {report.attempt_id: report for report in reports if not isinstance(report, Started)}
        if self.sink is not None:
            self.sink(list(reports))


class Shop:
    """A scheduler at work."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.store = GatedStore(self.story)
        self.executor = FakeExecutor(self.store, self.story)
        self.told: list[Effect] = []
        self.scheduler = Scheduler(
            store=self.store,
            executors={"local": self.executor},
            clock=CLOCK,
            limits=Limits(),
            routing=Routing(),
            rules=OrderRules(kill_grace_seconds=1, max_output_bytes=65536),
            decode_spec=decode_spec,
            publish=self._publish,
        )
        self.dags = [parsed(make_dag("a >> b", dag_id="chain")), parsed(make_dag("a; b; c", dag_id="fan"))]
        self.scheduler.on_rebuilt.append(self._tell)

    def _publish(self, effect: Effect) -> None:
        self.told.append(effect)
        if isinstance(effect, RunChanged):
            self.story.append(f"tell run {effect.state}")

    def _tell(self) -> None:
        for event in self.dags:
            self.scheduler.offer(event)

    async def start_run(self, dag_id: str = "chain", **fields: Any) -> int:
        started = await self.scheduler.decide(StartRun(dag_id=dag_id, **fields))
        assert isinstance(started, RunStarted)
        return started.run

    def attempt(self, run: int, task_id: str) -> AttemptRow:
        """The latest attempt of a task, as committed."""
        rows = [row for row in self.store.attempts.values() if (row.run, row.task_id) == (run, task_id)]
        return max(rows, key=lambda row: row.attempt_id)

    def finished(self, run: int, task_id: str, state: str = "success", **fields: Any) -> Finished:
        given: dict[str, Any] = {
            "reason": EndReason.EXITED,
            "exit_code": 0,
            "started_at": now(),
            "pid": 1,
            "host": "here",
        } | fields
        attempt_id = self.attempt(run, task_id).attempt_id
        return Finished(attempt_id=attempt_id, at=now(), state=AttemptState(state), **given)

    def state(self, run: int, task_id: str) -> TaskState:
        return next(row.state for key, row in self.store.instances.items() if (key.run, key.task_id) == (run, task_id))

    def run_state(self, run: int) -> str:
        return self.store.runs[RunKey(run)].state.value

    async def soon(self, probe: Callable[[], object]) -> None:
        """Wait until it is something true."""
        with anyio.fail_after(10):
            while not probe():  # noqa: ASYNC110  # the probes ask tables, which set no event
                await asyncio.sleep(0.001)

    async def rebuilt(self, epoch: int = 2) -> None:
        """Wait until a later term decides."""

        def ready() -> bool:
            try:
                return self.scheduler.engine.epoch == epoch
            except Unavailable:
                return False

        await self.soon(ready)

    async def submitted(self, *task_ids: str) -> None:
        await self.soon(lambda: self.executor.submitted[-len(task_ids) :] == list(task_ids))

    async def finish(self, run: int, *task_ids: str) -> None:
        """Let tasks succeed, one after the other, as soon as they have been sent."""
        for task_id in task_ids:
            await self.soon(lambda task_id=task_id: self._is_sent(run, task_id))  # type: ignore[misc]  # its default's type
            self.executor.report(self.finished(run, task_id))
            await self.soon(lambda task_id=task_id: self.state(run, task_id) is TaskState.SUCCESS)  # type: ignore[misc]

    def _is_sent(self, run: int, task_id: str) -> bool:
        rows = [row for row in self.store.attempts.values() if (row.run, row.task_id) == (run, task_id)]
        return any(row.attempt_id in self.executor.orders for row in rows)


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    shop = Shop()
    async with anyio.create_task_group() as tasks:
        await tasks.start(shop.scheduler.run)
        await shop.scheduler.term.drain()
        shop.story.clear()
        yield shop
        tasks.cancel_scope.cancel()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """Not in the fixture's own task: anyio's scopes must end where they began."""
    ready: asyncio.Future[Shop] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        async with open_shop() as shop:
            ready.set_result(shop)
            await done.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        yield await ready
        done.set()


async def test_nothing_leaves_before_its_commit(shop: Shop) -> None:
    replies: list[int] = []
    async with anyio.create_task_group() as tasks:
        with shop.store.held():

            async def ask() -> None:
                replies.append(await shop.start_run())

            tasks.start_soon(ask)
            await shop.store.waiting.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            assert shop.scheduler.engine.runs, "it is decided"
            assert (replies, shop.story, shop.told) == ([], [], [])
        await shop.submitted("a")
    assert replies == [1]
    assert shop.story[:2] == ["commit", "submit a"], "orders first, then what is only to be told"
    assert "tell run running" in shop.story[2:]


async def test_a_report_is_acknowledged_only_after_its_commit_and_after_the_next_order(shop: Shop) -> None:
    run = await shop.start_run()
    await shop.submitted("a")
    await shop.scheduler.term.drain()
    shop.story.clear()
    with shop.store.held():
        shop.executor.report(shop.finished(run, "a"))
        await shop.store.waiting.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert shop.story == []
        assert len(shop.executor.unacked) == 1
    await shop.soon(lambda: not shop.executor.unacked)
    assert shop.story == ["commit", "submit b", "ack a"]


async def test_what_comes_during_a_flush_makes_the_next_one_together(shop: Shop) -> None:
    shop.store.sizes.clear()
    async with anyio.create_task_group() as tasks:
        with shop.store.held():
            for number in range(30):
                tasks.start_soon(partial(shop.start_run, "fan", run_id=f"r{number}"))
            await shop.store.waiting.wait()
            for _ in range(20):
                await asyncio.sleep(0)
    assert len(shop.store.runs) == 30
    assert len(shop.store.sizes) <= 3, shop.store.sizes


async def test_a_flush_is_bounded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term_module, "MAX_FLUSH_ROWS", 50)
    shop.store.sizes.clear()
    async with anyio.create_task_group() as tasks:
        with shop.store.held():
            for _ in range(40):
                tasks.start_soon(shop.start_run, "fan")
            await shop.store.waiting.wait()
            for _ in range(20):
                await asyncio.sleep(0)
    assert len(shop.store.runs) == 40
    assert max(shop.store.sizes) <= 50
    assert len(shop.store.sizes) >= 3


@pytest.mark.parametrize("is_committed", [True, False])
async def test_an_unknown_outcome_is_said_and_asking_again_finds_or_starts_the_run(
    shop: Shop, is_committed: bool
) -> None:
    shop.store.fail_next(commit=is_committed)
    with pytest.raises(Unavailable, match="not known"):
        await shop.start_run(idempotency_key="k")
    await shop.rebuilt()
    again = await shop.scheduler.decide(StartRun(dag_id="chain", idempotency_key="k"))
    assert isinstance(again, RunStarted)
    assert again == RunStarted(run=RunKey(1), run_id=again.run_id, is_new=not is_committed)
    await shop.finish(1, "a", "b")
    assert [(row.key, row.state) for row in shop.store.runs.values()] == [(1, "success")]
    assert shop.executor.submitted.count("b") == 1


@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_report_of_unknown_outcome_is_offered_again_and_counts_once(shop: Shop, is_committed: bool) -> None:
    run = await shop.start_run()
    await shop.submitted("a")
    shop.store.fail_next(commit=is_committed)
    shop.executor.report(shop.finished(run, "a", output='"x"'))
    await shop.soon(lambda: not shop.executor.unacked)
    await shop.soon(lambda: "b" in shop.executor.submitted)
    assert shop.executor.connects == 2
    assert shop.executor.submitted.count("a") == 1
    assert [row.value for row in shop.store.xcoms.values()] == ['"x"']
    await shop.finish(run, "b")
    assert shop.run_state(run) == "success"


async def test_an_end_of_a_former_term_is_acknowledged_and_changes_nothing(shop: Shop) -> None:
    run = await shop.start_run()
    await shop.finish(run, "a")
    await shop.submitted("a", "b")
    flushes = shop.store.flushes
    stale = Finished(attempt_id=4711, at=now(), state=AttemptState.FAILED, reason=EndReason.RAISED)
    again = shop.finished(run, "a", "failed", reason=EndReason.RAISED)
    shop.executor.report(stale, again, Lost(attempt_id=4712, at=now(), why="?"))
    await shop.soon(lambda: not shop.executor.unacked)
    assert shop.store.flushes == flushes
    assert shop.state(run, "a") is TaskState.SUCCESS


async def test_of_a_batch_with_a_bad_entry_in_the_middle_all_others_are_committed(shop: Shop) -> None:
    runs = [await shop.start_run("fan") for _ in range(4)]
    await shop.soon(lambda: len(shop.executor.submitted) == 12)
    bad = (runs[1], "b")

    def refuse(row: Any) -> str | None:
        return "22P05" if isinstance(row, XComRow) and (row.run, row.task_id) == bad else None

    shop.store.refuse = refuse
    with shop.store.held():
        shop.executor.report(Started(attempt_id=shop.attempt(runs[0], "a").attempt_id, at=now(), pid=1, host="here"))
        shop.executor.report(shop.finished(runs[0], "a"))
        await shop.store.waiting.wait()
        # One batch, with the bad one in its middle.
        shop.executor.report(
            *(
                shop.finished(run, task_id, output='"x"')
                for run in runs
                for task_id in "abc"
                if (run, task_id) != (1, "a")
            )
        )
    await shop.soon(lambda: not shop.executor.unacked)
    assert {run: shop.run_state(run) for run in runs} == {run: "failed" if run == bad[0] else "success" for run in runs}
    failed = [row for row in shop.store.attempts.values() if row.state is AttemptState.FAILED]
    [row] = failed
    assert ((row.run, row.task_id), row.reason) == (bad, EndReason.UNSTORABLE)
    assert row.error is not None
    assert "XComRow cannot be stored" in row.error
    assert len(shop.store.xcoms) == 10
    assert shop.store.epoch == 2, "one rebuild"
    assert len(shop.executor.submitted) == 12, "nothing is started again"


async def test_a_report_that_is_refused_whatever_is_left_out_still_ends(shop: Shop) -> None:
    run = await shop.start_run()
    await shop.submitted("a")
    shop.executor.report(shop.finished(run, "a", exit_code=2**40, error="bad \0 text", output="\0"))
    await shop.soon(lambda: not shop.executor.unacked)
    assert shop.attempt(run, "a").reason is EndReason.UNSTORABLE
    assert shop.run_state(run) == "failed"
    assert shop.store.epoch == 2


async def test_a_command_that_postgres_refuses_is_refused_to_its_caller(shop: Shop) -> None:
    shop.store.refuse = lambda row: "23514" if isinstance(row, PoolRow) and row.name == "bad" else None
    with pytest.raises(UserError, match="Postgres refuses this"):
        await shop.scheduler.decide(SetPool(name="bad", slots=3))
    await shop.rebuilt()
    await shop.scheduler.decide(SetPool(name="good", slots=3))
    assert "bad" not in shop.store.pools
    assert "bad" not in shop.scheduler.engine.pools, "nor is it believed"


async def test_the_name_of_a_finished_run_is_refused_as_taken(shop: Shop) -> None:
    run = await shop.start_run(run_id="mine")
    with pytest.raises(Refused, match="has a run 'mine' already"):
        await shop.start_run(run_id="mine")
    await shop.finish(run, "a", "b")
    with pytest.raises(Refused, match="has a run 'mine' already"):
        await shop.start_run(run_id="mine")


async def test_a_refusal_changes_nothing_and_costs_no_flush(shop: Shop) -> None:
    flushes = shop.store.flushes
    for command in (StartRun(dag_id="nope"), CancelRun(run=RunKey(99)), SetPool(name="p", slots=-1)):
        with pytest.raises(UserError):
            await shop.scheduler.decide(command)
    assert (shop.store.flushes, shop.store.epoch) == (flushes, 1)


async def test_a_dag_that_postgres_refuses_is_set_aside_once(shop: Shop) -> None:
    bad = parsed(make_dag("a", dag_id="bad"))
    shop.store.refuse = lambda row: "22P05" if getattr(row, "dag_id", None) == "bad" else None

    def offer() -> None:
        try:
            shop.scheduler.offer(bad)
        except UserError as error:
            shop.story.append(error.message)

    shop.scheduler.on_rebuilt.append(offer)
    offer()
    await shop.soon(lambda: any("DAG 'bad' cannot be stored" in line for line in shop.story))
    run = await shop.start_run()
    await shop.finish(run, "a", "b")
    assert shop.store.epoch == 2
    assert set(shop.store.dags) == {"chain", "fan"}


class TestBugInTheEngine:
    @pytest.fixture(autouse=True)
    def bug(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Attempts whose end makes the engine raise half-way."""
        cursed: list[int] = []
        right = Attempts._end_try

        def wrong(self: Attempts, attempt: Any, instance: Any, report: Finished | None) -> None:
            if attempt.id in cursed:
                raise KeyError("a bug")
            right(self, attempt, instance, report)

        monkeypatch.setattr(Attempts, "_end_try", wrong)
        return cursed

    async def test_its_event_is_quarantined_its_run_frozen_and_the_others_go_on(
        self, shop: Shop, bug: list[int]
    ) -> None:
        bad, good = await shop.start_run("fan"), await shop.start_run("chain")
        await shop.soon(lambda: len(shop.executor.submitted) == 4)
        bug.append(shop.attempt(bad, "b").attempt_id)
        shop.executor.report(shop.finished(bad, "a"), shop.finished(bad, "b"), shop.finished(good, "a"))
        await shop.soon(lambda: shop.store.quarantined)
        await shop.rebuilt()
        [entry] = shop.store.quarantined.values()
        assert (entry.run, entry.attempt_id, entry.kind) == (bad, bug[0], "Finished")
        assert "KeyError: 'a bug'" in entry.traceback
        await shop.finish(good, "b")
        assert shop.run_state(good) == "success"
        assert shop.state(bad, "a") is TaskState.SUCCESS, "what came before it is committed"

        live = shop.scheduler.engine.runs[RunKey(bad)]
        [reason] = explain_run(shop.scheduler.engine, live, now())
        assert (reason.code, "internal error" in reason.message.lower()) == ("frozen", True)
        assert reason.hint is not None
        assert f"tickless run cancel {bad}" in reason.hint
        await shop.soon(lambda: not shop.executor.unacked)
        assert shop.store.epoch == 2, "the same report, offered again, is acknowledged and not decided again"

        # New work is taken, and also other tasks of the frozen run end.
        other = await shop.start_run("chain")
        await shop.finish(other, "a", "b")
        shop.executor.report(shop.finished(bad, "c"))
        await shop.soon(lambda: shop.state(bad, "c") is TaskState.SUCCESS)
        assert shop.run_state(bad) == "running"

    async def test_cancelling_a_frozen_run_ends_it(self, shop: Shop, bug: list[int]) -> None:
        run = await shop.start_run("fan")
        await shop.soon(lambda: len(shop.executor.submitted) == 3)
        bug.append(shop.attempt(run, "b").attempt_id)
        shop.executor.report(shop.finished(run, "b"))
        await shop.soon(lambda: shop.store.quarantined and not shop.executor.unacked)
        await shop.rebuilt()
        bug.clear()  # the cancel is another event
        await shop.scheduler.decide(CancelRun(run=RunKey(run)))
        # Nobody will report an end of b: its own was acknowledged, so its executor has forgotten it.
        for task_id in "ac":
            await shop.soon(lambda task_id=task_id: shop.attempt(run, task_id).attempt_id in shop.executor.stops)  # type: ignore[misc]  # its default's type
            shop.executor.report(shop.finished(run, task_id, "failed", reason=EndReason.STOPPED, exit_code=None))
        await shop.soon(lambda: shop.run_state(run) == "failed")
        assert (shop.attempt(run, "b").state, shop.attempt(run, "b").reason) == (AttemptState.LOST, EndReason.LOST)
        assert not shop.scheduler.engine.attempts, "and its slots are free"

    async def test_a_bug_that_not_even_a_cancel_survives_does_not_loop(self, shop: Shop, bug: list[int]) -> None:
        run = await shop.start_run("fan")
        await shop.soon(lambda: len(shop.executor.submitted) == 3)
        bug.append(shop.attempt(run, "b").attempt_id)
        shop.executor.report(shop.finished(run, "b"))
        await shop.rebuilt()
        await shop.scheduler.decide(CancelRun(run=RunKey(run)))
        await shop.soon(lambda: len(shop.store.quarantined) == 2)
        await shop.rebuilt(3)
        other = await shop.start_run()
        await shop.finish(other, "a", "b")
        assert shop.run_state(other) == "success"
        assert shop.store.epoch == 3

    async def test_the_caller_of_a_command_that_raises_is_told(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wrong(self: Control, command: SetPool) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(Control, "set_pool", wrong)
        with pytest.raises(InvariantBroken, match="internal error"):
            await shop.scheduler.decide(SetPool(name="p", slots=1))
        await shop.soon(lambda: shop.store.quarantined)
        await shop.rebuilt()
        run = await shop.start_run()
        await shop.finish(run, "a", "b")
        assert shop.run_state(run) == "success"

    async def test_terms_that_end_one_after_the_other_begin_ever_later(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Something that breaks every term must not keep Postgres busy with rebuilds."""
        pauses: list[float] = []
        moment = 0.0

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0)

        clock = SimpleNamespace(now=CLOCK.now, monotonic=lambda: moment, sleep=sleep)
        monkeypatch.setattr(shop.scheduler, "_clock", clock)

        def wrong(self: Control, command: SetPool) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(Control, "set_pool", wrong)

        async def break_the_term() -> None:
            epoch = shop.store.epoch
            with pytest.raises(InvariantBroken):
                await shop.scheduler.decide(SetPool(name="p", slots=1))
            await shop.rebuilt(epoch + 1)

        for _ in range(6):
            await break_the_term()
        assert pauses[5] > 8 * pauses[0], pauses
        moment += 3600
        await break_the_term()
        assert pauses[6] <= FIRST_BACKOFF_SECONDS, "after a good hour it begins anew"


async def test_a_backlog_over_its_bound_refuses_callers_and_is_worked_off(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tickless.daemon import scheduler as scheduler_module

    for module in (term_module, scheduler_module):
        monkeypatch.setattr(module, "MAX_BACKLOG_ROWS", 60)
    refused: list[Unavailable] = []

    async def ask() -> None:
        try:
            await shop.start_run("fan")
        except Unavailable as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        with shop.store.held():
            for _ in range(50):
                tasks.start_soon(ask)
            await shop.store.waiting.wait()
            for _ in range(50):
                await asyncio.sleep(0)
            assert shop.scheduler.term.backlog_rows <= 60 + 2 * term_module.MAX_FLUSH_ROWS
            assert refused, "there must be a bound"
    assert all("more to write than Postgres takes" in error.message for error in refused)
    await shop.soon(lambda: shop.scheduler.term.backlog_rows == 0)
    accepted = len(shop.store.runs)
    assert accepted == 50 - len(refused)
    await shop.start_run("fan")
    assert len(shop.store.runs) == accepted + 1


async def test_work_that_is_cut_into_slices_goes_on_by_itself(shop: Shop) -> None:
    names = [f"t{number}" for number in range(1500)]
    shop.dags.append(parsed(make_dag("; ".join(names), dag_id="large", max_active_tasks=5000)))
    shop.scheduler.offer(shop.dags[-1])
    await shop.scheduler.decide(SetPool(name="default_pool", slots=0))
    run = await shop.start_run("large")
    await shop.soon(lambda: sum(key.run == run for key in shop.store.instances) == 1500)


async def test_large_work_lets_others_commit_before_it(shop: Shop) -> None:
    """While a flush takes long, it is not decided far ahead: whoever comes then would wait behind all of it."""
    names = [f"t{number}" for number in range(3000)]
    shop.dags.append(parsed(make_dag("; ".join(names), dag_id="large", max_active_tasks=5000)))
    shop.scheduler.offer(shop.dags[-1])
    await shop.scheduler.decide(SetPool(name="default_pool", slots=0))
    async with anyio.create_task_group() as tasks:
        with shop.store.held():
            tasks.start_soon(shop.start_run, "large")
            await shop.store.waiting.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            ahead = shop.scheduler.term.backlog_rows
            assert term_module.MAX_ROWS_AHEAD < ahead <= 3 * term_module.MAX_ROWS_AHEAD
    await shop.soon(lambda: len([key for key in shop.store.instances if key.task_id in names]) == 3000)


async def test_stopping_commits_what_is_decided_and_admits_nothing_more(shop: Shop) -> None:
    run = await shop.start_run()
    await shop.submitted("a")
    await shop.scheduler.stop()
    shop.executor.report(shop.finished(run, "a"))
    await shop.soon(lambda: not shop.executor.unacked)
    assert shop.state(run, "b") is TaskState.SCHEDULED
    assert shop.executor.submitted == ["a"]


async def test_requests_are_served_each_once_and_a_refused_one_says_why(shop: Shop) -> None:
    good = shop.store.add_request("chain", run_id="one")
    bad = shop.store.add_request("nope")
    taken = shop.store.add_request("chain", run_id="one")
    shop.scheduler.requests_changed()
    await shop.soon(lambda: len(shop.store.done) == 3)
    done = {number: row for (_, number), row in shop.store.done.items()}
    assert (done[good].run, done[good].error) == (1, None)
    assert done[bad].error == "there is no DAG 'nope'"
    assert done[taken].error == "DAG 'chain' has a run 'one' already"
    await shop.finish(1, "a", "b")
    late = shop.store.add_request("chain", run_id="one")
    after = shop.store.add_request("chain")
    shop.scheduler.requests_changed()
    await shop.soon(lambda: len(shop.store.done) == 5)
    assert shop.store.done["trigger_request", late].error == "DAG 'chain' has a run 'one' already"
    assert shop.store.done["trigger_request", after].run is not None
    assert shop.store.epoch == 1, "no flush was refused, and nothing read again"


async def test_a_request_with_the_key_of_a_finished_run_gets_that_run(shop: Shop) -> None:
    first = shop.store.add_request("chain", idempotency_key="k")
    shop.scheduler.requests_changed()
    await shop.soon(lambda: shop.store.done)
    await shop.finish(1, "a", "b")
    again = shop.store.add_request("chain", idempotency_key="k")
    shop.scheduler.requests_changed()
    await shop.soon(lambda: len(shop.store.done) == 2)
    assert [shop.store.done["trigger_request", number].run for number in (first, again)] == [1, 1]
    assert len(shop.store.runs) == 1
    assert shop.store.epoch == 1, "no flush was refused, and nothing read again"


def test_a_decision_is_what_the_engine_says_it_is() -> None:
    """The shell relies on these defaults."""
    assert (Decision().writes, Decision().effects, Decision().wake_at, Decision().reply) == ([], [], None, None)


async def test_a_schedule_that_was_set_back_by_hand_passes_over_the_runs_that_are_there(shop: Shop) -> None:
    """Postgres refuses the names of such runs; that must not end in a loop, nor cost another DAG its slot."""
    begin = now() - timedelta(minutes=90)
    hourly = ScheduleSpec(kind=ScheduleKind.DELTA, text="hourly", every_seconds=3600.0, start_at=begin)
    empty = {"a": {"empty": True}}
    dags = [parsed(make_dag("a", dag_id=dag_id, schedule=hourly, tasks=empty)) for dag_id in ("one", "two")]
    shop.scheduler.offer(dags[0])
    await shop.soon(lambda: [run.dag_id for run in shop.store.runs.values() if run.state == "success"] == ["one"])
    [made] = shop.store.runs.values()
    due = shop.store.dag_states["one"].last_interval_end
    assert due == made.run_after == begin + timedelta(hours=1)
    shop.store.dag_states["one"] = DagRow(dag_id="one")
    shop.scheduler.on_rebuilt.append(lambda: shop.scheduler.offer(dags[1]))
    shop.scheduler.store_lost()
    await shop.soon(lambda: shop.store.dag_states["one"].last_interval_end == due)
    await shop.soon(lambda: sorted(run.dag_id for run in shop.store.runs.values()) == ["one", "two"])
    run = await shop.start_run()
    assert shop.run_state(run) == "running", "and it goes on"
