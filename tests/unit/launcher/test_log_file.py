from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tickless.launcher.log_file import TAIL_BYTES, last_line, open_log


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "logs").mkdir()
    fd = os.open(tmp_path / "logs", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_folders_are_made_for_us_only_and_writes_append(root: int, tmp_path: Path) -> None:
    for _ in range(2):
        fd = open_log(root, "a/b/c.log")
        os.write(fd, b"x")
        assert os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        os.close(fd)
    assert (tmp_path / "logs/a/b/c.log").read_bytes() == b"xx"
    assert (tmp_path / "logs/a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "logs/a/b/c.log").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../../x", "a//b", "a/.", "a\0b", "a/"])
def test_a_path_that_could_lead_out_is_refused(root: int, path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        open_log(root, path)


def test_links_are_not_followed_anywhere(root: int, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "folder").symlink_to(tmp_path)
    (logs / "file").symlink_to(tmp_path / "target")
    for path in ("folder/x", "file"):
        with pytest.raises(OSError, match=r"."):
            open_log(root, path)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "target").exists()


def test_no_descriptor_is_left_open_by_a_failure(root: int, tmp_path: Path) -> None:
    (tmp_path / "logs/a/b").mkdir(parents=True)
    (tmp_path / "logs/a/b/c").write_text("a file")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"."):
        open_log(root, "a/b/c/d.log")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("content", "start", "expected"),
    [
        (b"", 0, None),
        (b" \n\n\t\n", 0, None),
        (b"one", 0, "one"),
        (b"one\ntwo \n\n", 0, "two"),
        (b"10%\r20%\r", 0, "20%"),
        (b"old\n", 4, None),
        (b"old\nnew", 4, "new"),
        (b"x" * 2 * TAIL_BYTES + b"\nend\n", 0, "end"),
        (b"\xff\0z", 0, "\ufffd\ufffdz"),
    ],
)
def test_last_line(tmp_path: Path, content: bytes, start: int, expected: str | None) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert last_line(file.fileno(), start) == expected


def test_a_last_line_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (TAIL_BYTES + 1))
    with path.open("rb") as file, pytest.raises(ValueError, match="longer than"):
        last_line(file.fileno(), 0)
