"""What can happen, in the past tense. Plain data; `Engine.step` is the only reader."""

from __future__ import annotations

from dataclasses import dataclass

from tickless.model.dag import DagSpec
from tickless.model.id import RunKey
from tickless.model.limit import Limits, Routing
from tickless.model.report import Finished, Lost, Started
from tickless.model.row import InstanceTally


@dataclass(frozen=True, slots=True, kw_only=True)
class DagParsed:
    """A DAG file gave this spec. A new version comes of it only when `hash` differs from the current one's."""

    spec: DagSpec
    spec_json: str
    hash: str
    bundle: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DagVanished:
    """A DAG is no longer in any file. Its live runs go on; no new ones start."""

    dag_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsChanged:
    """The configuration was reloaded."""

    limits: Limits
    routing: Routing


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """The one timer rang, or somebody thinks it should have. Harmless at any moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkContinued:
    """The next bounded slice of work that an earlier step left over (`Decision.more`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastFound:
    """The answer to `PastWanted`, read from committed rows after it."""

    number: int
    run: RunKey
    previous: RunKey | None
    """None: it is the first."""
    tallies: tuple[InstanceTally, ...] = ()
    """Finished instances of the previous run."""


Event = PastFound | DagParsed | DagVanished | LimitsChanged | TimePassed | WorkContinued | Started | Finished | Lost
