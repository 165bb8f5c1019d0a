"""Snapshots of real folders: what is in them, when they are refused, and that a stored one never changes."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tickless.clock import SystemClock
from tickless.daemon import bundle as bundle_module
from tickless.daemon.bundle import Bundle, BundleStore, NotSettled
from tickless.errors import NotFound, UserError

OLD = 1_600_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "dags"
    path.mkdir()
    return path


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "home", SystemClock())


class LaterClock(SystemClock):
    """A minute ahead, so that files made just now count as old."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=1)


def put(folder: Path, name: str, content: str = "x", *, mtime: int = OLD) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (mtime, mtime))
    return path


def stored(bundle: Bundle) -> dict[str, str]:
    files = [path for path in sorted(bundle.path.rglob("*")) if path.is_file()]
    return {str(path.relative_to(bundle.path)): path.read_text() for path in files}


def test_a_snapshot_holds_the_files_and_is_read_only(store: BundleStore, folder: Path) -> None:
    put(folder, "a.py", "one")
    put(folder, "lib/b.py", "two")
    put(folder, "run.sh", "three").chmod(0o755)
    bundle = store.snapshot(folder)
    assert stored(bundle) == {"a.py": "one", "lib/b.py": "two", "run.sh": "three"}
    assert list(bundle.files) == ["a.py", "lib/b.py", "run.sh"]
    assert len(bundle.name) == 16
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in [bundle.path, *bundle.path.rglob("*")]}
    assert modes == {bundle.name: 0o555, "a.py": 0o444, "lib": 0o555, "b.py": 0o444, "run.sh": 0o555}
    assert os.listdir(store.folder) == [bundle.name]  # no draft is left


def test_the_name_follows_content_names_and_the_executable_bit_only(store: BundleStore, folder: Path) -> None:
    file = put(folder, "a.py", "one")
    first = store.snapshot(folder)
    os.utime(file, (OLD + 5, OLD + 5))
    assert store.snapshot(folder).path == first.path
    file.chmod(0o755)
    assert store.snapshot(folder).path != first.path
    file.chmod(0o644)
    file.write_text("two")
    second = store.snapshot(folder)
    assert second.path != first.path
    assert stored(first) == {"a.py": "one"}
    file.write_text("one")
    assert store.snapshot(folder).path == first.path


def test_unchanged_files_are_not_read_again(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BundleStore(tmp_path / "home", LaterClock())
    for number in range(20):
        put(folder, f"f{number}.py", str(number))
    store.snapshot(folder)
    read: list[str] = []
    real = hashlib.file_digest

    def noting(stream: Any, algorithm: str) -> Any:
        read.append(os.path.basename(stream.name))
        return real(stream, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", noting)
    put(folder, "f7.py", "x7")
    store.snapshot(folder)
    assert read == ["f7.py"]


def test_a_change_that_hides_its_mtime_is_seen(tmp_path: Path, folder: Path) -> None:
    store = BundleStore(tmp_path / "home", LaterClock())
    file = put(folder, "a.py", "one")
    store.snapshot(folder)
    with file.open("r+") as stream:  # the same inode, size and, after put back, mtime
        stream.write("two")
    os.utime(file, (OLD, OLD))
    assert stored(store.snapshot(folder)) == {"a.py": "two"}


def test_a_fresh_file_is_not_remembered(store: BundleStore, folder: Path) -> None:
    put(folder, "a.py")
    store.snapshot(folder)
    assert store._hashes[folder] == {}


def test_what_editors_git_and_python_leave_is_not_in_it(store: BundleStore, folder: Path) -> None:
    put(folder, "a.py")
    for name in (".git/HEAD", "__pycache__/a.cpython-311.pyc", "a.pyc", ".a.py.swp", "a.py~", ".#a.py", "..data/a.py"):
        put(folder, name)
    assert list(store.snapshot(folder).files) == ["a.py"]


def test_ticklessignore_takes_out_and_brings_back(store: BundleStore, folder: Path) -> None:
    for name in ("a.py", "big/x.bin", "notes.txt", "sub/notes.txt", "sub/a.log", "sub/keep.log", "r/1/2/x.pdf", "logs"):
        put(folder, name)
    put(folder, ".ticklessignore", "# comment\n\nbig/\n/notes.txt\n*.log\n!keep.log\nr/**/*.pdf\nlogs/\n")
    assert list(store.snapshot(folder).files) == ["a.py", "logs", "sub/keep.log", "sub/notes.txt"]


def test_links_inside_are_followed_and_links_outside_refused(store: BundleStore, folder: Path, tmp_path: Path) -> None:
    secret = put(tmp_path, "secret.txt", "password")
    put(folder, "real/a.py", "one")
    (folder / "file.py").symlink_to("real/a.py")
    (folder / "also").symlink_to("real")
    (folder / "out.txt").symlink_to(secret)
    (folder / "dangling").symlink_to("nowhere")
    (folder / "real" / "loop").symlink_to("..")
    bundle = store.snapshot(folder)
    assert stored(bundle) == {"also/a.py": "one", "file.py": "one", "real/a.py": "one"}
    assert not any(path.is_symlink() for path in bundle.path.rglob("*"))
    text = "\n".join(bundle.warnings)
    for words in ("out.txt is left out: a link that leads out", "dangling is left out", "real/loop is left out"):
        assert words in text


def test_sockets_pipes_and_unprintable_names_are_left_out_with_a_warning(store: BundleStore, folder: Path) -> None:
    put(folder, "a.py")
    os.mkfifo(folder / "pipe")
    (folder / os.fsdecode(b"\xff.py")).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        bundle = store.snapshot(folder)
    assert list(bundle.files) == ["a.py"]
    assert len(bundle.warnings) == 3


def test_a_folder_over_the_cap_is_refused_naming_the_biggest_files(tmp_path: Path, folder: Path) -> None:
    store = BundleStore(tmp_path / "home", SystemClock(), max_bytes=3 * 1024 * 1024)
    for size in range(1, 8):
        with put(folder, f"f{size}.bin").open("w") as stream:
            stream.truncate(size * 1024 * 1024)
    with pytest.raises(UserError, match=r"28\.0 MiB, over the limit of 3\.0 MiB.* f7\.bin \(7\.0 MiB\), f6") as caught:
        store.snapshot(folder)
    assert "f2.bin" not in caught.value.message
    assert ".ticklessignore" in (caught.value.hint or "")
    assert not store.folder.exists()


def test_a_home_inside_the_folder_is_left_out(tmp_path: Path, folder: Path) -> None:
    store = BundleStore(folder / ".tickless", SystemClock())
    put(folder, "a.py")
    first = store.snapshot(folder)
    assert list(first.files) == ["a.py"]
    assert store.snapshot(folder).path == first.path
    assert store.folders(folder) == [str(folder)]
    with pytest.raises(UserError, match="is the home"):
        BundleStore(folder, SystemClock()).snapshot(folder)


def test_a_missing_folder_is_not_found(store: BundleStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.snapshot(tmp_path / "nowhere")


@pytest.mark.parametrize("change", ["rewrite", "add", "remove"])
def test_a_change_while_copying_is_not_settled_and_leaves_no_bundle_of_mixed_content(
    store: BundleStore, folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    put(folder, "a.py", "a")
    put(folder, "b.py", "b")
    real: Callable[[str, Path], str] = bundle_module._copy

    def copy_and_meddle(source: str, target: Path) -> str:
        result = real(source, target)
        if source.endswith("a.py"):
            match change:
                case "rewrite":
                    put(folder, "b.py", "c")
                case "add":
                    put(folder, "c.py", "c")
                case "remove":
                    (folder / "b.py").unlink()
        return result

    monkeypatch.setattr(bundle_module, "_copy", copy_and_meddle)
    with pytest.raises(NotSettled):
        store.snapshot(folder)
    contents = [stored(Bundle(path=path, files={})) for path in store.folder.iterdir()]
    assert contents in ([], [{"a.py": "a", "b.py": "b"}])
    monkeypatch.undo()
    assert "a.py" in store.snapshot(folder).files


def test_snapshots_under_fire_are_whole(store: BundleStore, folder: Path) -> None:
    """A writer keeps two files equal at every moment but while it writes; no bundle may hold two that differ for
    longer than its own write: each bundle's content must hash to its name."""
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            for name in ("a.py", "b.py"):
                (folder / f"{name}.new~").write_text(str(number) * 2000)
                os.replace(folder / f"{name}.new~", folder / name)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        bundles = []
        for _ in range(100):
            try:
                bundles.append(store.snapshot(folder))
            except NotSettled:
                continue
    finally:
        done.set()
        writer.join()
    bundles.append(store.snapshot(folder))
    for bundle in bundles:
        fresh = BundleStore(store.folder.parent, SystemClock())
        assert fresh._is_whole(bundle.path, bundle.files)


def test_a_bundle_damaged_before_this_process_is_made_anew(store: BundleStore, folder: Path, tmp_path: Path) -> None:
    put(folder, "a.py", "one")
    bundle = store.snapshot(folder)
    damaged = bundle.path / "a.py"
    damaged.chmod(0o644)
    damaged.write_text("")  # as after a power loss
    assert stored(BundleStore(tmp_path / "home", SystemClock()).snapshot(folder)) == {"a.py": "one"}


def test_a_removed_bundle_comes_back_when_needed(store: BundleStore, folder: Path) -> None:
    put(folder, "lib/a.py")
    bundle = store.snapshot(folder)
    store.remove(bundle.name)
    assert os.listdir(store.folder) == []
    store.remove(bundle.name)
    assert store.snapshot(folder).path.is_dir()


def test_only_files_that_look_like_dag_files_are_imported(store: BundleStore, folder: Path) -> None:
    put(folder, "a.py", "from tickless import DAG")
    put(folder, "helper.py", "import os")
    put(folder, "about.md", "tickless dag")
    put(folder, "sub/b.py", "import TICKLESS # dag")
    assert store.dag_files(store.snapshot(folder)) == ["a.py", "sub/b.py"]


def test_two_thousand_files_cost_a_stat_each(store: BundleStore, folder: Path) -> None:
    for number in range(2000):
        put(folder, f"d{number % 20}/f{number}.py", str(number))
    first = store.snapshot(folder)
    start = time.perf_counter()
    assert store.snapshot(folder).path == first.path
    assert time.perf_counter() - start < 1.0
