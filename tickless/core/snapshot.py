"""What a leader reads to go on: the rows of everything unfinished, as one consistent picture."""

from __future__ import annotations

from dataclasses import dataclass, field

from tickless.model.backfill import BackfillKey, BackfillRow
from tickless.model.id import RunKey
from tickless.model.row import AttemptRow, DagRow, InstanceRow, InstanceTally, MapRow, PoolRow, RunRow, VersionRow

_NO_BACKFILL = BackfillKey(0)


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """Everything that a leader needs to go on: unfinished runs and what belongs to them."""

    versions: list[VersionRow] = field(default_factory=list)
    """The current version of each DAG, and every version that an unfinished run is pinned to."""
    current: dict[str, int] = field(default_factory=dict)
    """dag_id -> key of its current version; DAGs that have vanished are not in it."""
    dags: list[DagRow] = field(default_factory=list)
    """Every DAG ever known, also those that have vanished."""
    last_numbers: dict[str, int] = field(default_factory=dict)
    """dag_id -> the highest version number ever given to it, also of DAGs that have vanished."""
    runs: list[RunRow] = field(default_factory=list)
    """Unfinished runs, oldest first."""
    instances: list[InstanceRow] = field(default_factory=list)
    """Unfinished instances of those runs."""
    tallies: list[InstanceTally] = field(default_factory=list)
    """Finished instances of those runs, counted per task and state."""
    past_tallies: list[InstanceTally] = field(default_factory=list)
    """The same of the finished runs that are the previous ones of those runs."""
    maps: list[MapRow] = field(default_factory=list)
    """Of those runs: lengths of what is mapped over, and how far mapped tasks are expanded."""
    attempts: list[AttemptRow] = field(default_factory=list)
    """Live attempts (queued or running), also those of a run that is finished already."""
    pools: list[PoolRow] = field(default_factory=list)
    backfills: list[BackfillRow] = field(default_factory=list)
    """Those that are not completed, and those with slots that the schedule of their DAG has not passed yet."""
    last_backfill: BackfillKey = _NO_BACKFILL
    """The highest key ever committed."""
    last_run: RunKey = RunKey(0)
    """The highest run key ever committed."""
    last_version: int = 0
