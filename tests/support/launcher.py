"""A real launcher process on a home of its own, and orders for it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tickless.launcher.processes import read_stat
from tickless.model.dag import TaskKind
from tickless.model.id import Epoch, make_attempt_id
from tickless.model.order import Order

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


def eventually(probe: Callable[[], T], what: str = "", seconds: float = 30.0) -> T:
    """Call until it gives something true; a deadline instead of a sleep."""
    deadline = time.monotonic() + seconds
    while True:
        if found := probe():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"never came: {what or probe}")
        time.sleep(0.01)


async def soon(probe: Callable[[], T], what: str = "", seconds: float = 30.0) -> T:
    """`eventually`, for tests whose event loop has work to do meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        if found := probe():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"never came: {what or probe}")
        await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """A zombie is dead: PID 1 of a container may reap late."""
    stat = read_stat(pid)
    return stat is not None and not stat.is_dead


class LauncherProcess:
    """`python -m tickless.launcher` on `home`; may be killed and started again."""

    def __init__(self, home: Path, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.env = dict(env or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start and wait until it serves."""
        self.home.mkdir(exist_ok=True, parents=True)
        with open(self.home / "stderr", "ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tickless.launcher", "--home", str(self.home)],
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        eventually(self._serves, "a launcher that serves")

    def _serves(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the launcher exited with {self.process.returncode}: {self.stderr()}")
        return f'"pid": {self.process.pid}, "home"' in self.stderr()

    def stderr(self) -> str:
        """Its own log."""
        return (self.home / "stderr").read_text()

    def kill(self) -> None:
        """kill -9, and wait for its death."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait_killed(self) -> None:
        """A failpoint kills it."""
        assert self.process is not None
        assert self.process.wait(20) == -signal.SIGKILL, self.stderr()

    def terminate(self) -> int:
        """Ask it to stop all it runs; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


class Orders:
    """Makes orders that tell themselves apart: each attempt appends its id to `ran` when its code runs."""

    def __init__(self, folder: Path, executor: str = "local", epoch: int = 1) -> None:
        self.bundle = folder / "bundle"
        self.bundle.mkdir(exist_ok=True, parents=True)
        self.ran_file = folder / "ran"
        self.executor = executor
        self._counter = 0
        self._epoch = epoch

    def dag_file(self, source: str, name: str = "dag.py") -> str:
        """Write a DAG file into the bundle."""
        (self.bundle / name).write_text(source)
        return name

    def order(self, kind: TaskKind, **fields: Any) -> Order:
        """An order with an attempt id of its own, for a task of its own unless `task_id` says otherwise."""
        self._counter += 1
        attempt_id = make_attempt_id(Epoch(self._epoch), self._counter)
        given: dict[str, Any] = {
            "attempt_id": attempt_id,
            "executor": self.executor,
            "dag_id": "d",
            "run_key": self._counter,
            "run_id": "r1",
            "task_id": "t",
            "map_index": -1,
            "try_number": 1,
            "kind": kind,
            "bundle": str(self.bundle),
            "file": "dag.py",
            "version": "v1",
            "log_path": f"d/r1/t/{attempt_id}.log",
            "kill_grace_seconds": 5.0,
            "max_output_bytes": 1024,
            **fields,
        }
        return Order(**given)

    def bash(self, command: str, **fields: Any) -> Order:
        """A bash task that first appends its attempt id to the file of those that ran."""
        noted = f'echo "$TICKLESS_ATTEMPT_ID" >> {self.ran_file}\n{command}'
        return self.order(TaskKind.BASH, command=noted, **fields)

    def python(self, task_id: str = "t", **fields: Any) -> Order:
        """A Python task of the DAG file."""
        return self.order(TaskKind.PYTHON, task_id=task_id, **fields)

    def ran(self) -> list[int]:
        """Attempt ids whose user code ran, once for each time."""
        return [int(line) for line in self.ran_file.read_text().split()] if self.ran_file.exists() else []


DAG_FILE = """
import os, sys, time
from tickless import dag, task

def note():
    with open({ran!r}, "a") as file:
        file.write(os.environ["TICKLESS_ATTEMPT_ID"] + "\\n")

@dag(dag_id="d")
def d():
{tasks}
d()
"""


def dag_source(orders: Orders, tasks: str, before: str = "") -> str:
    """A DAG file `d` with these task functions; each should call note() first."""
    indented = "".join(f"    {line}\n" if line.strip() else "\n" for line in tasks.strip("\n").split("\n"))
    return before + DAG_FILE.replace("{ran!r}", repr(str(orders.ran_file))).replace("{tasks}", indented)
