"""Answers what running tasks ask for.

A request is served as long as its attempt is live in the engine, and by its own executor; it is answered only after
the COMMIT of what it has changed. What has changed something leaves a trace in the database under the attempt's id and
the request's number (a run by its idempotency key, a setting in `attempt_request`), so that the next daemon, asked
again, gives the same answer and changes nothing.

A request that fails because Postgres or the lead is away is tried again here until it can be answered; nobody else
knows that it was dropped. A few are served at a time; as an attempt has only one open, no more wait than tasks run.

Who asks for a state of a run is kept until it has come: an effect of the commit wakes it, nothing is polled. A waiter
holds no place among those served, goes with its attempt, and looks again at the row after each rebuild, as the effect
may have been lost with the RAM. The next daemon gets the request from the launcher, as any that is held.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import assert_never

import anyio
import anyio.abc
import msgspec

from tickless import failpoint
from tickless.api.watch import RunWatch, Watcher
from tickless.clock import Clock
from tickless.core.commands import RunStarted, StartRun
from tickless.core.decision import AttemptEnded, Effect, RunChanged
from tickless.core.engine import Engine
from tickless.core.record import Attempt
from tickless.daemon.secrets import Secrets
from tickless.errors import Conflict, NotFound, Refused, TicklessError, Unavailable, UserError
from tickless.executors.base import Executor
from tickless.model.connection import ConnectionFields
from tickless.model.id import AttemptId, RunKey
from tickless.model.row import RunRow
from tickless.store.base import Store
from tickless.store.reader import Reader
from tickless.store.storable import why_bad_json
from tickless.telemetry.log import get_log
from tickless.wire.request import (
    MAX_ANSWER_BYTES,
    Answer,
    AttemptAnswer,
    AttemptRequest,
    ConnectionGet,
    PreviousRunGet,
    RunStateGet,
    TriggerRun,
    VariableDelete,
    VariableGet,
    VariableSet,
    XComGet,
)

AT_ONCE = 4
"""Requests that are served at a time. The others wait, and leave connections of the database to the API."""
FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 2.0
MAX_WAITERS = 1_000
"""Tasks that wait for another run at a time; those beyond are told its present state, and ask again by themselves."""
RUN_TYPE = "operator_triggered"
_CONNECTION_FIELDS = [each.name for each in fields(ConnectionFields)]

log = get_log()


class RequestDesk:
    """A service: `run` serves until it is cancelled."""

    def __init__(
        self,
        *,
        engine: Callable[[], Engine],
        executors: Sequence[Executor],
        store: Store,
        reader: Reader,
        secrets: Secrets,
        start_run: Callable[[StartRun], Awaitable[RunStarted]],
        watch: RunWatch,
        clock: Clock,
    ) -> None:
        """`engine` raises Unavailable while nobody leads; `start_run` finds a run by its idempotency key, a finished
        one too."""
        self._engine = engine
        self._store = store
        self._reader = reader
        self._secrets = secrets
        self._start_run = start_run
        self._watch = watch
        self._clock = clock
        self._serving: set[tuple[int, int]] = set()
        self._waiting: dict[AttemptId, anyio.CancelScope] = {}
        """Attempts that wait for a run, and what ends their waiting."""
        self._tasks: anyio.abc.TaskGroup | None = None
        self._turn = anyio.CapacityLimiter(AT_ONCE)
        for executor in executors:
            self.listen_to(executor)

    def listen_to(self, executor: Executor) -> None:
        """Serve the tasks of this executor, too."""
        executor.on_requests(partial(self._take, executor))

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve for ever."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    def publish(self, effect: Effect) -> None:
        """An effect was released: what an attempt that has ended waits for is nobody's concern any more."""
        if isinstance(effect, AttemptEnded) and (scope := self._waiting.get(effect.attempt.attempt_id)) is not None:
            scope.cancel()

    def _take(self, executor: Executor, requests: Sequence[AttemptRequest]) -> None:
        for request in requests:
            key = (request.attempt_id, request.number)
            # Being served already, it came again by a new connection: its answer will leave by that one.
            if self._tasks is not None and key not in self._serving:
                self._serving.add(key)
                self._tasks.start_soon(self._serve, executor, request)

    async def _serve(self, executor: Executor, request: AttemptRequest) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        try:
            while True:
                try:
                    answer = await self._answer(executor, request)
                    break
                except (Unavailable, Conflict):
                    await self._clock.sleep(backoff)
                    backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
            failpoint.hit("daemon.before_answer")
            executor.answer([AttemptAnswer(attempt_id=request.attempt_id, answer=answer)])
        finally:
            self._serving.discard((request.attempt_id, request.number))

    async def _answer(self, executor: Executor, request: AttemptRequest) -> Answer:
        try:
            if isinstance(request.ask, RunStateGet) and request.ask.until is not None:
                value = await self._reached(executor, request.attempt_id, request.ask)
            else:
                async with self._turn:
                    value = await self._value(self._live(executor, request.attempt_id), request)
            if len(value.encode()) > MAX_ANSWER_BYTES:
                raise UserError(f"the answer is over the limit of {MAX_ANSWER_BYTES:,} bytes")
            return Answer(number=request.number, value=value)
        except UserError as error:
            text = error.message if error.hint is None else f"{error.message}. {error.hint}"
            return Answer(number=request.number, error=text, code=_code(error))
        except (Unavailable, Conflict):
            raise
        except Exception as error:
            kind = type(request.ask).__name__
            log.warning("request.unanswered", attempt_id=request.attempt_id, kind=kind, error=repr(error))
            told = error.message if isinstance(error, TicklessError) else f"internal error: {type(error).__name__}"
            return Answer(number=request.number, error=told, code="internal")

    def _live(self, executor: Executor, attempt_id: int) -> Attempt:
        attempt = self._engine().attempts.get(AttemptId(attempt_id))
        if attempt is None or attempt.instance is None or attempt.row.executor != executor.name:
            raise Refused("this attempt is over")
        return attempt

    async def _reached(self, executor: Executor, attempt_id: int, ask: RunStateGet) -> str:
        """The state of the run, when it is one that is waited for."""
        async with self._turn:
            self._live(executor, attempt_id)
            run = (await self._run(ask.dag_id, ask.run_id)).key
        with self._watch.subscribe(run) as watcher:
            while True:
                # Read with the subscription made: nothing falls between.
                async with self._turn:
                    attempt = self._live(executor, attempt_id)
                    state = (await self._run(ask.dag_id, ask.run_id)).state
                if state in (ask.until or ()) or len(self._waiting) >= MAX_WAITERS:
                    return _json(state.value)
                with anyio.CancelScope() as self._waiting[attempt.id]:
                    await _next_state(watcher)
                self._waiting.pop(attempt.id, None)

    async def _value(self, attempt: Attempt, request: AttemptRequest) -> str:
        ask = request.ask
        key = (attempt.id, request.number)
        actor = f"task:{attempt.row.key}"
        match ask:
            case XComGet():
                return await self._xcoms(attempt, ask)
            case VariableGet():
                return _json((await self._secrets.variable(ask.key)).value)
            case VariableSet():
                await self._secrets.set_variable(ask.key, ask.value, ask.description, actor=actor, request=key)
                return "null"
            case VariableDelete():
                return _json(await self._secrets.delete_variable(ask.key, actor=actor, request=key))
            case ConnectionGet():
                connection = await self._secrets.connection(ask.conn_id)
                return _json({name: getattr(connection, name) for name in _CONNECTION_FIELDS})
            case TriggerRun():
                return await self._trigger(ask, f"attempt:{attempt.id}:{request.number}", actor)
            case RunStateGet():
                return _json((await self._run(ask.dag_id, ask.run_id)).state.value)
            case PreviousRunGet():
                return await self._previous_run(attempt, ask)
            case _:
                assert_never(ask)

    async def _previous_run(self, attempt: Attempt, ask: PreviousRunGet) -> str:
        assert attempt.instance is not None
        own = attempt.instance.run.row
        found = await self._reader.previous_run(own.dag_id, own.logical_date or own.queued_at, ask.state)
        if found is None:
            return "null"
        row = found.row
        return _json(
            {
                "dag_id": row.dag_id,
                "run_id": row.run_id,
                "run_type": row.run_type,
                "state": row.state.value,
                "queued_at": row.queued_at,
                "start_date": row.started_at,
                "end_date": row.ended_at,
                "logical_date": row.logical_date,
                "data_interval_start": row.data_interval_start,
                "data_interval_end": row.data_interval_end,
            }
        )

    async def _xcoms(self, attempt: Attempt, ask: XComGet) -> str:
        run = attempt.row.run
        if ask.dag_id is not None or ask.run_id is not None:
            assert attempt.instance is not None
            own = attempt.instance.run.row
            run = (await self._run(ask.dag_id or own.dag_id, ask.run_id or own.run_id)).key
        return await xcoms(self._store, run, ask)

    async def _run(self, dag_id: str, run_id: str) -> RunRow:
        found = await self._reader.run_by_id(dag_id, run_id)
        if found is None:
            raise NotFound(f"there is no run {dag_id}/{run_id}")
        return found.row

    async def _trigger(self, ask: TriggerRun, idempotency_key: str, actor: str) -> str:
        if (sqlstate := why_bad_json(ask.conf)) is not None:
            raise UserError(f"conf cannot be stored: Postgres would refuse it ({sqlstate})")
        if not isinstance(json.loads(ask.conf), dict):
            raise UserError("conf is not a JSON object")
        if ask.run_id is not None and not ask.run_id.isprintable():
            raise UserError(f"run_id {ask.run_id!r} has characters that cannot be shown")
        if ask.logical_date is not None and ask.logical_date.tzinfo is None:
            raise UserError("logical_date has no time zone")
        started = await self._start_run(
            StartRun(
                dag_id=ask.dag_id,
                run_id=ask.run_id,
                conf=ask.conf,
                logical_date=ask.logical_date,
                run_type=RUN_TYPE,
                idempotency_key=idempotency_key,
                actor=actor,
            )
        )
        return _json({"run": started.run, "run_id": started.run_id})


async def _next_state(watcher: Watcher) -> None:
    """Return when the run has changed its state, or may have."""
    while True:
        await watcher.wake.wait()
        must_look = watcher.must_look
        if any(isinstance(effect, RunChanged) for effect in watcher.take()) or must_look:
            return


async def xcoms(store: Store, run: RunKey, ask: XComGet) -> str:
    """The answer to a request for XComs of this run."""
    most_bytes = MAX_ANSWER_BYTES // 2
    if ask.after is None:
        found = await store.pull_xcoms(
            run, ask.key, task_ids=ask.task_ids, map_indexes=ask.map_indexes, most_bytes=most_bytes
        )
    elif ask.task_ids is None or len(ask.task_ids) != 1 or ask.map_indexes is not None:
        raise UserError("`after` goes with one task and without map_indexes")
    else:
        found = await store.page_xcoms(run, ask.key, ask.task_ids[0], after=ask.after, most_bytes=most_bytes)
    parts = (
        f'{{"task_id":{json.dumps(each.task_id)},"map_index":{each.map_index},"value":{each.value}}}'
        for each in found
    )
    return f"[{','.join(parts)}]"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _code(error: UserError) -> str:
    if isinstance(error, NotFound):
        return "not_found"
    return "refused" if isinstance(error, Refused) else "invalid"
