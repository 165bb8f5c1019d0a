"""`.ticklessignore` as a table."""

from __future__ import annotations

import pytest

from tickless.daemon.ignore import IgnoreRules


@pytest.mark.parametrize(
    ("lines", "path", "is_folder", "excluded"),
    [
        ("", "a.py", False, False),
        ("# a.py", "a.py", False, False),
        ("a.py", "a.py", False, True),
        ("a.py", "x/y/a.py", False, True),
        ("a.py", "xa.py", False, False),
        ("/a.py", "a.py", False, True),
        ("/a.py", "x/a.py", False, False),
        ("x/a.py", "x/a.py", False, True),
        ("x/a.py", "y/x/a.py", False, False),
        ("*.log", "x/a.log", False, True),
        ("x*z", "x/z", False, False),
        ("?.py", "a.py", False, True),
        ("?.py", "ab.py", False, False),
        ("[a-c].py", "b.py", False, True),
        ("[!a-c].py", "b.py", False, False),
        ("[!a-c].py", "d.py", False, True),
        ("[z-a].py", "[z-a].py", False, True),
        ("data/", "data", True, True),
        ("data/", "data", False, False),
        ("data/", "x/data", True, True),
        ("a/**/z", "a/z", False, True),
        ("a/**/z", "a/b/c/z", False, True),
        ("**/z", "a/b/z", False, True),
        ("a/**", "a/b/c", False, True),
        ("*.log\n!keep.log", "x/keep.log", False, False),
        ("!keep.log\n*.log", "x/keep.log", False, True),
        ("a+b.py", "a+b.py", False, True),
        ("a.py", "axpy", False, False),
        ("!.git", ".git", True, True),
        ("", "x/__pycache__", True, True),
        ("", ".a.py.swp", False, True),
        ("", "..data", True, True),
        ("", ".env", False, False),
    ],
)
def test_excludes(lines: str, path: str, is_folder: bool, excluded: bool) -> None:
    assert IgnoreRules(lines.splitlines()).excludes(path, is_folder=is_folder) is excluded
