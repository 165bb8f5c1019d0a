# ruff: noqa: ASYNC240 - the tests act on small folders, and block nobody
"""Real folders, real inotify, real children: what is reported after which change, and what is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import pytest

from tickless.clock import Clock, SystemClock
from tickless.daemon.bundle import Bundle, BundleStore
from tickless.daemon.dagsync import DagSync, ParsedFile
from tickless.daemon.watch import CONTENT, NAMES, DirectoryWatch, Listener
from tickless.model.parse import ParseResult
from tickless.store.base import ImportProblem


def flow(dag_id: str, extra: str = "") -> str:
    return f"{extra}\nfrom tickless import DAG, EmptyOperator\nwith DAG({dag_id!r}):\n    EmptyOperator(task_id='t')\n"


class CountingStore(BundleStore):
    """Counts looks at folders."""

    looks = 0

    def snapshot(self, folder: Path) -> Bundle:
        self.looks += 1
        return super().snapshot(folder)


@dataclass
class Recorder:
    """A sink that writes down what it is told, in order, and lets tests wait for it."""

    told: list[tuple[str, str]] = field(default_factory=list)
    parsed: dict[str, ParsedFile] = field(default_factory=dict)
    problems: dict[str, ImportProblem] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    _changed: anyio.Event = field(default_factory=anyio.Event)

    def _note(self, what: str, file: str) -> None:
        self.told.append((what, file))
        self._changed.set()

    async def on_parsed(self, parsed: ParsedFile) -> None:
        self.parsed[parsed.file] = parsed
        self.problems.pop(parsed.file, None)
        self._note("parsed", parsed.file)

    async def on_error(self, problem: ImportProblem) -> None:
        if problem.error is None:
            self.problems.pop(problem.file, None)
            self._note("cleared", problem.file)
        else:
            self.problems[problem.file] = problem
            self._note("error", problem.file)

    async def on_removed(self, folder: str, file: str) -> None:
        self.parsed.pop(file, None)
        self.problems.pop(file, None)
        self._note("removed", file)

    async def on_synced(self, folder: str, files: tuple[str, ...], warnings: tuple[str, ...]) -> None:
        self.warnings = warnings
        self._note("synced", ",".join(files))

    def dag_ids(self) -> dict[str, list[str]]:
        return {file: [dag.spec.dag_id for dag in parsed.dags] for file, parsed in sorted(self.parsed.items())}

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait until it holds, for at most 15 s."""
        with anyio.move_on_after(15):
            while not is_so():
                self._changed = anyio.Event()
                await self._changed.wait()
        assert is_so(), self.told

    async def told_after(self, act: Callable[[], object], *, last: str = "synced") -> list[tuple[str, str]]:
        """What is told because of the act, up to the first `last`. What came before is over first."""
        await self.until(lambda: self.told and self.told[-1][0] == "synced")
        start = len(self.told)
        act()
        await self.until(lambda: last in [what for what, _ in self.told[start:]])
        return self.told[start:]


@asynccontextmanager
async def syncing(
    tmp_path: Path, *folders: Path, clock: Clock | None = None, **options: Any
) -> AsyncIterator[tuple[Recorder, DagSync, CountingStore]]:
    recorder = Recorder()
    store = CountingStore(tmp_path / "home", clock or SystemClock())
    store._max_bytes = options.pop("max_bytes", store._max_bytes)
    sync = DagSync(
        folders=folders or [tmp_path / "dags"], bundles=store, sink=recorder, clock=clock or SystemClock(), **options
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(sync.run)
        yield recorder, sync, store
        tasks.cancel_scope.cancel()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "dags"
    path.mkdir()
    return path


def test_the_first_look_reports_every_file_once(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "good.py").write_text(flow("good"))
        (folder / "broken.py").write_text(flow("broken", "import nowhere"))
        (folder / "empty.py").write_text("# tickless, but no dag")
        (folder / "helper.py").write_text("raise SystemExit('never imported by itself')")
        (folder / "out").symlink_to("/etc/hostname")
        async with syncing(tmp_path) as (recorder, sync, _):
            await recorder.until(lambda: recorder.told and recorder.told[-1][0] == "synced")
            assert recorder.told == [
                *(("cleared", ""), ("error", "broken.py"), ("parsed", "empty.py"), ("parsed", "good.py")),
                ("synced", "broken.py,empty.py,good.py"),
            ]
            assert recorder.dag_ids() == {"empty.py": [], "good.py": ["good"]}
            problem = recorder.problems["broken.py"]
            assert (problem.error or "").startswith("ModuleNotFoundError: No module named 'nowhere'")
            assert problem.line == 1
            assert "import nowhere" in (problem.traceback or "")
            assert recorder.warnings[0].startswith("out is left out")
            assert {path.parent for path in sync.bundles_in_use()} == {tmp_path / "home" / "bundles"}

    anyio.run(run)


def test_only_files_whose_closure_changed_are_parsed_again(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("a", "import helper"))
        (folder / "b.py").write_text(flow("b"))
        (folder / "helper.py").write_text("")
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: len(recorder.parsed) == 2)
            both = ("synced", "a.py,b.py")
            before = recorder.parsed["a.py"]
            assert await recorder.told_after(lambda: (folder / "helper.py").write_text("x = 1")) == [
                ("parsed", "a.py"),
                both,
            ]
            after = recorder.parsed["a.py"]
            assert after.dags[0].hash != before.dags[0].hash
            assert after.bundle != before.bundle
            assert await recorder.told_after(lambda: (folder / "notes.txt").write_text("x")) == [
                ("synced", "a.py,b.py")
            ]
            assert await recorder.told_after(lambda: (folder / "b.py").write_text(flow("b2"))) == [
                ("parsed", "b.py"),
                ("synced", "a.py,b.py"),
            ]

    anyio.run(run)


def test_a_change_is_reported_within_a_second_or_so(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("a"))
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: "a.py" in recorder.parsed)
            start = anyio.current_time()
            await recorder.told_after(lambda: (folder / "a.py").write_text(flow("b")))
            assert anyio.current_time() - start < 5  # 0.4 s when nobody else is busy; the ceiling is for a loaded box

    anyio.run(run)


def test_files_in_new_folders_are_noticed_however_fast_they_come(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: ("synced", "") in recorder.told)
            (folder / "x" / "y" / "z").mkdir(parents=True)
            (folder / "x" / "y" / "z" / "a.py").write_text(flow("a"))
            await recorder.until(lambda: "x/y/z/a.py" in recorder.parsed)
            (folder / "x" / "y" / "z" / "a.py").write_text(flow("b"))
            await recorder.until(lambda: recorder.dag_ids()["x/y/z/a.py"] == ["b"])
            (folder / "x" / "y").rename(folder / "moved")
            await recorder.until(lambda: list(recorder.parsed) == ["moved/z/a.py"])
            (folder / "moved" / "z" / "a.py").write_text(flow("c"))
            await recorder.until(lambda: recorder.dag_ids() == {"moved/z/a.py": ["c"]})

    anyio.run(run)


def test_a_folder_made_between_looking_and_watching_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = tmp_path / "dags"
    cover = DirectoryWatch.cover

    def cover_late(self: DirectoryWatch, owner: Listener, directories: Any) -> set[str]:
        if str(late) in directories:  # it was looked at, and is not watched yet
            (late / "new").mkdir(exist_ok=True)
        return cover(self, owner, directories)

    monkeypatch.setattr(DirectoryWatch, "cover", cover_late)

    async def run() -> None:
        async with syncing(tmp_path, late) as (recorder, _, _):
            await recorder.until(lambda: "" in recorder.problems)
            late.mkdir()
            await recorder.until(lambda: ("synced", "") in recorder.told)
            (late / "new" / "a.py").write_text(flow("a"))
            await recorder.until(lambda: "new/a.py" in recorder.parsed)

    anyio.run(run)


def test_a_directory_that_is_not_covered_any_more_is_not_heard(tmp_path: Path) -> None:
    async def run() -> None:
        heard = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        one, two = str(tmp_path / "a"), str(tmp_path / "b")

        def listener(directory: str, name: str | None) -> None:
            heard.append((directory, name))

        with DirectoryWatch() as watch:
            assert watch.cover(listener, {one: CONTENT, two: CONTENT, "/nowhere": CONTENT}) == {one, two}
            assert watch.cover(listener, {two: NAMES}) == {two}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.run)
                (tmp_path / "a" / "x").touch()
                (tmp_path / "b" / "y").touch()
                with anyio.fail_after(10):
                    while (two, "y") not in heard:  # noqa: ASYNC110 - the kernel tells
                        await anyio.sleep(0.005)
                tasks.cancel_scope.cancel()
        assert one not in [directory for directory, _ in heard]

    anyio.run(run)


def test_a_dag_that_moves_is_told_of_in_its_new_file_before_the_old_one_goes(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("a"))
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: "a.py" in recorder.parsed)
            assert await recorder.told_after(lambda: (folder / "a.py").rename(folder / "b.py")) == [
                ("parsed", "b.py"),
                ("removed", "a.py"),
                ("synced", "b.py"),
            ]

    anyio.run(run)


def test_a_broken_file_is_tried_again_when_what_it_misses_appears(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("a", "import helper"))
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: "a.py" in recorder.problems)
            (folder / "helper.py").write_text("")
            await recorder.until(lambda: "a.py" in recorder.parsed)
            assert recorder.problems == {}

    anyio.run(run)


def test_of_two_files_with_one_dag_id_the_first_keeps_it_until_it_lets_go(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "b.py").write_text(flow("same"))
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: "b.py" in recorder.parsed)
            assert await recorder.told_after(lambda: (folder / "a.py").write_text(flow("same", "\n"))) == [
                ("error", "a.py"),
                ("synced", "a.py,b.py"),
            ]
            error = recorder.problems["a.py"].error or ""
            assert "'same' is defined in b.py:3 already" in error
            assert "nothing of a.py is used" in error
            assert recorder.problems["a.py"].line == 4
            # A broken owner keeps its id.
            told = await recorder.told_after(lambda: (folder / "b.py").write_text("import tickless, dag"))
            assert ("error", "b.py") in told
            assert "a.py" not in recorder.parsed
            assert "a.py" in recorder.problems
            (folder / "b.py").write_text(flow("other"))
            await recorder.until(lambda: recorder.dag_ids() == {"a.py": ["same"], "b.py": ["other"]})
            assert recorder.problems == {}

    anyio.run(run)


def test_a_dag_id_can_move_to_an_earlier_file_in_one_change(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("a"))
        (folder / "b.py").write_text(flow("moving", "import time\ntime.sleep(0.5)"))
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: len(recorder.parsed) == 2)

            def move() -> None:
                (folder / "a.py").write_text(flow("moving"))
                (folder / "b.py").write_text(flow("b", "import time\ntime.sleep(0.5)"))

            told = await recorder.told_after(move)
            assert [what for what, _ in told] == ["parsed", "parsed", "synced"]  # no error on the way
            assert recorder.dag_ids() == {"a.py": ["moving"], "b.py": ["b"]}

    anyio.run(run)


def test_at_a_first_look_the_first_file_by_name_gets_the_id_however_slow(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("same", "import time\ntime.sleep(0.5)"))
        (folder / "b.py").write_text(flow("same"))
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: recorder.told and recorder.told[-1][0] == "synced")
            assert (list(recorder.parsed), list(recorder.problems)) == (["a.py"], ["b.py"])

    anyio.run(run)


def test_after_a_restart_an_id_stays_with_the_file_that_had_it(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        for name in ("a.py", "b.py"):
            (folder / name).write_text(flow("same"))
        owners = {"same": (str(folder), "b.py"), "gone": (str(folder), "gone.py")}
        (folder / "c.py").write_text(flow("gone"))
        async with syncing(tmp_path, owners=owners) as (recorder, _, _):
            await recorder.until(lambda: recorder.told and recorder.told[-1][0] == "synced")
            assert recorder.dag_ids() == {"b.py": ["same"], "c.py": ["gone"]}
            assert list(recorder.problems) == ["a.py"]

    anyio.run(run)


def test_two_folders_are_two_bundles_and_share_the_ids(tmp_path: Path) -> None:
    async def run() -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / f"{name}.py").write_text(flow("same"))
        async with syncing(tmp_path, tmp_path / "one", tmp_path / "two") as (recorder, sync, _):
            await recorder.until(lambda: [what for what, _ in recorder.told].count("synced") == 2)
            assert len(recorder.parsed) == len(recorder.problems) == 1
            [problem] = recorder.problems.values()
            [owner] = recorder.parsed.values()
            assert f"{owner.folder}/{owner.file}" in (problem.error or "")
            assert len(sync.bundles_in_use()) == 2

    anyio.run(run)


def test_a_hanging_file_holds_up_no_other_and_can_be_mended(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "b.py").write_text(flow("b"))
        async with syncing(tmp_path, parse_timeout_seconds=300.0) as (recorder, _, _):
            await recorder.until(lambda: "b.py" in recorder.parsed)
            hang = f"import time\nopen({str(mark)!r}, 'w')\ntime.sleep(600)"
            (folder / "a.py").write_text(flow("a", hang))
            with anyio.fail_after(15):
                while not mark.exists():  # noqa: ASYNC110 - a child makes it
                    await anyio.sleep(0.02)
            (folder / "b.py").write_text(flow("b2"))
            await recorder.until(lambda: recorder.dag_ids() == {"b.py": ["b2"]})
            (folder / "a.py").write_text(flow("a"))
            await recorder.until(lambda: recorder.dag_ids() == {"a.py": ["a"], "b.py": ["b2"]})

    mark = tmp_path / "mark"
    anyio.run(run)


def test_at_the_first_look_nobody_waits_for_a_hanging_file(tmp_path: Path, folder: Path) -> None:
    """Not those after it in the alphabet, not those after it in the queue for a child, not whoever waits for all."""

    async def run() -> None:
        (folder / "a.py").write_text(flow("a", "import time\ntime.sleep(600)"))
        for name in "bcd":
            (folder / f"{name}.py").write_text(flow(name))
        async with syncing(tmp_path, parse_timeout_seconds=300.0, parse_processes=1) as (recorder, sync, _):
            await recorder.until(lambda: list(recorder.parsed) == ["b.py", "c.py", "d.py"])
            with anyio.fail_after(15):
                await sync.seen.wait()
            assert "synced" not in [what for what, _ in recorder.told], "what is gone can be told only with all files"
            assert recorder.problems == {}
            (folder / "a.py").write_text(flow("a"))
            await recorder.until(lambda: recorder.told[-1][0] == "synced")
            assert list(recorder.dag_ids()) == ["a.py", "b.py", "c.py", "d.py"]

    anyio.run(run)


def test_a_folder_that_is_not_there_has_been_seen(tmp_path: Path) -> None:
    async def run() -> None:
        async with syncing(tmp_path) as (_, sync, _):
            with anyio.fail_after(15):
                await sync.seen.wait()

    anyio.run(run)


def test_a_missing_folder_is_reported_and_taken_up_when_it_comes(tmp_path: Path) -> None:
    async def run() -> None:
        late = tmp_path / "far" / "away" / "dags"
        async with syncing(tmp_path, late) as (recorder, _, _):
            await recorder.until(lambda: "" in recorder.problems)
            assert "does not exist" in (recorder.problems[""].error or "")
            assert ("synced", "") not in recorder.told
            late.mkdir(parents=True)
            await recorder.until(lambda: ("synced", "") in recorder.told)
            assert recorder.problems == {}
            (late / "a.py").write_text(flow("a"))
            await recorder.until(lambda: "a.py" in recorder.parsed)

    anyio.run(run)


def test_a_folder_that_vanishes_keeps_its_dags_and_may_return(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("a"))
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: "a.py" in recorder.parsed)
            folder.rename(tmp_path / "elsewhere")
            await recorder.until(lambda: "" in recorder.problems)
            assert list(recorder.parsed) == ["a.py"]
            assert ("removed", "a.py") not in recorder.told
            (tmp_path / "elsewhere" / "a.py").write_text(flow("b"))
            (tmp_path / "elsewhere").rename(folder)
            await recorder.until(lambda: recorder.dag_ids() == {"a.py": ["b"]})
            assert recorder.problems == {}
            shutil.rmtree(folder)
            await recorder.until(lambda: "" in recorder.problems)
            folder.mkdir()
            (folder / "c.py").write_text(flow("c"))
            await recorder.until(lambda: recorder.dag_ids() == {"c.py": ["c"]})

    anyio.run(run)


def test_switching_a_link_to_another_checkout_is_a_change(tmp_path: Path) -> None:
    async def run() -> None:
        for version in ("1", "2"):
            (tmp_path / version / "dags").mkdir(parents=True)
            (tmp_path / version / "dags" / "a.py").write_text(flow(f"v{version}"))
        link = tmp_path / "current"
        link.symlink_to("1")
        async with syncing(tmp_path, link / "dags") as (recorder, _, _):
            await recorder.until(lambda: recorder.dag_ids() == {"a.py": ["v1"]})
            (tmp_path / "new").symlink_to("2")
            (tmp_path / "new").rename(link)
            await recorder.until(lambda: recorder.dag_ids() == {"a.py": ["v2"]})
            (tmp_path / "2" / "dags" / "a.py").write_text(flow("v3"))
            await recorder.until(lambda: recorder.dag_ids() == {"a.py": ["v3"]})

    anyio.run(run)


def test_an_overflow_of_the_kernels_queue_loses_nothing(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        (folder / "noise").mkdir()
        async with syncing(tmp_path) as (recorder, sync, _):
            await recorder.until(lambda: ("synced", "") in recorder.told)
            overflowed = False
            owners = sync._watch._owners

            def spy() -> Collection[Listener]:
                nonlocal overflowed
                overflowed = True
                return owners()

            sync._watch._owners = spy  # type: ignore[method-assign]  # only an overflow asks for them
            # The loop does not turn meanwhile, so nobody empties the queue; then a folder appears, unseen.
            for number in range(limit // 2 + 10):
                os.close(os.open(folder / "noise" / str(number % 2), os.O_CREAT))
                os.unlink(folder / "noise" / str(number % 2))
            (folder / "new").mkdir()
            (folder / "new" / "a.py").write_text(flow("a"))
            await recorder.until(lambda: "new/a.py" in recorder.parsed)
            assert overflowed
            (folder / "new" / "a.py").write_text(flow("b"))  # the new folder is watched
            await recorder.until(lambda: recorder.dag_ids()["new/a.py"] == ["b"])

    anyio.run(run)


def test_swap_files_bytecode_and_ignored_logs_wake_nobody(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str | None] = []
    on_event = DagSync._on_event

    def listen(self: DagSync, of: Any, directory: str, name: str | None) -> None:
        heard.append(name)
        on_event(self, of, directory, name)

    monkeypatch.setattr(DagSync, "_on_event", listen)

    async def run() -> None:
        (folder / ".ticklessignore").write_text("logs/\n*.log\n")
        (folder / "logs").mkdir()
        (folder / "a.py").write_text(flow("a"))
        async with syncing(tmp_path) as (recorder, sync, _):
            await recorder.until(lambda: ("synced", "a.py") in recorder.told)
            [state] = sync._folders.values()
            for name in (".a.py.swp", "a.py~", "logs/x", ".git", "run.log"):
                (folder / name).write_text("x")
            with anyio.fail_after(10):
                while "run.log" not in heard:  # noqa: ASYNC110 - the kernel tells
                    await anyio.sleep(0.005)
            assert "a.py~" in heard
            assert "x" not in heard
            assert state.changed_at is None
            (folder / ".ticklessignore").write_text("a.py")
            await recorder.until(lambda: recorder.parsed == {})

    anyio.run(run)


class ManualClock(SystemClock):
    """Sleeps end when the test says so."""

    def __init__(self) -> None:
        self.at = 1000.0
        self._moved = anyio.Event()

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        until = self.at + seconds
        while self.at < until - 1e-9:
            await self._moved.wait()

    def advance(self, seconds: float) -> None:
        self.at += seconds
        self._moved.set()
        self._moved = anyio.Event()


def test_a_folder_is_looked_at_after_200_ms_of_quiet_or_five_seconds_of_noise(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        async with syncing(tmp_path, clock=clock) as (recorder, sync, store):
            await recorder.until(lambda: ("synced", "") in recorder.told)
            [state] = sync._folders.values()
            looks = store.looks

            async def noise(name: str) -> None:
                (folder / name).write_text("x")
                with anyio.fail_after(10):
                    while state.changed_at != clock.at:  # noqa: ASYNC110 - the kernel tells
                        await anyio.sleep(0.005)
                await anyio.wait_all_tasks_blocked()

            for number in range(30):  # 4.5 s of it
                await noise(f"n{number}")
                clock.advance(0.15)
                await anyio.wait_all_tasks_blocked()
            assert store.looks == looks
            clock.advance(0.06)
            await recorder.until(lambda: store.looks == looks + 1 and state.is_synced)
            await anyio.wait_all_tasks_blocked()
            for number in range(40):  # 6 s of it
                await noise(f"m{number}")
                clock.advance(0.15)
                if store.looks > looks + 1:
                    break
            assert 30 < number < 39

    anyio.run(run)


def test_what_is_recalled_is_neither_parsed_nor_reported_until_it_changes(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("a"))
        (folder / "b.py").write_text(flow("b"))
        asked = []

        async def recall(of: str, file: str, bundle: Bundle) -> ParseResult | None:
            asked.append((of, file))
            return ParseResult(file=file, closure=("a.py",)) if file == "a.py" else None

        async with syncing(tmp_path, recall=recall) as (recorder, _, _):
            await recorder.until(lambda: ("synced", "a.py,b.py") in recorder.told)
            assert list(recorder.parsed) == ["b.py"]
            await recorder.told_after(lambda: (folder / "b.py").write_text(flow("b2")))
            assert list(recorder.parsed) == ["b.py"]
            await recorder.told_after(lambda: (folder / "a.py").write_text(flow("a2")))
            assert recorder.dag_ids() == {"a.py": ["a2"], "b.py": ["b2"]}
            assert asked == [(str(folder), "a.py"), (str(folder), "b.py")]

    anyio.run(run)


def test_a_folder_over_the_cap_is_a_problem_of_the_folder_and_nothing_is_lost(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("a"))
        async with syncing(tmp_path, max_bytes=10_000) as (recorder, _, _):
            await recorder.until(lambda: "a.py" in recorder.parsed)
            (folder / "big.bin").write_bytes(b"x" * 20_000)
            await recorder.until(lambda: "" in recorder.problems)
            assert "big.bin" in (recorder.problems[""].error or "")
            assert list(recorder.parsed) == ["a.py"]
            (folder / "big.bin").unlink()
            await recorder.until(lambda: recorder.problems == {})

    anyio.run(run)


def test_rescan_finds_what_inotify_did_not_tell(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        async with syncing(tmp_path) as (recorder, sync, _):
            await recorder.until(lambda: ("synced", "") in recorder.told)
            sync._watch.cover(next(iter(sync._folders.values())).listener, {})  # as on a network file system
            (folder / "a.py").write_text(flow("a"))
            sync.rescan()
            await recorder.until(lambda: "a.py" in recorder.parsed)

    anyio.run(run)


def test_a_module_can_have_a_traceback_from_a_helper(tmp_path: Path, folder: Path) -> None:
    async def run() -> None:
        (folder / "a.py").write_text(flow("a", "import helper"))
        (folder / "helper.py").write_text(dedent("print('loading')\n\nraise ValueError('no')\n"))
        async with syncing(tmp_path) as (recorder, _, _):
            await recorder.until(lambda: "a.py" in recorder.problems)
            problem = recorder.problems["a.py"]
            assert problem.error == "helper.py:3: ValueError: no"
            assert problem.line is None
            assert (problem.traceback or "").endswith("It printed:\nloading\n")

    anyio.run(run)
