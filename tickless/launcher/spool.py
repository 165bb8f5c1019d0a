"""The spool: everything the launcher knows, as one append-only file of JSON lines.

It is written without fsync: what a write(2) has taken survives the death of every process. What it does not survive
is a power loss, and then nothing that ran is alive either: each record of a start carries the boot id, and whatever
belongs to another boot is lost by definition. That also covers records that never reached the disk.

The file is rewritten (compacted) when a launcher starts and whenever it has grown to four times what it then was. A
torn last line, left by a death in the middle of a write, is ignored.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from uuid import uuid4

import msgspec

from tickless.model.order import Order
from tickless.model.report import Finished, Lost, Started

REMEMBERED_ACKS = 100_000
_LEAST_COMPACTION_BYTES = 8 * 1024 * 1024
_FULL_RETRY_SECONDS = 0.5


class Opened(msgspec.Struct, tag="opened", frozen=True):
    """First line of a spool."""

    launcher_id: str


class EpochSeen(msgspec.Struct, tag="epoch", frozen=True):
    epoch: int


class AcceptedRecord(msgspec.Struct, tag="accepted", frozen=True):
    """Written before anything is done for the order."""

    order: Order
    boot_id: str


class StartedRecord(msgspec.Struct, tag="started", frozen=True):
    """Written before the gate opens. `ticks` is field 22 of /proc/PID/stat: with the boot id it makes a pid unique."""

    report: Started
    ticks: int
    boot_id: str
    workspace: str


class FinishedRecord(msgspec.Struct, tag="finished", frozen=True):
    report: Finished
    executor: str


class LostRecord(msgspec.Struct, tag="lost", frozen=True):
    report: Lost
    executor: str


class AckedRecord(msgspec.Struct, tag="acked", frozen=True):
    """These ends are committed by the daemon, or synthetic: forget everything but the ids."""

    attempt_ids: list[int]


class ForgottenRecord(msgspec.Struct, tag="forgotten", frozen=True):
    """No database knows these: never start them, kill what runs, report nothing."""

    attempt_ids: list[int]


Record = (
    Opened | EpochSeen | AcceptedRecord | StartedRecord | FinishedRecord | LostRecord | AckedRecord | ForgottenRecord
)

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


@dataclass(slots=True)
class Kept:
    """One attempt that is not acknowledged, as the spool has it."""

    attempt_id: int
    executor: str
    order: Order | None = None
    """None once it has ended."""
    boot_id: str = ""
    started: Started | None = None
    ticks: int = 0
    workspace: str = ""
    end: Finished | Lost | None = None
    is_forgotten: bool = False


class Acked:
    """The last 100,000 acknowledged ids, oldest first."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._ids: set[int] = set()

    def add(self, attempt_id: int) -> None:
        if attempt_id not in self._ids:
            self._ids.add(attempt_id)
            self._order.append(attempt_id)
            if len(self._order) > REMEMBERED_ACKS:
                self._ids.discard(self._order.popleft())

    def __contains__(self, attempt_id: int) -> bool:
        return attempt_id in self._ids

    def newest(self, count: int) -> list[int]:
        """At most `count`, newest last."""
        return list(self._order)[-count:]


@dataclass(slots=True)
class Contents:
    """What a spool says, read from its first line to its last."""

    launcher_id: str = ""
    epoch: int = 0
    attempts: dict[int, Kept] = field(default_factory=dict)
    acked: Acked = field(default_factory=Acked)
    skipped_lines: int = 0
    """Lines that could not be read: a torn tail, or damage."""

    def apply(self, record: Record) -> None:
        """Take one record in. A record about an attempt that is not known is ignored."""
        match record:
            case Opened():
                self.launcher_id = record.launcher_id
            case EpochSeen():
                self.epoch = max(self.epoch, record.epoch)
            case AcceptedRecord():
                order = record.order
                self.attempts[order.attempt_id] = Kept(
                    order.attempt_id, order.executor, order=order, boot_id=record.boot_id
                )
            case StartedRecord():
                if kept := self.attempts.get(record.report.attempt_id):
                    kept.started, kept.ticks, kept.boot_id = record.report, record.ticks, record.boot_id
                    kept.workspace = record.workspace
            case FinishedRecord() | LostRecord():
                attempt_id = record.report.attempt_id
                kept = self.attempts.setdefault(attempt_id, Kept(attempt_id, record.executor))
                kept.end, kept.order = record.report, None
            case AckedRecord():
                for attempt_id in record.attempt_ids:
                    self.attempts.pop(attempt_id, None)
                    self.acked.add(attempt_id)
            case ForgottenRecord():
                for attempt_id in record.attempt_ids:
                    if kept := self.attempts.get(attempt_id):
                        kept.is_forgotten = True

    def records(self) -> Iterator[Record]:
        """The least records that say the same."""
        yield Opened(self.launcher_id)
        yield EpochSeen(self.epoch)
        yield AckedRecord(self.acked.newest(REMEMBERED_ACKS))
        forgotten = []
        for kept in self.attempts.values():
            if kept.order is not None:
                yield AcceptedRecord(kept.order, kept.boot_id)
            if isinstance(kept.end, Finished):
                yield FinishedRecord(kept.end, kept.executor)
            elif isinstance(kept.end, Lost):
                yield LostRecord(kept.end, kept.executor)
            if kept.started is not None:  # after what introduces the attempt
                yield StartedRecord(kept.started, kept.ticks, kept.boot_id, kept.workspace)
            if kept.is_forgotten:
                forgotten.append(kept.attempt_id)
        yield ForgottenRecord(forgotten)


class Spool:
    """The open file and what it says. Each `append` also changes `contents`, so that the two cannot differ."""

    def __init__(self, path: str, *, log: Callable[..., None]) -> None:
        self._path = path
        self._log = log
        self._pending: list[bytes] = []
        self.contents = _read(path)
        if self.contents.skipped_lines:
            log("spool.damaged", skipped_lines=self.contents.skipped_lines)
        self.contents.launcher_id = self.contents.launcher_id or uuid4().hex
        self._fd = -1
        self._size = self._limit = 0
        self.compact()

    def append(self, record: Record) -> None:
        """Note it; it is in the file after the next `flush`."""
        self.contents.apply(record)
        self._pending.append(_encode(record))
        self._pending.append(b"\n")

    @property
    def is_pending(self) -> bool:
        """Whether something was appended since the last `flush`."""
        return bool(self._pending)

    def flush(self) -> None:
        """Write what was appended, in one write.

        A full disk blocks here, and so stops the launcher from doing anything it could not remember.
        """
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        self._write(self._fd, data, self._size)
        self._size += len(data)
        if self._size > self._limit:
            self.compact()

    def compact(self) -> None:
        """Write what the spool says as a new file and put it in the place of the old one."""
        self._pending.clear()
        temporary = f"{self._path}.new"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        data = _lines(self.contents.records())
        self._write(fd, data, 0)
        os.rename(temporary, self._path)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = fd, len(data)
        self._limit = max(_LEAST_COMPACTION_BYTES, 4 * len(data))

    def _write(self, fd: int, data: bytes, at: int) -> None:
        is_told = False
        while True:
            try:
                written = os.pwrite(fd, data, at)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if not is_told:
                    self._log("spool.full", error=str(error))
                    is_told = True
                time.sleep(_FULL_RETRY_SECONDS)
                continue
            if written == len(data):
                return
            data, at = data[written:], at + written


def _lines(records: Iterable[Record]) -> bytes:
    return b"".join(_encode(record) + b"\n" for record in records)


def _read(path: str) -> Contents:
    contents = Contents()
    try:
        with open(path, "rb") as file:
            for line in file:
                try:
                    contents.apply(_decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    contents.skipped_lines += 1
    except FileNotFoundError:
        pass
    return contents
