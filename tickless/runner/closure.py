"""What a DAG file depends on inside its bundle: when any of it changes, the file is parsed again and its DAGs get a
new version; when anything else changes, they do not.

Three sources, because a task must never run with an old copy of something that its author has edited:

- everything the import opened or listed: modules, but also a YAML file that a factory reads (an audit hook sees it);
- modules imported inside functions, which only run later: found in the syntax tree, followed transitively;
- files and folders whose names appear in string literals: data files, SQL, scripts of Bash commands. This is a guess.
  It errs on the side of including; a name that is put together at run time is not seen.
"""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_SEPARATORS = re.compile(r"[\s/'\"`=:;,(){}|&<>$]+")


class Recorder:
    """Notes what the import opens, lists and connects to. A process has at most one: audit hooks cannot be removed."""

    def __init__(self, bundle: str) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.connections: list[str] = []
        self.is_active = True
        self._bundle = bundle
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_active:
            return
        if event == "open":
            self._add(self.files, args[0])
        elif event in {"os.listdir", "os.scandir"}:
            # The import system, and importlib.metadata, list every folder of sys.path; that is no dependency.
            lister = sys._getframe(1).f_code.co_filename
            if not lister.startswith("<frozen importlib") and "/importlib/" not in lister:
                self._add(self.folders, "." if args[0] is None else args[0])
        elif event == "socket.connect":
            self.connections.append(_address(args[1]))

    def _add(self, found: set[str], path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            inside = relative(self._bundle, os.fsdecode(path))
            if inside is not None:
                found.add(inside)


def relative(bundle: str, path: str) -> str | None:
    """The path relative to the bundle ("" for the bundle itself), or None when it is outside."""
    full = os.path.abspath(path)
    if full == bundle:
        return ""
    return full[len(bundle) + 1 :] if full.startswith(bundle + os.sep) else None


def closure(bundle: str, file: str, recorder: Recorder) -> tuple[str, ...]:
    """The sorted closure of `file`: files, and folders ending in /. "/" alone is the whole bundle."""
    files = {file, *(found for found in recorder.files if os.path.isfile(os.path.join(bundle, found)))}
    folders = {f"{folder}/" for folder in recorder.folders}
    shelf = _Shelf(bundle)
    roots = ["", os.path.dirname(file)]
    todo = sorted(files)
    while todo:
        source = todo.pop()
        if not source.endswith(".py"):
            continue
        tree = _tree(os.path.join(bundle, source))
        if tree is None:
            continue
        named_files, named_folders = shelf.named_in(tree)
        folders |= named_folders
        new = {*_imported(bundle, source, roots, tree), *named_files} - files
        files |= new
        todo += new
    if "/" in folders:
        return ("/",)
    return tuple(sorted(folders | {found for found in files if not any(found.startswith(f) for f in folders)}))


def digest(bundle: str, entries: Iterable[str]) -> str:
    """SHA-256 over names and contents of everything in a closure."""
    whole = hashlib.sha256()
    for entry in sorted(entries):
        for found in sorted(_files_under(bundle, entry.rstrip("/"))) if entry.endswith("/") else [entry]:
            try:
                with open(os.path.join(bundle, found), "rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").digest()
            except OSError:  # gone, or unreadable: that too is a content
                content = b""
            whole.update(found.encode("utf-8", "surrogateescape") + b"\0" + content + b"\0")
    return whole.hexdigest()


class _Shelf:
    """The bundle's file and folder names, to be recognised in string literals."""

    def __init__(self, bundle: str) -> None:
        self._files: dict[str, list[str]] = {}
        self._folders: dict[str, list[str]] = {}
        for found in _files_under(bundle, ""):
            *parents, name = found.split("/")
            self._files.setdefault(name, []).append(found)
            for depth, parent in enumerate(parents, 1):
                path = "/".join(parents[:depth]) + "/"
                if path not in self._folders.setdefault(parent, []):
                    self._folders[parent].append(path)

    def named_in(self, tree: ast.AST) -> tuple[set[str], set[str]]:
        """Files and folders whose name, or a pattern that fits it, is in a string of the source."""
        files: set[str] = set()
        folders: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for word in {*node.value.split("/"), *_SEPARATORS.split(node.value)}:
                    files.update(self._files.get(word, ()))
                    folders.update(self._folders.get(word, ()))
                    if any(char in word for char in "*?[") and len(word) < 256:
                        for name in fnmatch.filter(self._files, word):
                            files.update(self._files[name])
        return files, folders


def _files_under(bundle: str, folder: str) -> Iterator[str]:
    for where, folders, names in os.walk(os.path.join(bundle, folder) if folder else bundle):
        folders.sort()
        inside = os.path.relpath(where, bundle)
        for name in names:
            yield name if inside == "." else f"{inside}/{name}"


def _tree(path: str) -> ast.AST | None:
    try:
        with open(path, "rb") as stream:
            return ast.parse(stream.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # whoever imports it will say what is wrong with it


def _imported(bundle: str, source: str, roots: list[str], tree: ast.AST) -> Iterator[str]:
    """Files of the bundle that import statements anywhere in the source name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                for root in roots:
                    yield from _module_files(bundle, root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            bases = roots
            if node.level:
                base = os.path.dirname(source)
                for _ in range(node.level - 1):
                    base = os.path.dirname(base)
                bases = [base]
            for base in bases:
                for alias in node.names:
                    yield from _module_files(bundle, base, [*parts, alias.name])


def _module_files(bundle: str, root: str, parts: list[str]) -> Iterator[str]:
    """`a.b.c` -> those of a.py, a/__init__.py, a/b.py, a/b/__init__.py … that exist under the root."""
    path = root
    for part in parts:
        path = f"{path}/{part}" if path else part
        for candidate in (f"{path}.py", f"{path}/__init__.py"):
            if os.path.isfile(os.path.join(bundle, candidate)):
                yield candidate


def _address(value: object) -> str:
    """The address of a socket, for people."""
    match value:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case bytes() | str():
            return repr(os.fsdecode(value))
        case _:
            return repr(value)
