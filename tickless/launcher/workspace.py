"""Scratch folders and outcome files, used again and again: on ext4 making and removing them for every attempt costs
more than everything else the launcher does.

A workspace is one empty folder (the attempt's working folder) and one file (its outcome record, see wire/outcome.py).
It goes to a next attempt only when nothing of the former can be alive and it has left the folder empty; otherwise it
is thrown away. Names never come twice, not even from the next launcher.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable

from tickless.launcher.spawn import CannotSpawn, Spawner
from tickless.wire.layout import OUTCOME_DIR, SCRATCH_DIR, outcome_path, scratch_path
from tickless.wire.outcome import MAX_RECORD_BYTES, Outcome, decode_outcome

_MOST_OUTCOME_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024


class Workspaces:
    """Those of one launcher. A workspace is known by its name."""

    def __init__(self, folder: str, spawner: Spawner, log: Callable[..., None]) -> None:
        self._folder = folder
        self._spawner = spawner
        self._log = log
        self._prefix = secrets.token_hex(4)
        self._made = 0
        self._free: list[str] = []

    def take(self) -> str:
        """An empty one. Raises OSError."""
        if self._free:
            return self._free.pop()
        self._made += 1
        name = f"{self._prefix}-{self._made}"
        os.mkdir(scratch_path(self._folder, name), 0o700)
        return name

    def give_back(self, name: str) -> None:
        """Everything that used it is dead, and what it came to is in the spool."""
        path = scratch_path(self._folder, name)
        try:
            folder = os.lstat(path)
            is_as_new = (
                stat.S_ISDIR(folder.st_mode)
                and stat.S_IMODE(folder.st_mode) == 0o700
                and folder.st_uid == os.geteuid()
                and not os.listdir(path)
                and _size(outcome_path(self._folder, name)) <= _MOST_OUTCOME_BYTES
            )
        except OSError:
            is_as_new = False
        if is_as_new:
            self._free.append(name)
        else:
            self.discard(name)

    def discard(self, name: str) -> None:
        """Remove it, and never use the name again; something may still write there."""
        try:
            os.unlink(outcome_path(self._folder, name))
        except OSError:
            pass
        path = scratch_path(self._folder, name)
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError:  # not empty, or no folder any more; rm does it beside us, however large it is
            try:
                self._spawner.remove_folder(path)
            except CannotSpawn as error:
                self._log("scratch.kept", path=path, error=str(error))

    def read_outcome(self, name: str, attempt_id: int) -> Outcome | None:
        """What the attempt has left of itself here; None when that is nothing, or somebody else's."""
        try:
            fd = os.open(outcome_path(self._folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = os.read(fd, _READ_BYTES)
            while b"\n" not in data[-_READ_BYTES:] and (more := os.read(fd, 16 * _READ_BYTES)):
                data += more
                if len(data) > MAX_RECORD_BYTES:
                    return None  # user code has written to it; it would not fit into a frame
        finally:
            os.close(fd)
        outcome = decode_outcome(data)
        return outcome if outcome is not None and outcome.attempt_id == attempt_id else None

    def remove_all_but(self, names: set[str]) -> None:
        """At the start: what former launchers have left, except of attempts that have no end yet."""
        keep = names | {name for name in os.listdir(f"{self._folder}/{SCRATCH_DIR}") if name.startswith(self._prefix)}
        found = {name.removesuffix(".json") for name in os.listdir(f"{self._folder}/{OUTCOME_DIR}")}
        found |= set(os.listdir(f"{self._folder}/{SCRATCH_DIR}"))
        for name in found - keep:
            self.discard(name)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0
