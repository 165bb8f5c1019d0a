"""Plain descriptions of DAGs, from which the oracle foretells and `random_dag_files` writes DAG files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Act(StrEnum):
    """What one try of a task does."""

    SUCCEED = "succeed"
    FAIL = "fail"
    GIVE_UP = "give_up"
    """It fails, and there shall be no further try."""
    DIE = "die"
    """It is killed by a signal."""
    HANG = "hang"
    """It does not end; it has an execution_timeout, and fails with it."""
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """A task of a random DAG."""

    task_id: str
    groups: tuple[str, ...] = ()
    """The groups it is in, outermost first."""
    kind: str = "python"
    """python, bash, branch, short_circuit, or empty, which never runs at all."""
    upstream: tuple[str, ...] = ()
    """Tasks and groups, as they are written in the DAG file."""
    rule: str = "all_success"
    acts: tuple[Act, ...] = (Act.SUCCEED,)
    """What the first try does, the second one …; the last act is that of all further tries."""
    chooses: tuple[str, ...] = ()
    """The ids of tasks and groups that a branch returns when it succeeds."""
    condition: bool = True
    """What a short circuit returns when it succeeds."""
    ignores_rules: bool = True
    """A short circuit's ignore_downstream_trigger_rules."""
    returns: int = 0
    """How long a list it returns."""
    mapped_over: int | str | None = None
    """Mapped over a list of this length that stands in the file, or over what this task returns."""
    mapped_acts: tuple[tuple[Act, ...], ...] = ()
    """What the first tasks of a mapped one do; the others do as `acts` says."""
    retries: int = 0
    retry_delay: float = 0
    execution_timeout: float | None = None
    pool: str | None = None
    pool_slots: int = 1
    priority_weight: int = 1

    @property
    def name(self) -> str:
        return self.task_id


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """A group of tasks."""

    group_id: str
    groups: tuple[str, ...] = ()
    """The groups that it is in, outermost first."""
    upstream: tuple[str, ...] = ()
    is_prefixed: bool = True
    """Whether the ids of what is in it begin with its own."""

    @property
    def name(self) -> str:
        return self.group_id


Unit = TaskPlan | GroupPlan


@dataclass(frozen=True, kw_only=True)
class DagPlan:
    """A random DAG. Its tasks stand behind their upstream."""

    dag_id: str
    tasks: tuple[TaskPlan, ...]
    groups: tuple[GroupPlan, ...] = ()
    max_active_tasks: int | None = None
    max_active_runs: int | None = None
    runs: int = 1
    """How many runs are started together."""

    @property
    def units(self) -> list[Unit]:
        return [*self.tasks, *self.groups]
