"""The log port: reads what attempts wrote. The daemon never carries these bytes on their way in, only to a reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol


class LogStore(Protocol):
    """`log_path` is AttemptRow.log_path; offsets count bytes from the start of the log."""

    async def size(self, log_path: str) -> int | None:
        """Bytes written so far; None = there is no log (not started yet, or removed)."""
        ...

    async def remove(self, log_paths: Sequence[str]) -> list[str]:
        """Delete logs; what is not there is no error. Sentences about those that could not be deleted."""
        ...

    def read(self, log_path: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """What is there now, from `offset` on, in chunks. Raises NotFound when there is no log."""
        ...

    def follow(
        self, log_path: str, *, offset: int = 0, wake: asyncio.Event, is_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        """What is there and what is appended, until `is_ended()` holds and the log is read out.

        Waits for a log that does not exist yet. Whoever makes `is_ended` true sets `wake` afterwards; `is_ended` is
        asked after each `wake`, which the log itself sets too.
        """
        ...
