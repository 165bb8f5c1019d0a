"""An attempt while this launcher has anything to do for it: the part that needs no spool."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum

from tickless.launcher.loop import Timer
from tickless.launcher.verdict import Exit
from tickless.model.id import RunKey, TaskId, TaskKey
from tickless.model.order import Order
from tickless.model.report import Started
from tickless.model.state import EndReason
from tickless.wire.outcome import Outcome


class Phase(StrEnum):
    """From its acceptance to its end."""

    WAITING = "waiting"  # accepted; nothing has been made for it, or a zygote has been asked
    RUNNING = "running"  # its process exists; its start record is in the spool or about to be
    ENDING = "ending"  # its process has exited; what it left behind is being swept
    ENDED = "ended"  # its end is in the spool; only a zygote may still hold it, to drop it


@dataclass(slots=True, eq=False)
class Attempt:
    """Owned by the launcher; the zygotes only hold it while it waits for them."""

    order: Order
    phase: Phase = Phase.WAITING
    gate: int = -1
    """Our end of the gate; -1 once opened or given up."""
    far_end: int = -1
    """Of a gate that is a socket, and stays open for its requests: the attempt's end, of which this is our copy. With
    it, the death of the attempt does not hang the socket up, which would wake us just before the exit does."""
    workspace: str = ""
    """Its scratch folder and outcome file; none before it is about to start."""
    log: int = -1
    """Kept for a command whose last line is its output."""
    log_start: int = 0
    """Size of the log before this attempt wrote to it."""
    pid: int = 0
    pidfd: int = -1
    ticks: int = 0
    started: Started | None = None
    started_monotonic: float = 0.0
    exit: Exit = field(default_factory=Exit)
    outcome: Outcome | None = None
    """Its record, if it was read already."""
    stop_reason: EndReason | None = None
    kill_at: float = 0.0
    """Monotonic; until then a stopped attempt's processes may end in their own time."""
    is_forgotten: bool = False
    zygote_crashes: int = 0
    timer: Timer | None = None
    """KILL after the grace, or the end of patience with a sweep."""
    is_unswept: bool = False
    """Something of it may still be alive."""
    is_recovered: bool = False
    """It was started by a former launcher."""

    @property
    def id(self) -> int:
        return self.order.attempt_id

    @property
    def key(self) -> TaskKey:
        order = self.order
        return TaskKey(RunKey(order.run_key), TaskId(order.task_id), order.map_index)

    def open_gate(self, token: bytes) -> None:
        """Let it run. A gate that is a channel is left open, for `take_gate`."""
        try:
            os.write(self.gate, token)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was killed at the gate; its exit will be seen
        if self.far_end < 0:
            self.close_gate()

    def take_gate(self) -> tuple[int, int]:
        """Give both ends away."""
        ends = self.gate, self.far_end
        self.gate = self.far_end = -1
        return ends

    def close_gate(self) -> None:
        """A gate that was not opened before never opens: the process exits and has run nothing."""
        if self.gate >= 0:
            os.close(self.gate)
            self.gate = -1
        if self.far_end >= 0:
            os.close(self.far_end)
            self.far_end = -1

    def close_log(self) -> None:
        if self.log >= 0:
            os.close(self.log)
            self.log = -1

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
