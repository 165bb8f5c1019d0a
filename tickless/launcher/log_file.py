"""Opening an attempt's log: beneath the log folder and nowhere else, whatever links a task may have planted there."""

from __future__ import annotations

import os

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
TAIL_BYTES = 64 * 1024


def open_log(root: int, path: str) -> int:
    """Open `path` beneath the folder descriptor `root` for appending, making its folders (0700) and itself (0640).

    Each component is opened relative to the one before, without following links. Raises OSError; ValueError for a
    path that could lead out.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"log path {path!r} is not a plain relative path")
    folder = root
    try:
        for part in parts[:-1]:
            try:
                below = os.open(part, _FOLDER, dir_fd=folder)
            except FileNotFoundError:
                try:
                    os.mkdir(part, 0o700, dir_fd=folder)
                except FileExistsError:
                    pass
                below = os.open(part, _FOLDER, dir_fd=folder)
            if folder != root:
                os.close(folder)
            folder = below
        fd = os.open(parts[-1], _FILE, 0o640, dir_fd=folder)
    finally:
        if folder != root:
            os.close(folder)
    os.set_blocking(fd, True)  # O_NONBLOCK was there so that a planted FIFO could not hold us up
    return fd


def last_line(fd: int, start: int) -> str | None:
    """The last non-empty line written at or after offset `start`, of at most 64 KiB; None when there is none.

    Raises ValueError when it is longer than that.
    """
    size = os.fstat(fd).st_size
    begin = max(start, size - TAIL_BYTES)
    data = os.pread(fd, TAIL_BYTES, begin).rstrip()
    if not data:
        return None
    cut = max(data.rfind(b"\n"), data.rfind(b"\r"))
    if cut < 0 and begin > start:
        raise ValueError(
            f"the last line of the output is longer than {TAIL_BYTES:,} bytes, too long for a return value. "
            "Set do_xcom_push=False, or print a shorter last line."
        )
    return data[cut + 1 :].decode("utf-8", "replace").replace("\0", "\ufffd").strip()
