"""The messages between a daemon (or a worker) and its launcher, over a unix socket. Protocol version 1.

A connection opens with `Hello`; the launcher answers `Welcome` with its inventory, or `Refused` when it has seen a
higher epoch. Then the daemon sends `Submit`, `Stop`, `Ack` and `Forget`; the launcher sends `Accepted`,
`ReportStarted`, `ReportFinished` and `ReportLost`. Requests of running tasks come as `Requests`, all that are not
answered again after each `Welcome`, and are answered by `Answers`. Everything travels as lists. Fields may be added,
never changed.
"""

from __future__ import annotations

import msgspec

from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished, Lost, Started
from tickless.wire.request import AttemptAnswer, AttemptRequest


class Hello(msgspec.Struct, tag="hello", frozen=True, kw_only=True):
    """First message of a daemon. The launcher keeps the highest epoch on disk, and drops connections of lower ones."""

    protocol: int
    epoch: int
    pid: int


class Submit(msgspec.Struct, tag="submit", frozen=True, kw_only=True):
    orders: list[Order]


class Stop(msgspec.Struct, tag="stop", frozen=True, kw_only=True):
    stops: list[StopOrder]


class Ack(msgspec.Struct, tag="ack", frozen=True, kw_only=True):
    """These attempts' ends (Finished or Lost) are committed: forget the reports, remember the ids."""

    attempt_ids: list[int]


class Forget(msgspec.Struct, tag="forget", frozen=True, kw_only=True):
    """These attempts are not live in the database: kill what runs of them, report nothing."""

    attempt_ids: list[int]


class Answers(msgspec.Struct, tag="answers", frozen=True, kw_only=True):
    answers: list[AttemptAnswer]


class Shutdown(msgspec.Struct, tag="shutdown", frozen=True, kw_only=True):
    """Exit. With `kill`, running attempts are stopped first (TERM, grace, KILL) and their ends recorded in the
    spool; without it the launcher refuses while any attempt is alive (answers `ShutdownRefused`)."""

    kill: bool = False


class InventoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that the launcher knows and that is not acknowledged."""

    attempt_id: int
    executor: str
    state: str
    """accepted | running | finished | lost; the reports of the last two follow right after the Welcome."""
    started: Started | None = None


class Welcome(msgspec.Struct, tag="welcome", frozen=True, kw_only=True):
    protocol: int
    launcher_id: str
    """Random, made with the spool: identifies this spool for ever."""
    host: str
    boot_id: str
    pid: int
    inventory: list[InventoryEntry]
    recently_acked: list[int]
    """Acknowledged attempt ids still remembered, newest last; at most 1,000 here."""


class Refused(msgspec.Struct, tag="refused", frozen=True, kw_only=True):
    reason: str
    epoch: int
    """The highest epoch that the launcher has seen."""


class ShutdownRefused(msgspec.Struct, tag="shutdown_refused", frozen=True, kw_only=True):
    alive: int


class Accepted(msgspec.Struct, tag="accepted", frozen=True, kw_only=True):
    """These orders are in the spool; they will start, or a report will say why not."""

    attempt_ids: list[int]


class ReportStarted(msgspec.Struct, tag="started", frozen=True, kw_only=True):
    reports: list[Started]


class ReportFinished(msgspec.Struct, tag="finished", frozen=True, kw_only=True):
    reports: list[Finished]


class ReportLost(msgspec.Struct, tag="lost", frozen=True, kw_only=True):
    reports: list[Lost]


class Requests(msgspec.Struct, tag="requests", frozen=True, kw_only=True):
    """Each is sent once on a connection, and again on the next one until it is answered."""

    requests: list[AttemptRequest]


ToLauncher = Hello | Submit | Stop | Ack | Forget | Answers | Shutdown
FromLauncher = Welcome | Refused | ShutdownRefused | Accepted | ReportStarted | ReportFinished | ReportLost | Requests
