"""Follow a growing file with inotify: no thread, no interval, one chunk in memory.

One `wake` event means "look again". It is set by inotify (the file grew, or a folder on the way to it appeared) and by
the caller (the attempt ended). It is cleared before looking, so nothing that happens meanwhile is missed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from asyncinotify import Inotify, Mask

CHUNK_BYTES = 64 * 1024


async def follow_file(
    *,
    folder: Path,
    parts: Sequence[str],
    open_log: Callable[[], int],
    offset: int,
    wake: asyncio.Event,
    is_ended: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """See LogStore.follow. `open_log` raises FileNotFoundError while there is no file."""
    loop = asyncio.get_running_loop()
    with Inotify() as inotify:
        inotify.sync_timeout = 0
        loop.add_reader(inotify.fd, _drain, inotify, wake)
        fd = None
        try:
            while True:
                wake.clear()
                has_ended = await is_ended()  # before reading: what was written before the end is then in the file
                if fd is None:
                    fd = _open(inotify, folder, parts, open_log)
                if fd is not None:
                    while chunk := os.pread(fd, CHUNK_BYTES, offset):
                        offset += len(chunk)
                        yield chunk
                if has_ended:
                    return
                await wake.wait()
        finally:
            loop.remove_reader(inotify.fd)
            if fd is not None:
                os.close(fd)


def _open(inotify: Inotify, folder: Path, parts: Sequence[str], open_log: Callable[[], int]) -> int | None:
    """The file's descriptor with a watch on the file; None, with a watch on the nearest folder, if it is not there."""
    try:
        fd = open_log()
    except FileNotFoundError:
        _watch_nearest(inotify, folder, parts)
        try:
            fd = open_log()  # it may have come between the look and the watch
        except FileNotFoundError:
            return None
    # Through the descriptor: the path may by now lead somewhere else.
    inotify.add_watch(f"/proc/self/fd/{fd}", Mask.MODIFY)
    return fd


def _watch_nearest(inotify: Inotify, folder: Path, parts: Sequence[str]) -> None:
    """Watch every folder on the way that exists, innermost last, for something new in it.

    All of them, not the innermost alone: it may be created between our look and our watch, and its creation is then
    an event of the folder above. `folder` itself must exist.
    """
    at = folder
    for part in parts:
        try:
            inotify.add_watch(at, Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR | Mask.DONT_FOLLOW)
        except OSError:
            return
        at = at / part


def _drain(inotify: Inotify, wake: asyncio.Event) -> None:
    while inotify.sync_get() is not None:
        pass
    wake.set()
