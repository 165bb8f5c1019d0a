"""Orders: what an executor is asked to carry out. The same JSON crosses the unix socket, a broker and a pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tickless.model.dag import TaskKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Run this attempt. Idempotent by `attempt_id`: a receiver that knows the id does nothing.

    Everything in it is derived from committed rows, so it can be built again after any crash.
    """

    attempt_id: int
    executor: str
    """Name of the executor that it goes through; comes back in inventories, so that reports find their owner."""
    dag_id: str
    run_key: int
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    """From 1; for people. The fence is attempt_id."""
    kind: TaskKind
    bundle: str
    """Absolute path of the settled snapshot of the DAG folder; the task's working files and imports come from it."""
    file: str
    """The DAG file, relative to `bundle`."""
    version: str
    """Content hash of the DAG version: the key of its zygote."""
    log_path: str
    """Where stdout and stderr go, relative to the launcher's log folder; no '..', no leading '/'."""
    kill_grace_seconds: float
    """Time between TERM and KILL to the attempt's process group when it is stopped."""
    max_output_bytes: int
    """Largest return value (as JSON) that is accepted."""
    conf: str = "{}"
    """The run's conf, a JSON object."""
    logical_date: str | None = None
    """ISO 8601, UTC."""
    inputs: Mapping[str, str] | None = None
    """Task id -> JSON text of its return value."""
    input_keys: Mapping[str, Mapping[str, str]] | None = None
    """Task id -> key -> JSON text of what it has pushed under that key."""
    map_picks: Mapping[str, int] | None = None
    """Of a mapped task: for each argument that it is mapped over, which element this instance gets."""
    map_values: Mapping[str, str] | None = None
    """Those elements that other tasks have handed on: argument -> JSON text."""
    map_keys: Mapping[str, str] | None = None
    """Of those that are items of a dict: argument -> key; the element is the pair of it and its value."""
    run_type: str = "manual"
    run_queued_at: str | None = None
    """When the run was made; ISO 8601, UTC, as the other instants."""
    run_started_at: str | None = None
    data_interval_start: str | None = None
    data_interval_end: str | None = None
    command: str | None = None
    needs_runner: bool = False
    """Of a bash task: a runner makes the command from the DAG file, then becomes bash."""
    env: Mapping[str, str] | None = None
    append_env: bool = False
    cwd: str | None = None
    skip_on_exit_code: int | None = None
    do_xcom_push: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """End this attempt: TERM to its group, KILL after its grace. Unknown or ended attempts are ignored."""

    attempt_id: int
    reason: str
    """EndReason.TIMEOUT or EndReason.STOPPED; recorded as the end reason if the attempt ends by it."""
