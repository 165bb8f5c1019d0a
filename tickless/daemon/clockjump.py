"""Notice that the wall clock was set. Delays are measured on a clock that never jumps, so a due time that was far away
may have come; Linux tells of it through a timer that is cancelled when the clock is set (timerfd_create(2),
TFD_TIMER_CANCEL_ON_SET). Python has timerfd only from 3.13 on, hence ctypes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

import anyio
import anyio.abc

from tickless.telemetry.log import get_log

_CLOCK_REALTIME = 0
_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2
_FAR_FUTURE = 2**33  # seconds since 1970, in the year 2242

log = get_log()


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


async def watch_clock(
    jumped: Callable[[], None], *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Call `jumped` each time the wall clock is set, until cancelled."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(_CLOCK_REALTIME, _TFD_NONBLOCK | _TFD_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    loop = asyncio.get_running_loop()

    def arm() -> None:
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(_FAR_FUTURE, 0))
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        if libc.timerfd_settime(fd, flags, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def on_readable() -> None:
        try:
            os.read(fd, 8)
        except BlockingIOError:
            return
        except OSError:
            pass  # ECANCELED: the clock was set
        arm()
        log.info("clock.jumped")
        jumped()

    arm()
    loop.add_reader(fd, on_readable)
    task_status.started()
    try:
        await anyio.sleep_forever()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
