"""The shell around the engine: one term of leadership after the other.

    rebuild (new epoch, rows, engine) -> attach executors -> run the term until it ends -> rebuild

RAM may be thrown away at any moment, so every trouble has the same cure. What came in and was not committed comes
again from its source: reports from their senders, requests from their rows, API calls under their idempotency key.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from contextlib import suppress
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import anyio
import anyio.abc

from tickless.clock import Clock
from tickless.core import commands
from tickless.core.commands import Reply
from tickless.core.decision import Effect, SlotsWanted, Write
from tickless.core.engine import Engine
from tickless.core.runs import run_id_taken
from tickless.daemon.backfilldesk import BackfillDesk
from tickless.daemon.choice import AT_THE_DESK
from tickless.daemon.orders import OrderRules
from tickless.daemon.revisiondesk import LOCKED_LOOK_SECONDS, RevisionDesk
from tickless.daemon.sqlcommands import command_of, event_of, start_of
from tickless.daemon.poison import Entry, Input, Poison
from tickless.daemon.term import MAX_BACKLOG_ROWS, Ended, Term
from tickless.errors import Conflict, TicklessError, Unavailable, UserError
from tickless.executors.base import Executor
from tickless.logs.base import LogStore
from tickless.model.dag import DagSpec
from tickless.model.limit import Limits, Routing
from tickless.model.row import RequestDone
from tickless.model.schedule import ScheduleRules
from tickless.store.base import CommandRequest, Store
from tickless.telemetry.log import get_log

log = get_log()

FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 5.0


class Scheduler:
    """Owns the present term. Everybody else asks it; nobody else touches the engine."""

    def __init__(
        self,
        *,
        store: Store,
        executors: Mapping[str, Executor],
        clock: Clock,
        limits: Limits,
        routing: Routing,
        rules: OrderRules,
        schedule_rules: ScheduleRules | None = None,
        decode_spec: Callable[[str], DagSpec],
        publish: Callable[[Effect], None],
        prepare: Callable[[], Awaitable[None]] | None = None,
        logs: LogStore | None = None,
        stand_in: Callable[[str], Executor] | None = None,
    ) -> None:
        """`stand_in` makes an executor that the configuration has no more, for what it still holds. `publish` is told each effect that is released. `prepare` is called before each rebuild: it brings
        a private Postgres and the launcher back if they died. `logs` are deleted with the runs that wrote them."""
        self._store = store
        self._executors = dict(executors)
        self._stand_in = stand_in
        self._clock = clock
        self._limits = limits
        self._routing = routing
        self._rules = rules
        self._schedule_rules = schedule_rules or ScheduleRules()
        self._decode_spec = decode_spec
        self._publish = publish
        self._prepare = prepare
        self._poison = Poison()
        for executor in executors.values():
            self._listen_to(executor)
        self._term: Term | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._is_stopping = False
        self._requests_dirty = asyncio.Event()
        self.desk = RevisionDesk(store=store, clock=clock, decode_spec=decode_spec, logs=logs)
        """Works off what is asked of tasks that may be finished."""
        self.backfills = BackfillDesk(store)
        """Brings backfills what they need to make runs."""
        self.on_rebuilt: list[Callable[[], None]] = []
        """Called at the start of each term: sources that keep no record of what was not committed offer it again."""

    # ---- for everybody else ---------------------------------------------------------------------------------------

    @property
    def term(self) -> Term:
        """The present term. Raises Unavailable while there is none."""
        if self._term is None or self._term.is_over:
            raise Unavailable("the scheduler is reading its state from Postgres", hint="Try again in a moment.")
        return self._term

    @property
    def engine(self) -> Engine:
        """The engine of the present term, to look at. Raises Unavailable while there is none."""
        return self.term.engine

    async def decide(self, command: Input, *along: Write) -> Reply | None:
        """Decide, commit it together with `along`, and return when it is committed. Raises what refuses it, or Unavailable when the outcome is open."""
        term = self.term
        if term.backlog_rows > MAX_BACKLOG_ROWS:
            raise Unavailable("the scheduler has more to write than Postgres takes", hint="Try again in a moment.")
        reply: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        term.offer(command, reply, along)
        return await reply

    async def commit(self, *writes: Write) -> None:
        """Commit rows that need no decision. Raises what refuses them, or Unavailable when the outcome is open."""
        reply: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self.term.write(*writes, reply=reply)
        await reply

    def offer(self, event: Input) -> None:
        """Decide without waiting for the commit; for inputs whose source offers them again in the next term."""
        self.term.offer(event)

    async def settle(self) -> None:
        """Return when everything decided so far is committed, or its term is over: the next one is told anew."""
        with suppress(Unavailable):
            await self.term.drain()

    def requests_changed(self) -> None:
        """There may be new rows in the request tables."""
        self._requests_dirty.set()
        self.desk.look()

    def clock_jumped(self) -> None:
        """The wall clock was set."""
        if self._term is not None:
            self._term.clock_jumped()

    def store_lost(self) -> None:
        """The store's connection broke by itself: what follows is a rebuild, which brings a private Postgres back."""
        if self._term is not None:
            self._term.abandon(Unavailable("the connection to Postgres ended"))

    def writer_lost(self, error: TicklessError) -> None:
        """A write beside the flush failed: whether it was committed is not known, or the lead is gone."""
        if self._term is not None:
            self._term.abandon(error)

    async def stop(self) -> None:
        """Admit nothing more, commit what is decided, then end. Running tasks go on under the launcher."""
        self._is_stopping = True
        if self._term is not None and not self._term.is_over:
            try:
                self._term.offer(commands.StopAdmitting())
                with anyio.move_on_after(5):
                    await self._term.drain()
            except Unavailable:
                pass  # nothing was committed that the next daemon would not find

    # ---- terms ----------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve for ever; `started()` comes with the first term. Cancel to end. Raises what no retry can cure."""
        backoff = FIRST_BACKOFF_SECONDS
        why = "start"
        is_first = True
        lost_at: float | None = None
        began_at: float | None = None  # the term that has just ended, if it came so far
        while True:
            try:
                if self._prepare is not None:
                    await self._prepare()
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    term = await self._begin_term(why)
                    await tasks.start(term.run)
                    for executor in self._executors.values():
                        tasks.start_soon(self._attach, term, executor)
                    tasks.start_soon(self._serve_requests, term)
                    tasks.start_soon(self.desk.serve, term)
                    tasks.start_soon(self.backfills.serve, term)
                    for callback in self.on_rebuilt:
                        callback()
                    if is_first:
                        is_first = False
                        task_status.started()
                    if lost_at is not None:
                        log.info("database.recovered", seconds=round(self._clock.monotonic() - lost_at, 3))
                        lost_at = None
                    began_at = self._clock.monotonic()
            except* Ended:
                why = "an event was set aside"
            except* Conflict as group:
                why = _message(group)
                log.warning("flush.conflicted", why=why)
            except* Unavailable as group:
                why = _message(group)
                if lost_at is None:
                    lost_at = self._clock.monotonic()
                    log.warning("database.lost", error=why)
            self._term = None
            if began_at is not None and self._clock.monotonic() - began_at > 2 * LAST_BACKOFF_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS  # it was a good term; what ends one after the other waits ever longer
            began_at = None
            await self._clock.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)

    async def _begin_term(self, why: str) -> Term:
        started = self._clock.monotonic()
        epoch = await self._store.take_epoch(f"{socket.gethostname()}:{os.getpid()}")
        snapshot = await self._store.load()
        engine = Engine(
            epoch=epoch,
            limits=self._limits,
            routing=self._routing,
            decode_spec=self._decode_spec,
            schedule_rules=self._schedule_rules,
        )
        if self._poison.run_ids:
            self._poison.run_ids = await self._store.taken_names(self._poison.run_ids)
            engine.schedules.refused = frozenset(self._poison.run_ids)
        engine.is_stopping = self._is_stopping
        decision = engine.restore(snapshot, self._clock.now())
        for attempt in engine.attempts.values():
            name = attempt.row.executor
            if name not in self._executors and self._stand_in is not None:
                self._executors[name] = self._stand_in(name)
                self._listen_to(self._executors[name])
                log.warning("executor.retired", executor=name)
        term = Term(
            engine=engine,
            store=self._store,
            executors=self._executors,
            clock=self._clock,
            rules=self._rules,
            poison=self._poison,
            publish=self._released,
        )
        term.adopt(Entry(None, decision))
        self._term = term
        log.info(
            "state.rebuilt",
            why=why,
            epoch=epoch,
            runs=len(snapshot.runs),
            instances=len(snapshot.instances),
            attempts=len(snapshot.attempts),
            seconds=round(self._clock.monotonic() - started, 4),
        )
        return term

    async def _attach(self, term: Term, executor: Executor) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        is_said = False
        while not term.is_over:
            try:
                await term.attach(executor)
                log.debug("executor.attached", executor=executor.name)
                return
            except Unavailable as error:
                if not is_said:
                    log.warning("executor.lost", executor=executor.name, error=error.message)
                    is_said = True
            await self._clock.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
            if self._prepare is not None:
                await self._prepare()

    def _listen_to(self, executor: Executor) -> None:
        executor.on_lost_connection(partial(self._connection_lost, executor))

    def _released(self, effect: Effect) -> None:
        if isinstance(effect, SlotsWanted):
            self.backfills.look()
        else:
            self._publish(effect)

    def _connection_lost(self, executor: Executor) -> None:
        if self._tasks is not None and self._term is not None and not self._term.is_over:
            self._term.detach(executor)
            self._tasks.start_soon(self._attach, self._term, executor)

    async def _serve_requests(self, term: Term) -> None:
        """Requests from SQL: read by state whenever somebody hints at them, and once at the start."""
        while True:
            self._requests_dirty.clear()  # before the read: a hint during it is remembered
            asked = await self._store.open_requests()
            triggers = [each for each in asked if not each.is_locked]
            for trigger in triggers:
                if trigger.key_of is not None:
                    term.write(Write(RequestDone(table="trigger_request", id=trigger.id, run=trigger.key_of)))
                else:
                    self._serve(term, "trigger_request", trigger.id, partial(start_of, trigger))
            ordered = [each for each in await self._store.open_commands() if each.kind not in AT_THE_DESK]
            orders = [each for each in ordered if not each.is_locked]
            for order in orders:
                self._serve(term, "command", order.id, partial(command_of, order), order)
            await term.drain()
            if not triggers and not orders:
                # Nobody hints at a lock that is given back.
                has_locked = len(asked) + len(ordered) > 0
                with anyio.move_on_after(LOCKED_LOOK_SECONDS if has_locked else float("inf")):
                    await self._requests_dirty.wait()

    def _serve(
        self,
        term: Term,
        table: str,
        number: int,
        read: Callable[[], commands.Command],
        order: CommandRequest | None = None,
    ) -> None:
        """Decide on one row; a refusal is written into it."""
        error = self._poison.requests.get((table, number))
        if error is None:
            try:
                command = read()
                event = [] if order is None else [Write(event_of(order, command, term.engine, self._clock.now()))]
                term.offer(command, along=event)
            except UserError as refused:
                error = refused.message
        if error is not None:
            term.write(Write(RequestDone(table=table, id=number, error=error)))


def _message(group: BaseExceptionGroup[TicklessError]) -> str:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first.message if isinstance(first, TicklessError) else repr(first)
