"""One flush, coalesced: several writes of a row become one, with the first guard and the last image.

Shared by the Postgres store and its in-memory fake, so that both mean the same by a batch. Rows of a section are in
the order of their keys: two batches that touch the same rows lock them in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any, TypeVar, assert_never

import msgspec

from tickless.core.decision import Write
from tickless.errors import Unstorable
from tickless.model.backfill import BackfillKey, BackfillRow
from tickless.model.id import AttemptId, RunKey, TaskKey, VersionKey
from tickless.model.row import (
    AttemptRow,
    CommandProgress,
    DagGone,
    DagRow,
    DagVanishedRow,
    EventRow,
    InstanceRow,
    MapRow,
    NoteRow,
    PoolRow,
    RequestDone,
    RunGone,
    RunRemains,
    RunRow,
    VersionRow,
    XComRow,
    XComsDropped,
)

_FIRST = itemgetter(0)
_encode = msgspec.json.Encoder().encode
K = TypeVar("K")
R = TypeVar("R")

Row = (
    RunRow
    | InstanceRow
    | AttemptRow
    | XComRow
    | PoolRow
    | VersionRow
    | DagRow
    | RequestDone
    | CommandProgress
    | XComsDropped
    | EventRow
    | MapRow
    | BackfillRow
    | RunGone
    | RunRemains
    | DagGone
    | NoteRow
)
Guarded = tuple[R, tuple[object, ...]]
"""A row image and what its guarded columns must be now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagPointer:
    """The row of `dag`: which version is current. `version` None = no file defines the DAG any more."""

    dag_id: str
    version: VersionKey | None
    file: str | None
    """None = as it was."""
    at: datetime


@dataclass(slots=True)
class Batch:
    """What one flush writes, by kind."""

    versions: dict[VersionKey, VersionRow] = field(default_factory=dict)
    dags: dict[str, DagPointer] = field(default_factory=dict)
    dag_states: dict[str, DagRow] = field(default_factory=dict)
    pools: dict[str, PoolRow] = field(default_factory=dict)
    new_runs: dict[RunKey, RunRow] = field(default_factory=dict)
    runs: dict[RunKey, Guarded[RunRow]] = field(default_factory=dict)
    new_instances: dict[TaskKey, InstanceRow] = field(default_factory=dict)
    instances: dict[TaskKey, Guarded[InstanceRow]] = field(default_factory=dict)
    new_attempts: dict[AttemptId, AttemptRow] = field(default_factory=dict)
    attempts: dict[AttemptId, Guarded[AttemptRow]] = field(default_factory=dict)
    xcoms: dict[tuple[TaskKey, str], XComRow] = field(default_factory=dict)
    requests: dict[tuple[str, int], RequestDone] = field(default_factory=dict)
    maps: dict[tuple[RunKey, str], MapRow] = field(default_factory=dict)
    progress: dict[int, CommandProgress] = field(default_factory=dict)
    dropped_xcoms: dict[TaskKey, XComsDropped] = field(default_factory=dict)
    events: list[EventRow] = field(default_factory=list)
    gone_runs: dict[RunKey, RunGone] = field(default_factory=dict)
    remains: dict[RunKey, RunRemains] = field(default_factory=dict)
    gone_dags: dict[str, DagGone] = field(default_factory=dict)
    notes: dict[tuple[RunKey, str, int], NoteRow] = field(default_factory=dict)
    backfills: dict[BackfillKey, BackfillRow] = field(default_factory=dict)

    @staticmethod
    def of(writes: Iterable[Write]) -> Batch:
        """Coalesce the writes of one or several steps, in the order in which they were decided."""
        batch = Batch()
        for write in writes:
            batch._add(write)
        return batch

    def _add(self, write: Write) -> None:
        row = write.row
        match row:
            case InstanceRow():
                _add_guarded(self.new_instances, self.instances, row.key, row, write.expected)
            case AttemptRow():
                _add_guarded(self.new_attempts, self.attempts, row.attempt_id, row, write.expected)
            case RunRow():
                _add_guarded(self.new_runs, self.runs, row.key, row, write.expected)
            case XComRow():
                self.xcoms[TaskKey(row.run, row.task_id, row.map_index), row.key] = row
            case XComsDropped():
                for key in [key for key in self.xcoms if key[0] == row.instance]:
                    del self.xcoms[key]
                self.dropped_xcoms[row.instance] = row
            case CommandProgress():
                self.progress[row.id] = row
            case EventRow():
                self.events.append(row)
            case NoteRow():
                self.notes[row.run, row.task_id, row.map_index] = row
            case RunGone():
                self.gone_runs[row.run] = row
            case RunRemains():
                self.remains[row.run] = row
            case DagGone():
                # Deletions come first in a flush: what was to be written of the DAG before is not written at all.
                self.versions = {key: each for key, each in self.versions.items() if each.dag_id != row.dag_id}
                self.dags.pop(row.dag_id, None)
                self.dag_states.pop(row.dag_id, None)
                self.backfills = {key: each for key, each in self.backfills.items() if each.dag_id != row.dag_id}
                self.gone_dags[row.dag_id] = row
            case BackfillRow():
                self.backfills[row.key] = row
            case RequestDone():
                self.requests[row.table, row.id] = row
            case DagRow():
                self.dag_states[row.dag_id] = row
            case MapRow():
                self.maps[row.run, row.task_id] = row
            case PoolRow():
                self.pools[row.name] = row
            case VersionRow():
                self.versions[row.key] = row
                self.dags[row.dag_id] = DagPointer(dag_id=row.dag_id, version=row.key, file=row.file, at=row.created_at)
            case DagVanishedRow():
                before = self.dags.get(row.dag_id)
                file = before.file if before is not None else None
                self.dags[row.dag_id] = DagPointer(dag_id=row.dag_id, version=None, file=file, at=row.at)
            case _:
                assert_never(row)

    def __len__(self) -> int:
        """How many rows it writes."""
        return (
            len(self.new_instances)
            + len(self.instances)
            + len(self.new_attempts)
            + len(self.attempts)
            + len(self.new_runs)
            + len(self.runs)
            + len(self.xcoms)
            + len(self.requests)
            + len(self.maps)
            + len(self.pools)
            + len(self.versions)
            + len(self.dags)
            + len(self.dag_states)
            + len(self.progress)
            + len(self.dropped_xcoms)
            + len(self.events)
            + len(self.gone_runs)
            + sum(row.most for row in self.remains.values())
            + len(self.gone_dags)
            + len(self.notes)
            + len(self.backfills)
        )

    def rows(self) -> Iterator[Row]:
        """Every row image that it writes."""
        for plain in (
            *(self.versions, self.pools, self.new_runs, self.new_instances, self.new_attempts),
            *(self.xcoms, self.requests, self.dag_states, self.maps, self.progress, self.dropped_xcoms),
            *(self.gone_runs, self.remains, self.gone_dags, self.notes, self.backfills),
        ):
            yield from plain.values()
        yield from self.events
        for guarded in (self.runs, self.instances, self.attempts):
            for row, _ in guarded.values():
                yield row

    def expanded(self) -> list[TaskKey]:
        """The unexpanded instances of those mapped tasks that are fully expanded now: their rows go."""
        return [TaskKey(row.run, row.task_id) for row in self.maps.values() if row.is_expanded]

    def encode(self) -> tuple[str | None, ...]:
        """The sections as JSON texts, None for an empty one, in the order of the parameters of `flush_v3`.

        Raises Unstorable for what JSON in UTF-8 cannot hold (a lone surrogate, an integer of more than 64 bits).
        """
        try:
            return (
                _plain(self.versions),
                _plain(self.dags),
                _plain(self.dag_states),
                _plain(self.pools),
                _plain(self.new_runs),
                _guarded(self.runs),
                _plain(self.new_instances),
                _guarded(self.instances),
                _plain(self.new_attempts),
                _guarded(self.attempts),
                _plain(self.xcoms),
                _plain(self.requests),
                _plain(self.maps),
            )
        except (UnicodeEncodeError, OverflowError) as error:
            raise Unstorable(f"a row cannot be encoded: {error}", sqlstate="22021") from error

    def encode_requested(self) -> tuple[str | None, ...] | None:
        """What people's requests bring along, for `note_requests_v1`; None when there is nothing of it.

        Raises Unstorable as `encode` does.
        """
        if not (self.progress or self.dropped_xcoms or self.events):
            return None
        try:
            events = _encode(self.events).decode() if self.events else None
            return (_plain(self.progress), _plain(self.dropped_xcoms), events)
        except (UnicodeEncodeError, OverflowError) as error:
            raise Unstorable(f"a row cannot be encoded: {error}", sqlstate="22021") from error

    def encode_revised(self) -> tuple[str | None, ...] | None:
        """What is deleted and noted, for `revise_v1`, and backfills, for `write_backfills_v1`; None when there is
        nothing of it.

        Raises Unstorable as `encode` does.
        """
        sections = (self.gone_runs, self.remains, self.gone_dags, self.notes, self.backfills)
        if not any(sections):
            return None
        try:
            gone = (_plain(self.gone_runs), _plain(self.remains), _plain(self.gone_dags), _plain(self.notes))
            return (*gone, _plain(self.backfills))
        except (UnicodeEncodeError, OverflowError) as error:
            raise Unstorable(f"a row cannot be encoded: {error}", sqlstate="22021") from error

    def counts(self) -> list[int]:
        """How many rows each section that is checked must insert or update, in the order of `encode`."""
        return [
            len(self.new_runs),
            len(self.runs),
            len(self.new_instances),
            len(self.instances),
            len(self.new_attempts),
            len(self.attempts),
            len(self.xcoms),
            len(self.dag_states),
            len(self.expanded()),
        ]


def _add_guarded(
    new: dict[K, R], changed: dict[K, Guarded[R]], key: K, row: R, expected: tuple[object, ...] | None
) -> None:
    if key in new:
        new[key] = row
    elif key in changed:
        changed[key] = (row, changed[key][1])
    elif expected is None:
        new[key] = row
    else:
        changed[key] = (row, expected)


def _plain(rows: dict[Any, R]) -> str | None:
    if not rows:
        return None
    return _encode([row for _, row in sorted(rows.items(), key=_FIRST)]).decode()


def _guarded(rows: dict[Any, Guarded[R]]) -> str | None:
    """Each row with the guard spliced in front: the old state as `was`, the old attempt as `had`."""
    if not rows:
        return None
    parts = []
    for _, (row, expected) in sorted(rows.items(), key=_FIRST):
        guard = b'{"was":' + _encode(expected[0])
        if len(expected) > 1:
            guard += b',"had":' + _encode(expected[1])
        parts.append(guard + b"," + _encode(row)[1:])
    return (b"[" + b",".join(parts) + b"]").decode()
