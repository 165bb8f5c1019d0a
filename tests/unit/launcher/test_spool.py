from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.launcher import Orders
from tickless.launcher import spool as spool_module
from tickless.launcher.spool import (
    AcceptedRecord,
    Acked,
    AckedRecord,
    EpochSeen,
    FinishedRecord,
    ForgottenRecord,
    LostRecord,
    Record,
    Spool,
    StartedRecord,
)
from tickless.model.report import Finished, Lost, Started
from tickless.model.state import AttemptState, EndReason

AT = datetime(2026, 11, 22, tzinfo=UTC)


class Noted:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def __call__(self, event: str, **keys: object) -> None:
        self.events.append((event, keys))


def opened(path: Path, log: Noted | None = None) -> Spool:
    return Spool(str(path / "spool"), log=log or Noted())


def a_life(path: Path) -> list[Record]:
    """One attempt at each station."""
    orders = Orders(path)
    a, b, c, d, e, f = (orders.bash(":") for _ in range(6))
    started = [Started(attempt_id=o.attempt_id, at=AT, pid=10, host="h") for o in (b, c, d)]
    end = Finished(attempt_id=c.attempt_id, at=AT, state=AttemptState.SUCCESS, reason=EndReason.EXITED, output='"ü"')
    return [
        EpochSeen(7),
        *(AcceptedRecord(o, "boot") for o in (a, b, c, d, e, f)),
        *(StartedRecord(s, 99, "boot", "w-1") for s in started),
        FinishedRecord(end, "local"),
        LostRecord(Lost(attempt_id=d.attempt_id, at=AT, why="gone"), "local"),
        AckedRecord([e.attempt_id]),
        ForgottenRecord([f.attempt_id]),
        EpochSeen(5),
    ]


def picture(spool: Spool) -> Any:
    contents = spool.contents
    return contents.launcher_id, contents.epoch, contents.attempts, contents.acked.newest(10)


def test_it_reads_back_what_it_wrote(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for record in a_life(tmp_path):
        first.append(record)
    first.flush()
    second = opened(tmp_path)
    assert picture(second) == picture(first)
    assert second.contents.epoch == 7
    third = opened(tmp_path)  # from the compacted file
    assert picture(third) == picture(first)


def test_every_prefix_of_the_file_can_be_opened(tmp_path: Path) -> None:
    """A death in the middle of any write."""
    spool = opened(tmp_path)
    head = (tmp_path / "spool").read_bytes()
    for record in a_life(tmp_path):
        spool.append(record)
    spool.flush()
    data = (tmp_path / "spool").read_bytes()
    for cut in range(len(head), len(data), 37):
        (tmp_path / "spool").write_bytes(data[:cut])
        log = Noted()
        torn = opened(tmp_path, log)
        is_torn = data[cut - 1 : cut] != b"\n" and data[cut : cut + 1] != b"\n"
        assert bool(log.events) == is_torn
        torn.append(EpochSeen(1000))
        torn.flush()
        again = Noted()
        assert opened(tmp_path, again).contents.epoch == 1000
        assert again.events == [], "the torn line was not cleaned away"


def test_nothing_is_in_the_file_before_the_flush(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.append(EpochSeen(3))
    assert spool.is_pending
    assert spool.contents.epoch == 3
    assert opened(tmp_path).contents.epoch == 0


def test_growth_compacts_without_losing_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_LEAST_COMPACTION_BYTES", 10_000)
    spool = opened(tmp_path)
    orders = Orders(tmp_path)
    kept = orders.bash(":")
    spool.append(AcceptedRecord(kept, "boot"))
    largest = 0
    for _ in range(100):
        order = orders.bash("x" * 500)
        spool.append(AcceptedRecord(order, "boot"))
        spool.append(AckedRecord([order.attempt_id]))
        spool.flush()
        largest = max(largest, (tmp_path / "spool").stat().st_size)
    assert largest < 20_000
    again = opened(tmp_path)
    assert list(again.contents.attempts) == [kept.attempt_id]
    assert len(again.contents.acked.newest(1000)) == 100


def test_a_full_disk_holds_everything_up_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Noted()
    spool = opened(tmp_path, log)
    real, failures = os.pwrite, [28, 28]

    def pwrite(fd: int, data: bytes, at: int) -> int:
        if failures:
            raise OSError(failures.pop(), "No space left on device")
        return real(fd, data[:5], at)  # and then there is little room at a time

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    spool.append(EpochSeen(9))
    spool.flush()
    monkeypatch.undo()
    assert [event for event, _ in log.events] == ["spool.full"]
    assert opened(tmp_path).contents.epoch == 9


def test_only_so_many_acks_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "REMEMBERED_ACKS", 3)
    acked = Acked()
    for attempt_id in (1, 2, 2, 3, 4):
        acked.add(attempt_id)
    assert acked.newest(10) == [2, 3, 4]
    assert acked.newest(2) == [3, 4]
    assert 1 not in acked
    assert 2 in acked
