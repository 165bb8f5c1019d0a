"""Line numbers of the keys in a TOML text. tomllib gives none, and an error without a line is half an error.

Works on text that tomllib has accepted, so it only has to tell keys from values, not to judge them.
"""

from __future__ import annotations

import re

KeyPath = tuple[str, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)+")
_SPACES = re.compile(r"[ \t]*")
# Longest first: a text that opens with three quotes must not be taken for an empty string and a half.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'",
    re.DOTALL,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of each table header and of each key, by full path. Keys inside an inline table are not listed."""
    return _Scanner(text).scan()


def nearest_line(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of the key, or of the innermost listed thing that it is in."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while True:
            self._skip(_BLANK)
            if self.at >= len(self.text):
                return self.lines
            start = self.at
            if self.text[self.at] == "[":
                self.at += 2 if self.text.startswith("[[", self.at) else 1
                table = self._key()
                self._record(table, start)
                self._to_line_end()
            else:
                self._record(table + self._key(), start)
                self.at += 1  # the equals sign
                self._value()

    def _record(self, path: KeyPath, start: int) -> None:
        self.lines.setdefault(path, self.text.count("\n", 0, start) + 1)

    def _key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self._skip(_SPACES)
            if self.text[self.at] in "\"'":
                parts.append(self._take(_STRING)[1:-1])
            else:
                parts.append(self._take(_BARE_KEY))
            self._skip(_SPACES)
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def _value(self) -> None:
        """Move behind the value: to the end of the line on which no bracket is open any more."""
        depth = 0
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in "\"'":
                self._take(_STRING)
                continue
            if char == "#":
                self._to_line_end()
                continue
            if char == "\n" and depth == 0:
                return
            depth += (char in "[{") - (char in "]}")
            self.at += 1

    def _to_line_end(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self.text, self.at):
            self.at = found.end()

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:  # cannot happen in text that tomllib accepted; never loop over it
            self.at = len(self.text)
            return ""
        self.at = found.end()
        return found.group()
