"""The rows as decided, kept apart from the engine's memory, and what follows from them for whoever checks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.builders import decode_spec
from tickless.core.choice import XCOM_CHOICE_KEY
from tickless.model.backfill import BackfillKey, BackfillRow
from tickless.model.dag import DagSpec, TaskSpec
from tickless.model.id import AttemptId, RunKey, TaskId, TaskKey, VersionKey
from tickless.model.row import (
    UNKNOWN_LENGTH,
    AttemptRow,
    DagRow,
    InstanceRow,
    MapRow,
    PoolRow,
    RunRow,
)
from tickless.model.state import (
    FINISHED_RUN_STATES,
    FINISHED_TASK_STATES,
    LIVE_ATTEMPT_STATES,
    TaskState,
)
from tickless.store.memory import MemoryStore

SATISFIED = (TaskState.SUCCESS, TaskState.SKIPPED, TaskState.REMOVED)


@dataclass
class Rows:
    """The rows as decided so far: what is committed, with the images of what is still in a batch on top."""

    runs: dict[RunKey, RunRow] = field(default_factory=dict)
    instances: dict[TaskKey, InstanceRow] = field(default_factory=dict)
    attempts: dict[AttemptId, AttemptRow] = field(default_factory=dict)
    pools: dict[str, PoolRow] = field(default_factory=dict)
    specs: dict[VersionKey, DagSpec] = field(default_factory=dict)
    current: dict[str, VersionKey] = field(default_factory=dict)
    dags: dict[str, DagRow] = field(default_factory=dict)
    maps: dict[tuple[RunKey, str], MapRow] = field(default_factory=dict)
    choices: dict[TaskKey, dict[str, list[str]]] = field(default_factory=dict)
    """Task -> what it has chosen: {followed: direct downstream} or {skipped: anything below}."""
    backfills: dict[BackfillKey, BackfillRow] = field(default_factory=dict)

    @staticmethod
    def of(store: MemoryStore) -> Rows:
        return Rows(
            dict(store.runs),
            dict(store.instances),
            dict(store.attempts),
            dict(store.pools),
            {key: decode_spec(row.spec) for key, row in store.versions.items()},
            {dag_id: dag.version for dag_id, dag in store.dags.items() if dag.version is not None},
            dict(store.dag_states),
            dict(store.maps),
            {key: json.loads(row.value) for (key, name), row in store.xcoms.items() if name == XCOM_CHOICE_KEY},
            dict(store.backfills),
        )

    def previous(self, run: RunRow) -> RunKey | None:
        """The previous run of a run, looked up anew: the last one by logical date among those made before it."""
        schedule = self.specs[run.version].schedule
        before = [
            (each.logical_date, each.key)
            for each in self.runs.values()
            if each.dag_id == run.dag_id
            and each.key < run.key
            and each.logical_date is not None
            and run.logical_date is not None
            and each.logical_date < run.logical_date
            and not (schedule is not None and schedule.catchup and each.run_type == "manual")
        ]
        return max(before)[1] if before else None

    def waits_for_past(self, key: TaskKey) -> list[TaskKey]:
        """What its past wants and has not: instances of the previous run, or itself where that has no such task."""
        spec, run = self.spec_of(key), self.runs[key.run]
        previous = self.previous(run)
        if not (spec.depends_on_past or spec.wait_for_downstream) or previous is None:
            return []
        names: dict[str, bool] = {key.task_id: True}
        if spec.wait_for_downstream:
            dag = self.specs[run.version]
            names |= {task.task_id: False for task in dag.tasks if key.task_id in task.upstream}
        there = {task.task_id for task in self.specs[self.runs[previous].version].tasks}
        is_over = self.runs[previous].state in FINISHED_RUN_STATES
        found: list[TaskKey] = []
        for task_id, is_itself in names.items():
            rows: dict[TaskKey, TaskState] = {
                at: row.state for at, row in self.instances.items() if at[:2] == (previous, task_id)
            }
            if task_id not in there:
                found += [key] if is_itself and not spec.ignore_first_depends_on_past else []
            elif not rows and not is_over:
                found.append(TaskKey(previous, TaskId(task_id)))
            found += [at for at, state in rows.items() if state not in SATISFIED]
        never_began = is_over and not any(at.run == previous for at in self.instances)
        return [] if never_began else found

    def spec_of(self, key: TaskKey) -> TaskSpec:
        dag = self.specs[self.runs[key.run].version]
        return next(task for task in dag.tasks if task.task_id == key.task_id)

    def upstream_states(self, key: TaskKey) -> list[TaskState]:
        """Of every upstream instance; what is not made or not expanded yet is one that is not finished."""
        found = []
        for above in self.spec_of(key).upstream:
            states = [row.state for at, row in self.instances.items() if at[:2] == (key.run, above)]
            found += states or [TaskState.NONE]
        return found

    def extent(self, key: TaskKey) -> int | str | None:
        """How many instances a mapped task is to have, or why it fails or is skipped; None: that is not known yet."""
        count = 1
        for over in self.spec_of(key).mapped:
            if over.length is not None:
                count *= over.length
                continue
            states = [row.state for at, row in self.instances.items() if at[:2] == (key.run, over.task_id)]
            if not states or not FINISHED_TASK_STATES.issuperset(states):
                return None
            above = TaskKey(key.run, TaskId(over.task_id or ""))
            if self.spec_of(above).mapped:
                count *= sum(
                    row.has_returned for at, row in self.instances.items() if at[:2] == (key.run, over.task_id)
                )
            elif states != [TaskState.SUCCESS]:
                return "upstream_failed"
            else:
                known = self.maps.get((above.run, above.task_id))
                if known is None or known.length == UNKNOWN_LENGTH:
                    return "failed"
                count *= known.length
        return count

    def is_chosen_against(self, key: TaskKey) -> bool:
        """Whether a task above has chosen that this one is not to run."""
        above = self.spec_of(key).upstream
        return any(
            key.task_id in choice.get("skipped", ())
            or ("followed" in choice and maker.task_id in above and key.task_id not in choice["followed"])
            for maker, choice in self.choices.items()
            if maker.run == key.run
        )

    def live_attempts(self) -> Iterator[AttemptRow]:
        return (row for row in self.attempts.values() if row.state in LIVE_ATTEMPT_STATES)
