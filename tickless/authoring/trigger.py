"""Starting runs of other DAGs from a task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tickless.authoring.daemon import TriggeredRun, daemon
from tickless.errors import UserError


def trigger_dag(
    dag_id: str,
    conf: Mapping[str, Any] | None = None,
    *,
    run_id: str | None = None,
    logical_date: datetime | None = None,
) -> TriggeredRun:
    """Start a run of a DAG; returns when that is committed. However often the daemon restarts meanwhile, it is one run.

    Each try of the task that gets here starts a run of its own, unless it names the `run_id`.
    """
    try:
        text = json.dumps(dict(conf or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"the conf for a run of {dag_id!r} is not JSON: {error}") from None
    if logical_date is not None and logical_date.tzinfo is None:
        logical_date = logical_date.replace(tzinfo=UTC)
    return daemon(f"a run of {dag_id!r}").trigger(dag_id, conf=text, run_id=run_id, logical_date=logical_date)
