"""The requests of running tasks: one socket per attempt, read by an untrusting reader, answered by the leader.

The socket is the attempt's gate; what comes after the byte that opened it are requests and answers. A task's code can
write anything into it at any speed, so:

- it is never waited for: both directions are non-blocking;
- nothing is read from it between a request and its answer: what an attempt costs here is one request and one answer;
- the attempt's id is added here, whatever the task says;
- what cannot be read is answered as such, and ends the channel (not the task).

A request is held until it is answered. Each new leader gets all that are held; the answers of old ones are lost with
their connections. An attempt that has ended takes its request with it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from tickless.launcher.loop import READ, WRITE, Loop
from tickless.wire.codec import BadMessage, FrameReader, encode_frame
from tickless.wire.request import MAX_REQUEST_BYTES, Answer, AttemptAnswer, AttemptRequest, Request

_READ_BYTES = 64 * 1024


class _Channel:
    __slots__ = ("attempt_id", "far_end", "has_failed", "held", "out", "reader", "sock", "watched")

    def __init__(self, attempt_id: int, sock: socket.socket, far_end: int) -> None:
        self.attempt_id = attempt_id
        self.sock = sock
        self.far_end = far_end
        self.reader: FrameReader[Request] | None = None  # most tasks never ask
        self.held: AttemptRequest | None = None
        self.out = memoryview(b"")
        self.watched = 0
        self.has_failed = False


class Channels:
    """Owned by the launcher."""

    def __init__(self, loop: Loop, log: Callable[..., None]) -> None:
        self._loop = loop
        self._log = log
        self._open: dict[int, _Channel] = {}
        self.forward: Callable[[AttemptRequest], None] = lambda _request: None
        """Set by the server: to the leader, if there is one."""

    def open(self, attempt_id: int, fd: int, far_end: int) -> None:
        """Listen to an attempt whose gate has just been opened; the descriptors are ours from now on."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
        sock.setblocking(False)
        channel = self._open[attempt_id] = _Channel(attempt_id, sock, far_end)
        self._watch(channel, READ)

    def close(self, attempt_id: int) -> None:
        """The attempt has ended. Closing twice is fine."""
        channel = self._open.pop(attempt_id, None)
        if channel is not None:
            self._watch(channel, 0)
            channel.sock.close()
            os.close(channel.far_end)

    def held(self) -> list[AttemptRequest]:
        """What waits for an answer."""
        return [channel.held for channel in self._open.values() if channel.held is not None]

    def answer(self, given: AttemptAnswer) -> None:
        """Pass an answer on, if it is still waited for."""
        channel = self._open.get(given.attempt_id)
        if channel is None or channel.held is None or channel.held.number != given.answer.number:
            return
        channel.held = None
        self._send(channel, given.answer)

    def _watch(self, channel: _Channel, mask: int) -> None:
        if mask == channel.watched:
            return
        fd = channel.sock.fileno()
        if not channel.watched:
            self._loop.add(fd, mask, lambda ready: self._on_ready(channel, ready))
        elif mask:
            self._loop.change(fd, mask, lambda ready: self._on_ready(channel, ready))
        else:
            self._loop.remove(fd)
        channel.watched = mask

    def _on_ready(self, channel: _Channel, ready: int) -> None:
        if self._open.get(channel.attempt_id) is not channel:
            return
        if ready & WRITE:
            self._write(channel)
        elif ready & READ and channel.watched & READ:
            self._read(channel)

    def _read(self, channel: _Channel) -> None:
        try:
            data = channel.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(channel, data)
        else:
            self.close(channel.attempt_id)

    def _take(self, channel: _Channel, data: bytes) -> None:
        """Hold the next request, if it is complete; until it is answered, nothing more is read."""
        if channel.reader is None:
            channel.reader = FrameReader(Request, limit=MAX_REQUEST_BYTES)
        try:
            request = next(channel.reader.feed(data), None)
        except BadMessage as error:
            self._log("request.refused", attempt_id=channel.attempt_id, error=str(error))
            channel.has_failed = True
            self._send(channel, Answer(number=0, error=f"the launcher cannot read it: {error}", code="invalid"))
            return
        if request is None:
            self._watch(channel, READ)
            return
        self._watch(channel, 0)
        channel.held = AttemptRequest(attempt_id=channel.attempt_id, number=request.number, ask=request.ask)
        self.forward(channel.held)

    def _send(self, channel: _Channel, answer: Answer) -> None:
        channel.out = memoryview(encode_frame(answer))
        self._write(channel)

    def _write(self, channel: _Channel) -> None:
        try:
            while channel.out:
                channel.out = channel.out[channel.sock.send(channel.out) :]
        except BlockingIOError:
            self._watch(channel, WRITE)
            return
        except OSError:
            channel.has_failed = True
        if channel.has_failed:
            self.close(channel.attempt_id)
        else:
            self._take(channel, b"")  # somebody may have sent more than one
