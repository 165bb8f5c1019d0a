"""The launcher's event loop: descriptors, one heap of deadlines, signals. It sleeps until one of them has something.

Callbacks must not block and must bear a call too many: a descriptor may have been closed by an earlier callback of
the same round. After each round `after_round` runs; that is where the spool is written, once for all that happened.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
_MOST_ERRORS = 100


def now() -> datetime:
    """The wall clock, for records. Deadlines use the monotonic clock."""
    return datetime.now(UTC)


class Timer:
    """A pending call; `cancel` may be called at any time, also after it was made."""

    __slots__ = ("call", "deadline")

    def __init__(self, deadline: float, call: Callable[[], None]) -> None:
        self.deadline = deadline
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """One per process, because signals are."""

    def __init__(self, log: Callable[..., None]) -> None:
        self._log = log
        self._errors = 0
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._counter = itertools.count()
        self._signals: dict[int, Callable[[], None]] = {}
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.add(self._wake_read, READ, lambda _mask: self._on_wake())

    def add(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready mask)` whenever the descriptor is ready."""
        self._selector.register(fd, mask, callback)

    def change(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Wait for something else on a descriptor that was added."""
        self._selector.modify(fd, mask, callback)

    def remove(self, fd: int) -> None:
        """Stop watching; to be called before the descriptor is closed."""
        self._selector.unregister(fd)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, `seconds` from now."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, (timer.deadline, next(self._counter), timer))
        return timer

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call in the loop, not in a signal handler; several signals may come as one call."""
        self._signals[number] = callback
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)

    def stop(self) -> None:
        """Return from `run` after this round."""
        self._stopping = True

    def run(self, after_round: Callable[[], None]) -> None:
        """Serve until `stop`."""
        while not self._stopping:
            for key, mask in self._selector.select(self._timeout()):
                self._guard(partial(key.data, mask))
            self._fire()
            self._guard(after_round)

    def _guard(self, call: Callable[[], None]) -> None:
        """One bug must not end every task of the host; a hundred of them are no longer one."""
        try:
            call()
        except Exception:
            self._errors += 1
            self._log("launcher.error", traceback=traceback.format_exc(), count=self._errors)
            if self._errors >= _MOST_ERRORS:
                raise

    def _timeout(self) -> float | None:
        timers = self._timers
        while timers and timers[0][2].call is None:
            heapq.heappop(timers)
        return max(0.0, timers[0][0] - time.monotonic()) if timers else None

    def _fire(self) -> None:
        timers = self._timers
        if not timers:
            return
        moment = time.monotonic()
        while timers and timers[0][0] <= moment:
            timer = heapq.heappop(timers)[2]
            if timer.call is not None:
                self._guard(timer.call)

    def _on_wake(self) -> None:
        try:
            numbers = set(os.read(self._wake_read, 4096))
        except BlockingIOError:
            return
        for number in numbers:
            if number in self._signals:
                self._signals[number]()
