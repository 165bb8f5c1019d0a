"""What the DAG files say now. It tells the engine, and tells each new term again: events that were not committed are
lost with the old one, and a version that is known already changes nothing.
"""

from __future__ import annotations

import anyio
import anyio.abc
import msgspec

from tickless.core.events import DagParsed, DagVanished
from tickless.daemon.dagreport import ParsedFile
from tickless.daemon.scheduler import Scheduler
from tickless.errors import Conflict, Unavailable, UserError
from tickless.store.base import ImportProblem, Store
from tickless.store.reader import Reader
from tickless.telemetry.log import get_log

log = get_log()

Key = tuple[str, str]
"""(folder, file)"""


class Catalogue:
    """The sink of DagSync. `run` writes import errors, which need no decision, to the database."""

    def __init__(self, *, scheduler: Scheduler, store: Store, reader: Reader, folders: int) -> None:
        self._scheduler = scheduler
        self._store = store
        self._reader = reader
        self._dags: dict[str, DagParsed] = {}
        self._dags_of: dict[Key, set[str]] = {}
        self._files: dict[str, tuple[str, ...]] = {}  # folder -> its DAG files, once it has been synced
        self._folders = folders
        self._unsaved: dict[Key, ImportProblem] = {}
        self._has_unsaved = anyio.Event()
        self.problems: dict[Key, ImportProblem] = {}
        """Import errors as they are now; `file` "" is a folder itself."""

    # ---- the sink -------------------------------------------------------------------------------------------------

    async def on_parsed(self, parsed: ParsedFile) -> None:
        key = (parsed.folder, parsed.file)
        self._note(key, None)
        for dag in parsed.dags:
            event = DagParsed(
                spec=dag.spec,
                spec_json=msgspec.json.encode(dag.spec).decode(),
                hash=dag.hash,
                bundle=str(parsed.bundle),
                file=parsed.file,
            )
            self._dags[dag.spec.dag_id] = event
            self._tell(event)
        self._replace(key, {dag.spec.dag_id for dag in parsed.dags})
        for warning in parsed.warnings:
            log.warning("dag.import_warned", file=parsed.file, warning=warning)

    async def on_error(self, problem: ImportProblem) -> None:
        self._note((problem.folder, problem.file), problem if problem.error is not None else None)

    async def on_removed(self, folder: str, file: str) -> None:
        self._note((folder, file), None)
        self._replace((folder, file), set())

    async def on_synced(self, folder: str, files: tuple[str, ...], warnings: tuple[str, ...]) -> None:
        is_first = folder not in self._files
        self._files[folder] = files
        for warning in warnings:
            log.warning("dag.import_warned", file=folder, warning=warning)
        if is_first:
            await self._clear_leftovers(folder)
        self._drop_vanished()

    # ---- telling the engine ---------------------------------------------------------------------------------------

    def tell_all(self) -> None:
        """A new term has begun: tell it everything."""
        for event in self._dags.values():
            self._tell(event)
        self._drop_vanished()
        self._unsaved.update(self.problems)
        self._has_unsaved.set()

    def _tell(self, event: DagParsed | DagVanished) -> None:
        try:
            current = self._scheduler.engine.current
            dag_id = event.spec.dag_id if isinstance(event, DagParsed) else event.dag_id
            before = current.get(dag_id)
            self._scheduler.offer(event)
            after = current.get(dag_id)
        except Unavailable:
            return  # the next term is told everything
        except UserError as refused:
            self._note_refused(event, refused)
            return
        if after is not None and after is not before:
            version = after.version
            log.info("dag.parsed", dag_id=dag_id, version=version.number, tasks=len(after.tasks), file=version.file)
        elif after is None and before is not None:
            log.info("dag.vanished", dag_id=dag_id)

    def _replace(self, key: Key, dag_ids: set[str]) -> None:
        gone = self._dags_of.pop(key, set()) - dag_ids
        if dag_ids:
            self._dags_of[key] = dag_ids
        for dag_id in gone:
            if not any(dag_id in others for others in self._dags_of.values()):  # it has not moved to another file
                self._dags.pop(dag_id, None)
                self._tell(DagVanished(dag_id=dag_id))

    def _drop_vanished(self) -> None:
        """DAGs of which only the database knows.

        One whose file is there but broken keeps its last good version; while a folder cannot be read, all are kept.
        """
        if len(self._files) < self._folders:
            return
        try:
            current = self._scheduler.engine.current
        except Unavailable:
            return
        present = {file for files in self._files.values() for file in files}
        for dag_id, plan in list(current.items()):
            if dag_id not in self._dags and plan.version.file not in present:
                self._tell(DagVanished(dag_id=dag_id))

    # ---- import errors --------------------------------------------------------------------------------------------

    def _note(self, key: Key, problem: ImportProblem | None) -> None:
        if problem is not None:
            self.problems[key] = self._unsaved[key] = problem
            log.warning("dag.import_failed", file=key[1] or key[0], line=problem.line, error=problem.error)
        elif self.problems.pop(key, None) is not None:
            self._unsaved[key] = ImportProblem(folder=key[0], file=key[1], error=None)
        self._has_unsaved.set()

    def _note_refused(self, event: DagParsed | DagVanished, error: UserError) -> None:
        """Postgres does not take this version; the last good one stays, as with any broken file."""
        assert isinstance(event, DagParsed)
        for key, dag_ids in self._dags_of.items():
            if event.spec.dag_id in dag_ids:
                self._note(key, ImportProblem(folder=key[0], file=key[1], error=error.message))

    async def _clear_leftovers(self, folder: str) -> None:
        """Errors of an earlier daemon, of files that are well or gone now."""
        try:
            known = await self._reader.import_errors(limit=1000)
        except Unavailable:
            return
        for row in known:
            key = (row.folder, row.file)
            if key not in self.problems and row.folder == folder:
                self._unsaved[key] = ImportProblem(folder=row.folder, file=row.file, error=None)
        self._has_unsaved.set()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Write import errors as they come and go."""
        task_status.started()
        while True:
            await self._has_unsaved.wait()
            self._has_unsaved = anyio.Event()
            saving, self._unsaved = self._unsaved, {}
            if not saving:
                continue
            try:
                await self._store.set_import_problems(self._scheduler.engine.epoch, list(saving.values()))
            except (Unavailable, Conflict):
                self._unsaved = {**saving, **self._unsaved}  # written when the next term begins
