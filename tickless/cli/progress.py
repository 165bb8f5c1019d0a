"""A line on the terminal that says how far a run is, and is written over. Nothing of it when stderr is no terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tickless.cli.output import duration
from tickless.cli.problem import write_before_remarks
from tickless.model.state import FINISHED_TASK_STATES

_CLEAR = "\r\x1b[K"
_FINISHED = {state.value for state in FINISHED_TASK_STATES}


def is_wanted() -> bool:
    """Whether there is a terminal that can be written over."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def describe(name: str, tasks: Mapping[str, int], seconds: float) -> str:
    """run 7: 12 of 40 tasks done (1 failed), 3 running, 8 s."""
    done = sum(count for state, count in tasks.items() if state in _FINISHED)
    failed = tasks.get("failed", 0) + tasks.get("upstream_failed", 0)
    running = tasks.get("running", 0) + tasks.get("queued", 0)
    parts = [f"{name}: {done} of {sum(tasks.values())} tasks done" + (f" ({failed} failed)" if failed else "")]
    if running:
        parts.append(f"{running} running")
    return ", ".join([*parts, duration(float(int(seconds)))])


class Progress:
    """The line. Its clock goes on by itself, from a thread: nobody is asked for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: Mapping[str, int] = {}
        # A client's clock is not a decision of the scheduler.
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> Self:
        write_before_remarks(_CLEAR)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        write_before_remarks("")
        self._write(_CLEAR)

    def show(self, tasks: Mapping[str, int]) -> None:
        """The tasks by state are now these."""
        self._tasks = tasks
        self._draw()

    def _go_on(self) -> None:
        while not self._ended.wait(1.0):
            self._draw()

    def _draw(self) -> None:
        if self._tasks:
            text = describe(self._name, self._tasks, time.monotonic() - self._started)
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # a terminal that does not say has 0
            self._write(_CLEAR + text[: columns - 1])

    def _write(self, text: str) -> None:
        with self._lock:
            sys.stderr.write(text)
            sys.stderr.flush()
