"""Row images: what the engine knows of each row, whole. The engine writes images, the store applies them in one
statement, and `Engine.restore` reads the same images back; so "RAM is a cache of the rows" can be tested by equality.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tickless.model.backfill import BackfillKey
from tickless.model.id import UNMAPPED, AttemptId, RunKey, TaskId, TaskKey, VersionKey
from tickless.model.state import AttemptState, EndReason, RunState, TaskState

MAX_NOTE_LENGTH = 1000
"""Characters of a note, as in Airflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """`dag_version`, and the current version in `dag`. Immutable once written."""

    key: VersionKey
    dag_id: str
    number: int
    """1, 2, 3 … within the DAG, for people."""
    spec: str
    """DagSpec as JSON."""
    hash: str
    """Content hash of the spec and of the files in its import closure."""
    bundle: str
    file: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DagVanishedRow:
    """`dag` has no current version any more: no file defines it. The next VersionRow of the DAG brings it back."""

    dag_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DagRow:
    """`dag`: what outlives the versions of a DAG. It is written after its first VersionRow, which makes the row."""

    dag_id: str
    is_paused: bool = False
    last_interval_start: datetime | None = None
    last_interval_end: datetime | None = None
    """Data interval of the last run that its schedule made: the next slot is counted from here. Written in one commit
    with that run."""
    scheduled_since: datetime | None = None
    """A schedule without start_date counts from here until it has made a run: it was new, changed or unpaused then."""
    failed_in_a_row: int = 0
    """Runs that have failed since the last success; counted while max_consecutive_failed_dag_runs asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """`dag_run`."""

    key: RunKey
    dag_id: str
    run_id: str
    version: VersionKey
    state: RunState
    run_type: str
    conf: str
    logical_date: datetime | None
    queued_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    created_upto: int = 0
    """How many of the version's tasks have their instance rows: the cursor of a creation in bounded steps."""
    cancel_requested_at: datetime | None = None
    cancel_reason: str | None = None
    """Why it was ended before its time: dagrun_timeout, fail_fast, marked_success or marked_failed, in a sentence.
    None = somebody cancelled it."""
    frozen: str | None = None
    """Not None: an internal error stopped scheduling of this run; the text names the quarantine entry."""
    idempotency_key: str | None = None
    run_after: datetime | None = None
    """When its slot was due; None = somebody started it."""
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    previous_run: RunKey | None = None
    """The run that its `depends_on_past` tasks look at; 0 = it is the first; None = not known (yet), for it has no such
    task, or no logical date."""
    backfill: BackfillKey | None = None
    """The backfill that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """`task_instance`. `attempt_id` is that of the latest attempt, 0 = none yet."""

    run: RunKey
    task_id: TaskId
    map_index: int
    state: TaskState
    try_number: int = 0
    attempt_id: AttemptId = AttemptId(0)
    lost_count: int = 0
    """Attempts of the present try that were lost."""
    tries_cleared: int = 0
    """Its try_number when it was last cleared: `retries` counts from there."""
    scheduled_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    """up_for_retry: when the next try may start."""
    reason: str | None = None
    """EndReason of the latest attempt, or a sentence (skipped by a cancel …)."""

    @property
    def key(self) -> TaskKey:
        return TaskKey(self.run, self.task_id, self.map_index)

    @property
    def has_returned(self) -> bool:
        """Of a mapped task that others are mapped over: there is a value of this instance to map over."""
        return self.state is TaskState.SUCCESS and self.reason == EndReason.EXITED


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """`task_attempt`: the record of one process."""

    attempt_id: AttemptId
    run: RunKey
    task_id: TaskId
    map_index: int
    try_number: int
    state: AttemptState
    executor: str
    queue: str
    pool: str
    pool_slots: int
    queued_at: datetime
    log_path: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    timeout_seconds: float | None = None
    stop_requested_at: datetime | None = None
    stop_reason: EndReason | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: EndReason | None = None
    error: str | None = None
    pid: int | None = None
    host: str | None = None

    @property
    def key(self) -> TaskKey:
        return TaskKey(self.run, self.task_id, self.map_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class XComRow:
    """`xcom`: one value that a task hands on. `value` is JSON text."""

    run: RunKey
    task_id: TaskId
    map_index: int
    key: str
    value: str
    created_at: datetime


UNKNOWN_LENGTH = 2**31 - 1
"""In a MapRow: what was known of the length does not count any more; it is to be found out anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRow:
    """`task_map`. Of a task that others are mapped over: the length of what it returned. Of a mapped task: how many
    instances it has; the write that says it is fully expanded also removes its instance with map_index -1."""

    run: RunKey
    task_id: TaskId
    length: int
    expanded_upto: int | None = None
    """Of a mapped task: how many of its instances have rows, the cursor of an expansion in bounded steps."""

    @property
    def is_expanded(self) -> bool:
        return self.expanded_upto == self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """`slot_pool`."""

    name: str
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDone:
    """A row of a request table is dealt with: set its outcome. `error` None = done; `run` for a trigger request."""

    table: str
    """trigger_request or command."""
    id: int
    run: RunKey | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandProgress:
    """A row of `command` that is worked off in several commits: how far it has come. `cursor` is a JSON object."""

    id: int
    cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class XComsDropped:
    """A task instance is to run again: what it handed on is deleted."""

    run: RunKey
    task_id: TaskId
    map_index: int

    @property
    def instance(self) -> TaskKey:
        return TaskKey(self.run, self.task_id, self.map_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGone:
    """A finished run is deleted: nobody sees it any more. What remains of it follows in batches."""

    run: RunKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRemains:
    """Rows of a run that has gone are deleted: these attempts, and up to `most` rows of each other kind."""

    run: RunKey
    attempts: tuple[AttemptId, ...]
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DagGone:
    """A DAG that has no runs is deleted, with all its versions."""

    dag_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteRow:
    """`note`: what somebody wrote about a run (`task_id` empty) or a task instance. `text` None = it is removed."""

    run: RunKey
    task_id: str = ""
    map_index: int = UNMAPPED
    text: str | None
    author: str
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """`event_log`: who asked for what. `detail` is a JSON object."""

    at: datetime
    actor: str
    """unix:NAME of who called the daemon, sql:NAME of who wrote a request into the database."""
    action: str
    dag_id: str | None = None
    run: RunKey | None = None
    task_id: str | None = None
    detail: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceTally:
    """Finished instances of one task of a live run, counted (they are not loaded)."""

    run: RunKey
    task_id: TaskId
    state: TaskState
    count: int
    returned: int = 0
    """How many of them have a value to map over (`InstanceRow.has_returned`)."""
