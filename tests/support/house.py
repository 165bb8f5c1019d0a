"""A whole tickless of its own: home, DAG folder, daemon process, and with it launcher, zygotes and private Postgres.

Everything in it may be killed, stopped and frozen; whatever it was, `check` must then hold. Only processes of this
home are ever touched, each by its pid.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.failpoints import Failpoints
from tests.support.ledger import Findings, Ledger, Limits, Plan, Rows
from tests.support.postgres import make_temporary_home
from tickless.cli.client import Client
from tickless.errors import Unavailable
from tickless.failpoint import ENV, ENV_LOG
from tickless.launcher.processes import read_stat
from tickless.store.connect import connect
from tickless.store.embedded import EmbeddedPostgres
from tickless.store.place import find_base
from tickless.store.pool import SEARCH_PATH
from tickless.store.postmaster import processes_in
from tickless.wire.mark import mark_of

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 12.0 if os.environ.get("TICKLESS_PLANTED") else 60.0
"""Ceiling for everything that must come at some time. Reached only when something is broken, as if by plan."""
AUDIT_SECONDS = 0.25
STORY_BEGINS = "daemon:"
EVERYDAY = ("attempt.finished", "run.started", "run.finished")
"""Not in a story: there are hundreds of them, and the finding above them must stay in sight."""
NEVER_LOGGED = {"audit.found", "event.quarantined", "flush.conflicted", "flush.refused", "library.warned"}


def eventually(probe: Callable[[], T | None], what: str = "", seconds: float = PATIENCE_SECONDS) -> T:
    """Call until it gives something true; a deadline instead of a sleep."""
    deadline = time.monotonic() + seconds
    while True:
        if found := probe():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"never came: {what or probe}")
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """A zombie is dead: PID 1 of a container may reap late."""
    stat = read_stat(pid)
    return stat is not None and not stat.is_dead


# Reads until the test process is gone, or has said that it ended the house itself.
_GUARD = 'read -r said; [ "$said" = closed ] || exec "$1" -P -m tests.support.house "$2"'


@dataclass(frozen=True, slots=True)
class Process:
    """A living process of a house."""

    pid: int
    kind: str
    """daemon, launcher, base zygote, zygote, attempt, postgres, or other."""
    attempt_id: int | None = None
    command: str = ""


class House:
    """Use as a context manager; at its end nothing of it is left."""

    def __init__(
        self,
        dags: Mapping[str, str],
        plans: Mapping[str, Plan],
        *,
        limits: Limits | None = None,
        pools: Mapping[str, int] | None = None,
        config: str = "",
        is_dev: bool = False,
    ) -> None:
        """`dags` maps file names to what follows the ledger's head; `config` is more TOML, sections and all."""
        self.folder = make_temporary_home(is_fast=True)
        self.home = self.folder / "home"
        self.home.mkdir(mode=0o711)
        self.dags = self.folder / "dags"
        self.dags.mkdir()
        self.ledger = Ledger(self.folder)
        self.ledger.locks.mkdir()
        os.mkfifo(self.ledger.fifo)
        self.plans = plans
        self.limits = limits or Limits()
        self.pools = dict(pools or {})
        self.client = Client(self.home / "api.sock")
        self.accepted: dict[str, int] = {}
        """Runs that the daemon has said yes to, by idempotency key."""
        self._is_dev = is_dev
        self._daemon: subprocess.Popen[bytes] | None = None
        self._log = self.folder / "daemon.log"
        self._points = 0
        # A killed test process must not leave a daemon behind. A session of its own: Ctrl-C is for pytest.
        self._guard: subprocess.Popen[bytes] | None = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", sys.executable, str(self.folder)],
            stdin=subprocess.PIPE,
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        for name, source in dags.items():
            (self.dags / name).write_text(self.ledger.head() + source)
        (self.home / "tickless.toml").write_text(
            f'[dags]\nfolders = ["{self.dags}"]\n'
            f"[limits]\nparallelism = {self.limits.parallelism}\ndag_concurrency = {self.limits.dag_concurrency}\n"
            "max_lost_attempts = 1000\n"
            f"[daemon]\naudit_interval_seconds = {AUDIT_SECONDS}\n"
            f'[log]\nformat = "json"\n[tasks]\nkill_grace_seconds = 1\n{config}'
        )

    @classmethod
    def left_in(cls, folder: Path) -> Self:
        """What is left of a house whose test process was killed; only to be closed."""
        house = cls.__new__(cls)
        house.folder, house.home = folder, folder / "home"
        house._daemon = house._guard = None
        return house

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._tell(error)
        self.close()

    # ---- the daemon -----------------------------------------------------------------------------------------------

    def arm(self, **points: str) -> Failpoints:
        """Failpoints for the next `start`; for the launcher and what it forks, if that daemon starts one."""
        self._points += 1
        folder = self.folder / f"points{self._points}"
        folder.mkdir()
        return Failpoints(folder, **points)

    def start(self, points: Failpoints | None = None, *, is_awaited: bool = True) -> None:
        """Start the daemon and wait until it takes work."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("TICKLESS_")}
        env.pop("INVOCATION_ID", None)  # under systemd it would leave the launcher to systemd
        env.pop(ENV, None)
        env.pop(ENV_LOG, None)
        words = ["dev", str(self.dags)] if self._is_dev else ["daemon"]
        with self._log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-P", "-m", "tickless", *words, "--home", str(self.home)],
                env=env
                | {"PYTHONPATH": str(ROOT), "TICKLESS_STRICT_EVENTS": "1"}
                | (points.env if points is not None else {}),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if is_awaited:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Return when the daemon says that it is ready and has read the DAG files."""

        def ready() -> bool:
            if self._daemon is None or self._daemon.poll() is not None:
                raise AssertionError(f"the daemon ended: {self._daemon and self._daemon.returncode}")
            try:
                status = self.client.get("/status")
            except Unavailable:
                return False
            return bool(status["is_ready"]) and status["dags"] >= len(self.plans)

        with self._telling():
            eventually(ready, "a daemon that is ready")
        for name, slots in self.pools.items():
            self.patiently(lambda name=name, slots=slots: self.client.put(f"/pools/{name}", {"slots": slots}))  # type: ignore[misc]  # mypy does not see the default's type

    @property
    def daemon(self) -> subprocess.Popen[bytes]:
        """The daemon, or the last one there was."""
        assert self._daemon is not None
        return self._daemon

    @property
    def is_up(self) -> bool:
        """Whether the daemon's process lives."""
        return self._daemon is not None and self._daemon.poll() is None

    def kill_daemon(self) -> None:
        """kill -9, and wait for its death."""
        self.daemon.kill()
        self.daemon.wait(PATIENCE_SECONDS)

    def wait_killed(self) -> None:
        """A failpoint kills the daemon."""
        code = self.daemon.wait(PATIENCE_SECONDS)
        assert code == -signal.SIGKILL, f"the daemon ended with {code}"

    def terminate_daemon(self) -> int:
        """SIGTERM; the exit code."""
        self.daemon.terminate()
        return self.daemon.wait(PATIENCE_SECONDS)

    # ---- asking ---------------------------------------------------------------------------------------------------

    def patiently(self, action: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
        """Do it until the daemon answers; it must be idempotent."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return action()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                if not self.is_up:
                    raise
            time.sleep(0.02)

    def run(self, dag_id: str, key: str | None = None) -> int:
        """Start a run, however often that has to be asked; its number. Raises Unavailable when the daemon is dead."""
        key = key or secrets.token_hex(8)
        body = {"idempotency_key": key}
        with self._telling():
            started = self.patiently(lambda: self.client.post(f"/dags/{dag_id}/runs", body))
        self.accepted[key] = int(started["run"])
        return self.accepted[key]

    def ask(self, dag_id: str, key: str | None = None) -> str:
        """The same, once, and never mind the answer; returns the key, to ask again with."""
        key = key or secrets.token_hex(8)
        try:
            started = self.client.post(f"/dags/{dag_id}/runs", {"idempotency_key": key})
        except Unavailable:
            return key
        self.accepted[key] = int(started["run"])
        return key

    def trigger(self, dag_id: str) -> None:
        """Ask by SQL."""
        key = secrets.token_hex(8)
        self.query("select tickless.trigger_dag($1, idempotency_key => $2)", dag_id, key)
        self.accepted[key] = 0

    def forget(self, run: int) -> None:
        """Remove a run that a test has ended otherwise than planned, so that `check` judges the others."""
        self.accepted = {key: number for key, number in self.accepted.items() if number != run}
        for table, column in (("dag_run", "key"), *((t, "dag_run_key") for t in ("task_instance", "xcom"))):
            self.query(f"delete from {table} where {column} = $1", run)

    def query(self, statement: str, *arguments: object) -> list[Any]:
        """Straight from the private Postgres. Raises Unavailable when it is away."""

        async def fetch() -> list[Any]:
            connection = await connect(
                EmbeddedPostgres(self.home).dsn, application_name="tests", settings={"search_path": SEARCH_PATH}
            )
            try:
                return list(await connection.fetch(statement, *arguments))
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def rows(self) -> Rows:
        """Everything that the ledger is compared with."""
        return Rows(
            runs=self.query("select key, dag_id, run_id, state, idempotency_key from dag_run order by key"),
            instances=self.query("select dag_run_key, task_id, state, try_number, attempt_id from task_instance"),
            attempts=self.query(
                "select attempt_id, dag_run_key, task_id, state, try_number, pool, pool_slots, executor, queued_at, "
                "started_at, ended_at, reason, signal, pid from task_attempt order by attempt_id"
            ),
            outputs=self.query("select dag_run_key, task_id, value from xcom"),
            pools={row["pool"]: row["slots"] for row in self.query("select pool, slots from slot_pool")},
        )

    def attempts(self, *states: str) -> list[Any]:
        """Attempts in some states, oldest first."""
        return self.query(
            "select attempt_id, dag_run_key, task_id, state, reason, signal, pid, try_number "
            "from task_attempt where state = any ($1) order by attempt_id",
            list(states),
        )

    # ---- processes ------------------------------------------------------------------------------------------------

    def processes(self) -> list[Process]:
        """What lives of this house."""
        postgres = set(processes_in(find_base(self.home) / "data"))
        found = []
        own = {os.getpid(), self._guard.pid if self._guard is not None else 0}
        launcher = self.launcher_pid()
        needle = os.fsencode(self.folder)
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) in own:
                continue
            pid = int(entry)
            if pid in postgres:
                found.append(Process(pid, "postgres"))
                continue
            command = _read(f"/proc/{pid}/cmdline")
            if needle not in command and needle not in _read(f"/proc/{pid}/environ"):
                continue
            stat = read_stat(pid)
            if stat is None or stat.is_dead:
                continue
            attempt_id = mark_of(pid)
            if attempt_id is not None:
                kind = "attempt"
            elif self._daemon is not None and pid == self._daemon.pid:
                kind = "daemon"
            elif pid == launcher:
                kind = "launcher"
            elif b"tickless.runner.zygote" in command:
                kind = "base zygote" if stat.ppid == launcher else "zygote"
            else:
                kind = "other"
            found.append(Process(pid, kind, attempt_id, command.replace(b"\0", b" ").decode("utf-8", "replace")))
        return found

    def of_kind(self, kind: str) -> list[int]:
        """Pids of one kind."""
        return [process.pid for process in self.processes() if process.kind == kind]

    def launcher_pid(self) -> int | None:
        """The launcher that holds the home's lock, if it lives."""
        try:
            pid = int((self.home / "launcher" / "lock").read_text())
        except (OSError, ValueError):
            return None
        command = _read(f"/proc/{pid}/cmdline")
        is_ours = b"tickless.launcher" in command and os.fsencode(self.home) in command
        return pid if is_ours and is_alive(pid) else None

    def kill_launcher(self) -> int:
        """kill -9; returns the pid that it had."""
        pid = eventually(self.launcher_pid, "a launcher")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_alive(pid), "its death")
        return pid

    def postmaster_pid(self) -> int | None:
        """The main process of the private Postgres."""
        return EmbeddedPostgres(self.home).server_pid()

    def postgres_pids(self) -> list[int]:
        """All of its processes."""
        return processes_in(find_base(self.home) / "data")

    @contextmanager
    def frozen(self, pids: Collection[int]) -> Iterator[None]:
        """SIGSTOP; at the end SIGCONT."""
        for pid in pids:
            send_signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                send_signal(pid, signal.SIGCONT)

    # ---- judging --------------------------------------------------------------------------------------------------

    def story(self) -> str:
        """What there is to read about a house in which something went wrong."""
        log = self._log.read_text().splitlines() if self._log.exists() else []
        launcher_log = self.home / "launcher" / "launcher.log"
        launcher = launcher_log.read_text().splitlines() if launcher_log.exists() else []
        told = [line for line in log if not any(f'"{name}"' in line for name in EVERYDAY)]
        return "\n".join([STORY_BEGINS, *(line[:400] for line in told[-20:]), "launcher:", *launcher[-8:]])

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """What the daemons have logged."""
        found = []
        for line in self._log.read_text().splitlines() if self._log.exists() else ():
            if line.startswith("{"):
                event = json.loads(line)
                if name in (None, event["event"]):
                    found.append(event)
        return found

    def wait_finished(self, runs: Sequence[int] | None = None) -> None:
        """I7: every accepted run ends."""

        def finished() -> bool:
            assert self.is_up, f"the daemon ended by itself with {self.daemon.returncode}"
            try:
                rows = self.query("select key, state, idempotency_key from dag_run")
            except Unavailable:
                return False
            if runs is not None:
                rows = [row for row in rows if row["key"] in runs]
            elif {row["idempotency_key"] for row in rows} < self.accepted.keys():
                return False
            return all(row["state"] in ("success", "failed") for row in rows)

        with self._telling():
            eventually(finished, f"the end of {'all' if runs is None else runs} runs")

    def check(self) -> Findings:
        """Wait for rest, then assert every invariant."""
        self.wait_finished()
        self._check_rest()
        rows = self.rows()
        found = self.ledger.check(rows, self.plans, self.limits)
        keys = [row["idempotency_key"] for row in rows.runs]
        for key, run in self.accepted.items():
            mine = [row["key"] for row in rows.runs if row["idempotency_key"] == key]
            if len(mine) != 1 or run not in (0, mine[0]):
                found.lost.append(f"the run {run} that was accepted is {mine or 'nowhere'}")
        if len(set(keys)) != len(keys):
            found.twice.append("an idempotency key made two runs")
        found.other += [str(event) for event in self.events() if event["event"] in NEVER_LOGGED]
        if "Traceback" in (log := self._log.read_text()):
            found.other.append(log[log.index("Traceback") :][:3000])
        with self._telling():
            assert not list(found), "\n".join(found)
        return found

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """A house that outlives its tests says itself what happened in it."""
        try:
            yield
        except (AssertionError, Unavailable) as error:
            self._tell(error)
            raise

    def _tell(self, error: BaseException) -> None:
        if not any(note.startswith(STORY_BEGINS) for note in getattr(error, "__notes__", ())):
            error.add_note(self.story())

    def _check_rest(self) -> None:
        """I11, and two audits of the resting house (I10)."""

        def at_rest() -> bool:
            return not [p for p in self.processes() if p.kind in ("attempt", "other")]

        eventually(at_rest, f"an end of {[p for p in self.processes() if p.kind in ('attempt', 'other')]}", 20)
        until = time.monotonic() + 2.5 * AUDIT_SECONDS
        eventually(lambda: time.monotonic() > until)
        assert self.is_up, f"the daemon ended by itself with {self.daemon.returncode}"

    def close(self) -> None:
        """End everything of this home, by pid, and see that nothing is left."""
        deadline = time.monotonic() + 30
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
        while left := self.processes():
            # The launcher first, or it would restart what it misses; the postmaster by the way it understands.
            postmaster = self.postmaster_pid()
            for process in left:
                if process.kind != "postgres":
                    send_signal(process.pid, signal.SIGKILL)
            if postmaster is not None:
                send_signal(postmaster, signal.SIGCONT)
                send_signal(postmaster, signal.SIGQUIT)
            for process in left:
                if process.kind == "postgres":
                    send_signal(process.pid, signal.SIGCONT)
                    if postmaster is None:
                        send_signal(process.pid, signal.SIGQUIT)
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._guard is not None:
            self._guard.communicate(b"closed\n")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def send_signal(pid: int, number: int) -> None:
    """To one process; one that has gone meanwhile is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    House.left_in(Path(sys.argv[1])).close()
