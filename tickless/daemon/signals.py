"""What each signal asks of the daemon.

TERM, INT   stop admitting, commit what is decided, resign, exit; running tasks go on under the launcher
a second    exit now
QUIT        as TERM, and end the running tasks too
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from enum import StrEnum

import anyio
import anyio.abc

from tickless.telemetry.log import get_log

log = get_log()


class StopKind(StrEnum):
    """How the daemon is to end."""

    LEAVE_TASKS = "leave_tasks"
    KILL_TASKS = "kill_tasks"
    NOW = "now"


async def watch_signals(
    stop: Callable[[StopKind], None], *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Turn signals into calls of `stop`, until cancelled."""
    loop = asyncio.get_running_loop()
    seen = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal seen
        seen += 1
        log.info("signal.received", signal=number.name)
        if seen > 1:
            stop(StopKind.NOW)
        elif number is signal.SIGQUIT:
            stop(StopKind.KILL_TASKS)
        else:
            stop(StopKind.LEAVE_TASKS)

    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    for number in watched:
        loop.add_signal_handler(number, on_signal, number)
    task_status.started()
    try:
        await anyio.sleep_forever()
    finally:
        for number in watched:
            loop.remove_signal_handler(number)
