"""The runs of a DAG as a task sees them: its own, and those before it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from tickless.model.order import Order
from tickless.model.state import RunState


class DagRun:
    """A run: the one that a task belongs to, or one before it (then its `conf` is None: it is not brought along)."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.dag_id: str = fields["dag_id"]
        self.run_id: str = fields["run_id"]
        self.run_type: str = fields["run_type"]
        self.state: str = fields["state"]
        self.conf: dict[str, Any] | None = fields.get("conf")
        self.queued_at = _instant(fields["queued_at"])
        self.start_date = _instant(fields["start_date"])
        self.end_date = _instant(fields.get("end_date"))
        self.logical_date = _instant(fields["logical_date"])
        self.run_after = self.logical_date or self.queued_at
        self.data_interval_start = _instant(fields["data_interval_start"]) or self.run_after
        self.data_interval_end = _instant(fields["data_interval_end"]) or self.run_after

    @staticmethod
    def of(order: Order) -> DagRun:
        """The run that this order belongs to."""
        return DagRun(
            {
                "dag_id": order.dag_id,
                "run_id": order.run_id,
                "run_type": order.run_type,
                "state": RunState.RUNNING.value,
                "conf": json.loads(order.conf),
                "queued_at": order.run_queued_at,
                "start_date": order.run_started_at,
                "logical_date": order.logical_date,
                "data_interval_start": order.data_interval_start,
                "data_interval_end": order.data_interval_end,
            }
        )

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"dag_run has no {name!r}; it has {', '.join(sorted(self.__dict__))}")

    def __repr__(self) -> str:
        return f"<DagRun {self.dag_id} {self.run_id}>"


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
