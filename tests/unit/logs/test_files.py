"""Task logs: what may be opened, and how a growing one is followed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from tickless.errors import NotFound, UserError
from tickless.logs.files import LogFiles, open_beneath

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logs" / "etl").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    return tmp_path / "logs"


@pytest.mark.parametrize(
    "path", ["../secret", "etl/../../secret", "/etc/passwd", "", "etl//x", "./x", "etl/..", "x\0y"]
)
def test_only_plain_names_beneath_the_folder_are_opened(folder: Path, path: str) -> None:
    with pytest.raises(UserError):
        open_beneath(folder, path)


def test_links_pipes_and_folders_are_refused(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "linked").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe")
    for path in ("link", "linked/secret", "pipe", "etl"):
        with pytest.raises(UserError):
            open_beneath(folder, path)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_logs_are_deleted_with_the_folder_of_their_run_and_nothing_outside_ever(folder: Path) -> None:
    (folder / "etl" / "1").mkdir()
    (folder / "etl" / "2").mkdir()
    for name in ("1/a.log", "1/b.log", "2/c.log", "2/kept"):
        (folder / "etl" / name).write_text("said")
    (folder / "etl" / "link").symlink_to(folder.parent)
    (folder / "etl" / "2" / "d.log").symlink_to(folder.parent / "secret")
    logs = LogFiles(folder)
    paths = ["etl/1/a.log", "etl/1/b.log", "etl/2/c.log", "etl/2/d.log", "etl/2/never.log", "nobody/1/a.log"]
    assert await logs.remove(paths) == []
    assert names_in(folder) == ["etl", "etl/2", "etl/2/kept", "etl/link"]
    bad = ["../secret", "etl/link/secret", "/etc/passwd", "etl"]
    problems = await logs.remove(bad)
    assert len(problems) == len(bad) and all(path in problem for path, problem in zip(bad, problems, strict=True))
    assert (folder.parent / "secret").read_text() == "secret"


async def test_a_log_is_read_whole_and_from_an_offset(folder: Path) -> None:
    content = os.urandom(300_000)
    (folder / "etl" / "a.log").write_bytes(content)
    logs = LogFiles(folder)
    assert b"".join([chunk async for chunk in logs.read("etl/a.log")]) == content
    assert b"".join([chunk async for chunk in logs.read("etl/a.log", offset=299_000)]) == content[299_000:]
    assert [chunk async for chunk in logs.read("etl/a.log", offset=10**9)] == []
    assert await logs.size("etl/a.log") == 300_000


async def test_a_log_that_is_not_there(folder: Path) -> None:
    logs = LogFiles(folder)
    assert await logs.size("etl/b.log") is None
    assert await LogFiles(folder / "nowhere").size("etl/b.log") is None
    with pytest.raises(NotFound):
        [chunk async for chunk in logs.read("etl/b.log")]


class Following:
    """A follower in a task, what it has read, and the end of its attempt."""

    def __init__(self, logs: LogFiles, path: str, offset: int = 0) -> None:
        self.wake = asyncio.Event()
        self.has_ended = False
        self.looks = 0
        self.read = b""
        self.has_read = anyio.Event()
        self._stream = logs.follow(path, offset=offset, wake=self.wake, is_ended=self.is_ended)

    async def is_ended(self) -> bool:
        self.looks += 1
        return self.has_ended

    async def run(self) -> None:
        async for chunk in self._stream:
            self.read += chunk
            self.has_read.set()
            self.has_read = anyio.Event()

    def end(self) -> None:
        self.has_ended = True
        self.wake.set()

    async def until(self, content: bytes) -> None:
        with anyio.fail_after(10):
            while self.read != content:
                await self.has_read.wait()


async def test_a_log_is_followed_through_the_creation_of_its_folders(folder: Path) -> None:
    it = Following(LogFiles(folder), "fan/1/a/1.log")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.run)
        await anyio.wait_all_tasks_blocked()
        path = folder / "fan" / "1" / "a" / "1.log"
        for parent in reversed(path.parents[:3]):
            parent.mkdir()
            await anyio.sleep(0.01)
        with path.open("ab", buffering=0) as log:
            log.write(b"one ")
            await it.until(b"one ")
            log.write(b"two ")
            await it.until(b"one two ")
            log.write(b"three")
        it.end()
    assert it.read == b"one two three"


async def test_what_is_written_before_the_end_is_read_even_if_both_come_at_once(folder: Path) -> None:
    for _ in range(50):
        path = folder / "etl" / "x.log"
        path.write_bytes(b"")
        it = Following(LogFiles(folder), "etl/x.log")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.run)
            await anyio.lowlevel.checkpoint()
            path.write_bytes(b"last words")
            it.end()
        assert it.read == b"last words"


async def test_an_attempt_that_ended_without_writing_ends_the_stream(folder: Path) -> None:
    it = Following(LogFiles(folder), "etl/none.log")
    it.has_ended = True
    with anyio.fail_after(5):
        await it.run()
    assert it.read == b""


async def test_a_follower_sleeps_while_nothing_happens_and_leaves_no_descriptor(folder: Path) -> None:
    (folder / "etl" / "a.log").write_bytes(b"x")
    before = set(os.listdir("/proc/self/fd"))
    it = Following(LogFiles(folder), "etl/a.log")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.run)
        await it.until(b"x")
        looks = it.looks
        await anyio.sleep(0.3)
        assert it.looks == looks
        tasks.cancel_scope.cancel()
    assert set(os.listdir("/proc/self/fd")) == before
