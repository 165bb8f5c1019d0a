"""The composition root: which parts a daemon is made of, in which order they start, and how it ends.

    home lock -> database (private one started or adopted) -> schema -> leadership -> launcher -> scheduler (first
    rebuild) -> listener -> DAG folders -> API -> ready

It ends on a signal or by API. What runs goes on under the launcher, unless the stop asked for its end.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import anyio
import anyio.abc
import msgspec

from tickless.api.app import create_app
from tickless.api.server import ApiServer, name_of
from tickless.api.watch import RunWatch
from tickless.clock import Clock, SystemClock
from tickless.config.schema import Settings
from tickless.core.commands import StartRun
from tickless.core.decision import Effect
from tickless.daemon.audit import audit
from tickless.daemon.backend import DaemonBackend, Health
from tickless.daemon.bundle import BundleStore
from tickless.daemon.catalogue import Catalogue
from tickless.daemon.clockjump import watch_clock
from tickless.daemon.dagsync import DagSync
from tickless.daemon.database import Database
from tickless.daemon.orders import OrderRules
from tickless.daemon.requests import RequestDesk
from tickless.daemon.scheduler import Scheduler
from tickless.daemon.secrets import Secrets
from tickless.daemon.signals import StopKind, watch_signals
from tickless.errors import TicklessError, Unavailable
from tickless.executors.base import Executor
from tickless.executors.launcher_client import LauncherClient, ensure_launcher
from tickless.executors.local import LocalExecutor
from tickless.executors.sequential import SequentialExecutor
from tickless.logs.files import LogFiles
from tickless.model.dag import DagSpec
from tickless.store.home import HomeLock
from tickless.store.leader import Leader
from tickless.store.listener import Listener
from tickless.store.postgres import PostgresStore
from tickless.store.reader import Reader
from tickless.store.vault import Vault
from tickless.telemetry.log import configure, get_log

log = get_log()


def run_daemon(*, home: Path, settings: Settings, dev: bool, start_dags: Sequence[str] = ()) -> int:
    """Run a daemon until it is told to stop; returns the exit code.

    `dev` says what happens in human form, and stops what it started when nothing runs any more at its end.
    `start_dags` are started once, as soon as their files are parsed. Raises TicklessError for what prevents a start.
    """
    configure(
        level=settings.log.level, format="human" if dev and settings.log.format == "auto" else settings.log.format
    )
    if sys.version_info < (3, 12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            # The default watcher has a thread for each child; this one has a descriptor in the loop.
            asyncio.set_child_watcher(asyncio.PidfdChildWatcher())

    async def serve() -> int:
        return await Daemon(home=home, settings=settings, dev=dev, start_dags=start_dags).serve()

    return asyncio.run(serve())


class Daemon:
    """Holds the parts together. `serve` is called once."""

    def __init__(self, *, home: Path, settings: Settings, dev: bool, start_dags: Sequence[str]) -> None:
        self._home = home
        self._settings = settings
        self._start_dags = start_dags
        self._is_dev = dev
        self._clock: Clock = SystemClock()
        self._stop_kind: StopKind | None = None
        self._stop_wanted = anyio.Event()
        self._database = Database(home, settings)
        self._health = Health(
            mode="dev" if dev else "daemon", version=version("tickless"), home=home, started_at=self._clock.now()
        )
        # Under systemd the launcher is a unit of its own, so that its tasks are not in the daemon's cgroup.
        self._owns_launcher = "INVOCATION_ID" not in os.environ
        self._leader: Leader | None = None
        self._running = 0  # attempts alive when last looked at
        self._wind_down: Callable[[], Awaitable[None]] | None = None  # once there is something to wind down
        self._winding_down = anyio.CancelScope()
        self._launcher = LauncherClient(home)

    async def serve(self) -> int:
        """Run to the end. Raises TicklessError for what prevents a start."""
        began = self._clock.monotonic()
        folders = self._settings.dag_folders(self._home)
        lock = HomeLock(self._home, folder=folders[0] if folders else self._home)
        lock.acquire()
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(watch_signals, self.stop)
                tasks.start_soon(self._serve_parts, folders)
                await self._stop_wanted.wait()
                with self._winding_down:
                    if self._wind_down is not None and self._stop_kind is not StopKind.NOW:
                        await self._wind_down()
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from group
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave()
            lock.release()
        log.info("daemon.stopped", seconds=round(self._clock.monotonic() - began, 3))
        return 0

    def stop(self, kind: StopKind) -> None:
        """Begin to stop; NOW, also after another, ends at once."""
        self._stop_kind = kind
        self._health.is_stopping = True
        self._stop_wanted.set()
        if kind is StopKind.NOW:
            self._winding_down.cancel()

    # ---- the parts ------------------------------------------------------------------------------------------------

    async def _serve_parts(self, folders: Sequence[Path]) -> None:
        settings, clock = self._settings, self._clock
        await self._database.open()
        dsn = self._database.dsn
        self._health.database, self._health.database_url = self._database.about, dsn
        store = PostgresStore(dsn, on_lost=lambda: scheduler.store_lost())
        await store.open()
        reader = Reader(store.read())
        watch = RunWatch()
        logs = LogFiles(self._home / "logs")
        executors = self._executors(self._launcher)

        def publish(effect: Effect) -> None:
            watch.publish(effect)
            desk.publish(effect)

        def stand_in(name: str) -> Executor:
            # Whatever kind it was: it ran its attempts through the launcher, which still has them.
            executor = LocalExecutor(name, self._launcher, 0)
            desk.listen_to(executor)
            return executor

        scheduler = Scheduler(
            store=store,
            executors=executors,
            clock=clock,
            limits=settings.limits(),
            routing=settings.routing(),
            rules=OrderRules(
                kill_grace_seconds=settings.tasks.kill_grace_seconds,
                max_output_bytes=settings.tasks.max_output_bytes,
            ),
            schedule_rules=settings.schedule_rules(),
            decode_spec=msgspec.json.Decoder(DagSpec).decode,
            publish=publish,
            prepare=self._revive,
            logs=logs,
            stand_in=stand_in,
        )
        catalogue = Catalogue(scheduler=scheduler, store=store, reader=reader, folders=len(folders))
        self._health.import_errors = lambda: len(catalogue.problems)
        self._health.launcher = lambda: f"pid {self._launcher.pid}" if self._launcher.pid is not None else "away"
        scheduler.desk.deletions.when_dag_deleted = catalogue.tell_all
        scheduler.on_rebuilt += [catalogue.tell_all, watch.resync]
        secrets = Secrets(
            store=store,
            reader=reader,
            vault=Vault(self._home),
            clock=clock,
            epoch=lambda: scheduler.engine.epoch,
            on_lost=scheduler.writer_lost,
        )
        backend = DaemonBackend(
            scheduler=scheduler,
            reader=reader,
            logs=logs,
            secrets=secrets,
            watch=watch,
            health=self._health,
            clock=clock,
            schedule_rules=settings.schedule_rules(),
            stop=self.stop,
        )
        desk = RequestDesk(
            engine=lambda: scheduler.engine,
            executors=list(executors.values()),
            store=store,
            reader=reader,
            secrets=secrets,
            start_run=backend.start_run,
            watch=watch,
            clock=clock,
        )
        listener = Listener(
            dsn, on_dirty=scheduler.requests_changed, probe_seconds=settings.daemon.listener_probe_seconds
        )
        sync = DagSync(
            folders=folders,
            bundles=BundleStore(self._home, clock),
            sink=catalogue,
            clock=clock,
            parse_timeout_seconds=settings.dags.parse_timeout_seconds,
            parse_processes=settings.dags.parse_processes,
        )
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._database.keep)
                await tasks.start(ApiServer(create_app(backend), settings.socket_path(self._home)).run)
                async with Leader(dsn) as leader:
                    self._leader = leader
                    self._health.is_leader = True
                    log.info("leader.acquired")
                    tasks.start_soon(leader.watch)
                    await tasks.start(desk.run)
                    await tasks.start(scheduler.run)
                    self._wind_down = partial(self._stop_scheduling, scheduler)
                    await tasks.start(listener.run)
                    await tasks.start(watch_clock, scheduler.clock_jumped)
                    await tasks.start(catalogue.run)
                    await tasks.start(sync.run)
                    tasks.start_soon(self._audit_now_and_then, scheduler, reader)
                    await sync.seen.wait()
                    await scheduler.settle()
                    health = self._health
                    health.has_read_dags = True
                    log.info(
                        "daemon.started",
                        pid=os.getpid(),
                        version=health.version,
                        home=str(self._home),
                        mode=health.mode,
                    )
                    await self._start_runs(scheduler)
                    await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()

    async def _start_runs(self, scheduler: Scheduler) -> None:
        for dag_id in self._start_dags:
            try:
                await scheduler.decide(StartRun(dag_id=dag_id, actor=f"unix:{name_of(os.getuid())}"))
            except TicklessError as error:
                log.warning("run.refused", dag_id=dag_id, error=error.message)

    def _executors(self, launcher: LauncherClient) -> dict[str, Executor]:
        executors: dict[str, Executor] = {}
        for name, section in self._settings.executors.items():
            match section.kind:
                case "local":
                    executors[name] = LocalExecutor(name, launcher, self._settings.slots(name))
                case "sequential":
                    executors[name] = SequentialExecutor(name, launcher)
        return executors

    async def _revive(self) -> None:
        """Before each rebuild: bring back what we started and what has died since, and wait for the lead."""
        await self._database.revive()
        if self._owns_launcher and self._stop_kind is not StopKind.KILL_TASKS:
            await ensure_launcher(self._home)
        if self._leader is not None:
            await self._leader.wait_held()

    async def _audit_now_and_then(self, scheduler: Scheduler, reader: Reader) -> None:
        interval = self._settings.daemon.audit_interval_seconds
        while interval > 0:
            await self._clock.sleep(interval)
            try:
                await audit(scheduler.term, reader)
            except Unavailable:
                continue

    # ---- the end --------------------------------------------------------------------------------------------------

    async def _stop_scheduling(self, scheduler: Scheduler) -> None:
        """Admit nothing more and commit what is decided, while everything is still up."""
        running = self._count_running(scheduler)
        log.info("daemon.stopping", why=str(self._stop_kind), running=running)
        await scheduler.stop()
        if self._stop_kind is StopKind.KILL_TASKS:
            await self._launcher.shut_down(kill=True)
        self._running = self._count_running(scheduler)

    def _count_running(self, scheduler: Scheduler) -> int:
        try:
            return len(scheduler.engine.attempts)
        except Unavailable:
            return self._running

    async def _leave(self) -> None:
        """What we started ends with us when it is to, or when it is `dev` and nothing needs it any more."""
        if self._stop_kind is StopKind.KILL_TASKS:
            await self._launcher.shut_down(kill=True)
            await self._database.stop()
        elif self._is_dev and self._stop_kind is StopKind.LEAVE_TASKS:
            alive = await self._launcher.shut_down(kill=False)
            if alive == 0:
                await self._database.stop()
            else:
                log.warning("daemon.left_running", running=alive, home=str(self._home))
        self._database.leave()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that a person should read: ours before others."""
    leaves: list[BaseException] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop()
        if isinstance(error, BaseExceptionGroup):
            todo.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((error for error in leaves if isinstance(error, TicklessError)), leaves[0])
