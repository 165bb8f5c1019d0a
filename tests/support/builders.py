"""DAGs in one line: `make_dag("a >> [b, c] >> d", retries=1, tasks={"d": {"pool": "db"}})`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tickless.core.events import DagParsed
from tickless.model.dag import DagSpec, TaskKind, TaskSpec
from tickless.model.schedule import ScheduleKind, ScheduleSpec
from tickless.model.state import TriggerRule

_SHORT = {
    "retry_delay": "retry_delay_seconds",
    "timeout": "execution_timeout_seconds",
    "rule": "trigger_rule",
    "priority": "priority_weight",
}

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(DagSpec)


def decode_spec(text: str) -> DagSpec:
    """The inverse of `encode_spec`; what an Engine is given."""
    return _decoder.decode(text)


def encode_spec(spec: DagSpec) -> str:
    return _encoder.encode(spec).decode()


def parse_shape(shape: str) -> dict[str, list[str]]:
    """Task id -> ids of its upstream, in the order in which the tasks are named.

    >>> parse_shape("a >> [b, c] >> d; x")
    {'a': [], 'b': ['a'], 'c': ['a'], 'd': ['b', 'c'], 'x': []}
    """
    upstream: dict[str, list[str]] = {}
    for statement in re.split(r"[;\n]", shape):
        previous: list[str] = []
        for part in filter(None, (part.strip() for part in statement.split(">>"))):
            names = [name.strip() for name in part.strip("[]").split(",")]
            for name in names:
                if not re.fullmatch(r"[A-Za-z0-9_.\-]+", name):
                    raise ValueError(f"{name!r} in {shape!r} is not a task id")
                above = upstream.setdefault(name, [])
                above.extend(each for each in previous if each not in above)
            previous = names
    return upstream


def make_dag(
    shape: str,
    *,
    dag_id: str = "dag",
    tasks: Mapping[str, Mapping[str, Any]] | None = None,
    max_active_tasks: int | None = None,
    max_active_runs: int | None = None,
    schedule: ScheduleSpec | None = None,
    is_paused_upon_creation: bool | None = None,
    max_consecutive_failed_dag_runs: int | None = None,
    dagrun_timeout: float | None = None,
    fail_fast: bool = False,
    **options: Any,
) -> DagSpec:
    """A DAG of a shape; `options` go to every task, `tasks` to single ones.

    Short names: retry_delay, timeout (both in seconds), rule, priority, empty.
    """
    tasks = tasks or {}
    upstream = parse_shape(shape)
    unknown = set(tasks) - set(upstream)
    if unknown:
        raise ValueError(f"options for {sorted(unknown)}, which {shape!r} does not name")
    return DagSpec.build(
        dag_id=dag_id,
        tasks=[_make_task(name, above, {**options, **tasks.get(name, {})}) for name, above in upstream.items()],
        max_active_tasks=max_active_tasks,
        max_active_runs=max_active_runs,
        schedule=schedule,
        is_paused_upon_creation=is_paused_upon_creation,
        max_consecutive_failed_dag_runs=max_consecutive_failed_dag_runs,
        dagrun_timeout_seconds=dagrun_timeout,
        fail_fast=fail_fast,
    )


def cron(*crons: str, **fields: Any) -> ScheduleSpec:
    """A schedule of cron expressions."""
    return ScheduleSpec(kind=ScheduleKind.CRON, text=", ".join(crons), crons=crons, **fields)


def _make_task(task_id: str, upstream: list[str], options: Mapping[str, Any]) -> TaskSpec:
    fields = {_SHORT.get(name, name): value for name, value in options.items()}
    kind = TaskKind.EMPTY if fields.pop("empty", False) else TaskKind.PYTHON
    if "trigger_rule" in fields:
        fields["trigger_rule"] = TriggerRule(fields["trigger_rule"])
    return TaskSpec(task_id=task_id, kind=kind, upstream=tuple(upstream), **fields)


def parsed(spec: DagSpec) -> DagParsed:
    """The event that brings this spec to the engine."""
    text = encode_spec(spec)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return DagParsed(spec=spec, spec_json=text, hash=digest, bundle=f"/bundles/{digest[:8]}", file=f"{spec.dag_id}.py")
