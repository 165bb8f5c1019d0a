"""`tickless dag test` and `task test`: a DAG file, or one task of it, is run without a daemon and without a database.

The real parts, small: the engine under its scheduler on the store in memory, the sequential executor on a launcher of
its own, in a home that is thrown away. Retries come at once, because nobody wants to watch 300 seconds pass.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from tickless.api.watch import RunWatch
from tickless.clock import SystemClock
from tickless.core.commands import RunStarted, SetPool, StartRun
from tickless.core.decision import AttemptEnded, Effect, Launch, RunChanged
from tickless.core.events import DagParsed
from tickless.daemon.bundle import BundleStore
from tickless.daemon.orders import OrderRules
from tickless.daemon.parse import parse_file
from tickless.daemon.requests import xcoms
from tickless.daemon.scheduler import Scheduler
from tickless.errors import NotFound, Refused, UserError, did_you_mean
from tickless.executors.base import Executor
from tickless.executors.launcher_client import LauncherClient, ensure_launcher
from tickless.executors.sequential import SequentialExecutor
from tickless.logs.files import LogFiles
from tickless.model.dag import DagSpec
from tickless.model.id import UNMAPPED, RunKey, TaskId, TaskKey
from tickless.model.limit import Limits, Routing
from tickless.model.parse import ParsedDag
from tickless.model.row import InstanceRow, RunRow, XComRow
from tickless.model.state import FINISHED_RUN_STATES, LIVE_ATTEMPT_STATES, TriggerRule
from tickless.store.memory import RETURN_KEY, MemoryStore
from tickless.wire.request import (
    Answer,
    AttemptAnswer,
    AttemptRequest,
    ConnectionGet,
    PreviousRunGet,
    VariableGet,
    XComGet,
)

PARSE_SECONDS = 60.0
_EXECUTOR = "trial"
_RULES = OrderRules(kill_grace_seconds=5.0, max_output_bytes=1024 * 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial came to."""

    run: RunRow
    instances: Sequence[InstanceRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Where a trial says what happens. `begun(task, try)` comes before what the task writes, in bytes, to `wrote`."""

    begun: Callable[[str, int], None]
    wrote: Callable[[bytes], None]
    ended: Callable[[AttemptEnded], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is tried."""

    folder: Path
    """The DAG folder: imports and working files come from it."""
    file: str
    """The DAG file in it."""
    dag_id: str | None = None
    """None: the file must have exactly one."""
    task_id: str | None = None
    """Only this task, without those above it."""
    conf: str = "{}"
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What tasks above are to have returned: task id -> JSON text."""


async def try_dag(subject: Subject, tell: Teller) -> Outcome:
    """Parse the file and run its DAG, or the one task, to its end.

    Raises UserError for a file that cannot be read, as the daemon would say it, and NotFound for what is not in it.
    """
    async with _home() as home:
        bundle = await anyio.to_thread.run_sync(BundleStore(home, SystemClock()).snapshot, subject.folder)
        name = Path(subject.file).name
        parsed = _choose(await _parse(bundle.path, subject.file), name, subject.dag_id)
        spec = parsed.spec if subject.task_id is None else _alone(parsed.spec, subject.task_id, subject.inputs)
        await ensure_launcher(home)
        trial = _Trial(home, LauncherClient(home), tell)
        return await trial.run(_at_once(spec), parsed.hash, str(bundle.path), subject)


@asynccontextmanager
async def _home() -> AsyncIterator[Path]:
    """A home that is gone afterwards, with the launcher in it."""
    home = Path(tempfile.mkdtemp(prefix="tickless-trial-"))
    try:
        yield home
    finally:
        with anyio.CancelScope(shield=True):
            await LauncherClient(home).shut_down(kill=True)
            for _ in range(100):
                shutil.rmtree(home, ignore_errors=True)
                if not home.exists():
                    break
                await anyio.sleep(0.05)  # a zygote that was just warming up writes there until it finds itself alone


async def _parse(bundle: Path, name: str) -> Sequence[ParsedDag]:
    result = await parse_file(bundle, name, timeout_seconds=PARSE_SECONDS)
    problem = result.problem
    if problem is not None:
        line = f":{problem.line}" if problem.line is not None else ""
        trace = f"\n{problem.traceback}" if problem.traceback else ""
        raise UserError(f"{problem.file}{line}: {problem.message}{trace}", hint=problem.hint)
    return result.dags


def _choose(dags: Sequence[ParsedDag], name: str, dag_id: str | None) -> ParsedDag:
    names = ", ".join(dag.spec.dag_id for dag in dags)
    if dag_id is None and len(dags) != 1:
        raise UserError(
            f"{name} has {len(dags)} DAGs: {names}" if dags else f"{name} makes no DAG",
            hint="Say which: dag test FILE DAG, or task test FILE --dag DAG TASK." if dags else None,
        )
    for dag in dags:
        if dag_id in (None, dag.spec.dag_id):
            return dag
    near = did_you_mean(dag_id, (dag.spec.dag_id for dag in dags)) if dag_id else None
    raise NotFound(f"{name} has no DAG {dag_id!r}", hint=near or (f"It has: {names}." if names else None))


def _alone(spec: DagSpec, task_id: str, inputs: Mapping[str, str]) -> DagSpec:
    """The DAG with nothing but this task, which then waits for none."""
    tasks = {task.task_id: task for task in spec.tasks}
    for name in (task_id, *inputs):
        if name not in tasks:
            raise NotFound(
                f"DAG {spec.dag_id!r} has no task {name!r}",
                hint=did_you_mean(name, tasks) or f"It has: {', '.join(tasks)}.",
            )
    task = tasks[task_id]
    source = next((over.task_id for over in task.mapped if over.task_id is not None), None)
    if source is not None:
        raise Refused(
            f"task {task_id!r} is mapped over what {source!r} returns, so it cannot run alone",
            hint="Run the whole DAG: tickless dag test FILE.",
        )
    return replace(spec, tasks=(replace(task, upstream=(), trigger_rule=TriggerRule.ALL_SUCCESS),), edge_labels=())


def _at_once(spec: DagSpec) -> DagSpec:
    """Without a schedule, and with retries that do not wait."""
    tasks = tuple(replace(task, retry_delay_seconds=0.0) for task in spec.tasks)
    return replace(spec, tasks=tasks, schedule=None)


class _Trial:
    def __init__(self, home: Path, launcher: LauncherClient, tell: Teller) -> None:
        self._home = home
        self._launcher = launcher
        self._tell = tell
        self._watch = RunWatch()
        self._logs = LogFiles(home / "logs")
        self._store = MemoryStore()
        self._send, self._news = anyio.create_memory_object_stream[Effect](math.inf)

    async def run(self, spec: DagSpec, digest: str, bundle: str, subject: Subject) -> Outcome:
        executor = SequentialExecutor(_EXECUTOR, self._launcher)
        executor.on_requests(partial(self._answer, executor))
        slots = max(1, sum(task.pool_slots for task in spec.tasks))
        scheduler = Scheduler(
            store=self._store,
            executors={_EXECUTOR: executor},
            clock=SystemClock(),
            limits=Limits(),
            routing=Routing(
                executors={_EXECUTOR: slots}, queues=dict.fromkeys({task.queue for task in spec.tasks}, _EXECUTOR)
            ),
            rules=_RULES,
            decode_spec=msgspec.json.Decoder(DagSpec).decode,
            publish=self._publish,
            prepare=partial(ensure_launcher, self._home),
        )
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await tasks.start(scheduler.run)
            text = msgspec.json.encode(spec).decode()
            scheduler.offer(DagParsed(spec=spec, spec_json=text, hash=digest, bundle=bundle, file=subject.file))
            pools = {task.pool for task in spec.tasks}
            for pool in pools:
                await scheduler.decide(SetPool(name=pool, slots=0))
            started = await scheduler.decide(StartRun(dag_id=spec.dag_id, conf=subject.conf, run_type="manual"))
            assert isinstance(started, RunStarted)
            self._hand_on(RunKey(started.run), subject.inputs)
            for pool in pools:  # nothing has started so far
                await scheduler.decide(SetPool(name=pool, slots=slots))
            await self._tell_until_the_end()
            tasks.cancel_scope.cancel()
        assert isinstance(started, RunStarted)
        run = self._store.runs[started.run]
        order = {task.task_id: index for index, task in enumerate(spec.tasks)}
        mine = [row for key, row in self._store.instances.items() if key.run == run.key]
        return Outcome(run=run, instances=sorted(mine, key=lambda row: (order[row.task_id], row.map_index)))

    def _hand_on(self, run: RunKey, inputs: Mapping[str, str]) -> None:
        for task_id, value in inputs.items():
            row = XComRow(
                run=run,
                task_id=TaskId(task_id),
                map_index=UNMAPPED,
                key=RETURN_KEY,
                value=value,
                created_at=SystemClock().now(),
            )
            self._store.xcoms[TaskKey(run, row.task_id, UNMAPPED), row.key] = row

    def _publish(self, effect: Effect) -> None:
        self._watch.publish(effect)
        if isinstance(effect, Launch | AttemptEnded | RunChanged):
            self._send.send_nowait(effect)

    async def _tell_until_the_end(self) -> None:
        """One attempt after the other, in the order of their launches: that is the order in which they run."""
        async for effect in self._news:
            match effect:
                case Launch():
                    await self._follow(effect)
                case AttemptEnded():
                    self._tell.ended(effect)
                case RunChanged() if effect.state in FINISHED_RUN_STATES:
                    return

    async def _follow(self, launch: Launch) -> None:
        name = launch.key.task_id + ("" if launch.key.map_index < 0 else f"[{launch.key.map_index}]")
        self._tell.begun(name, launch.try_number)
        attempts = self._store.attempts
        with self._watch.subscribe(launch.key.run) as watcher:

            async def is_ended() -> bool:
                watcher.take()
                return attempts[launch.attempt_id].state not in LIVE_ATTEMPT_STATES

            path = attempts[launch.attempt_id].log_path
            async for chunk in self._logs.follow(path, wake=watcher.wake, is_ended=is_ended):
                self._tell.wrote(chunk)

    # ---- requests of the running task -----------------------------------------------------------------------------

    def _answer(self, executor: Executor, requests: Sequence[AttemptRequest]) -> None:
        for request in requests:
            self._tasks.start_soon(self._answer_one, executor, request)

    async def _answer_one(self, executor: Executor, request: AttemptRequest) -> None:
        ask = request.ask
        attempt = next((row for row in self._store.attempts.values() if row.attempt_id == request.attempt_id), None)
        if attempt is not None and isinstance(ask, XComGet) and ask.dag_id is None and ask.run_id is None:
            try:
                answer = Answer(number=request.number, value=await xcoms(self._store, attempt.run, ask))
            except UserError as refused:
                answer = Answer(number=request.number, error=refused.message, code="invalid")
        elif isinstance(ask, PreviousRunGet):
            answer = Answer(number=request.number, value="null")
        elif isinstance(ask, VariableGet | ConnectionGet):
            name = f"TICKLESS_VAR_{ask.key}" if isinstance(ask, VariableGet) else f"TICKLESS_CONN_{ask.conn_id}"
            error = f"`tickless dag test` has no database; set {name.upper()} in the environment"
            answer = Answer(number=request.number, error=error, code="not_found")
        else:
            error = f"`tickless dag test` has no database and no other runs, so it cannot do this ({type(ask).__name__})"
            answer = Answer(number=request.number, error=error, code="refused")
        executor.answer([AttemptAnswer(attempt_id=request.attempt_id, answer=answer)])
