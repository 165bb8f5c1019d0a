"""The local executor: a pool of processes on this host, through its launcher. Slots are the daemon's semaphore."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from tickless.clock import Clock, SystemClock
from tickless.executors.base import Capabilities, ReportSink, RequestSink
from tickless.executors.launcher_client import LauncherClient, LostConnection
from tickless.model.id import AttemptId, Epoch
from tickless.model.order import Order, StopOrder
from tickless.model.report import Lost, Report
from tickless.model.state import AttemptState
from tickless.wire.launcher import InventoryEntry
from tickless.wire.request import AttemptAnswer


class LocalExecutor:
    """Attempts as processes of this host. Several executors may share one client, each with a name of its own."""

    def __init__(self, name: str, client: LauncherClient, slots: int, *, clock: Clock | None = None) -> None:
        self._name = name
        self._client = client
        self._slots = slots
        self._clock = clock or SystemClock()
        self._on_lost: list[LostConnection] = []
        self._requests: RequestSink = lambda _requests: None

    @property
    def name(self) -> str:
        return self._name

    def capabilities(self) -> Capabilities:
        return Capabilities(slots=self._slots)

    async def connect(self, epoch: Epoch, live: Mapping[AttemptId, AttemptState], sink: ReportSink) -> None:
        """See `Executor.connect`. Calling it again makes a new connection, and so brings unacked reports again."""
        await self.join(epoch, live, sink)

    async def join(
        self, epoch: Epoch, live: Mapping[AttemptId, AttemptState], sink: ReportSink
    ) -> Mapping[int, InventoryEntry]:
        """`connect`, and what the launcher knew."""
        inventory = await self._client.join(self._name, epoch, sink, self._on_lost, self._requests)
        self._client.forget([attempt_id for attempt_id in inventory if attempt_id not in live])
        lost: list[Report] = [
            Lost(
                attempt_id=attempt_id,
                at=self._clock.now(),
                why="it was running when the daemon last heard of it, and the launcher does not know it",
            )
            for attempt_id, state in live.items()
            if state is AttemptState.RUNNING and attempt_id not in inventory
        ]
        if lost:
            asyncio.get_running_loop().call_soon(sink, lost)
        return inventory

    def submit(self, orders: Sequence[Order]) -> None:
        self._client.submit(self._name, orders)

    def stop(self, stops: Sequence[StopOrder]) -> None:
        self._client.stop(stops)

    def ack(self, attempt_ids: Iterable[AttemptId]) -> None:
        self._client.ack(attempt_ids)

    def on_requests(self, sink: RequestSink) -> None:
        self._requests = sink

    def answer(self, answers: Sequence[AttemptAnswer]) -> None:
        self._client.answer(answers)

    def disconnect(self) -> None:
        self._client.leave(self._name)

    def on_lost_connection(self, callback: LostConnection) -> None:
        """To be registered before `connect`."""
        self._on_lost.append(callback)
