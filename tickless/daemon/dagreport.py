"""What DagSync has to tell, to whom, and which file a dag_id belongs to.

A dag_id belongs to one file. The file that has it keeps it, as long as it defines it or is broken; a second file that
defines it is refused as a whole, with an error that names both, and gets its turn when the first lets go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio

from tickless.errors import TicklessError
from tickless.model.parse import ParsedDag, ParseProblem, ParseResult
from tickless.store.base import ImportProblem

Key = tuple[str, str]
"""(folder, file)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """A file that was parsed; all that its DAGs are to be from now on. `dags` may be empty."""

    folder: str
    file: str
    bundle: Path
    dags: tuple[ParsedDag, ...]
    warnings: tuple[str, ...]


class DagSink(Protocol):
    """Who is told. Calls come one at a time; an exception ends the service."""

    async def on_parsed(self, parsed: ParsedFile) -> None:
        """The file is well (again), with these DAGs, changed or not: compare their hashes. Clears its ImportProblem."""
        ...

    async def on_error(self, problem: ImportProblem) -> None:
        """The file cannot be used; its last good version stays. `file` "" is the folder itself; `error` None clears."""
        ...

    async def on_removed(self, folder: str, file: str) -> None:
        """The file is gone. A DAG that has moved to another file was reported by that one before."""
        ...

    async def on_synced(self, folder: str, files: tuple[str, ...], warnings: tuple[str, ...]) -> None:
        """Everything is reported; these are the folder's DAG files. What the store knows of others is out of date."""
        ...


class DagReporter:
    """Hands results to the sink, once each dag_id in them is its file's own."""

    def __init__(self, sink: DagSink, owners: Mapping[str, Key], is_parsing: Callable[[Key], bool]) -> None:
        """`is_parsing`: whether a newer result of this file is on its way, so that it may still let go of an id."""
        self._sink = sink
        self._owners = dict(owners)
        self._is_parsing = is_parsing
        self._results: dict[Key, tuple[Path, ParseResult]] = {}
        self._waiting: dict[Key, bool] = {}
        """Files that were parsed and not reported as such -> whether their conflict was."""
        self._lock = anyio.Lock()

    async def report(self, key: Key, bundle: Path, result: ParseResult) -> None:
        """A file was parsed, or could not be."""
        async with self._lock:
            self._waiting.pop(key, None)
            if result.problem is not None:
                await self._sink.on_error(_import_problem(key, result.problem))
            else:
                self._release(key, keep={dag.spec.dag_id for dag in result.dags})
                self._results[key] = (bundle, result)
                self._waiting[key] = False
            await self._settle()

    def recall(self, key: Key, result: ParseResult) -> None:
        """The sink knows this result already."""
        for dag in result.dags:
            self._owners.setdefault(dag.spec.dag_id, key)

    def let_go(self, key: Key) -> None:
        """The file is gone: its ids are free, although that is not reported yet."""
        self._release(key, keep=set())
        self._results.pop(key, None)
        self._waiting.pop(key, None)

    def keep_owners(self, exists: Callable[[Key], bool]) -> None:
        """Forget owners, known from before, whose file is not there."""
        self._owners = {dag_id: key for dag_id, key in self._owners.items() if exists(key)}

    async def report_synced(
        self, folder: str, removed: list[str], files: tuple[str, ...], warnings: tuple[str, ...]
    ) -> None:
        """Nothing of the folder is being parsed any more."""
        async with self._lock:
            await self._settle()
            for file in removed:
                await self._sink.on_removed(folder, file)
            await self._sink.on_synced(folder, files, warnings)

    async def report_folder(self, folder: str, error: TicklessError | None) -> None:
        """The folder itself cannot be read, or can be again."""
        text = None if error is None else _with_hint(error.message, error.hint)
        async with self._lock:
            await self._sink.on_error(ImportProblem(folder=folder, file="", error=text))

    def _release(self, key: Key, *, keep: set[str]) -> None:
        for dag_id in [dag_id for dag_id, owner in self._owners.items() if owner == key and dag_id not in keep]:
            del self._owners[dag_id]

    async def _settle(self) -> None:
        """Report whoever waits and may have all its ids; report the conflicts of the others once they are certain."""
        for key in sorted(self._waiting):
            if key not in self._waiting:
                continue  # let go meanwhile
            bundle, result = self._results[key]
            taken = next((dag for dag in result.dags if self._owners.get(dag.spec.dag_id, key) != key), None)
            if taken is None:
                self._owners |= {dag.spec.dag_id: key for dag in result.dags}
                del self._waiting[key]
                await self._sink.on_parsed(
                    ParsedFile(folder=key[0], file=key[1], bundle=bundle, dags=result.dags, warnings=result.warnings)
                )
            elif not self._waiting[key] and not self._is_parsing(self._owners[taken.spec.dag_id]):
                self._waiting[key] = True
                await self._sink.on_error(self._conflict(key, taken))

    def _conflict(self, key: Key, dag: ParsedDag) -> ImportProblem:
        owner = self._owners[dag.spec.dag_id]
        _, result = self._results.get(owner, (None, None))
        line = next((d.spec.lineno for d in result.dags if d.spec.dag_id == dag.spec.dag_id), None) if result else None
        first = owner[1] if owner[0] == key[0] else f"{owner[0]}/{owner[1]}"
        return ImportProblem(
            folder=key[0],
            file=key[1],
            error=f"DAG {dag.spec.dag_id!r} is defined in {first}{f':{line}' if line else ''} already, "
            f"so nothing of {key[1]} is used. Give one of them another dag_id.",
            line=dag.spec.lineno,
        )


def _import_problem(key: Key, problem: ParseProblem) -> ImportProblem:
    """As the store keeps it: one text, and a line only when it is one of the file itself."""
    folder, file = key
    is_here = problem.file == file
    error = problem.message if is_here else f"{problem.file}:{problem.line}: {problem.message}"
    traceback = problem.traceback
    if problem.output is not None:
        traceback = f"{traceback or ''}\nIt printed:\n{problem.output}"
    return ImportProblem(
        folder=folder,
        file=file,
        error=_with_hint(error, problem.hint),
        traceback=traceback,
        line=problem.line if is_here else None,
    )


def _with_hint(message: str, hint: str | None) -> str:
    """As one text of whole sentences."""
    if hint is None:
        return message
    return f"{message}{'' if message.endswith(('.', '!', '?', ':')) else '.'} {hint}"
