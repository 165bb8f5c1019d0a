"""The part of the store in memory that is about what people do after the fact: commands that read rows back, what they
delete, and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from tickless.errors import Conflict
from tickless.model.backfill import BackfillKey, BackfillRow
from tickless.model.id import AttemptId, RunKey, TaskKey, VersionKey
from tickless.model.row import (
    AttemptRow,
    DagRow,
    InstanceRow,
    InstanceTally,
    MapRow,
    NoteRow,
    RequestDone,
    RunRow,
    VersionRow,
    XComRow,
)
from tickless.model.state import FINISHED_RUN_STATES, FINISHED_TASK_STATES, TaskState
from tickless.store.base import CommandOutcome, CommandRequest, CommittedRun, Remains, RunQuery
from tickless.store.batch import Batch, DagPointer


class RevisedTables:
    """Works on the tables of `MemoryStore`, which makes them; notes are its own."""

    dags: dict[str, DagPointer]
    dag_states: dict[str, DagRow]
    backfills: dict[BackfillKey, BackfillRow]
    versions: dict[VersionKey, VersionRow]
    runs: dict[RunKey, RunRow]
    instances: dict[TaskKey, InstanceRow]
    attempts: dict[AttemptId, AttemptRow]
    xcoms: dict[tuple[TaskKey, str], XComRow]
    maps: dict[tuple[RunKey, str], MapRow]
    commands: dict[int, CommandRequest]
    done: dict[tuple[str, int], RequestDone]

    def __init__(self) -> None:
        self.notes_of: dict[tuple[RunKey, str, int], NoteRow] = {}
        self.last_run = RunKey(0)
        """The highest key of a run that was deleted."""
        self.last_version = VersionKey(0)
        self.last_backfill = BackfillKey(0)

    # ---- the port -------------------------------------------------------------------------------------------------

    async def add_command(self, kind: str, payload: str, actor: str) -> int:
        number = len(self.commands) + 1
        self.commands[number] = CommandRequest(id=number, kind=kind, payload=payload, actor=actor)
        return number

    async def command_outcomes(self, numbers: Sequence[int]) -> list[CommandOutcome]:
        done = [(number, self.done.get(("command", number))) for number in numbers]
        return [
            CommandOutcome(id=number, error=row.error, cursor=self.commands[number].cursor)
            for number, row in done
            if row is not None
        ]

    async def committed_run(self, run: RunKey) -> CommittedRun | None:
        row = self.runs.get(run)
        if row is None:
            return None
        mine = [each for each in self.instances.values() if each.run == run and each.state in FINISHED_TASK_STATES]
        return CommittedRun(
            row=row, version=self.versions[row.version], tallies=tuple(counted(mine)), maps=self.maps_of(run)
        )

    def maps_of(self, run: RunKey) -> tuple[MapRow, ...]:
        return tuple(each for _, each in sorted(self.maps.items()) if each.run == run)

    async def chosen_instances(
        self,
        run: RunKey,
        task_ids: Sequence[str],
        states: Sequence[TaskState],
        *,
        after: tuple[int, int],
        limit: int,
        single: Mapping[str, Collection[int]] = {},
    ) -> list[InstanceRow]:
        place = {task_id: index for index, task_id in enumerate(task_ids)}
        found = [
            (place[key.task_id], key.map_index, instance)
            for key, instance in self.instances.items()
            if key.run == run
            and key.task_id in place
            and (not states or instance.state in states)
            and (key.task_id not in single or key.map_index in single[key.task_id])
        ]
        found.sort(key=lambda each: each[:2])
        return [instance for index, map_index, instance in found if (index, map_index) > after][:limit]

    async def next_run(self, query: RunQuery, after: RunKey) -> RunKey | None:
        for key, row in sorted(self.runs.items()):
            if (
                key > after
                and row.dag_id == query.dag_id
                and (not query.states or row.state in query.states)
                and (query.since is None or row.queued_at >= query.since)
                and (query.until is None or row.queued_at < query.until)
            ):
                return key
        return None

    async def remains(self, run: RunKey, limit: int) -> Remains:
        attempts = [(key, row.log_path) for key, row in sorted(self.attempts.items()) if row.run == run]
        more = (
            *(key.run for key in self.instances),
            *(key.run for key, _ in self.xcoms),
            *(row.run for row in self.maps.values()),
            *(row.run for row in self.notes_of.values()),
        )
        return Remains(attempts=tuple(attempts[:limit]), has_more=run in more)

    async def notes(self, runs: Sequence[RunKey], *, only_of_runs: bool = False) -> list[NoteRow]:
        return [
            row
            for _, row in sorted(self.notes_of.items())
            if row.run in runs and (not only_of_runs or row.task_id == "")
        ]

    # ---- what a flush revises -------------------------------------------------------------------------------------

    def _check_revision(self, batch: Batch) -> None:
        for key in batch.gone_runs:
            row = self.runs.get(key)
            if row is None or row.state not in FINISHED_RUN_STATES:
                raise Conflict(f"run {key} cannot be deleted")
        for dag_id in batch.gone_dags:
            if any(row.dag_id == dag_id for row in self.runs.values()):
                raise Conflict(f"DAG {dag_id} has runs")

    def _revise(self, batch: Batch) -> None:
        for key in batch.gone_runs:
            del self.runs[key]
            self.last_run = max(self.last_run, key)
        for remains in batch.remains.values():
            for attempt_id in remains.attempts:
                self.attempts.pop(attempt_id, None)
            run, most = remains.run, remains.most
            for instance in [key for key in self.instances if key.run == run][:most]:
                del self.instances[instance]
            for value in [key for key in self.xcoms if key[0].run == run][:most]:
                del self.xcoms[value]
            for extent in [key for key, row in self.maps.items() if row.run == run][:most]:
                del self.maps[extent]
            for note in [key for key, row in self.notes_of.items() if row.run == run][:most]:
                del self.notes_of[note]
        for dag_id in batch.gone_dags:
            versions = [key for key, row in self.versions.items() if row.dag_id == dag_id]
            self.last_version = max((self.last_version, *versions))
            for version in versions:
                del self.versions[version]
            self.dags.pop(dag_id, None)
            self.dag_states.pop(dag_id, None)
            for backfill in [key for key, row in self.backfills.items() if row.dag_id == dag_id]:
                del self.backfills[backfill]
                self.last_backfill = max(self.last_backfill, backfill)
        for place, row in batch.notes.items():
            if row.text is None:
                self.notes_of.pop(place, None)
            elif row.run in self.runs:
                self.notes_of[place] = row


def counted(finished: Iterable[InstanceRow]) -> list[InstanceTally]:
    """Finished instances by run, task and state."""
    finished = list(finished)
    counts = Counter((row.run, row.task_id, row.state) for row in finished)
    returned = Counter((row.run, row.task_id, row.state) for row in finished if row.has_returned)
    return [
        InstanceTally(run=at[0], task_id=at[1], state=at[2], count=count, returned=returned[at])
        for at, count in sorted(counts.items())
    ]
