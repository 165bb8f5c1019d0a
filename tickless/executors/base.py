"""The executor port: a transport for orders out, reports in, and the requests of running tasks. It decides nothing.

The contract, checked for every executor by tests/contract/test_executor.py:

- `submit` and `stop` return at once; they are idempotent by attempt id.
- Every submitted attempt ends in exactly one `Finished` or `Lost`, offered again after each `connect` until `ack`ed.
- Reports of one attempt come in order: Started, then its end. A Finished may come without a Started.
- After `connect(epoch)` nothing of a lower epoch gets through in either direction.
- A request of a running attempt is offered once after each `connect`, until it is answered or the attempt has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tickless.model.id import AttemptId, Epoch
from tickless.model.order import Order, StopOrder
from tickless.model.report import Report
from tickless.model.state import AttemptState
from tickless.wire.request import AttemptAnswer, AttemptRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the daemon may ask of an executor."""

    slots: int
    """Attempts at once; the limit of the semaphore `executor:NAME`."""
    in_order: bool = False


ReportSink = Callable[[Sequence[Report]], None]
"""Called in the event loop with what arrived; must not block. It is set before `connect`."""

RequestSink = Callable[[Sequence[AttemptRequest]], None]
"""The same for requests; what is not answered comes again with the next connection."""


class Executor(Protocol):
    """One way of carrying out attempts. Instances belong to the daemon, which wires `sink` and calls `run`."""

    @property
    def name(self) -> str: ...

    def capabilities(self) -> Capabilities: ...

    async def connect(self, epoch: Epoch, live: Mapping[AttemptId, AttemptState], sink: ReportSink) -> None:
        """Attach on behalf of a leader. `live` is every live attempt of this executor in the database.

        Attempts that are queued there and unknown here are the caller's to submit again; attempts that are running
        there and unknown here are reported Lost; attempts known here and not live there are killed and forgotten.
        Raises Unavailable when the transport is away, Conflict when a higher epoch has been seen.
        """
        ...

    def submit(self, orders: Sequence[Order]) -> None: ...

    def stop(self, stops: Sequence[StopOrder]) -> None: ...

    def ack(self, attempt_ids: Iterable[AttemptId]) -> None:
        """The ends of these attempts are committed."""
        ...

    def on_requests(self, sink: RequestSink) -> None:
        """Where requests of running attempts go. To be registered before `connect`; the last one counts."""
        ...

    def answer(self, answers: Sequence[AttemptAnswer]) -> None:
        """What they led to is committed."""
        ...

    def disconnect(self) -> None:
        """Close the channel at once; nothing more reaches the sink. Running attempts are left alone."""
        ...

    def on_lost_connection(self, callback: Callable[[], Awaitable[None] | None]) -> None:
        """Called once for each connection that breaks by itself."""
        ...
