"""The configured limits. Every one is a semaphore in `core.admission`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the installation, from the config; a DAG's own `max_active_tasks`/`max_active_runs` come first."""

    parallelism: int = 32
    """Queued and running task instances, whole installation."""
    dag_concurrency: int = 16
    """Queued and running task instances of one dag run."""
    max_active_tasks_per_dag_total: int | None = None
    """Queued and running task instances of one DAG over all its runs; None = no such limit."""
    max_active_runs_per_dag: int = 16
    """Running runs of one DAG; more wait as queued."""
    max_consecutive_failed_dag_runs_per_dag: int = 0
    """A DAG is paused when this many of its runs have failed in a row; 0 = never."""
    pool_ageing_seconds: float = 60.0
    """After this wait the head of a pool reserves it: nothing behind it is admitted until it fits."""
    max_map_length: int = 1024
    """Most instances of one mapped task in one run; with more it fails."""
    max_lost_attempts: int = 3
    """Lost attempts of one try that are re-run by themselves; one more and the try fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Which executor serves a queue, and how many slots each executor has."""

    executors: Mapping[str, int] = field(default_factory=lambda: {"local": 32})
    """Executor name -> slots."""
    queues: Mapping[str, str] = field(default_factory=lambda: {"default": "local"})
    """Queue -> executor name. A queue that is not here is served by nobody: `why` says so."""
