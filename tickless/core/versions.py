"""The versions of DAGs, as their files give them."""

from __future__ import annotations

from tickless.core import events
from tickless.core.changes import Changes
from tickless.core.decision import Write
from tickless.core.plan import compile_plan
from tickless.core.quota import Quota
from tickless.core.runs import Runs
from tickless.core.schedules import Schedules
from tickless.model.id import VersionKey
from tickless.model.row import DagVanishedRow, VersionRow


class Versions:
    """Gives numbers to new versions; which are current is known below, with the limits that they set."""

    def __init__(self, changes: Changes, quota: Quota, runs: Runs, schedules: Schedules) -> None:
        self.last_version = VersionKey(0)
        self._changes = changes
        self._quota = quota
        self._runs = runs
        self._schedules = schedules

    def on_dag_parsed(self, event: events.DagParsed) -> None:
        dag_id = event.spec.dag_id
        now = self._quota.current.get(dag_id)
        if now is not None and now.version.hash == event.hash:
            return
        self.last_version = VersionKey(self.last_version + 1)
        dag = self._quota.dag(dag_id)
        is_new = dag.last_number == 0
        dag.last_number += 1
        version = VersionRow(
            key=self.last_version,
            dag_id=dag_id,
            number=dag.last_number,
            spec=event.spec_json,
            hash=event.hash,
            bundle=event.bundle,
            file=event.file,
            created_at=self._changes.now,
        )
        self._changes.writes.append(Write(version))
        self._quota.current[dag_id] = compile_plan(version, event.spec)
        self._quota.apply_dag_limits(dag)
        self._schedules.version_changed(dag, now.spec.schedule if now is not None else None, is_new=is_new)
        self._runs.start_queued_runs(dag)

    def on_dag_vanished(self, event: events.DagVanished) -> None:
        if self._quota.current.pop(event.dag_id, None) is not None:
            self._changes.writes.append(Write(DagVanishedRow(dag_id=event.dag_id, at=self._changes.now)))
            dag = self._quota.dag(event.dag_id)
            self._schedules.version_gone(dag)
            self._runs.start_queued_runs(dag)
