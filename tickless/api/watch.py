"""Who waits for what happens to a run. Fed with the effects that the daemon releases after each COMMIT.

Effects may be missed for good when RAM is thrown away (a commit of unknown outcome), so a watcher is also told to look
at the rows again: `resync` after every rebuild. Nobody watching costs one look at an empty dict per effect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from tickless.core.decision import AttemptEnded, Effect, Launch, RunChanged

_MAX_NEWS = 1000


class Watcher:
    """One subscription. `wake` is set whenever `news` or `must_look` changed."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.news: deque[Effect] = deque()
        self.must_look = False
        """Something may have been missed: read the rows."""

    def take(self) -> list[Effect]:
        """The news so far, and forget them."""
        news = list(self.news)
        self.news.clear()
        self.must_look = False
        self.wake.clear()
        return news

    def tell(self, effect: Effect | None) -> None:
        """Add a piece of news; None = look at the rows."""
        if effect is None or len(self.news) >= _MAX_NEWS:
            self.must_look = True
        else:
            self.news.append(effect)
        self.wake.set()


class RunWatch:
    """The switchboard; one per daemon, used from its loop only."""

    def __init__(self) -> None:
        self._watchers: dict[int, set[Watcher]] = {}

    def publish(self, effect: Effect) -> None:
        """An effect was released."""
        if not self._watchers:
            return
        match effect:
            case RunChanged():
                run = effect.run
            case AttemptEnded():
                run = int(effect.attempt.run)
            case Launch():
                run = int(effect.key.run)
            case _:
                return
        for watcher in self._watchers.get(run, ()):
            watcher.tell(effect)

    def resync(self) -> None:
        """RAM was rebuilt from rows."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.tell(None)

    @contextmanager
    def subscribe(self, run: int) -> Iterator[Watcher]:
        """Subscribe first, then read the rows: nothing falls between."""
        watcher = Watcher()
        self._watchers.setdefault(run, set()).add(watcher)
        try:
            yield watcher
        finally:
            watchers = self._watchers[run]
            watchers.discard(watcher)
            if not watchers:
                del self._watchers[run]
