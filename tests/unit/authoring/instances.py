"""Task instances to call operators with, as a runner makes them."""

from __future__ import annotations

import json
from typing import Any

from tickless.authoring import registry
from tickless.authoring.context import TaskInstance
from tickless.model.dag import TaskKind
from tickless.model.order import Order


def order(task_id: str = "t", dag_id: str = "x", **fields: Any) -> Order:
    given: dict[str, Any] = {
        "attempt_id": 1, "executor": "local", "dag_id": dag_id, "run_key": 1, "run_id": "r", "task_id": task_id,
        "map_index": -1, "try_number": 1, "kind": TaskKind.PYTHON, "bundle": "/b", "file": "x.py", "version": "v",
        "log_path": "l", "kill_grace_seconds": 1.0, "max_output_bytes": 1000,
        "run_queued_at": "2026-11-22T13:14:15.123456+00:00", **fields,
    }  # fmt: skip
    return Order(**given)


def instance(task_id: str = "t", inputs: dict[Any, Any] | None = None, **fields: Any) -> TaskInstance:
    return TaskInstance(order(task_id, **fields), inputs or {}, lambda key, value: json.dumps(value))


def run(task_id: str = "t", inputs: dict[Any, Any] | None = None, **fields: Any) -> Any:
    """What the task of DAG x comes to; with `inputs` from other tasks and fields of its order."""
    return registry.callables("x")[task_id](inputs or {}, instance(task_id, inputs, **fields))
