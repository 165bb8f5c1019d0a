"""The sequential executor: one attempt at a time, in the order in which they were submitted. For debugging and tests.

The daemon's semaphore of one slot should keep a second order from coming; should it come, it is held here until the
first has ended. What is held is nowhere else: after a broken connection the daemon submits it again, as with any
order that the launcher does not know.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from tickless.clock import Clock, SystemClock
from tickless.executors.base import Capabilities, ReportSink, RequestSink
from tickless.executors.launcher_client import LauncherClient, LostConnection
from tickless.executors.local import LocalExecutor
from tickless.model.id import AttemptId, Epoch
from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished, Lost, Report
from tickless.model.state import AttemptState, EndReason
from tickless.wire.request import AttemptAnswer


class SequentialExecutor:
    """A local executor behind a queue."""

    def __init__(self, name: str, client: LauncherClient, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._local = LocalExecutor(name, client, slots=1, clock=self._clock)
        self._held: deque[Order] = deque()
        self._running: set[int] = set()
        self._seen: set[int] = set()  # on this connection; the launcher would not answer a second time
        self._sink: ReportSink = lambda _reports: None

    @property
    def name(self) -> str:
        return self._local.name

    def capabilities(self) -> Capabilities:
        return Capabilities(slots=1, in_order=True)

    async def connect(self, epoch: Epoch, live: Mapping[AttemptId, AttemptState], sink: ReportSink) -> None:
        """See `Executor.connect`."""
        self._held.clear()
        self._running.clear()
        self._sink = sink
        inventory = await self._local.join(epoch, live, self._on_reports)
        self._seen = set(inventory)
        self._running |= {i for i, entry in inventory.items() if i in live and entry.state in ("accepted", "running")}
        self._submit_next()

    def submit(self, orders: Sequence[Order]) -> None:
        """Known ids are left alone; the rest joins the queue."""
        for order in orders:
            if order.attempt_id not in self._seen:
                self._seen.add(order.attempt_id)
                self._held.append(order)
        self._submit_next()

    def stop(self, stops: Sequence[StopOrder]) -> None:
        """A held order ends here, without ever reaching the launcher."""
        stopped = {stop.attempt_id: stop for stop in stops}
        ended: list[Report] = []
        for order in [order for order in self._held if order.attempt_id in stopped]:
            self._held.remove(order)
            ended.append(
                Finished(
                    attempt_id=order.attempt_id,
                    at=self._clock.now(),
                    state=AttemptState.FAILED,
                    reason=EndReason(stopped.pop(order.attempt_id).reason),
                    error="stopped before it started",
                )
            )
        if ended:
            asyncio.get_running_loop().call_soon(self._sink, ended)
        self._local.stop(list(stopped.values()))

    def ack(self, attempt_ids: Iterable[AttemptId]) -> None:
        self._local.ack(attempt_ids)

    def on_requests(self, sink: RequestSink) -> None:
        self._local.on_requests(sink)

    def answer(self, answers: Sequence[AttemptAnswer]) -> None:
        self._local.answer(answers)

    def disconnect(self) -> None:
        self._local.disconnect()
        self._held.clear()
        self._sink = lambda _reports: None

    def on_lost_connection(self, callback: LostConnection) -> None:
        """To be registered before `connect`."""
        self._local.on_lost_connection(callback)

    def _on_reports(self, reports: Sequence[Report]) -> None:
        for report in reports:
            if isinstance(report, Finished | Lost):
                self._running.discard(report.attempt_id)
        self._sink(reports)
        self._submit_next()

    def _submit_next(self) -> None:
        if self._held and not self._running:
            order = self._held.popleft()
            self._running.add(order.attempt_id)
            self._local.submit([order])
