"""Reports: what an executor tells of its attempts. A report is kept by its sender until it is acknowledged,
and it is acknowledged only after the COMMIT of what it changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tickless.model.state import AttemptState, EndReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The attempt's process passed its start gate: its start record is on disk."""

    attempt_id: int
    at: datetime
    pid: int
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The attempt's process has exited and its group is swept (or it could never be started)."""

    attempt_id: int
    at: datetime
    state: AttemptState
    """SUCCESS, FAILED or SKIPPED."""
    reason: EndReason
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    """Traceback or explanation, at most 16 KiB."""
    output: str | None = None
    """The return value as JSON text; None = nothing returned."""
    length: int | None = None
    """Of a return value that is a list or a dict: how many elements it has."""
    xcoms: Mapping[str, str] = field(default_factory=dict)
    """What was pushed besides, also by a task that failed: key -> JSON text."""
    may_retry: bool = True
    """False: the task itself said that another try is no use."""
    follow: tuple[str, ...] | None = None
    """Of the tasks directly below, those that shall run; the others are skipped. None: no such choice was made."""
    skip_below: bool = False
    """Everything below is to be skipped, whatever its trigger rules say."""
    started_at: datetime | None = None
    """Repeats Started, so that a Finished alone is enough."""
    pid: int | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The attempt is certainly not alive any more, and what became of it is not known."""

    attempt_id: int
    at: datetime
    why: str
    """A sentence for people: the host was restarted, the launcher was killed …"""


Report = Started | Finished | Lost
