"""Pages whose commands are run: a reader who types what the page says, in an empty folder.

- a ```python block whose first line is `# dags/name.py` is written to that file (without the line);
- of a ```console block, each line that begins with `$ ` is typed, and the lines below it must come out;
- `$ tickless dev …` goes on beside the others, and is awaited until it is ready.

What differs from run to run (times, durations, pids, folders) is compared by its form only.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.house import PATIENCE_SECONDS, ROOT, eventually

_BLOCK = re.compile(r"^```(python|console|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FORMS = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?([+]00:00|Z)?"), "TIME"),
    (re.compile(r"(?m)^\d\d:\d\d:\d\d "), "CLOCK "),
    (re.compile(r"\b\d+(\.\d+)? (ms|s)\b"), "TOOK"),
    (re.compile(r"\bpid \d+"), "pid N"),
    (re.compile(r"\bPostgres \S+ started in \S+"), "Postgres started"),
    (re.compile(r'[^\s"(]*/home\b|~/\.tickless'), "HOME"),
    (re.compile(r"HOME/bundles/\w+"), "BUNDLE"),
    (re.compile(r"[ \t]+"), " "),
    # Who waits for a run hears of the tasks that end from then on: the first may be over by then.
    (re.compile(r"(?m)^ \w+: \w+ after TOOK.*\n"), ""),
    (re.compile(r"(?m) $"), ""),
    (re.compile(r"\n\n+"), "\n"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the reader does: writes a file, or types a command and sees its output."""

    line: int
    file: str | None
    text: str
    output: str


def steps(page: Path) -> Iterator[Step]:
    """What a page asks its reader to do, in order."""
    source = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(source):
        line = source.count("\n", 0, found.start()) + 2
        kind, body = found.groups()
        first, _, rest = body.partition("\n")
        if kind != "console":
            if first.startswith("# "):
                yield Step(line, first[2:].strip(), rest, "")
            continue
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield Step(line, None, command, output)


def shape(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, form in _FORMS:
        text = pattern.sub(form, text)
    return text.strip()


class Reader:
    """Somebody who follows a page in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        command = bin_folder / "tickless"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m tickless "$@"\n')
        command.chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKLESS_")}
        self._env = clean | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TICKLESS_HOME": str(folder / "home"),
            "COLUMNS": "120",
        }
        self._dev: subprocess.Popen[bytes] | None = None
        self._log = folder / "dev.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._dev is not None and self._dev.poll() is None:
            self._dev.send_signal(signal.SIGINT)
            self._dev.wait(PATIENCE_SECONDS)

    def follow(self, step: Step) -> str:
        """Do it; what came out."""
        if step.file is not None:
            path = self._folder / step.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text)
            if self._dev is not None and path.suffix == ".py":
                self._until(rf"{re.escape(path.name)}.*|{re.escape(path.stem)}: version", self._size())
            return ""
        if step.text.startswith("tickless dev"):
            with self._log.open("wb") as log:
                self._dev = subprocess.Popen(
                    step.text.split(), cwd=self._folder, env=self._env, stdout=log, stderr=subprocess.STDOUT
                )
            self._until("is ready", 0)
            return self._log.read_text()
        if step.text.startswith("tickless why"):  # of what has begun a moment ago
            with contextlib.suppress(AssertionError):  # the last answer is what is compared
                eventually(lambda: shape(self._type(step)) == shape(step.output) or None, step.text)
        return self._type(step)

    def _type(self, step: Step) -> str:
        done = subprocess.run(
            step.text,
            shell=True,
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        return done.stdout

    def _size(self) -> int:
        return self._log.stat().st_size

    def _until(self, pattern: str, begin: int) -> None:
        eventually(lambda: re.search(pattern, self._log.read_bytes()[begin:].decode()) is not None, pattern)
