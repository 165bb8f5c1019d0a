"""Plants one sabotage at a time into a copy of the checkout and sees whether the named tests turn red.

The copy holds what git tracks and what it would (the working tree, no .git, no .venv), and the tests import it, not
the checkout: that is verified. Nothing outside the copy is changed. See README.md in this folder.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tests.planted

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 180.0
RED, GREEN_EXIT, RED_EXIT = "red", 0, 1


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    """One planted bug."""

    name: str
    """In words, as the bug would be told: `slot_freed_at_stop`."""
    file: str
    """Relative to the root of the repository."""
    old: str
    """Source text that occurs exactly once in the file."""
    new: str
    tests: tuple[str, ...]
    """pytest node ids, or the beginnings of some; each must turn red."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one sabotage came to; `verdict` is `red` when every named test failed."""

    sabotage: Sabotage
    verdict: str
    seconds: float
    output: str = ""


def all_sabotages() -> list[Sabotage]:
    """The `SABOTAGES` of every module in this package."""
    found: list[Sabotage] = []
    for module in pkgutil.iter_modules(tests.planted.__path__, "tests.planted."):
        if not module.name.endswith("__main__"):
            found += getattr(importlib.import_module(module.name), "SABOTAGES", [])
    names = [sabotage.name for sabotage in found]
    assert len(set(names)) == len(names), f"two sabotages have one name: {sorted(names)}"
    return sorted(found, key=lambda sabotage: sabotage.name)


def copy_checkout(target: Path) -> Path:
    """What git tracks, and new files that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_symlink() or not source.is_file():  # deleted in the working tree, or a link to a folder
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)
    return target


def run_pytest(copy: Path, node_ids: Sequence[str]) -> tuple[int, str]:
    """Exit code and output; the code is -1 when it hung."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-rfE", "--hypothesis-seed=0", *node_ids]
    try:
        done = subprocess.run(
            command, cwd=copy, env=_environment(copy), capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return -1, f"still running after {TIMEOUT_SECONDS:.0f} s"
    return done.returncode, done.stdout + done.stderr


def verify_import(copy: Path) -> None:
    """Make sure that what is tested is the copy."""
    code = "import tickless.core.engine, tests.planted.runner; print(tickless.core.engine.__file__)"
    command = [sys.executable, "-c", code]
    where = subprocess.run(command, cwd=copy, env=_environment(copy), check=True, capture_output=True, text=True)
    assert Path(where.stdout.strip()).is_relative_to(copy), f"the tests would import {where.stdout}, not the copy"


def try_one(copy: Path, sabotage: Sabotage) -> Result:
    """Plant it, run its tests, take it out again."""
    started = time.monotonic()

    def result(verdict: str, output: str = "") -> Result:
        return Result(sabotage=sabotage, verdict=verdict, seconds=time.monotonic() - started, output=output)

    target = copy / sabotage.file
    original = target.read_text()
    if original.count(sabotage.old) != 1:
        return result(f"its old text occurs {original.count(sabotage.old)} times in {sabotage.file}")
    target.write_text(original.replace(sabotage.old, sabotage.new))
    try:
        code, output = run_pytest(copy, _files_first(sabotage.tests))
    finally:
        target.write_text(original)
    if code == GREEN_EXIT:
        return result("NOT NOTICED", output)
    if code != RED_EXIT:
        return result(f"pytest exits {code}", output)
    failed = [line.split()[1] for line in output.splitlines() if line.startswith("FAILED ")]
    silent = [test for test in sabotage.tests if not any(name.startswith(test) for name in failed)]
    return result(RED if not silent else f"NOT NOTICED by {', '.join(silent)}", output)


@contextmanager
def copies(count: int):  # type: ignore[no-untyped-def]  # a generator of a queue of paths, used once
    """So many copies of the checkout, as a queue to borrow them from."""
    with tempfile.TemporaryDirectory(prefix="tickless-planted-") as folder:
        free: queue.Queue[Path] = queue.Queue()
        for number in range(count):
            free.put(copy_checkout(Path(folder) / str(number)))
        yield free


def main(names: Sequence[str]) -> int:
    """Exit 0 when every sabotage turns its tests red, 1 when one goes unnoticed, 2 when there is no such name."""
    sabotages = [each for each in all_sabotages() if not names or each.name in names]
    unknown = set(names) - {each.name for each in sabotages}
    if unknown:
        print(f"there is no sabotage {', '.join(sorted(unknown))}; there are:", file=sys.stderr)
        print("\n".join(f"  {each.name}" for each in all_sabotages()), file=sys.stderr)
        return 2
    with copies(min(os.cpu_count() or 1, len(sabotages), 2)) as free:
        first = free.queue[0]
        verify_import(first)
        node_ids = sorted({test for sabotage in sabotages for test in sabotage.tests})
        code, output = run_pytest(first, _files_first(node_ids))
        if code != GREEN_EXIT:
            print(output)
            print("the tests are not green to begin with")
            return 1

        def borrow(sabotage: Sabotage) -> Result:
            copy = free.get()
            try:
                return try_one(copy, sabotage)
            finally:
                free.put(copy)

        with ThreadPoolExecutor(free.qsize()) as pool:
            results = []
            for result in pool.map(borrow, sabotages):
                print(f"{result.sabotage.name:<42} {result.seconds:5.1f} s  {result.verdict}", flush=True)
                results.append(result)
    unnoticed = [result for result in results if result.verdict != RED]
    for result in unnoticed:
        print(f"\n---- {result.sabotage.name}: {result.verdict}\n{result.output[-3_000:]}")
    print(f"\n{len(results) - len(unnoticed)} of {len(results)} sabotages turn their tests red")
    return 1 if unnoticed else 0


def _environment(copy: Path) -> dict[str, str]:
    # No bytecode: a sabotage may leave size and mtime of a file as they were.
    return {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "TICKLESS_PLANTED": "1"}


def _files_first(node_ids: Sequence[str]) -> list[str]:
    """Without node ids whose whole file is named as well: pytest would run them twice."""
    files = {each for each in node_ids if "::" not in each}
    return [each for each in node_ids if "::" not in each or each.partition("::")[0] not in files]
