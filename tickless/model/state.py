"""States, lower case, the same words in the database, the API and the CLI (Airflow's names)."""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    """State of a task instance. `NONE` is NULL in the database: nothing decided yet."""

    NONE = "none"  # waits for its upstream
    SCHEDULED = "scheduled"  # its trigger rule holds; waits for a slot
    QUEUED = "queued"  # admitted: holds its slots, its order is on the way
    RUNNING = "running"  # its process is alive
    RESTARTING = "restarting"  # cleared while running: being stopped, then run again
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    REMOVED = "removed"  # no longer in the DAG version of its run
    UP_FOR_RETRY = "up_for_retry"  # waits for its retry delay
    UP_FOR_RESCHEDULE = "up_for_reschedule"
    DEFERRED = "deferred"


FINISHED_TASK_STATES = frozenset(
    {TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED, TaskState.REMOVED}
)
OCCUPYING_TASK_STATES = frozenset({TaskState.QUEUED, TaskState.RUNNING, TaskState.RESTARTING})
"""States in which a task instance holds slots of every limit it is under."""


class RunState(StrEnum):
    """State of a dag run."""

    QUEUED = "queued"  # waits for max_active_runs
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


FINISHED_RUN_STATES = frozenset({RunState.SUCCESS, RunState.FAILED})


class AttemptState(StrEnum):
    """State of one attempt, the record of one process."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    LOST = "lost"  # its process vanished without an outcome; re-run without spending a retry


LIVE_ATTEMPT_STATES = frozenset({AttemptState.QUEUED, AttemptState.RUNNING})


class TriggerRule(StrEnum):
    """When a task may run, given its direct upstream (Airflow's thirteen)."""

    ALL_SUCCESS = "all_success"
    ALL_FAILED = "all_failed"
    ALL_DONE = "all_done"
    ALL_DONE_MIN_ONE_SUCCESS = "all_done_min_one_success"
    ALL_DONE_SETUP_SUCCESS = "all_done_setup_success"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    ONE_DONE = "one_done"
    NONE_FAILED = "none_failed"
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    NONE_SKIPPED = "none_skipped"
    ALL_SKIPPED = "all_skipped"
    ALWAYS = "always"


class EndReason(StrEnum):
    """Why an attempt's process ended. Always recorded, never inferred from silence."""

    EXITED = "exited"  # it exited by itself; `exit_code` says how
    RAISED = "raised"  # the Python callable raised; `error` holds the traceback
    SIGNALED = "signaled"  # killed by a signal that tickless did not send; `signal` says which
    OOM = "oom"  # killed by the kernel for memory
    TIMEOUT = "timeout"  # stopped: execution_timeout passed
    STOPPED = "stopped"  # stopped on request (run cancel)
    CLEARED = "cleared"  # stopped, to be run again
    MARKED_SUCCESS = "marked_success"  # stopped: somebody marked its task as success
    MARKED_FAILED = "marked_failed"  # the same as failed
    LOST = "lost"  # process or host vanished
    NOT_STARTED = "not_started"  # the process could not be made; `error` says why
    OUTPUT_REFUSED = "output_refused"  # return value is not JSON or too large
    UNSTORABLE = "unstorable"  # Postgres refuses the report's data
