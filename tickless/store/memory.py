"""The store in memory: a verified fake for tests, and what the sequential executor runs a DAG on without a database.

It passes the same contract as the Postgres store (tests/contract/test_store.py). Everything is synchronous inside, so
that a state machine under Hypothesis can drive it; the port's methods wrap the `…_now` ones. What a test can ask for
besides: unknown outcomes (`fail_next`), data that Postgres would refuse (`refuse`), a hand UPDATE (the tables are
plain dicts), a picture at any moment (`load_now`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from tickless.core.decision import Write
from tickless.core.snapshot import Snapshot
from tickless.errors import Conflict, Unavailable, Unstorable
from tickless.model.backfill import BackfillKey, BackfillRow, SlotRun
from tickless.model.dag import DEFAULT_POOL
from tickless.model.id import AttemptId, Epoch, RunKey, TaskId, TaskKey, VersionKey
from tickless.model.row import (
    AttemptRow,
    DagRow,
    EventRow,
    InstanceRow,
    MapRow,
    PoolRow,
    RequestDone,
    RunRow,
    VersionRow,
    XComRow,
)
from tickless.model.setting import ConnectionRow, SettingGone, SettingRow, VariableRow
from tickless.model.state import FINISHED_RUN_STATES, FINISHED_TASK_STATES, LIVE_ATTEMPT_STATES, TaskState
from tickless.store.base import (
    XCOM_PAGE,
    CommandRequest,
    ImportProblem,
    PreviousRun,
    PulledXCom,
    QuarantinedEvent,
    TriggerRequest,
)
from tickless.store.batch import Batch, DagPointer
from tickless.store.revised import RevisedTables, counted
from tickless.store.setting import encode_settings, too_much
from tickless.store.storable import make_storable, why_unstorable

RETURN_KEY = "return_value"
MAX_OPEN_REQUESTS = 500
DEFAULT_POOL_SLOTS = 128
SCHEDULED_RUN_TYPES = ("scheduled", "backfill")


class MemoryStore(RevisedTables):
    """See the module's docstring. The tables are public; a test may look, and play the operator who edits them."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = Epoch(0)
        self.owner: str | None = None
        self.versions: dict[VersionKey, VersionRow] = {}
        self.dags: dict[str, DagPointer] = {}
        self.dag_states: dict[str, DagRow] = {}
        self.pools: dict[str, PoolRow] = {DEFAULT_POOL: PoolRow(name=DEFAULT_POOL, slots=DEFAULT_POOL_SLOTS)}
        self.runs: dict[RunKey, RunRow] = {}
        self.instances: dict[TaskKey, InstanceRow] = {}
        self.attempts: dict[AttemptId, AttemptRow] = {}
        self.xcoms: dict[tuple[TaskKey, str], XComRow] = {}
        self.maps: dict[tuple[RunKey, str], MapRow] = {}
        self.backfills: dict[BackfillKey, BackfillRow] = {}
        self.requests: dict[int, TriggerRequest] = {}
        self.commands: dict[int, CommandRequest] = {}
        self.done: dict[tuple[str, int], RequestDone] = {}
        self.events: list[EventRow] = []
        self.import_problems: dict[tuple[str, str], ImportProblem] = {}
        self.quarantined: dict[int, QuarantinedEvent] = {}
        self.variables: dict[str, VariableRow] = {}
        self.connections: dict[str, ConnectionRow] = {}
        self.answered: dict[AttemptId, tuple[int, bool]] = {}
        """The last request of each attempt that has changed a setting, and its answer."""
        self.flushes = 0
        """Flushes that were committed."""
        self.refuse: Callable[[Any], str | None] = lambda row: None
        """Row -> SQLSTATE to refuse it with, besides what is always refused."""
        self.locked: set[tuple[str, int]] = set()
        """Rows of requests, by table and id, that somebody's open transaction holds."""
        self._failures: list[bool] = []

    # ---- knobs ----------------------------------------------------------------------------------------------------

    def fail_next(self, *, commit: bool) -> None:
        """The next write (flush, quarantine, import problems, epoch) raises Unavailable, committed or not."""
        self._failures.append(commit)

    def add_request(
        self,
        dag_id: str,
        *,
        run_id: str | None = None,
        conf: str = "{}",
        logical_date: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """What `tickless.trigger_dag` does in SQL."""
        number = len(self.requests) + 1
        self.requests[number] = TriggerRequest(
            id=number,
            dag_id=dag_id,
            run_id=run_id,
            conf=conf,
            logical_date=logical_date,
            idempotency_key=idempotency_key,
            actor="sql:operator",
        )
        return number

    def request_command(self, kind: str, payload: str = "{}") -> int:
        """What `tickless.pause_dag` and its like do in SQL."""
        number = len(self.commands) + 1
        self.commands[number] = CommandRequest(id=number, kind=kind, payload=payload, actor="sql:operator")
        return number

    # ---- the port, synchronous ------------------------------------------------------------------------------------

    def take_epoch_now(self, owner: str) -> Epoch:
        with_answer = self._begin()
        self.epoch = Epoch(self.epoch + 1)
        self.owner = owner
        self._answer(with_answer)
        return self.epoch

    def flush_now(self, epoch: Epoch, writes: Sequence[Write]) -> None:
        with_answer = self._begin()
        batch = Batch.of(writes)
        self._check_epoch(epoch)
        self._check_storable(batch)
        self._check_guards(batch)
        self._check_unique(batch)
        self._revise(batch)
        self.versions |= batch.versions
        for dag_id, pointer in batch.dags.items():
            old = self.dags.get(dag_id)
            self.dags[dag_id] = replace(pointer, file=pointer.file or (old.file if old else None))
            self.dag_states.setdefault(dag_id, DagRow(dag_id=dag_id))
        self.dag_states |= batch.dag_states
        self.pools |= batch.pools
        self.runs |= batch.new_runs
        self.runs |= {key: run for key, (run, _) in batch.runs.items()}
        self.instances |= batch.new_instances
        self.instances |= {key: instance for key, (instance, _) in batch.instances.items()}
        self.attempts |= batch.new_attempts
        self.attempts |= {key: attempt for key, (attempt, _) in batch.attempts.items()}
        self.xcoms |= batch.xcoms
        self.done |= batch.requests
        self.maps |= batch.maps
        self.backfills |= batch.backfills
        for key in batch.expanded():
            del self.instances[key]
        for progress in batch.progress.values():
            if progress.id in self.commands:
                self.commands[progress.id] = replace(self.commands[progress.id], cursor=progress.cursor)
        self.xcoms = {
            key: row for key, row in self.xcoms.items() if key[0] not in batch.dropped_xcoms or key in batch.xcoms
        }
        self.events += batch.events
        self.flushes += 1
        self._answer(with_answer)

    def load_now(self) -> Snapshot:
        runs = [run for _, run in sorted(self.runs.items()) if run.state not in FINISHED_RUN_STATES]
        keys = {run.key for run in runs}
        current = {dag_id: dag.version for dag_id, dag in sorted(self.dags.items()) if dag.version is not None}
        wanted = {*current.values(), *(run.version for run in runs)}
        last_numbers: dict[str, int] = {}
        for version in self.versions.values():
            last_numbers[version.dag_id] = max(version.number, last_numbers.get(version.dag_id, 0))
        unfinished, finished, past = [], list[InstanceRow](), list[InstanceRow]()
        previous = {run.previous_run for run in runs if run.previous_run in self.runs} - keys
        for key, instance in sorted(self.instances.items()):
            if key.run in previous:
                past.append(instance)
            if key.run not in keys:
                continue
            if instance.state in FINISHED_TASK_STATES:
                finished.append(instance)
            else:
                unfinished.append(instance)
        return Snapshot(
            versions=[version for key, version in sorted(self.versions.items()) if key in wanted],
            current={dag_id: int(version) for dag_id, version in current.items()},
            dags=[dag for _, dag in sorted(self.dag_states.items())],
            last_numbers=last_numbers,
            runs=runs,
            instances=unfinished,
            tallies=counted(finished),
            past_tallies=counted(past),
            maps=[row for key, row in sorted(self.maps.items()) if row.run in keys],
            attempts=[a for _, a in sorted(self.attempts.items()) if a.state in LIVE_ATTEMPT_STATES],
            backfills=[
                row
                for _, row in sorted(self.backfills.items())
                if row.completed_at is None or self._is_ahead(row, self.dag_states[row.dag_id])
            ],
            last_backfill=max((*self.backfills, self.last_backfill)),
            pools=[pool for _, pool in sorted(self.pools.items())],
            last_run=max((*self.runs, self.last_run)),
            last_version=max((*self.versions, self.last_version)),
        )

    def previous_run_now(
        self, run: RunKey, dag_id: str, logical_date: datetime, *, only_scheduled: bool
    ) -> PreviousRun | None:
        before = [
            (row.logical_date, key)
            for key, row in self.runs.items()
            if key < run
            and row.dag_id == dag_id
            and row.logical_date is not None
            and row.logical_date < logical_date
            and (not only_scheduled or row.run_type in SCHEDULED_RUN_TYPES)
        ]
        if not before:
            return None
        _, key = max(before)
        mine = [each for each in self.instances.values() if each.run == key and each.state in FINISHED_TASK_STATES]
        return PreviousRun(key=key, tallies=tuple(counted(mine)))

    def quarantine_now(self, epoch: Epoch, event: QuarantinedEvent) -> int:
        with_answer = self._begin()
        self._check_epoch(epoch)
        number = len(self.quarantined) + 1
        self.quarantined[number] = replace(
            event, event=make_storable(event.event), traceback=make_storable(event.traceback)
        )
        run = self.runs.get(event.run) if event.run is not None else None
        if run is not None:
            self.runs[run.key] = replace(run, frozen=f"internal error, quarantine entry {number}: {event.kind}")
        self._answer(with_answer)
        return number

    def outputs_now(self, run: RunKey, task_ids: Sequence[str]) -> dict[str, str]:
        wanted = [(TaskKey(run, TaskId(task_id)), RETURN_KEY) for task_id in dict.fromkeys(task_ids)]
        return {key[0].task_id: self.xcoms[key].value for key in wanted if key in self.xcoms}

    def pushed_now(self, run: RunKey, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        rows = {pair: self.xcoms.get((TaskKey(run, TaskId(pair[0])), pair[1])) for pair in pairs}
        return {pair: row.value for pair, row in rows.items() if row is not None}

    def open_requests_now(self) -> list[TriggerRequest]:
        handled = {number for table, number in self.done if table == "trigger_request"}
        keys: dict[str | None, RunKey] = {
            row.idempotency_key: row.key for row in self.runs.values() if row.idempotency_key is not None
        }
        names: dict[tuple[str, str | None], RunKey] = {(row.dag_id, row.run_id): row.key for row in self.runs.values()}
        return [
            replace(
                request,
                key_of=keys.get(request.idempotency_key),
                name_of=names.get((request.dag_id, request.run_id)),
                is_locked=("trigger_request", number) in self.locked,
            )
            for number, request in self.requests.items()
            if number not in handled
        ][:MAX_OPEN_REQUESTS]

    def taken_names_now(self, names: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        return {(run.dag_id, run.run_id) for run in self.runs.values()} & set(names)

    def open_commands_now(self) -> list[CommandRequest]:
        handled = {number for table, number in self.done if table == "command"}
        return [
            replace(command, is_locked=("command", number) in self.locked)
            for number, command in self.commands.items()
            if number not in handled
        ][:MAX_OPEN_REQUESTS]

    def slot_runs_now(self, dag_id: str, dates: Collection[datetime], run_ids: Collection[str]) -> list[SlotRun]:
        return [
            SlotRun(key=row.key, run_id=row.run_id, logical_date=row.logical_date, state=row.state.value)
            for _, row in sorted(self.runs.items())
            if row.dag_id == dag_id and (row.logical_date in dates or row.run_id in run_ids)
        ]

    @staticmethod
    def _is_ahead(row: BackfillRow, dag: DagRow) -> bool:
        return dag.last_interval_start is None or min(row.to_at, row.created_at) >= dag.last_interval_start

    def set_import_problems_now(self, epoch: Epoch, problems: Sequence[ImportProblem]) -> None:
        with_answer = self._begin()
        self._check_epoch(epoch)
        for problem in problems:
            key = folder, file = make_storable(problem.folder), make_storable(problem.file)
            if problem.error is None:
                self.import_problems.pop(key, None)
            else:
                self.import_problems[key] = replace(
                    problem,
                    folder=folder,
                    file=file,
                    error=make_storable(problem.error),
                    traceback=make_storable(problem.traceback) if problem.traceback is not None else None,
                )
        self._answer(with_answer)

    def write_settings_now(
        self,
        epoch: Epoch,
        rows: Sequence[SettingRow],
        request: tuple[AttemptId, int] | None = None,
        event: EventRow | None = None,
    ) -> bool:
        with_answer = self._begin()
        self._check_epoch(epoch)
        encode_settings(rows)
        for row in rows:
            if not isinstance(row, SettingGone) and (sqlstate := why_unstorable(row)) is not None:
                raise Unstorable(f"Postgres would refuse {row}", sqlstate=sqlstate)
        if request is not None:
            attempt_id, number = request
            last, told = self.answered.get(attempt_id, (0, False))
            if last >= number:
                self._answer(with_answer)
                return told
        is_touched = False
        for row in rows:
            match row:
                case VariableRow():
                    old = self.variables.get(row.key)
                    kept = row.description if row.description is not None or old is None else old.description
                    self.variables[row.key] = replace(row, description=kept)
                    is_touched = True
                case ConnectionRow():
                    self.connections[row.conn_id] = row
                    is_touched = True
                case SettingGone(table="variable"):
                    is_touched |= self.variables.pop(row.name, None) is not None
                case SettingGone():
                    is_touched |= self.connections.pop(row.name, None) is not None
        if request is not None:
            live = {key for key, attempt in self.attempts.items() if attempt.state in LIVE_ATTEMPT_STATES}
            self.answered = {key: value for key, value in self.answered.items() if key in live}
            self.answered[request[0]] = (request[1], is_touched)
        if event is not None and (is_touched or not rows):
            self.events.append(event)
        self._answer(with_answer)
        return is_touched

    def pull_xcoms_now(
        self,
        run: RunKey,
        key: str,
        task_ids: Sequence[str] | None,
        map_indexes: Sequence[int] | None,
        most_bytes: int,
    ) -> list[PulledXCom]:
        found = [
            PulledXCom(task_id=at.task_id, map_index=at.map_index, value=row.value)
            for (at, name), row in sorted(self.xcoms.items(), key=lambda item: item[0])
            if at.run == run
            and name == key
            and (task_ids is None or at.task_id in task_ids)
            and (map_indexes is None or at.map_index in map_indexes)
        ]
        total = sum(len(each.value.encode()) for each in found)
        if total > most_bytes:
            raise too_much(len(found), total, most_bytes)
        return found

    # ---- the port -------------------------------------------------------------------------------------------------

    async def take_epoch(self, owner: str) -> Epoch:
        return self.take_epoch_now(owner)

    async def load(self) -> Snapshot:
        return self.load_now()

    async def flush(self, epoch: Epoch, writes: Sequence[Write]) -> None:
        self.flush_now(epoch, writes)

    async def quarantine(self, epoch: Epoch, event: QuarantinedEvent) -> int:
        return self.quarantine_now(epoch, event)

    async def outputs(self, run: RunKey, task_ids: Sequence[str]) -> dict[str, str]:
        return self.outputs_now(run, task_ids)

    async def previous_run(
        self, run: RunKey, dag_id: str, logical_date: datetime, *, only_scheduled: bool
    ) -> PreviousRun | None:
        return self.previous_run_now(run, dag_id, logical_date, only_scheduled=only_scheduled)

    async def pushed(self, run: RunKey, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        return self.pushed_now(run, pairs)

    async def open_requests(self) -> list[TriggerRequest]:
        return self.open_requests_now()

    async def taken_names(self, names: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        return self.taken_names_now(names)

    async def slot_runs(self, dag_id: str, dates: Collection[datetime], run_ids: Collection[str]) -> list[SlotRun]:
        return self.slot_runs_now(dag_id, dates, run_ids)

    async def open_commands(self) -> list[CommandRequest]:
        return self.open_commands_now()

    async def set_import_problems(self, epoch: Epoch, problems: Sequence[ImportProblem]) -> None:
        self.set_import_problems_now(epoch, problems)

    async def pull_xcoms(
        self,
        run: RunKey,
        key: str,
        *,
        task_ids: Sequence[str] | None = None,
        map_indexes: Sequence[int] | None = None,
        most_bytes: int,
    ) -> list[PulledXCom]:
        return self.pull_xcoms_now(run, key, task_ids, map_indexes, most_bytes)

    async def page_xcoms(self, run: RunKey, key: str, task_id: str, *, after: int, most_bytes: int) -> list[PulledXCom]:
        page: list[PulledXCom] = []
        for (at, name), row in sorted(self.xcoms.items(), key=lambda item: item[0]):
            if (at.run, at.task_id, name) == (run, task_id, key) and at.map_index > after:
                most_bytes -= len(row.value.encode())
                if page and (most_bytes < 0 or len(page) == XCOM_PAGE):
                    break
                page.append(PulledXCom(task_id=task_id, map_index=at.map_index, value=row.value))
        return page

    async def write_settings(
        self,
        epoch: Epoch,
        rows: Sequence[SettingRow],
        *,
        request: tuple[AttemptId, int] | None = None,
        event: EventRow | None = None,
    ) -> bool:
        return self.write_settings_now(epoch, rows, request, event)

    async def variable(self, key: str) -> VariableRow | None:
        return self.variables.get(key)

    async def connection(self, conn_id: str) -> ConnectionRow | None:
        return self.connections.get(conn_id)

    # ---- what Postgres would say ----------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Whether the caller will hear of the commit. Raises when the write is to be lost."""
        if not self._failures:
            return True
        if self._failures.pop(0):
            return False
        raise Unavailable("the connection broke before the commit (as the test wished)")

    def _answer(self, with_answer: bool) -> None:
        if not with_answer:
            raise Unavailable("the connection broke after the commit (as the test wished)")

    def _check_epoch(self, epoch: Epoch) -> None:
        if epoch != self.epoch:
            raise Conflict(f"epoch {epoch} of shard 1 is over: {self.owner} leads in epoch {self.epoch}")

    def _check_guards(self, batch: Batch) -> None:
        for what, new, table in (
            ("run", batch.new_runs, self.runs),
            ("instance", batch.new_instances, self.instances),
            ("attempt", batch.new_attempts, self.attempts),
        ):
            for new_key in new:
                if new_key in table:
                    raise Conflict(f"{what} {new_key} exists already")
        for key in [*batch.new_instances, *(key for key, _ in batch.xcoms)]:
            if key.run not in self.runs and key.run not in batch.new_runs:
                raise Conflict(f"instance {key} has no run")
        self._check_revision(batch)
        for dag_id in batch.dag_states:
            if dag_id not in self.dags and dag_id not in batch.dags:
                raise Conflict(f"there is no DAG {dag_id}")
        for run_key, (_, expected) in batch.runs.items():
            run = self.runs.get(run_key) or batch.new_runs.get(run_key)
            if run is None or (run.state,) != expected:
                raise Conflict(f"run {run_key} is not {expected}")
        for key, (_, expected) in batch.instances.items():
            instance = self.instances.get(key)
            if instance is None or (instance.state, instance.attempt_id) != expected:
                raise Conflict(f"instance {key} is not {expected}")
        for key in batch.expanded():
            changed, _ = batch.instances.get(key, (None, None))
            instance = batch.new_instances.get(key) or changed or self.instances.get(key)
            if instance is None or instance.state is not TaskState.NONE:
                raise Conflict(f"instance {key} cannot be expanded")
        for attempt_id, (_, expected) in batch.attempts.items():
            attempt = self.attempts.get(attempt_id)
            if attempt is None or (attempt.state,) != expected:
                raise Conflict(f"attempt {attempt_id} is not {expected}")

    def _check_unique(self, batch: Batch) -> None:
        names = {(run.dag_id, run.run_id) for run in self.runs.values()}
        idempotency = {run.idempotency_key for run in self.runs.values()} - {None}
        for run in batch.new_runs.values():
            if (run.dag_id, run.run_id) in names or run.idempotency_key in idempotency:
                raise Unstorable(f"run {run.dag_id}/{run.run_id} exists already", sqlstate="23505")
            names.add((run.dag_id, run.run_id))
            if run.idempotency_key is not None:
                idempotency.add(run.idempotency_key)
        numbers = {
            (version.dag_id, version.number): key
            for key, version in self.versions.items()
            if version.dag_id not in batch.gone_dags
        }
        for key, version in batch.versions.items():
            if numbers.setdefault((version.dag_id, version.number), key) != key:
                raise Unstorable(f"version {version.dag_id} {version.number} exists already", sqlstate="23505")

    def _check_storable(self, batch: Batch) -> None:
        for row in batch.rows():
            self._check_row(row)

    def _check_row(self, row: Any) -> None:
        sqlstate = self.refuse(row) or why_unstorable(row)
        if sqlstate is not None:
            raise Unstorable(f"{type(row).__name__} cannot be stored", sqlstate=sqlstate)
