"""`.ticklessignore`: which files of a DAG folder stay out of its bundle. A subset of .gitignore, one file at the top.

    # a comment          blank lines and lines with # are skipped
    *.log                a pattern without a slash matches a name at any depth
    data/raw/            a slash at the end: folders only, with everything in them
    /notes.txt           a slash at the start or in the middle: relative to the DAG folder
    reports/**/*.pdf     ** stands for any number of folders
    !keep.log            brings back what an earlier line took out (not from inside a folder that is out)

`*` and `?` do not match a slash, `[abc]` is a set of characters; the last line that matches decides. Escapes with a
backslash and files in subfolders are not supported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatch

IGNORE_FILE = ".ticklessignore"

_NEVER = {
    IGNORE_FILE, ".git", ".hg", ".svn", "__pycache__", ".venv", ".tox", ".nox", ".mypy_cache", ".ruff_cache",
    ".pytest_cache", ".ipynb_checkpoints", ".idea", ".vscode", ".DS_Store", "node_modules",
}  # fmt: skip
_NEVER_LIKE = ("*.pyc", "*.pyo", ".*.sw[a-p]", ".*.swpx", "*~", ".#*", "#*#", "..*", ".nfs*", ".goutputstream-*")
"""Bytecode, editors' swap and lock files, and `..data`, behind which Kubernetes keeps the real files of a volume."""


def is_never_bundled(name: str) -> bool:
    """Whether a file or folder of this name is left out whatever `.ticklessignore` says."""
    return name in _NEVER or any(fnmatch(name, pattern) for pattern in _NEVER_LIKE)


class IgnoreRules:
    """The lines of one `.ticklessignore`."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._rules: list[tuple[re.Pattern[str], bool, bool]] = []
        for line in lines:
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            is_back = pattern.startswith("!")
            pattern = pattern.removeprefix("!")
            only_folders = pattern.endswith("/")
            pattern = pattern.rstrip("/")
            if pattern:
                self._rules.append((_to_regex(pattern), only_folders, is_back))

    def excludes(self, path: str, *, is_folder: bool) -> bool:
        """Whether the file or folder at this path, relative to the DAG folder, stays out."""
        if is_never_bundled(path.rpartition("/")[2]):
            return True
        excluded = False
        for regex, only_folders, is_back in self._rules:
            if (is_folder or not only_folders) and regex.fullmatch(path):
                excluded = not is_back
        return excluded


def _to_regex(pattern: str) -> re.Pattern[str]:
    anchored = "/" in pattern
    regex = "" if anchored else "(?:.*/)?"
    pattern = pattern.removeprefix("/")
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            regex, at = regex + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            regex, at = regex + ".*", at + 2
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            if inside.startswith("!"):
                inside = "^" + inside[1:]
            regex, at = f"{regex}[{inside}]", end + 1
        else:
            regex += {"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at]))
            at += 1
    try:
        return re.compile(regex)
    except re.error:  # a set like [z-a]: taken literally
        return re.compile(re.escape(pattern))
