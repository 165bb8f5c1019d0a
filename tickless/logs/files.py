"""Task logs as files under one folder.

A path comes from the database, but it is opened as if an enemy had written it: each part relative to the descriptor of
the folder above, no symbolic links, no `..`. So a task that plants a link in its log folder shows nobody a file.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import anyio.to_thread

from tickless.errors import NotFound, UserError
from tickless.logs.tail import follow_file

CHUNK_BYTES = 128 * 1024


class LogFiles:
    """LogStore over a folder (HOME/logs). The folder need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def size(self, log_path: str) -> int | None:
        try:
            fd = open_beneath(self._folder, log_path)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    async def remove(self, log_paths: Sequence[str]) -> list[str]:
        # In a thread: hundreds of files may lie on a slow disk, and the loop schedules.
        return await anyio.to_thread.run_sync(self._remove, tuple(log_paths))

    def _remove(self, log_paths: tuple[str, ...]) -> list[str]:
        problems = []
        folders: set[tuple[str, ...]] = set()
        for log_path in log_paths:
            try:
                parts = split_path(log_path)
                unlink_beneath(self._folder, parts)
            except FileNotFoundError:
                continue
            except (UserError, OSError) as error:
                problems.append(f"the log {log_path} cannot be deleted: {error}")
            else:
                folders.add(parts[:-1])
        for folder in folders:
            # The folder of its run. That of its DAG stays: another run may be about to make its own in there.
            if len(folder) > 1:
                with suppress(OSError):
                    unlink_beneath(self._folder, folder, is_folder=True)
        return problems

    async def read(self, log_path: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        try:
            fd = open_beneath(self._folder, log_path)
        except FileNotFoundError:
            raise NotFound(
                f"there is no log file {log_path}", hint="The task wrote nothing, or it was removed."
            ) from None
        try:
            # Up to the size at the start: a task that writes faster than we read must not hold the reader for ever.
            end = os.fstat(fd).st_size
            while offset < end:
                # In a thread: an old log may have to come from a slow disk, and the loop schedules.
                chunk = await anyio.to_thread.run_sync(os.pread, fd, min(CHUNK_BYTES, end - offset), offset)
                if not chunk:
                    return
                offset += len(chunk)
                yield chunk
        finally:
            os.close(fd)

    def follow(
        self, log_path: str, *, offset: int = 0, wake: asyncio.Event, is_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        return follow_file(
            folder=self._folder,
            parts=split_path(log_path),
            open_log=lambda: open_beneath(self._folder, log_path),
            offset=offset,
            wake=wake,
            is_ended=is_ended,
        )


def split_path(log_path: str) -> tuple[str, ...]:
    """The parts of a log path; UserError for anything but plain names."""
    parts = tuple(log_path.split("/"))
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise UserError(f"{log_path!r} is not a log path")
    return parts


def unlink_beneath(folder: Path, parts: tuple[str, ...], *, is_folder: bool = False) -> None:
    """Remove a file, or an empty folder. A link is removed itself, and none is followed. Raises OSError."""
    at = open_folder(folder, parts[:-1])
    try:
        if is_folder:
            os.rmdir(parts[-1], dir_fd=at)
        else:
            os.unlink(parts[-1], dir_fd=at)
    finally:
        os.close(at)


def open_folder(folder: Path, parts: tuple[str, ...]) -> int:
    """A descriptor of a folder beneath, reached without following links. Raises OSError."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = inner
    except OSError:
        os.close(at)
        raise
    return at


def open_beneath(folder: Path, log_path: str) -> int:
    """A descriptor of the file, for reading. Raises FileNotFoundError; UserError for a link or another kind of file."""
    parts = split_path(log_path)
    try:
        at = open_folder(folder, parts[:-1])
        try:
            # NONBLOCK: opening a named pipe would otherwise wait for a writer, in the daemon's loop.
            fd = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"the log {log_path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UserError(f"the log {log_path} is not a plain file")
    return fd
