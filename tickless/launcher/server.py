"""The launcher's socket: who may talk to it, which leader it listens to, and the bytes in and out.

At most one connection is a leader's. A new one with the same or a higher epoch takes its place; a lower epoch is
refused, for ever, because the highest is in the spool before it is answered. Only root and our own user are heard.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tickless.launcher.loop import READ, WRITE, Loop
from tickless.launcher.service import Launcher, Outbox
from tickless.launcher.spool import EpochSeen, Kept
from tickless.model.report import Finished, Lost
from tickless.wire.codec import PROTOCOL_VERSION, BadMessage, FrameReader, encode_frame
from tickless.wire.launcher import (
    Accepted,
    Ack,
    Answers,
    Forget,
    FromLauncher,
    Hello,
    InventoryEntry,
    Refused,
    ReportFinished,
    ReportLost,
    ReportStarted,
    Requests,
    Shutdown,
    ShutdownRefused,
    Stop,
    Submit,
    ToLauncher,
    Welcome,
)
from tickless.wire.request import AttemptRequest

_READ_BYTES = 256 * 1024
_CHUNK_BYTES = 1024 * 1024
_CHUNK_REPORTS = 1000
_UCRED = struct.Struct("3i")
_RECENTLY_ACKED = 1000
R = TypeVar("R")


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader: FrameReader[ToLauncher] = FrameReader(ToLauncher)
        self.out = bytearray()
        self.is_leader = False
        self.is_closed = False
        self.waits_for_room = False


class Server:
    """Takes ownership of a listening socket."""

    def __init__(self, loop: Loop, listener: socket.socket, launcher: Launcher, log: Callable[..., None]) -> None:
        self._loop = loop
        self._listener = listener
        self._launcher = launcher
        self._log = log
        self._connections: set[_Connection] = set()
        self._leader: _Connection | None = None
        self._buffer = memoryview(bytearray(_READ_BYTES))  # one for ever: so large a new one costs three system calls
        launcher.send = self._send_outbox
        launcher.channels.forward = self._forward
        listener.setblocking(False)
        loop.add(listener.fileno(), READ, lambda _mask: self._accept())

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(credentials)
        if uid not in (0, os.geteuid()):
            self._log("connection.refused", uid=uid)
            sock.close()
            return
        sock.setblocking(False)
        connection = _Connection(sock)
        self._connections.add(connection)
        self._loop.add(sock.fileno(), READ, lambda mask: self._on_ready(connection, mask))

    def _close(self, connection: _Connection) -> None:
        if connection.is_closed:
            return
        connection.is_closed = True
        self._connections.discard(connection)
        if self._leader is connection:
            self._leader = None
        self._loop.remove(connection.sock.fileno())
        connection.sock.close()

    def _on_ready(self, connection: _Connection, mask: int) -> None:
        if mask & WRITE and not connection.is_closed:
            self._write(connection)
        if not mask & READ or connection.is_closed:
            return
        try:
            size = connection.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._close(connection)
            return
        try:
            for message in connection.reader.feed(self._buffer[:size]):
                if not self._on_message(connection, message):
                    return
        except Exception as error:
            # Whatever it is, this peer's next message would fare no better; it connects again and starts afresh.
            self._log("connection.broken", error=str(error) if isinstance(error, BadMessage) else repr(error))
            self._close(connection)

    def _on_message(self, connection: _Connection, message: ToLauncher) -> bool:
        """Whether the connection goes on."""
        launcher = self._launcher
        if isinstance(message, Hello):
            self._on_hello(connection, message)
        elif isinstance(message, Shutdown):
            self._on_shutdown(connection, message)
        elif not connection.is_leader:
            raise BadMessage(f"{type(message).__name__} before Hello")
        elif isinstance(message, Submit):
            launcher.submit(message.orders)
        elif isinstance(message, Stop):
            launcher.stop(message.stops)
        elif isinstance(message, Ack):
            launcher.ack(message.attempt_ids)
        elif isinstance(message, Forget):
            launcher.forget(message.attempt_ids)
        elif isinstance(message, Answers):
            for answer in message.answers:
                launcher.channels.answer(answer)
        return not connection.is_closed

    def _on_hello(self, connection: _Connection, hello: Hello) -> None:
        spool = self._launcher.spool
        seen = spool.contents.epoch
        reason = None
        if hello.protocol != PROTOCOL_VERSION:
            reason = f"this launcher speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}"
        elif hello.epoch < seen:
            reason = f"a leader of epoch {seen} has been here; epoch {hello.epoch} is over"
        if reason is not None:
            self._log("leader.refused", epoch=hello.epoch, seen=seen, pid=hello.pid)
            self._send(connection, Refused(reason=reason, epoch=seen))
            self._close(connection)
            return
        if self._leader is not None and self._leader is not connection:
            self._close(self._leader)
        if hello.epoch > seen:
            spool.append(EpochSeen(hello.epoch))
        spool.flush()
        connection.is_leader = True
        self._leader = connection
        self._log("leader.connected", epoch=hello.epoch, pid=hello.pid)
        self._welcome(connection)

    def _welcome(self, connection: _Connection) -> None:
        launcher = self._launcher
        contents = launcher.spool.contents
        reported = [kept for kept in contents.attempts.values() if not kept.is_forgotten]
        self._send(
            connection,
            Welcome(
                protocol=PROTOCOL_VERSION,
                launcher_id=contents.launcher_id,
                host=launcher.place.host,
                boot_id=launcher.place.boot_id,
                pid=os.getpid(),
                inventory=[_entry(kept) for kept in reported],
                recently_acked=contents.acked.newest(_RECENTLY_ACKED),
            ),
        )
        outbox = Outbox(
            started=[kept.started for kept in reported if kept.started is not None and kept.end is None],
            finished=[kept.end for kept in reported if isinstance(kept.end, Finished)],
            lost=[kept.end for kept in reported if isinstance(kept.end, Lost)],
        )
        launcher.drop_unsent()  # it is in the inventory
        self._send_outbox(outbox)
        for request in launcher.channels.held():
            self._forward(request)

    def _forward(self, request: AttemptRequest) -> None:
        """To the leader, if there is one; otherwise it is held for the next."""
        if self._leader is not None:
            self._send(self._leader, Requests(requests=[request]))

    def _on_shutdown(self, connection: _Connection, message: Shutdown) -> None:
        alive = self._launcher.alive()
        if alive and not message.kill:
            self._send(connection, ShutdownRefused(alive=alive))
            return
        self._log("launcher.stopping", alive=alive)
        self._launcher.stop_all()

    def _send_outbox(self, outbox: Outbox) -> None:
        """To the leader, if there is one; otherwise the spool keeps it for the next."""
        connection = self._leader
        if connection is None:
            return
        if outbox.accepted:
            # Nobody waits for it: it travels with the next report and wakes nobody.
            connection.out += encode_frame(Accepted(attempt_ids=outbox.accepted))
        frames: list[FromLauncher] = []
        frames += [ReportStarted(reports=reports) for reports in _chunks(outbox.started, lambda _: 0)]
        frames += [ReportFinished(reports=reports) for reports in _chunks(outbox.finished, _size)]
        frames += [ReportLost(reports=reports) for reports in _chunks(outbox.lost, lambda _: 0)]
        if frames:
            for frame in frames:
                connection.out += encode_frame(frame)
            self._write(connection)

    def _send(self, connection: _Connection, message: FromLauncher) -> None:
        connection.out += encode_frame(message)
        self._write(connection)

    def _write(self, connection: _Connection) -> None:
        try:
            while connection.out:
                sent = connection.sock.send(connection.out)
                del connection.out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)
            return
        waits = bool(connection.out)
        if waits != connection.waits_for_room:
            connection.waits_for_room = waits
            mask = READ | WRITE if waits else READ
            self._loop.change(connection.sock.fileno(), mask, lambda ready: self._on_ready(connection, ready))


def _entry(kept: Kept) -> InventoryEntry:
    if isinstance(kept.end, Finished):
        state = "finished"
    elif kept.end is not None:
        state = "lost"
    else:
        state = "running" if kept.started else "accepted"
    return InventoryEntry(attempt_id=kept.attempt_id, executor=kept.executor, state=state, started=kept.started)


def _size(report: Finished) -> int:
    return len(report.output or "") + len(report.error or "") + sum(map(len, report.xcoms.values()))


def _chunks(reports: Iterable[R], size: Callable[[R], int]) -> Iterator[list[R]]:
    """Lists that stay far below the limit of a frame."""
    chunk: list[R] = []
    total = 0
    for report in reports:
        if chunk and (total > _CHUNK_BYTES or len(chunk) >= _CHUNK_REPORTS):
            yield chunk
            chunk, total = [], 0
        chunk.append(report)
        total += size(report)
    if chunk:
        yield chunk
