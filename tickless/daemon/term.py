"""One term of leadership: an engine, the batch that is being decided, the flush in flight, and what follows a commit.

Decide, then commit, then do. `offer` steps the engine at once and appends to the batch; one coroutine flushes batch
after batch (while one is in flight, the next one fills: that is the whole group commit); only when a flush has
committed are its effects released, its callers answered and its reports acknowledged, in that order.

A term ends by an exception: Conflict (the rows are not what we believed), Unavailable (outcome unknown), or after an
event was quarantined or refused. Then RAM is worth nothing: the scheduler drops the term and restores a new one.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import anyio
import anyio.abc
import msgspec

from tickless import failpoint
from tickless.clock import Clock
from tickless.core import commands, events
from tickless.core.commands import Reply
from tickless.core.decision import (
    AckReport,
    AttemptEnded,
    BackfillChanged,
    DagPaused,
    Decision,
    Effect,
    Launch,
    PastWanted,
    RunChanged,
    SlotsSkipped,
    SlotsWanted,
    StopAttempt,
    Write,
)
from tickless.core.engine import Engine
from tickless.core.runs import SCHEDULED, run_id_taken
from tickless.daemon.conf import check_conf
from tickless.daemon.orders import Inputs, OrderRules, OutputCache, build_order
from tickless.daemon.canonical import log_attempt, log_backfill, log_run
from tickless.daemon.poison import Entry, Input, Poison, fail
from tickless.errors import InvariantBroken, Refused, TicklessError, Unavailable, Unstorable, UserError
from tickless.executors.base import Executor
from tickless.model.id import UNMAPPED, AttemptId, RunKey
from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished, Lost, Report, Started
from tickless.model.row import AttemptRow, InstanceRow, MapRow, RequestDone, RunRow, XComRow, XComsDropped
from tickless.model.state import FINISHED_RUN_STATES, AttemptState, EndReason, RunState
from tickless.store.base import QuarantinedEvent, Store, TooMuch
from tickless.telemetry.log import get_log

MAX_FLUSH_ROWS = 2_000
MAX_ROWS_AHEAD = 500
"""Large work goes on only while no more rows than these wait to be committed: everybody else's wait behind them."""
MAX_BACKLOG_ROWS = 5_000

log = get_log()


class Ended(Exception):
    """The term is over and the next one may begin at once; what happened has been recorded."""


class Term:
    """See the module's docstring. `run` must be running for anything to be committed."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        executors: Mapping[str, Executor],
        clock: Clock,
        rules: OrderRules,
        poison: Poison,
        publish: Callable[[Effect], None],
    ) -> None:
        self.engine = engine
        self.store = store
        self.outputs = OutputCache()
        self.is_over = False
        self.backlog_rows = 0
        self._executors = executors
        self._clock = clock
        self._rules = rules
        self._poison = poison
        self._publish = publish
        self._attached: set[str] = set()
        self._batch: deque[Entry] = deque()
        self._in_flight: list[Entry] = []
        self._has_work = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: datetime | None = None
        self._continuing = False
        self._failure: tuple[Input, str, RunKey | None] | None = None
        self._doom: TicklessError | None = None
        self._reporter: dict[AttemptId, str] = {}  # who is to be told that its report is committed
        self._unlaunched: set[AttemptId] = set()  # decided, not committed
        self._unended: set[AttemptId] = set()  # end decided, not committed
        self._tasks: anyio.abc.TaskGroup | None = None
        self._touched: set[RunKey] | None = None  # while an audit reads: runs that it must not judge

    # ---- deciding -------------------------------------------------------------------------------------------------

    def offer(
        self,
        event: Input,
        reply: asyncio.Future[Reply | None] | None = None,
        along: Sequence[Write] = (),
    ) -> None:
        """Decide what follows from the event. A refusal goes to `reply`, or is raised when there is none. `along` is
        written in the same commit."""
        if self.is_over or self._failure is not None:
            raise Unavailable("the scheduler is reloading its state", hint="Try again in a moment.")
        if isinstance(event, events.DagParsed) and event.hash in self._poison.dags:
            raise UserError(self._poison.dags[event.hash])
        run = self._run_of(event)
        try:
            if isinstance(event, commands.StartRun | commands.CreateBackfill):
                plan = self.engine.current.get(event.dag_id)
                if plan is not None:
                    check_conf(plan.spec, event.conf)
            decision = self.engine.step(event, self._clock.now())
        except UserError as error:
            if reply is None:
                raise
            fail(reply, error)
            return
        except Exception as error:
            # The engine may be half-way through a change: nothing more may be decided on it.
            if run is None and self.engine.focus is not None:
                run = self.engine.focus.key
            self._failure = (event, traceback.format_exc(), run)
            if reply is not None:
                fail(reply, InvariantBroken(f"internal error: {error!r}"))
            self._has_work.set()
            return
        decision.writes.extend(along)
        self._append(Entry(event, decision, reply))

    def adopt(self, entry: Entry) -> None:
        """Take over the decision of the restore: the first entry of the term."""
        self._append(entry)

    def write(self, *writes: Write, reply: asyncio.Future[Reply | None] | None = None) -> None:
        """Commit rows that need no decision, in turn with the rest; `reply` hears of it."""
        self._append(Entry(None, Decision(writes=list(writes), wake_at=self._timer_at), reply))

    def on_reports(self, executor: str, reports: Sequence[Report]) -> None:
        """The sink of one executor."""
        for report in reports:
            if self.is_over or self._failure is not None:
                return  # its sender keeps it and sends it again to the next term
            attempt_id = AttemptId(report.attempt_id)
            if not isinstance(report, Started):
                self._reporter[attempt_id] = executor
            if attempt_id in self._poison.quarantined:
                self._append(Entry(None, Decision(effects=[AckReport(attempt_id=attempt_id)], wake_at=self._timer_at)))
                continue
            if isinstance(report, Finished) and attempt_id in self._poison.unstorable:
                # Nothing of it is taken over but its instant, so that it cannot be refused again.
                report = Finished(
                    attempt_id=attempt_id,
                    at=report.at,
                    state=AttemptState.FAILED,
                    reason=EndReason.UNSTORABLE,
                    error=f"Postgres refused what this attempt reported: {self._poison.unstorable[attempt_id]}",
                )
            self.offer(report)

    def _run_of(self, event: Input) -> RunKey | None:
        if isinstance(event, Started | Finished | Lost):
            attempt = self.engine.attempts.get(AttemptId(event.attempt_id))
            return attempt.row.run if attempt is not None else None
        if isinstance(event, commands.CancelRun | commands.AlterTasks | commands.MarkRun | events.PastFound):
            return event.run
        return None

    def _append(self, entry: Entry) -> None:
        decision = entry.decision
        self._arm(decision.wake_at)
        if decision.more and not self._continuing:
            self._continuing = True
            asyncio.get_running_loop().call_soon(self._continue)
        if not decision.writes and not decision.effects and entry.reply is None:
            return
        for effect in decision.effects:
            if isinstance(effect, Launch):
                self._unlaunched.add(effect.attempt_id)
            elif isinstance(effect, AckReport):
                self._unended.add(effect.attempt_id)
        if isinstance(entry.input, commands.AlterTasks):
            for write in decision.writes:
                if isinstance(write.row, XComsDropped):
                    self.outputs.forget(write.row.run, write.row.task_id)
        self.backlog_rows += len(decision.writes)
        if self._touched is not None:
            self._touched.update(_runs_of(entry))
        self._batch.append(entry)
        self._drained.clear()
        self._has_work.set()

    def _continue(self) -> None:
        self._continuing = False
        if self.is_over or self._failure is not None:
            return
        if self.backlog_rows > MAX_ROWS_AHEAD:
            self._continuing = True  # the flush loop calls again when there is room
            return
        self.offer(events.WorkContinued())

    def _arm(self, wake_at: datetime | None) -> None:
        if wake_at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = wake_at
        if wake_at is not None:
            delay = max(0.0, (wake_at - self._clock.now()).total_seconds())
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, None
        if not self.is_over and self._failure is None:
            self.offer(events.TimePassed())

    def clock_jumped(self) -> None:
        """Wall-clock time was set: what is due may be due now, and the timer's delay is wrong."""
        if not self.is_over and self._failure is None:
            self._arm(None)
            self.offer(events.TimePassed())

    def abandon(self, why: TicklessError) -> None:
        """End the term, also an idle one: somebody has seen that it is worth nothing any more."""
        self._doom = self._doom or why
        self._has_work.set()

    # ---- committing -----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Flush until the term ends. Raises Conflict, Unavailable or Ended."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                task_status.started()
                try:
                    while True:
                        await self._has_work.wait()
                        self._has_work.clear()  # before looking: what comes meanwhile is remembered
                        if self._doom is not None:
                            raise self._doom
                        await self._flush_next()
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            self._end()

    async def _flush_next(self) -> None:
        if self._batch:
            await self._flush(self._take())
        if not self._batch:
            if self._failure is not None:
                await self._quarantine(*self._failure)
            self._drained.set()

    async def _flush(self, entries: list[Entry]) -> None:
        self._in_flight = entries
        if self._batch:
            self._has_work.set()  # more than one flush holds
        writes = [write for entry in entries for write in entry.decision.writes]
        if writes:
            failpoint.hit("daemon.before_flush")
            try:
                await self.store.flush(self.engine.epoch, writes)
            except Unstorable:
                await self._bisect(entries)
                raise Ended from None
            failpoint.hit("daemon.after_flush")
        self._commit(entries)

    def _take(self) -> list[Entry]:
        entries: list[Entry] = []
        rows = 0
        while self._batch and (not entries or rows + len(self._batch[0].decision.writes) <= MAX_FLUSH_ROWS):
            entry = self._batch.popleft()
            rows += len(entry.decision.writes)
            entries.append(entry)
        return entries

    def _commit(self, entries: list[Entry]) -> None:
        self._in_flight = []
        failpoint.hit("daemon.before_release")
        self._release(entries)
        self.backlog_rows -= sum(len(entry.decision.writes) for entry in entries)
        if self._continuing and self.backlog_rows <= MAX_ROWS_AHEAD:
            asyncio.get_running_loop().call_soon(self._continue)

    async def _bisect(self, entries: list[Entry]) -> None:
        """Commit what comes before the one entry that Postgres refuses, and remember that one.

        What comes after it was decided on a state that will never be: it is dropped with the term.
        """
        if len(entries) == 1:
            try:
                await self.store.flush(self.engine.epoch, entries[0].decision.writes)
            except Unstorable as error:
                self._poison.remember(entries[0], error)
                raise Ended from None
            self._commit(entries)
            return
        middle = len(entries) // 2
        for part in (entries[:middle], entries[middle:]):
            try:
                await self.store.flush(self.engine.epoch, [w for entry in part for w in entry.decision.writes])
            except Unstorable:
                await self._bisect(part)
            else:
                self._commit(part)

    async def _quarantine(self, event: Input, trace: str, run: RunKey | None) -> None:
        """Keep an event that raised, freeze its run, and let everything else go on in a new term."""
        attempt_id = AttemptId(event.attempt_id) if isinstance(event, Started | Finished | Lost) else None
        if attempt_id is not None and not isinstance(event, Started):
            if attempt_id in self._poison.quarantined:
                self._poison.given_up.add(attempt_id)
            self._poison.quarantined.add(attempt_id)
        entry = QuarantinedEvent(
            run=run,
            attempt_id=attempt_id,
            kind=type(event).__name__,
            event=msgspec.json.encode(event, enc_hook=repr).decode().replace("\\u0000", "\\ufffd"),
            traceback=trace,
            at=self._clock.now(),
        )
        number = await self.store.quarantine(self.engine.epoch, entry)
        log.error("event.quarantined", entry=number, kind=entry.kind, run=run, attempt_id=attempt_id, error=trace)
        raise Ended

    # ---- doing ----------------------------------------------------------------------------------------------------

    def _release(self, entries: Sequence[Entry]) -> None:
        """What follows a commit: orders first, because somebody's next task waits for them; then replies and
        acknowledgements; last what is only to be told."""
        launches: list[Launch] = []
        stops: dict[str, list[StopOrder]] = {}
        acks: dict[str, list[AttemptId]] = {}
        told: list[Effect] = []
        for entry in entries:
            for effect in entry.decision.effects:
                match effect:
                    case Launch():
                        self._unlaunched.discard(effect.attempt_id)
                        if effect.executor in self._attached:
                            launches.append(effect)
                        told.append(effect)
                    case StopAttempt() if effect.stop.attempt_id in self._poison.quarantined:
                        asyncio.get_running_loop().call_soon(self._end_quarantined, AttemptId(effect.stop.attempt_id))
                    case StopAttempt():
                        stops.setdefault(effect.executor, []).append(effect.stop)
                    case AckReport():
                        self._unended.discard(effect.attempt_id)
                        reporter = self._reporter.pop(effect.attempt_id, None)
                        if reporter is not None:
                            acks.setdefault(reporter, []).append(effect.attempt_id)
                    case AttemptEnded():
                        self._remember_output(entry, effect)
                        told.append(effect)
                    case RunChanged() | DagPaused() | SlotsSkipped() | BackfillChanged() | SlotsWanted():
                        told.append(effect)
                    case PastWanted():
                        assert self._tasks is not None
                        self._tasks.start_soon(self._find_past, effect)
        self._launch(launches)
        for name, orders in stops.items():
            if name in self._attached:
                self._executors[name].stop(orders)
        for entry in entries:
            if entry.reply is not None and not entry.reply.done():
                entry.reply.set_result(entry.decision.reply)
        if acks:
            failpoint.hit("daemon.before_ack")
        for name, attempt_ids in acks.items():
            if name in self._attached:
                self._executors[name].ack(attempt_ids)
        for news in told:
            match news:
                case AttemptEnded():
                    log_attempt(news)
                case RunChanged():
                    log_run(news)
                case DagPaused(is_paused=True):
                    log.info("dag.paused", dag_id=news.dag_id, why=news.why)
                case DagPaused():
                    log.info("dag.unpaused", dag_id=news.dag_id, why=news.why)
                case BackfillChanged():
                    log_backfill(news)
                case SlotsSkipped():
                    log.info("schedule.skipped", dag_id=news.dag_id, first=news.first, before=news.before)
            self._publish(news)

    def _end_quarantined(self, attempt_id: AttemptId) -> None:
        """The run of an attempt whose end was set aside is being cancelled: nobody else will report an end of it."""
        if not self.is_over and self._failure is None and attempt_id not in self._poison.given_up:
            self.offer(
                Lost(attempt_id=attempt_id, at=self._clock.now(), why="its end was set aside as an internal error")
            )

    def _remember_output(self, entry: Entry, ended: AttemptEnded) -> None:
        row = ended.attempt
        if row.state is AttemptState.SUCCESS and row.map_index == UNMAPPED:
            values = {
                write.row.key: write.row.value
                for write in entry.decision.writes
                if isinstance(write.row, XComRow) and write.row.task_id == row.task_id and write.row.run == row.run
            }
            self.outputs.put(row.run, row.task_id, values)

    def _launch(self, launches: Iterable[Launch]) -> None:
        """Send orders; those whose inputs are not at hand follow when they have been read."""
        ready: dict[str, list[Order]] = {}
        for launch in launches:
            attempt = self.engine.attempts.get(launch.attempt_id)
            if attempt is None or attempt.instance is None:
                continue
            inputs = self.outputs.find(attempt.instance)
            if inputs.refusal is not None:
                asyncio.get_running_loop().call_soon(self._refuse_order, launch, inputs.refusal)
            elif not inputs.is_complete:
                assert self._tasks is not None
                self._tasks.start_soon(self._launch_with_reads, launch, inputs)
            else:
                order = build_order(attempt, attempt.instance, inputs, self._rules)
                ready.setdefault(launch.executor, []).append(order)
        for name, orders in ready.items():
            self._executors[name].submit(orders)

    async def _launch_with_reads(self, launch: Launch, inputs: Inputs) -> None:
        while inputs.unknown_elements and inputs.refusal is None:
            try:
                for task in inputs.unknown_elements:
                    await self.outputs.read_elements(self.store, launch.key.run, task)
            except TooMuch as error:
                inputs.refusal = error.message
                break
            attempt = self.engine.attempts.get(launch.attempt_id)
            if attempt is None or attempt.instance is None:
                return
            inputs = self.outputs.find(attempt.instance)
        if inputs.refusal is not None:
            self._refuse_order(launch, inputs.refusal)
            return
        await inputs.complete(self.store, launch.key.run)
        attempt = self.engine.attempts.get(launch.attempt_id)
        if attempt is not None and attempt.instance is not None and launch.executor in self._attached:
            self._executors[launch.executor].submit([build_order(attempt, attempt.instance, inputs, self._rules)])

    def _refuse_order(self, launch: Launch, why: str) -> None:
        """No order can be built for this attempt: it ends without a process."""
        if self.is_over or self._failure is not None:
            return  # the next term builds the order again
        self.offer(
            Finished(
                attempt_id=launch.attempt_id,
                at=self._clock.now(),
                state=AttemptState.FAILED,
                reason=EndReason.NOT_STARTED,
                error=f"{launch.key.task_id}[{launch.key.map_index}] cannot be given its element: {why}",
            )
        )

    async def _find_past(self, wanted: PastWanted) -> None:
        failpoint.hit("daemon.before_past")
        found = await self.store.previous_run(
            wanted.run, wanted.dag_id, wanted.logical_date, only_scheduled=wanted.only_scheduled
        )
        if self.is_over or self._failure is not None:
            return  # the next term asks again
        self.offer(
            events.PastFound(
                number=wanted.number,
                run=wanted.run,
                previous=found.key if found is not None else None,
                tallies=found.tallies if found is not None else (),
            )
        )

    async def attach(self, executor: Executor) -> None:
        """Connect an executor on behalf of this term and send again what is committed and not known to have started.

        Raises Unavailable when it is away, Conflict when it has seen a higher epoch.
        """
        name = executor.name
        live = {attempt.id: attempt.state for attempt in self.engine.attempts.values() if attempt.row.executor == name}
        # An end that is decided but not committed may still be undone: the executor must keep its report.
        live |= dict.fromkeys(self._unended, AttemptState.RUNNING)
        await executor.connect(self.engine.epoch, live, lambda reports: self.on_reports(name, reports))
        self._attached.add(name)
        mine = [
            attempt
            for attempt in self.engine.attempts.values()
            if attempt.row.executor == name and attempt.id not in self._unlaunched
        ]
        self._launch(
            Launch(
                attempt_id=attempt.id,
                key=attempt.row.key,
                executor=name,
                try_number=attempt.row.try_number,
            )
            for attempt in mine
            if attempt.state is AttemptState.QUEUED
        )
        executor.stop(
            [
                StopOrder(attempt_id=attempt.id, reason=attempt.stop_reason)
                for attempt in mine
                if attempt.stop_requested_at is not None and attempt.stop_reason is not None
            ]
        )

    def detach(self, executor: Executor) -> None:
        """The executor's connection broke: nothing is sent to it until it is attached again."""
        self._attached.discard(executor.name)

    @contextmanager
    def noting_touched(self) -> Iterator[set[RunKey]]:
        """Collects the runs with writes that are not committed at the start, or are decided until the end."""
        self._touched = {run for entry in (*self._in_flight, *self._batch) for run in _runs_of(entry)}
        try:
            yield self._touched
        finally:
            self._touched = None

    def now(self) -> datetime:
        return self._clock.now()

    async def drain(self) -> None:
        """Return when everything decided so far is committed and released."""
        self._has_work.set()
        await self._drained.wait()

    def _end(self) -> None:
        self.is_over = True
        for executor in self._executors.values():
            executor.disconnect()
        self._attached.clear()
        if self._timer is not None:
            self._timer.cancel()
        for entry in (*self._in_flight, *self._batch):
            entry.fail(Unavailable("the outcome is not known yet", hint="Ask again with the same key."))
        self._batch.clear()
        self._drained.set()


def _runs_of(entry: Entry) -> Iterator[RunKey]:
    for write in entry.decision.writes:
        match write.row:
            case RunRow():
                yield write.row.key
            case InstanceRow() | AttemptRow() | MapRow():
                yield write.row.run
