"""The launcher of the small worlds in which the engine is tried."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.support.clock import VirtualClock
from tickless.model.id import AttemptId, TaskKey
from tickless.model.report import Finished, Lost, Report, Started
from tickless.model.state import (
    AttemptState,
    EndReason,
)


class Launcher:
    """The launcher's side of the protocol: idempotent by attempt id, and every end is kept until it is acked."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.key_of: dict[AttemptId, TaskKey] = {}  # every attempt ever accepted
        self.waiting: list[AttemptId] = []  # accepted, not yet through the start gate
        self.running: list[AttemptId] = []
        self.to_stop: dict[AttemptId, str] = {}
        self.unacked: dict[AttemptId, Finished | Lost] = {}
        self.starts: Counter[AttemptId] = Counter()
        self.started_reports: dict[AttemptId, Started] = {}

    @property
    def alive(self) -> list[AttemptId]:
        return [*self.waiting, *self.running]

    def submit(self, attempt_id: AttemptId, key: TaskKey) -> None:
        if attempt_id in self.key_of:
            return
        self.key_of[attempt_id] = key
        assert not [each for each in self.alive if self.key_of[each] == key], f"I1: two attempts of {key} are alive"
        self.waiting.append(attempt_id)

    def start(self, attempt_id: AttemptId) -> Started:
        self.starts[attempt_id] += 1
        assert self.starts[attempt_id] == 1, f"I1: attempt {attempt_id} starts twice"
        self.waiting.remove(attempt_id)
        self.running.append(attempt_id)
        report = Started(attempt_id=attempt_id, at=self.clock.now(), pid=len(self.key_of), host="here")
        self.started_reports[attempt_id] = report
        return report

    def end(self, attempt_id: AttemptId, state: AttemptState, reason: EndReason, **says: Any) -> Finished:
        started = self.started_reports.get(attempt_id)
        report = Finished(
            attempt_id=attempt_id,
            at=self.clock.now(),
            state=state,
            reason=reason,
            **says,
            started_at=started.at if started is not None else None,
            pid=started.pid if started is not None else None,
            host="here" if started is not None else None,
        )
        self._ended(report)
        return report

    def lose(self, attempt_id: AttemptId) -> Lost:
        report = Lost(attempt_id=attempt_id, at=self.clock.now(), why="killed -9")
        self._ended(report)
        return report

    def ack(self, attempt_id: AttemptId) -> None:
        self.unacked.pop(attempt_id, None)

    def inventory(self) -> list[Report]:
        """What it says after a hello."""
        return [*(self.started_reports[each] for each in self.running), *self.unacked.values()]

    def _ended(self, report: Finished | Lost) -> None:
        attempt_id = AttemptId(report.attempt_id)
        (self.waiting if attempt_id in self.waiting else self.running).remove(attempt_id)
        self.to_stop.pop(attempt_id, None)
        self.unacked[attempt_id] = report
