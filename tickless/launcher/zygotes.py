"""The launcher's side of the zygotes: which exist, which order goes to which, and what to do when one dies or hangs.

An order waits here until its DAG zygote has imported the DAG file, then it is in flight until the zygote says that it
has forked. A zygote that dies with an order in flight, or before it was ready, costs that order one of two lives. One
that hangs is killed, which is the same. Running attempts never notice: they become the launcher's children.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from tickless.launcher.attempt import Attempt, Phase
from tickless.launcher.loop import READ, WRITE, Loop, Timer
from tickless.launcher.spawn import CannotSpawn, Spawner
from tickless.launcher.verdict import Exit
from tickless.model.order import Order
from tickless.wire.zygote import (
    BORN,
    BROKEN,
    EXITED,
    FORKED,
    MAX_INLINE_BYTES,
    MAX_PACKET_BYTES,
    NOT_FORKED,
    READY,
    UNFIT,
    DagSource,
    Packet,
    decode_packet,
    encode_run,
)

MAX_ZYGOTES = 8
IDLE_SECONDS = 300.0
MAX_AGE_SECONDS = 3600.0
IMPORT_SECONDS = 120.0
STALL_SECONDS = 30.0
"""A zygote that has not forked an order for so long is killed; on a machine that is merely slow nothing is lost."""
_MOST_IN_FLIGHT = 32
_LIVES = 2
_REMEMBERED_UNFIT = 1000

_encode = msgspec.json.Encoder().encode


class Owner(Protocol):
    """What the launcher does for its zygotes, and hears from them."""

    def open_channels(self, attempt: Attempt) -> tuple[int, int] | None:
        """Log and read end of the gate, to be closed by the caller; None when the attempt has ended by failing it."""

    def close_channels(self, attempt: Attempt) -> None:
        """Take back what `open_channels` has made; whoever still has it exits and has run nothing."""

    def forked(self, attempt: Attempt, pid: int) -> None: ...

    def exited(self, attempt_id: int, pid: int, how: Exit) -> None: ...

    def cannot_start(self, attempt: Attempt, error: str) -> None: ...

    def start_fresh(self, attempt: Attempt) -> None: ...


class _DagZygote:
    def __init__(self, source: DagSource, control: socket.socket) -> None:
        self.source = source
        self.control = control
        self.pidfd = -1
        self.pid = 0
        self.is_ready = False
        self.is_closed = False
        self.waits_for_room = False
        self.waiting: deque[Attempt] = deque()
        self.in_flight: dict[int, tuple[Attempt, float]] = {}  # and when it was sent
        self.born = self.last_used = time.monotonic()
        self.is_watched = False
        self.birth_timer: Timer | None = None
        self.import_timer: Timer | None = None

    def kill(self) -> None:
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Zygotes:
    """One base zygote and at most MAX_ZYGOTES DAG zygotes, more only while all are busy."""

    def __init__(self, loop: Loop, spawner: Spawner, owner: Owner, log: Callable[..., None]) -> None:
        self._loop = loop
        self._spawner = spawner
        self._owner = owner
        self._log = log
        self._base: socket.socket | None = None
        self._base_pid = 0
        self._zygotes: OrderedDict[DagSource, _DagZygote] = OrderedDict()  # least recently used first
        self._retired: set[_DagZygote] = set()
        self._unfit: OrderedDict[DagSource, None] = OrderedDict()

    def pids(self) -> set[int]:
        """Processes that belong to no attempt."""
        return {self._base_pid, *(zygote.pid for zygote in (*self._zygotes.values(), *self._retired))}

    def start_base(self) -> None:
        """Have a base zygote, so that the first order does not wait for an interpreter."""
        if self._base is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._base_pid = self._spawner.base_zygote(theirs.fileno())
        except CannotSpawn as error:
            ours.close()
            self._log("zygote.failed", error=str(error))
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._base = ours

    def child_exited(self, pid: int) -> None:
        """One of the launcher's children that is no attempt has exited."""
        if pid == self._base_pid and self._base is not None:
            self._log("zygote.died", pid=pid)
            self._drop_base()

    def start(self, attempt: Attempt) -> None:
        """Give the attempt to the zygote of its DAG version; one `Owner` method will be called for it."""
        order = attempt.order
        source = DagSource(bundle=order.bundle, file=order.file, version=order.version)
        if source in self._unfit:
            self._owner.start_fresh(attempt)
            return
        zygote = self._zygotes.get(source)
        if zygote is not None and time.monotonic() - zygote.born > MAX_AGE_SECONDS:
            self._retire(zygote)
            zygote = None
        if zygote is None:
            zygote = self._create(source)
        else:
            self._zygotes.move_to_end(source)
        zygote.last_used = time.monotonic()
        zygote.waiting.append(attempt)
        self._pump(zygote)

    def cancel(self, attempt: Attempt) -> None:
        """The attempt has ended before it started. If it is in flight, its closed gate does the rest."""
        for zygote in (*self._zygotes.values(), *self._retired):
            if attempt in zygote.waiting:
                zygote.waiting.remove(attempt)

    def kill_zygote_of(self, pid: int) -> None:
        """The process `pid` has exited long ago and its zygote has not said so: it hangs."""
        for zygote in (*self._zygotes.values(), *self._retired):
            if zygote.pid == pid:
                self._log("zygote.stalled", pid=pid)
                zygote.kill()

    def _create(self, source: DagSource) -> _DagZygote:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        zygote = _DagZygote(source, ours)
        self._zygotes[source] = zygote
        self._loop.add(ours.fileno(), READ, lambda mask: self._on_ready(zygote, mask))
        for _ in range(2):
            self.start_base()
            if self._base is None:
                break  # our end of the new pair will say so when the other is closed below
            try:
                socket.send_fds(self._base, [_encode(source)], [theirs.fileno()])
                break
            except OSError:
                self._drop_base()
        theirs.close()
        zygote.birth_timer = self._loop.call_later(STALL_SECONDS, lambda: self._check_birth(zygote))
        zygote.import_timer = self._loop.call_later(IMPORT_SECONDS, lambda: self._check_import(zygote))
        self._loop.call_later(IDLE_SECONDS, lambda: self._check_idle(zygote))
        self._limit(zygote)
        return zygote

    def _drop_base(self) -> None:
        if self._base is not None:
            self._base.close()
        self._base, self._base_pid = None, 0

    def _limit(self, newest: _DagZygote) -> None:
        surplus = len(self._zygotes) - MAX_ZYGOTES
        for zygote in [z for z in self._zygotes.values() if z is not newest and not z.waiting and not z.in_flight]:
            if surplus <= 0:
                return
            self._retire(zygote)
            surplus -= 1

    def _retire(self, zygote: _DagZygote) -> None:
        """No new orders; it is closed as soon as those it has are forked."""
        if self._zygotes.get(zygote.source) is zygote:
            del self._zygotes[zygote.source]
        self._retired.add(zygote)
        self._close_if_done(zygote)

    def _close_if_done(self, zygote: _DagZygote) -> None:
        if zygote in self._retired and not zygote.waiting and not zygote.in_flight:
            self._close(zygote)

    def _close(self, zygote: _DagZygote) -> None:
        if zygote.is_closed:
            return
        zygote.is_closed = True
        self._retired.discard(zygote)
        if self._zygotes.get(zygote.source) is zygote:
            del self._zygotes[zygote.source]
        self._loop.remove(zygote.control.fileno())
        zygote.control.close()
        if zygote.pidfd >= 0:
            os.close(zygote.pidfd)
            zygote.pidfd = -1

    def _pump(self, zygote: _DagZygote) -> None:
        """Send what waits, as far as the zygote keeps up."""
        while zygote.is_ready and zygote.waiting and len(zygote.in_flight) < _MOST_IN_FLIGHT:
            attempt = zygote.waiting.popleft()
            channels = self._owner.open_channels(attempt)
            if channels is None:
                continue
            try:
                self._send(zygote, attempt, channels)
            except BlockingIOError:
                self._owner.close_channels(attempt)
                zygote.waiting.appendleft(attempt)
                self._wait_for_room(zygote, True)
                return
            except OSError:
                pass  # it has died; the end of its socket comes next and takes care of this order too
            finally:
                for fd in channels:
                    os.close(fd)
            zygote.in_flight[attempt.id] = (attempt, time.monotonic())
            self._watch(zygote)

    def _send(self, zygote: _DagZygote, attempt: Attempt, channels: Sequence[int]) -> None:
        body = _encode(attempt.order)
        if len(body) <= MAX_INLINE_BYTES:
            socket.send_fds(zygote.control, [encode_run(attempt.id, attempt.workspace, body)], list(channels))
            return
        payload = _memory_file(body)
        try:
            socket.send_fds(zygote.control, [encode_run(attempt.id, attempt.workspace, b"")], [*channels, payload])
        finally:
            os.close(payload)

    def _wait_for_room(self, zygote: _DagZygote, waits: bool) -> None:
        if zygote.waits_for_room != waits:
            zygote.waits_for_room = waits
            mask = READ | WRITE if waits else READ
            self._loop.change(zygote.control.fileno(), mask, lambda ready: self._on_ready(zygote, ready))

    def _on_ready(self, zygote: _DagZygote, mask: int) -> None:
        if zygote.is_closed:
            return
        if mask & WRITE:
            self._wait_for_room(zygote, False)
        if mask & READ:
            while True:
                try:
                    data = zygote.control.recv(MAX_PACKET_BYTES)
                except BlockingIOError:
                    break
                except OSError:
                    data = b""
                if not data:
                    self._on_death(zygote)
                    return
                if not self._on_packet(zygote, decode_packet(data)):
                    return
        self._pump(zygote)
        self._close_if_done(zygote)

    def _on_packet(self, zygote: _DagZygote, packet: Packet) -> bool:
        """Whether the zygote goes on."""
        if packet.kind == EXITED:
            how = Exit(signal=packet.signal) if packet.signal else Exit(code=packet.exit_code)
            self._owner.exited(packet.attempt_id, packet.pid, how)
        elif packet.kind in (FORKED, NOT_FORKED):
            held = zygote.in_flight.pop(packet.attempt_id, None)
            if held is not None and packet.kind == FORKED:
                self._owner.forked(held[0], packet.pid)
            elif held is not None:
                self._owner.cannot_start(held[0], packet.text)
        elif packet.kind == BORN:
            zygote.pid = packet.pid
            if zygote.birth_timer is not None:
                zygote.birth_timer.cancel()
            try:
                zygote.pidfd = os.pidfd_open(packet.pid)
            except OSError:
                pass  # it is dead already, its socket will say so
        elif packet.kind == READY:
            zygote.is_ready = True
            if zygote.import_timer is not None:
                zygote.import_timer.cancel()
        elif packet.kind == BROKEN:
            message = f"the DAG file {zygote.source.file} cannot be imported:\n{packet.text}"
            self._end_all(zygote, lambda attempt: self._owner.cannot_start(attempt, message))
            return False
        elif packet.kind == UNFIT:
            self._on_unfit(zygote, packet.text)
            return False
        return True

    def _on_unfit(self, zygote: _DagZygote, left: str) -> None:
        self._log("zygote.unfit", file=zygote.source.file, version=zygote.source.version, left=left)
        self._unfit[zygote.source] = None
        while len(self._unfit) > _REMEMBERED_UNFIT:
            self._unfit.popitem(last=False)
        self._end_all(zygote, self._owner.start_fresh)

    def _end_all(self, zygote: _DagZygote, what: Callable[[Attempt], None]) -> None:
        self._close(zygote)
        for attempt in list(zygote.waiting):
            what(attempt)
        zygote.waiting.clear()

    def _on_death(self, zygote: _DagZygote) -> None:
        was_ready = zygote.is_ready
        self._log("zygote.died", pid=zygote.pid, file=zygote.source.file, was_ready=was_ready)
        self._close(zygote)
        in_flight = [attempt for attempt, _ in zygote.in_flight.values()]
        zygote.in_flight.clear()
        waiting = list(zygote.waiting)
        zygote.waiting.clear()
        self._spend_life(in_flight if was_ready else [*in_flight, *waiting])
        if was_ready:
            for attempt in waiting:
                self.start(attempt)

    def _spend_life(self, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            self._owner.close_channels(attempt)  # a child that was forked unheard of runs nothing
            if attempt.phase is not Phase.WAITING:
                continue  # stopped meanwhile
            attempt.zygote_crashes += 1
            if attempt.zygote_crashes < _LIVES:
                self.start(attempt)
            else:
                self._owner.cannot_start(
                    attempt,
                    f"the process that imports {attempt.order.file} died {_LIVES} times before it could start the task "
                    "(killed, crashed, or the import takes too long)",
                )

    def _watch(self, zygote: _DagZygote) -> None:
        if not zygote.is_watched:
            zygote.is_watched = True
            self._loop.call_later(STALL_SECONDS, lambda: self._check_stall(zygote))

    def _check_stall(self, zygote: _DagZygote) -> None:
        zygote.is_watched = False
        if zygote.is_closed or not zygote.in_flight:
            return
        oldest = min(sent for _, sent in zygote.in_flight.values())
        if time.monotonic() - oldest >= STALL_SECONDS:
            self._log("zygote.stalled", pid=zygote.pid, file=zygote.source.file)
            zygote.kill()
        else:
            self._watch(zygote)

    def _check_birth(self, zygote: _DagZygote) -> None:
        if not zygote.is_closed and not zygote.pid and self._base_pid:
            self._log("zygote.stalled", pid=self._base_pid)
            os.kill(self._base_pid, signal.SIGKILL)  # our own child: its pid is ours until we reap it

    def _check_import(self, zygote: _DagZygote) -> None:
        if not zygote.is_closed and not zygote.is_ready:
            self._log("zygote.stalled", pid=zygote.pid, file=zygote.source.file)
            zygote.kill()

    def _check_idle(self, zygote: _DagZygote) -> None:
        if zygote.is_closed:
            return
        idle = time.monotonic() - zygote.last_used
        if idle >= IDLE_SECONDS and not zygote.waiting and not zygote.in_flight:
            self._retire(zygote)
        else:
            self._loop.call_later(max(1.0, IDLE_SECONDS - idle), lambda: self._check_idle(zygote))


def order_file(order: Order) -> int:
    """A descriptor to read the order from, as JSON, with pread."""
    return _memory_file(_encode(order))


def _memory_file(body: bytes) -> int:
    fd = os.memfd_create("tickless-order", os.MFD_CLOEXEC)
    os.ftruncate(fd, len(body))
    at = 0
    while at < len(body):
        at += os.pwrite(fd, body[at:], at)
    return fd
