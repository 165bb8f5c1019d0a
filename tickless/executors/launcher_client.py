"""The daemon's end of the launcher's socket, shared by all executors that run their attempts through one launcher.

Reports carry no executor name; the client remembers who submitted what, and learns the rest from the inventory. Each
executor joins a connection once. One that joins again needs its unacknowledged reports again, which the launcher only
sends on a new connection: so then there is a new one, and the other executors hear some reports twice, as they may.

Writes are gathered for the rest of the loop iteration and leave as one.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from tickless.clock import Clock, SystemClock
from tickless.errors import Conflict, Unavailable
from tickless.executors.base import ReportSink, RequestSink
from tickless.model.id import AttemptId, Epoch
from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished, Report
from tickless.model.state import AttemptState, EndReason
from tickless.wire.codec import MAX_FRAME_BYTES, PROTOCOL_VERSION, BadMessage, FrameReader, encode, encode_frame
from tickless.wire.launcher import (
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
from tickless.wire.layout import MAX_SOCKET_PATH_BYTES, SOCKET_NAME, launcher_dir
from tickless.wire.request import Answer, AttemptAnswer, AttemptRequest

ANSWER_SECONDS = 10.0
EXIT_TAKEN = 75  # of `python -m tickless.launcher`: another one holds the home
_CHUNK_BYTES = 4 * 1024 * 1024
LostConnection = Callable[[], Awaitable[None] | None]


@dataclass(slots=True)
class _Member:
    """One executor on one connection."""

    sink: ReportSink
    on_lost: list[LostConnection]
    requests: RequestSink


@dataclass(slots=True, eq=False)
class _Link(asyncio.Protocol):
    """One connection, from its Hello to its end."""

    epoch: Epoch
    client: LauncherClient
    welcome: asyncio.Future[Welcome]
    transport: asyncio.Transport | None = None
    reader: FrameReader[FromLauncher] = field(default_factory=lambda: FrameReader(FromLauncher))
    inventory: dict[str, dict[int, InventoryEntry]] = field(default_factory=dict)
    """By executor name; taken out when that executor joins."""
    members: dict[str, _Member] = field(default_factory=dict)
    early: dict[str, list[Report]] = field(default_factory=dict)
    """Reports for executors that have not joined yet."""
    asked: dict[str, list[AttemptRequest]] = field(default_factory=dict)
    """Requests of attempts of executors that have not joined yet."""
    joined: set[str] = field(default_factory=set)
    """Names that have joined, also those that have left again."""
    owners: dict[int, str] = field(default_factory=dict)
    out: list[bytes] = field(default_factory=list)
    is_closed: bool = False
    pid: int = 0
    """The launcher's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(encode_frame(Hello(protocol=PROTOCOL_VERSION, epoch=self.epoch, pid=os.getpid())))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self.reader.feed(data):
                if self.is_closed:
                    return
                self._on_message(message)
        except BadMessage as error:
            self._fail(Unavailable(f"the launcher sent something unreadable: {error}"))
            self.abort()
            self.client.link_broke(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Unavailable(f"the launcher closed the connection{f': {exc}' if exc else ''}"))
        if not self.is_closed:
            self.is_closed = True
            self.client.link_broke(self)

    def _on_message(self, message: FromLauncher) -> None:
        if isinstance(message, ReportStarted | ReportFinished | ReportLost):
            self._deliver(message.reports)
        elif isinstance(message, Requests):
            self._ask(message.requests)
        elif isinstance(message, Welcome):
            self.pid = message.pid
            for entry in message.inventory:
                self.owners[entry.attempt_id] = entry.executor
                self.inventory.setdefault(entry.executor, {})[entry.attempt_id] = entry
            if not self.welcome.done():
                self.welcome.set_result(message)
        elif isinstance(message, Refused):
            self._fail(Conflict(f"the launcher refused us: {message.reason}"))

    def _deliver(self, reports: Sequence[Report]) -> None:
        shares: dict[str, list[Report]] = {}
        for report in reports:
            name = self.owners.get(report.attempt_id)
            if name is not None:
                shares.setdefault(name, []).append(report)
        for name, share in shares.items():
            if member := self.members.get(name):
                member.sink(share)
            elif name not in self.joined:
                self.early.setdefault(name, []).extend(share)

    def _ask(self, requests: Sequence[AttemptRequest]) -> None:
        for request in requests:
            name = self.owners.get(request.attempt_id)
            if name is None:
                over = Answer(number=request.number, error="this attempt is over", code="refused")
                self.write(Answers(answers=[AttemptAnswer(attempt_id=request.attempt_id, answer=over)]))
            elif member := self.members.get(name):
                member.requests([request])
            elif name not in self.joined:
                self.asked.setdefault(name, []).append(request)

    def _fail(self, error: Exception) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(error)

    def write(self, message: ToLauncher) -> None:
        """Send at the end of this loop iteration."""
        if self.is_closed:
            return  # whatever it is, a rebuild says it again
        if not self.out:
            asyncio.get_running_loop().call_soon(self.flush)
        self.out.append(encode_frame(message))

    def flush(self) -> None:
        """Send what was written so far."""
        if self.out and self.transport is not None and not self.is_closed:
            self.transport.write(b"".join(self.out))
        self.out.clear()

    def abort(self) -> None:
        """Nothing comes or goes after this."""
        self.is_closed = True
        if self.transport is not None:
            self.transport.abort()


class LauncherClient:
    """One launcher, named by the home that it serves. Belongs to one event loop; calls are not thread-safe."""

    def __init__(self, home: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self.home = os.path.abspath(home)
        self._clock = clock or SystemClock()
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._refusal: asyncio.Future[int] | None = None

    @property
    def pid(self) -> int | None:
        """The launcher's process, while connected."""
        return self._link.pid if self._link is not None and not self._link.is_closed else None

    async def join(
        self,
        name: str,
        epoch: Epoch,
        sink: ReportSink,
        on_lost: Iterable[LostConnection],
        requests: RequestSink = lambda _requests: None,
    ) -> Mapping[int, InventoryEntry]:
        """Attach an executor on behalf of the leader of `epoch`, connecting when needed; its part of the inventory.

        Its unacknowledged reports go to the sink right after. Raises Unavailable, or Conflict on a higher epoch.
        """
        async with self._connecting:
            link = self._link
            if link is None or link.is_closed or link.epoch != epoch or name in link.joined:
                members = {} if link is None or link.epoch != epoch or link.is_closed else link.members
                link = await self._connect(epoch)
                for other, member in members.items():
                    if other != name:
                        self._attach(link, other, member)
                self._link = link
            inventory = link.inventory.pop(name, {})
            self._attach(link, name, _Member(sink, list(on_lost), requests))
            return inventory

    async def _connect(self, epoch: Epoch) -> _Link:
        if self._link is not None:
            if self._link.epoch > epoch:
                raise Conflict(f"epoch {epoch} is over: this client has served epoch {self._link.epoch}")
            self._link.abort()
        loop = asyncio.get_running_loop()
        link = _Link(epoch, self, loop.create_future())
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await _open(self.home, lambda: link)
                await link.welcome
        except OSError as error:
            raise Unavailable(
                f"no launcher answers in {self.home}: {error.strerror or error}",
                hint="Start one: python -m tickless.launcher --home " + self.home,
            ) from error
        except TimeoutError as error:
            link.abort()
            raise Unavailable(f"the launcher in {self.home} does not answer within {ANSWER_SECONDS:.0f} s") from error
        except BaseException:
            link.abort()
            raise
        return link

    def _attach(self, link: _Link, name: str, member: _Member) -> None:
        link.joined.add(name)
        link.members[name] = member
        early = link.early.pop(name, None)
        if early:
            asyncio.get_running_loop().call_soon(self._deliver_early, link, name, early)
        asked = link.asked.pop(name, None)
        if asked:
            asyncio.get_running_loop().call_soon(link._ask, asked)

    def _deliver_early(self, link: _Link, name: str, reports: list[Report]) -> None:
        mine = [report for report in reports if report.attempt_id in link.owners]  # some were forgotten on joining
        if mine and not link.is_closed and name in link.members:
            link.members[name].sink(mine)

    def leave(self, name: str) -> None:
        """The executor hears nothing more. The last one to leave closes the connection at once."""
        link = self._link
        if link is None:
            return
        link.members.pop(name, None)
        if not link.members:
            link.abort()

    def link_broke(self, link: _Link) -> None:
        """Called by a link that ended by itself."""
        callbacks = [callback for member in link.members.values() for callback in member.on_lost]
        link.members.clear()
        for callback in callbacks:
            result = callback()
            if inspect.isawaitable(result):
                _keep(result)

    def submit(self, name: str, orders: Sequence[Order]) -> None:
        """Send orders; without a connection they are dropped, and the rebuild that follows sends them again."""
        link = self._link
        if link is None or link.is_closed or not orders:
            return
        chunk: list[Order] = []
        size = 0
        for order in orders:
            link.owners[order.attempt_id] = name
            if size > _CHUNK_BYTES:
                link.write(Submit(orders=chunk))
                chunk, size = [], 0
            weight = len(order.command or "") + sum(map(len, (order.inputs or {}).values()))
            weight += sum(len(text) for values in (order.input_keys or {}).values() for text in values.values())
            if weight > _CHUNK_BYTES and (weight := len(encode(order))) > MAX_FRAME_BYTES - _CHUNK_BYTES // 2:
                self._refuse(link, name, order, weight)
                continue
            if chunk and weight > _CHUNK_BYTES:
                link.write(Submit(orders=chunk))
                chunk, size = [], 0
            chunk.append(order)
            size += weight
        if chunk:
            link.write(Submit(orders=chunk))
        link.flush()  # a task waits for it; what else the daemon has to say may go later

    def _refuse(self, link: _Link, name: str, order: Order, size: int) -> None:
        """An order that no message can hold ends here; it would never arrive."""
        end: Report = Finished(
            attempt_id=order.attempt_id,
            at=self._clock.now(),
            state=AttemptState.FAILED,
            reason=EndReason.NOT_STARTED,
            error=f"the task's inputs and command are {size:,} bytes; a launcher takes {MAX_FRAME_BYTES:,} at most",
        )
        asyncio.get_running_loop().call_soon(self._deliver_early, link, name, [end])

    def stop(self, stops: Sequence[StopOrder]) -> None:
        """Ask for the end of attempts."""
        if self._link is not None and stops:
            self._link.write(Stop(stops=list(stops)))

    def ack(self, attempt_ids: Iterable[AttemptId]) -> None:
        """Their ends are committed."""
        link = self._link
        ids = [int(attempt_id) for attempt_id in attempt_ids]
        if link is not None and ids:
            link.write(Ack(attempt_ids=ids))
            for attempt_id in ids:
                link.owners.pop(attempt_id, None)

    def answer(self, answers: Sequence[AttemptAnswer]) -> None:
        """Tell running attempts. Without a connection there is nobody to tell, and they ask again."""
        if self._link is not None:
            for answer in answers:
                self._link.write(Answers(answers=[answer]))

    def forget(self, attempt_ids: Sequence[int]) -> None:
        """They are not live in the database; nothing more is heard of them."""
        if self._link is not None and attempt_ids:
            self._link.write(Forget(attempt_ids=list(attempt_ids)))
            for attempt_id in attempt_ids:
                self._link.owners.pop(attempt_id, None)

    async def shut_down(self, *, kill: bool, timeout: float = 60.0) -> int:
        """End the launcher. Returns 0 when it has gone, otherwise the number of attempts because of which it stays.

        Works without being connected as a leader. Raises Unavailable when it does not go within `timeout` seconds.
        """
        loop = asyncio.get_running_loop()
        ender = _Ender(kill, loop.create_future())
        try:
            await _open(self.home, lambda: ender)
            async with asyncio.timeout(timeout):
                return await ender.answer
        except OSError:
            return 0
        except TimeoutError as error:
            raise Unavailable(f"the launcher in {self.home} does not end within {timeout:.0f} s") from error


class _Ender(asyncio.Protocol):
    """A connection that asks for the launcher's end and waits for it."""

    def __init__(self, kill: bool, answer: asyncio.Future[int]) -> None:
        self._kill = kill
        self.answer = answer
        self._reader: FrameReader[FromLauncher] = FrameReader(FromLauncher)
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(encode_frame(Shutdown(kill=self._kill)))

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if isinstance(message, ShutdownRefused) and not self.answer.done():
                self.answer.set_result(message.alive)
                if self._transport is not None:
                    self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(0)


async def _open(home: str, make: Callable[[], asyncio.Protocol]) -> None:
    """Connect to the launcher's socket, however long its path is."""
    folder = launcher_dir(home)
    path = f"{folder}/{SOCKET_NAME}"
    loop = asyncio.get_running_loop()
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        await loop.create_unix_connection(make, path)
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await loop.create_unix_connection(make, f"/proc/self/fd/{fd}/{SOCKET_NAME}")
    finally:
        os.close(fd)


async def ensure_launcher(home: str | os.PathLike[str]) -> None:
    """Have a launcher that serves this home: start one, detached, when none answers. For `tickless dev` only; under
    systemd the launcher is a unit of its own. Raises Unavailable with the launcher's own words when it cannot start.
    """
    home = os.fspath(home)
    if await _answers(home):
        return
    command = [sys.executable, "-P", "-m", "tickless.launcher", "--home", home, "--detach"]
    try:
        with anyio.fail_after(ANSWER_SECONDS * 3):
            done = await anyio.run_process(command, check=False, start_new_session=True)
    except TimeoutError as error:
        raise Unavailable(f"the launcher for {home} does not start") from error
    if done.returncode == 0:
        return
    for _ in range(100):
        if done.returncode != EXIT_TAKEN or await _answers(home):
            break
        await anyio.sleep(0.05)  # another process is starting it at this moment
    if await _answers(home):
        return
    said = done.stderr.decode("utf-8", "replace").strip().removeprefix("tickless: ")
    raise Unavailable(f"the launcher for {home} does not start: {said or f'exit code {done.returncode}'}")


async def _answers(home: str) -> bool:
    probe = _Probe()
    try:
        await _open(home, lambda: probe)
    except OSError:
        return False
    if probe.transport is not None:
        probe.transport.abort()
    return True


class _Probe(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport


_running: set[asyncio.Future[None]] = set()


def _keep(awaitable: Awaitable[None]) -> None:
    """Run a callback's coroutine; the set keeps it alive until it is done."""

    async def call() -> None:
        await awaitable

    task = asyncio.get_running_loop().create_task(call(), name="launcher connection lost")
    _running.add(task)
    task.add_done_callback(_running.discard)
