"""Which folders changed, by inotify: one descriptor in the event loop, no thread, no scan.

Somebody `cover`s the directories that it wants to hear of, and is called for each event in them. A directory may have
several owners. When the kernel's queue overflows every owner is called once, with no directory: look at everything.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping

from asyncinotify import Event, Inotify, Mask, Watch

from tickless.errors import Unavailable

CONTENT = (
    Mask.MODIFY | Mask.CLOSE_WRITE | Mask.ATTRIB | Mask.CREATE | Mask.DELETE | Mask.MOVE
    | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR | Mask.MASK_ADD
)  # fmt: skip
"""Whatever changes a directory's files. MODIFY too: a long copy is not quiet."""
NAMES = Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR | Mask.MASK_ADD
"""Only that a name appears: for directories that lead to the one of interest."""

Listener = Callable[[str, str | None], None]
"""Called with the directory and the name in it; ("", None) after an overflow, (directory, None) for itself."""


class DirectoryWatch:
    """Watches on behalf of owners. Use as a context manager; `run` delivers until it is cancelled."""

    def __init__(self) -> None:
        # Small batches: the events of one are handled without giving the loop to anybody else.
        self._inotify = Inotify(cache_size=64)
        self._watches: dict[int, tuple[Watch, str, set[Listener]]] = {}

    def __enter__(self) -> DirectoryWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._inotify.close()

    def cover(self, owner: Listener, directories: Mapping[str, Mask]) -> set[str]:
        """Let the owner hear of exactly these directories from now on; returns those that are watched.

        One that does not exist is left out. Raises Unavailable when the kernel allows no more watches.
        """
        covered: dict[int, str] = {}
        for directory, mask in directories.items():
            try:
                watch = self._inotify.add_watch(directory, mask)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):
                    raise Unavailable(
                        f"the kernel allows no more file watches, so changes in {directory} are not noticed",
                        hint="Raise fs.inotify.max_user_watches (sysctl), or reload DAGs by hand.",
                    ) from error
                continue  # gone, or not a directory any more, or not ours to read: the scan says what is wrong
            _, _, owners = self._watches.get(watch.wd, (watch, directory, set()))
            self._watches[watch.wd] = (watch, directory, owners | {owner})
            covered[watch.wd] = directory
        for wd, (watch, _, owners) in list(self._watches.items()):
            if wd not in covered and owner in owners:
                owners.discard(owner)
                if not owners:
                    del self._watches[wd]
                    self._drop(watch)
        return set(covered.values())

    async def run(self) -> None:
        """Call owners for each event."""
        while True:
            self._deliver(await self._inotify.get())

    def _deliver(self, event: Event) -> None:
        if event.mask & Mask.Q_OVERFLOW:
            for owner in self._owners():
                owner("", None)
            return
        watch = event.watch
        if watch is None or watch.wd not in self._watches:
            return
        _, directory, owners = self._watches[watch.wd]
        if event.mask & Mask.IGNORED:  # the directory is gone; a new one of its name gets a new watch
            del self._watches[watch.wd]
        for owner in tuple(owners):
            owner(directory, str(event.name) if event.name is not None else None)

    def _owners(self) -> Collection[Listener]:
        return {owner for _, _, owners in self._watches.values() for owner in owners}

    def _drop(self, watch: Watch) -> None:
        try:
            self._inotify.rm_watch(watch)
        except OSError:
            pass  # the kernel has dropped it: its directory is gone
