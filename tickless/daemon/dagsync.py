"""Keep the known DAGs equal to the DAG folders: a file changes → the folder settles → a bundle is taken → what has
changed is parsed in children → the results are reported.

A folder is looked at when inotify says that something in it changed and nothing has changed for 200 ms (or something
has been changing for five seconds). Of its files those are parsed again whose closure holds a changed path; a file
that could not be parsed is tried again after any change, since nobody knows what it would have read. Parsing goes on
beside everything else, so a file that hangs until its time limit holds up no other; a file that changes while it is
being parsed is started afresh. After two seconds a file counts as slow: it gives its place to the next one (as many
slow ones as there are places may go on beside), loses its turn, and nobody waits for it at the start.

A folder that does not exist is reported, and waited for by watching what leads to it; one that vanishes keeps its
DAGs.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import TaskGroup, TaskStatus

from tickless.clock import Clock
from tickless.daemon.bundle import Bundle, BundleStore, NotSettled
from tickless.daemon.dagreport import DagReporter, DagSink, Key, ParsedFile
from tickless.daemon.ignore import IGNORE_FILE, IgnoreRules, is_never_bundled
from tickless.daemon.parse import parse_file
from tickless.daemon.watch import CONTENT, NAMES, DirectoryWatch, Listener
from tickless.errors import TicklessError, Unavailable
from tickless.model.parse import ParseResult

__all__ = ["QUIET_SECONDS", "DagSink", "DagSync", "ParsedFile", "Recall"]

QUIET_SECONDS = 0.2
_PATIENCE_SECONDS = 5.0
_RETRY_SECONDS = 30.0
_SLOW_SECONDS = 2.0

Recall = Callable[[str, str, Bundle], Awaitable[ParseResult | None]]
"""(folder, file, bundle) -> what parsing this file gave when the store last saw this very bundle; None = parse it.
Asked once per file, at the start. What is recalled is not reported."""


@dataclass(slots=True)
class _File:
    result: ParseResult | None = None
    bundle: Path | None = None
    parsing: anyio.CancelScope | None = None
    is_slow: bool = False
    """Being parsed for longer than others should wait."""

    def is_touched_by(self, changed: Collection[str]) -> bool:
        if self.result is None or self.result.problem is not None or "/" in self.result.closure:
            return bool(changed)
        files, folders = set(self.result.closure), tuple(c for c in self.result.closure if c.endswith("/"))
        return any(path in files or path.startswith(folders) for path in changed)


@dataclass(slots=True)
class _Folder:
    path: Path
    name: str
    listener: Listener = lambda directory, name: None
    real: str = ""
    approach: dict[str, set[str]] = field(default_factory=dict)
    """Directories that lead here -> the names in them that matter."""
    rules: IgnoreRules = field(default_factory=IgnoreRules)
    changed_at: float | None = None
    """Time of the latest change that was not looked at; None = nothing to do."""
    changed_since: float = 0.0
    bundle: Bundle | None = None
    files: dict[str, _File] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    """Gone, and not reported yet."""
    is_synced: bool = False
    """Everything about `bundle` is reported."""
    is_seen: bool = False
    """Everything about the first bundle is reported, but of slow files; or it is reported why there is none."""
    is_ill: bool = True
    """An error of the folder itself may stand in the store."""
    is_retrying: bool = False


class DagSync:
    """The service."""

    _tasks: TaskGroup
    _watch: DirectoryWatch

    def __init__(
        self,
        *,
        folders: Iterable[Path],
        bundles: BundleStore,
        sink: DagSink,
        clock: Clock,
        parse_timeout_seconds: float = 30.0,
        parse_processes: int = 2,
        recall: Recall | None = None,
        owners: Mapping[str, Key] | None = None,
    ) -> None:
        """`owners` says which file each known DAG came from, so that it keeps its id over a restart."""
        self.parse_timeout_seconds = parse_timeout_seconds
        """May be changed at any time."""
        self._folders: dict[str, _Folder] = {}
        for path in map(Path.absolute, folders):
            folder = self._folders[str(path)] = _Folder(path=path, name=str(path))
            folder.listener = partial(self._on_event, folder)
        self._bundles = bundles
        self._clock = clock
        self._recall = recall
        self._reporter = DagReporter(sink, owners or {}, self._is_parsing)
        self.seen = anyio.Event()
        """Each folder has been looked at once, be it in vain; slow files may still be on their way."""
        self._children = anyio.CapacityLimiter(parse_processes)
        self._slow_children = anyio.CapacityLimiter(parse_processes)
        self._thread = anyio.CapacityLimiter(1)  # BundleStore wants one thread at a time
        self._wakeup = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch and report until cancelled; started when the watches stand, before the first file is parsed."""
        with DirectoryWatch() as self._watch:
            async with anyio.create_task_group() as self._tasks:
                for folder in self._folders.values():
                    await self._cover(folder)
                    folder.changed_at = folder.changed_since = self._clock.monotonic() - QUIET_SECONDS
                self._tasks.start_soon(self._watch.run, name="dag folder watch")
                task_status.started()
                self._note_seen()
                while True:
                    await self._sync(await self._next_quiet())

    def rescan(self) -> None:
        """Look at every folder as if it had changed: for file systems without inotify."""
        for folder in self._folders.values():
            self._note_change(folder)

    def bundles_in_use(self) -> set[Path]:
        """Bundles that must not be deleted, whatever the database says."""
        folders = self._folders.values()
        used = {folder.bundle.path for folder in folders if folder.bundle}
        return used | {file.bundle for folder in folders for file in folder.files.values() if file.bundle}

    # -- when to look at a folder

    async def _next_quiet(self) -> _Folder:
        while True:
            due = {
                name: min(folder.changed_at + QUIET_SECONDS, folder.changed_since + _PATIENCE_SECONDS)
                for name, folder in self._folders.items()
                if folder.changed_at is not None
            }
            if not due:
                self._wakeup = anyio.Event()
                await self._wakeup.wait()
                continue
            name = min(due, key=lambda name: due[name])
            seconds = due[name] - self._clock.monotonic()
            if seconds <= 0:
                self._folders[name].changed_at = None
                return self._folders[name]
            await self._clock.sleep(seconds)

    def _note_change(self, folder: _Folder) -> None:
        now = self._clock.monotonic()
        if folder.changed_at is None:
            folder.changed_since = now
        folder.changed_at = now
        self._wakeup.set()

    def _on_event(self, folder: _Folder, directory: str, name: str | None) -> None:
        is_inside = directory == folder.real or directory.startswith(folder.real + "/")
        if name is not None and is_inside and name != IGNORE_FILE:
            inside = f"{directory}/{name}"[len(folder.real) + 1 :]
            # Not only to save work: a log that grows in the folder must not keep the daemon awake.
            is_inside = not is_never_bundled(name) and not folder.rules.excludes(inside, is_folder=False)
        if is_inside or not directory or name in folder.approach.get(directory, ()):
            self._note_change(folder)

    async def _retry_later(self, folder: _Folder) -> None:
        folder.is_retrying = True
        await self._clock.sleep(_RETRY_SECONDS)
        folder.is_retrying = False
        self._note_change(folder)

    # -- looking at it

    async def _cover(self, folder: _Folder) -> TicklessError | None:
        """Watch the way to the folder and every directory in it. Look, watch, look again, until two looks agree:
        then whatever comes later makes an event. Returns why it could not."""
        before = None
        while True:
            look = await anyio.to_thread.run_sync(self._look, folder, limiter=self._thread)
            folder.real, folder.rules, folder.approach, inside = look
            if (folder.real, folder.approach, inside) == before:
                return None
            before = (folder.real, folder.approach, inside)
            try:
                self._watch.cover(
                    folder.listener, dict.fromkeys(folder.approach, NAMES) | dict.fromkeys(inside, CONTENT)
                )
            except Unavailable as error:
                return error

    def _look(self, folder: _Folder) -> tuple[str, IgnoreRules, dict[str, set[str]], list[str]]:
        approach = _way_to(folder.path)
        real = os.path.realpath(folder.path)
        try:
            rules = IgnoreRules((folder.path / IGNORE_FILE).read_text(errors="replace").splitlines())
            inside = self._bundles.folders(folder.path)
        except FileNotFoundError:
            rules = IgnoreRules()
            inside = self._bundles.folders(folder.path) if os.path.isdir(real) else []
        except (OSError, TicklessError):
            return real, IgnoreRules(), approach, [real]  # the snapshot says what is wrong
        return real, rules, approach, inside

    async def _sync(self, folder: _Folder) -> None:
        """Take a bundle, and start to parse what has changed since the last one."""
        unwatched = await self._cover(folder)
        try:
            bundle = await anyio.to_thread.run_sync(self._bundles.snapshot, folder.path, limiter=self._thread)
            names = await anyio.to_thread.run_sync(self._bundles.dag_files, bundle, limiter=self._thread)
        except NotSettled:
            self._note_change(folder)
            return
        except TicklessError as error:
            folder.is_ill = True
            await self._reporter.report_folder(folder.name, error)
            folder.is_seen = True
            self._note_seen()
            if isinstance(error, Unavailable) and not folder.is_retrying:
                self._tasks.start_soon(self._retry_later, folder)
            return
        if folder.is_ill or unwatched is not None:
            folder.is_ill = unwatched is not None
            await self._reporter.report_folder(folder.name, unwatched)
        is_first, before = folder.bundle is None, folder.bundle.files if folder.bundle else {}
        changed = {path for path in before.keys() | bundle.files.keys() if before.get(path) != bundle.files.get(path)}
        folder.is_synced = folder.is_synced and not changed
        folder.bundle = bundle
        for name in sorted(folder.files.keys() - set(names)):
            self._forget(folder, name)
        touched = []
        for name in names:
            file = folder.files.setdefault(name, _File())
            if name in folder.removed:
                folder.removed.remove(name)
            if is_first and await self._recalled(folder, name, file):
                continue
            if file.is_touched_by(changed):
                touched.append(name)
        self._reporter.keep_owners(self._exists)
        turn: anyio.Event | None = None
        for name in touched:
            done = anyio.Event()
            self._start_parsing(folder, name, bundle, turn, done)
            # The first time, files report in order, so that of two with one dag_id always the same one gets it.
            turn = done if is_first else None
        await self._finish(folder)

    async def _recalled(self, folder: _Folder, name: str, file: _File) -> bool:
        if self._recall is None or folder.bundle is None:
            return False
        file.result = await self._recall(folder.name, name, folder.bundle)
        if file.result is None:
            return False
        file.bundle = folder.bundle.path
        self._reporter.recall((folder.name, name), file.result)
        return True

    def _forget(self, folder: _Folder, name: str) -> None:
        file = folder.files.pop(name)
        if file.parsing is not None:
            file.parsing.cancel()
        self._reporter.let_go((folder.name, name))
        folder.removed.append(name)

    # -- parsing its files

    def _start_parsing(
        self, folder: _Folder, name: str, bundle: Bundle, turn: anyio.Event | None, done: anyio.Event
    ) -> None:
        file = folder.files[name]
        if file.parsing is not None:
            file.parsing.cancel()
        file.parsing, file.is_slow = anyio.CancelScope(), False
        self._tasks.start_soon(self._parse, folder, name, bundle.path, file.parsing, turn, done, name=f"parse {name}")

    async def _parse(
        self,
        folder: _Folder,
        name: str,
        bundle: Path,
        scope: anyio.CancelScope,
        turn: anyio.Event | None,
        done: anyio.Event,
    ) -> None:
        """Parse one file, wait for its turn to report, report. `scope` is cancelled when the result is not wanted."""
        result = None
        try:
            with scope:
                result = await self._parse_in_a_child(folder, name, bundle, scope, done)
                if turn is not None:
                    await turn.wait()
            file = folder.files.get(name)
            if result is not None and file is not None and file.parsing is scope:
                file.result, file.bundle, file.parsing = result, bundle, None
                await self._reporter.report((folder.name, name), bundle, result)
        finally:
            done.set()
        await self._finish(folder)

    async def _parse_in_a_child(
        self, folder: _Folder, name: str, bundle: Path, scope: anyio.CancelScope, done: anyio.Event
    ) -> ParseResult:
        """The result, once there is a place for a child and the child is done."""
        place = object()
        places = [self._children]

        async def turn_slow() -> None:
            await self._clock.sleep(_SLOW_SECONDS)
            done.set()
            file = folder.files.get(name)
            if file is not None and file.parsing is scope:
                file.is_slow = True
                self._note_seen_of(folder)
            try:
                self._slow_children.acquire_on_behalf_of_nowait(place)
            except anyio.WouldBlock:
                return  # too many of them already: it keeps its place
            places.append(self._slow_children)
            places.pop(0).release_on_behalf_of(place)

        await self._children.acquire_on_behalf_of(place)
        try:
            async with anyio.create_task_group() as beside:
                beside.start_soon(turn_slow)
                result = await parse_file(bundle, name, timeout_seconds=self.parse_timeout_seconds)
                beside.cancel_scope.cancel()
        finally:
            places[0].release_on_behalf_of(place)
        return result

    def _note_seen_of(self, folder: _Folder) -> None:
        if not any(file.parsing is not None and not file.is_slow for file in folder.files.values()):
            folder.is_seen = True
            self._note_seen()

    def _note_seen(self) -> None:
        if all(folder.is_seen for folder in self._folders.values()):
            self.seen.set()

    async def _finish(self, folder: _Folder) -> None:
        """Report what waits for the last of the parsed files."""
        self._note_seen_of(folder)
        if folder.is_synced or folder.bundle is None or any(file.parsing for file in folder.files.values()):
            return
        folder.is_synced = True
        removed, folder.removed = folder.removed, []
        await self._reporter.report_synced(folder.name, removed, tuple(sorted(folder.files)), folder.bundle.warnings)

    def _is_parsing(self, key: Key) -> bool:
        folder = self._folders.get(key[0])
        file = folder.files.get(key[1]) if folder else None
        return file is not None and file.parsing is not None

    def _exists(self, key: Key) -> bool:
        """Whether the file is there, or may be: its folder has not been seen yet."""
        folder = self._folders.get(key[0])
        return folder is not None and (folder.bundle is None or key[1] in folder.files)


def _way_to(path: Path) -> dict[str, set[str]]:
    """What to watch to notice that the path begins to lead elsewhere: directory -> names in it.

    The folder's own name, each link on the way, and the first part that does not exist. All of them real paths.
    """
    found: dict[str, set[str]] = {}
    todo = list(reversed(path.parts[1:]))
    at = "/"
    for _ in range(1000):  # a loop of links ends too
        if not todo:
            break
        name = todo.pop()
        if name in {"", "."}:
            continue
        if name == "..":
            at = os.path.dirname(at)
            continue
        full = os.path.join(at, name)
        if os.path.islink(full):
            found.setdefault(at, set()).add(name)
            target = os.readlink(full)
            todo += reversed(target.split("/"))
            at = "/" if target.startswith("/") else at
            continue
        if not todo or not os.path.isdir(full):
            found.setdefault(at, set()).add(name)
        if not os.path.isdir(full):
            break
        at = full
    return found
