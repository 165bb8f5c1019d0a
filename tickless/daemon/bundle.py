"""Bundles: settled snapshots of DAG folders, stored by content at HOME/bundles/<first 16 digits of their SHA-256>.

A run is pinned to the bundle of its DAG version, so what is in a bundle never changes. A snapshot is taken in three
steps: hash the folder; copy it, hashing what is copied; look at the folder again. Unless all three agree somebody was
still writing, and `NotSettled` asks to come back later. The copy appears under its final name by one rename, so a
bundle that has its name is whole; the first time that a process meets one from before, it checks it anyway, because a
power loss can leave empty files behind a finished rename.

Hashes are remembered by (size, mtime, ctime, inode), so a change of one file costs one file's reading and a stat of
the others. ctime, because rsync and friends put mtimes back. A file that was changed less than two seconds before it
was hashed is not remembered: it could be changed again within one grain of the file system's clock.

Everything here blocks; the daemon calls it in a worker thread. One thread at a time.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tickless.clock import Clock
from tickless.daemon.ignore import IGNORE_FILE, IgnoreRules
from tickless.errors import NotFound, TicklessError, Unavailable, UserError

MAX_BUNDLE_BYTES = 64 * 1024 * 1024
_MAX_ENTRIES = 100_000
_RACY_SECONDS = 2.0
_CHUNK = 1024 * 1024


class NotSettled(TicklessError):
    """The folder changed while it was read; try again when it has been quiet for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One stored snapshot."""

    path: Path
    files: Mapping[str, str]
    """Path relative to the folder -> SHA-256 of its content and its executable bit, sorted by path."""
    warnings: tuple[str, ...] = ()
    """What was left out against expectation: links that lead out of the folder, sockets …"""

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class _Found:
    """A file of the folder: where its bytes are, and its identity when it was looked at."""

    source: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    is_executable: bool


class BundleStore:
    """Takes snapshots of folders into one home."""

    def __init__(self, home: Path, clock: Clock, *, max_bytes: int = MAX_BUNDLE_BYTES) -> None:
        self.folder = home / "bundles"
        self._home = os.path.realpath(home)
        self._clock = clock
        self._max_bytes = max_bytes
        self._hashes: dict[Path, dict[str, tuple[_Found, str]]] = {}
        self._checked: set[str] = set()
        self._mentions_dag: dict[str, bool] = {}

    def snapshot(self, folder: Path) -> Bundle:
        """Store the folder as it is now.

        Raises NotFound when there is no such folder, NotSettled when it is being changed, UserError when it is too
        large or unreadable, Unavailable when the bundle cannot be written.
        """
        found, warnings = _scan(folder, self._home)
        _check_size(folder, found, self._max_bytes)
        try:
            files = self._hash_all(folder, found)
        except FileNotFoundError as error:
            raise NotSettled(f"{error.filename} vanished while it was read") from None
        except OSError as error:
            raise UserError(f"DAG folder {folder}: cannot read {error.filename}: {error.strerror}") from error
        path = self.folder / _name(files)
        try:
            if not self._is_whole(path, files):
                self._store(path, found, files)
        except FileNotFoundError as error:
            raise NotSettled(f"{error.filename} vanished while it was copied") from None
        except OSError as error:
            raise Unavailable(f"cannot store the bundle {path}: {error}") from error
        if _scan(folder, self._home)[0] != found:
            raise NotSettled(f"{folder} changed while it was copied")
        return Bundle(path=path, files=files, warnings=tuple(warnings))

    def dag_files(self, bundle: Bundle) -> list[str]:
        """The files worth importing: Python files that mention both "tickless" and "dag", as Airflow's safe mode does.

        Importing runs a file, so scripts and helpers that happen to lie in the folder are left alone.
        """
        found = []
        for name, digest in bundle.files.items():
            if name.endswith(".py"):
                if digest not in self._mentions_dag:
                    content = (bundle.path / name).read_bytes().lower()
                    self._mentions_dag[digest] = b"tickless" in content and b"dag" in content
                if self._mentions_dag[digest]:
                    found.append(name)
        return found

    def remove(self, name: str) -> None:
        """Delete a stored bundle that nothing refers to any more; removing one that is gone is fine."""
        self._checked.discard(name)
        _delete(self.folder / name)

    def folders(self, folder: Path) -> list[str]:
        """The real paths of the folder and of every folder whose files can be in its bundle, parents first."""
        return list(_folders(folder, self._home))

    def _hash_all(self, folder: Path, found: Mapping[str, _Found]) -> dict[str, str]:
        known = self._hashes.pop(folder, {})
        kept = self._hashes[folder] = {}
        files = {}
        for name, file in found.items():
            if name in known and known[name][0] == file:
                kept[name] = known[name]
                files[name] = known[name][1]
                continue
            started_at = self._clock.now().timestamp()
            with open(file.source, "rb") as stream:
                files[name] = _mark(hashlib.file_digest(stream, "sha256").hexdigest(), file.is_executable)
            if file.ctime_ns / 1e9 < started_at - _RACY_SECONDS:
                kept[name] = (file, files[name])
        return files

    def _store(self, path: Path, found: Mapping[str, _Found], files: Mapping[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".draft-{secrets.token_hex(8)}"
        try:
            draft.mkdir()
            for name, file in found.items():
                target = draft / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if _mark(_copy(file.source, target), file.is_executable) != files[name]:
                    raise NotSettled(f"{file.source} changed while it was copied")
                target.chmod(0o555 if file.is_executable else 0o444)
            for folder, _, _ in os.walk(draft, topdown=False):
                os.chmod(folder, 0o555)
            _delete(path)  # one that was found broken
            os.rename(draft, path)
        except BaseException:
            _delete(draft)
            raise
        self._checked.add(path.name)

    def _is_whole(self, path: Path, files: Mapping[str, str]) -> bool:
        """Whether the bundle is stored already; read once per process."""
        if path.name in self._checked:
            return path.is_dir()
        if not path.is_dir():
            return False
        for name, digest in files.items():
            try:
                with open(path / name, "rb") as stream:
                    is_executable = bool(os.fstat(stream.fileno()).st_mode & stat.S_IXUSR)
                    if _mark(hashlib.file_digest(stream, "sha256").hexdigest(), is_executable) != digest:
                        return False
            except OSError:
                return False
        self._checked.add(path.name)
        return True


def _folders(folder: Path, home: str) -> Iterator[str]:
    rules = _rules(folder)
    root = os.path.realpath(folder)
    todo = [("", root)]
    seen = set()
    while todo:
        inside, real = todo.pop()
        if real in seen:
            continue
        seen.add(real)
        yield real
        try:
            with os.scandir(real) as entries:
                for entry in entries:
                    path = f"{inside}/{entry.name}" if inside else entry.name
                    if not entry.is_dir() or rules.excludes(path, is_folder=True):
                        continue
                    target = os.path.realpath(entry.path)
                    if target != home and _is_inside(target, root):
                        todo.append((path, target))
        except OSError:
            continue  # it has gone, or may not be read: the snapshot says so


def _scan(folder: Path, home: str) -> tuple[dict[str, _Found], list[str]]:
    """Every file that belongs into the bundle, by relative path, sorted; and warnings."""
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise NotFound(f"DAG folder {folder} does not exist")
    if root == home:
        raise UserError(f"DAG folder {folder} is the home of this installation", hint="Use a folder of its own.")
    rules = _rules(folder)
    found: dict[str, _Found] = {}
    warnings: list[str] = []
    looked_at = 0
    todo: list[tuple[str, str, tuple[str, ...]]] = [("", root, (root,))]
    while todo:
        inside, real, above = todo.pop()
        try:
            entries = sorted(os.scandir(real), key=lambda entry: entry.name)
        except FileNotFoundError:
            raise NotSettled(f"{real} vanished while it was read") from None
        except OSError as error:
            raise UserError(f"DAG folder {folder}: cannot read {real}: {error.strerror}") from error
        looked_at += len(entries)
        if looked_at > _MAX_ENTRIES:
            raise UserError(
                f"DAG folder {folder} holds over {_MAX_ENTRIES} files", hint=f"List some in {folder / IGNORE_FILE}."
            )
        for entry in entries:
            path = f"{inside}/{entry.name}" if inside else entry.name
            try:
                status = entry.stat()
            except FileNotFoundError:
                if entry.is_symlink() and not rules.excludes(path, is_folder=False):
                    warnings.append(f"{path} is left out: a link to nothing")
                continue
            except OSError as error:  # a loop of links
                warnings.append(f"{path!r} is left out: {error.strerror}")
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            if rules.excludes(path, is_folder=is_folder):
                continue
            if not path.isprintable():  # half of a surrogate pair stands for a byte that is not UTF-8
                warnings.append(f"{path!r} is left out: its name is not printable UTF-8")
                continue
            target = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            if target == home:
                continue
            if not _is_inside(target, root):
                warnings.append(f"{path} is left out: a link that leads out of the folder, to {target}")
            elif is_folder and target in above:
                warnings.append(f"{path} is left out: a link to a folder that it is in")
            elif is_folder:
                todo.append((path, target, (*above, target)))
            elif stat.S_ISREG(status.st_mode):
                is_executable = bool(status.st_mode & stat.S_IXUSR)
                found[path] = _Found(
                    target, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, is_executable
                )
            else:
                warnings.append(f"{path} is left out: not a file")
    return dict(sorted(found.items())), warnings


def _rules(folder: Path) -> IgnoreRules:
    try:
        return IgnoreRules((folder / IGNORE_FILE).read_text(encoding="utf-8", errors="replace").splitlines())
    except FileNotFoundError:
        return IgnoreRules()
    except OSError as error:
        raise UserError(f"cannot read {folder / IGNORE_FILE}: {error.strerror}") from error


def _check_size(folder: Path, found: Mapping[str, _Found], limit: int) -> None:
    total = sum(file.size for file in found.values())
    if total > limit:
        biggest = sorted(found, key=lambda name: -found[name].size)[:5]
        raise UserError(
            f"DAG folder {folder} holds {_mebi(total)}, over the limit of {_mebi(limit)}; the biggest files: "
            + ", ".join(f"{name} ({_mebi(found[name].size)})" for name in biggest),
            hint=f"Keep data elsewhere, or list it in {folder / IGNORE_FILE}.",
        )


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _name(files: Mapping[str, str]) -> str:
    whole = hashlib.sha256()
    for name, digest in files.items():
        whole.update(f"{name}\0{digest}\0".encode())
    return whole.hexdigest()[:16]


def _mark(digest: str, is_executable: bool) -> str:
    return f"{digest}+x" if is_executable else digest


def _copy(source: str, target: Path) -> str:
    """Copy one file; the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "xb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()


def _delete(path: Path) -> None:
    """Remove a tree whose folders may be read-only."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o755)
    shutil.rmtree(path, ignore_errors=True)


def _mebi(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"
