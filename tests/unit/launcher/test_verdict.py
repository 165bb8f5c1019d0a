from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.launcher import Orders
from tickless.launcher.oom import is_oom_victim
from tickless.launcher.verdict import Evidence, Exit, judge
from tickless.model.report import Started
from tickless.model.state import AttemptState, EndReason
from tickless.wire.outcome import Outcome

AT = datetime(2026, 11, 22, tzinfo=UTC)
SUCCESS = {"state": AttemptState.SUCCESS, "reason": EndReason.EXITED, "exit_code": 0, "output": "1"}


def verdict(tmp_path: Path, kind: str, how: Exit, outcome: dict[str, Any] | None = None, **evidence: Any) -> Any:
    orders = Orders(tmp_path)
    fields: dict[str, Any] = {"skip_on_exit_code": 99, "max_output_bytes": 20}
    order = orders.bash(":", **fields) if kind == "bash" else orders.python(**fields)
    started = Started(attempt_id=order.attempt_id, at=AT, pid=1, host="h")
    record = Outcome(attempt_id=order.attempt_id, **outcome) if outcome else None
    end = judge(Evidence(order=order, at=AT, started=started, exit=how, outcome=record, **evidence))
    return end.state.value, end.reason.value, end.exit_code, end.signal, end.output


@pytest.mark.parametrize(
    ("kind", "how", "more", "expected"),
    [
        ("bash", Exit(code=0), {}, ("success", "exited", 0, None, None)),
        ("bash", Exit(code=0), {"last_line": "x"}, ("success", "exited", 0, None, '"x"')),
        ("bash", Exit(code=0), {"last_line": "ü" * 10}, ("failed", "output_refused", 0, None, None)),
        ("bash", Exit(code=0), {"last_line_error": "e"}, ("failed", "output_refused", 0, None, None)),
        ("bash", Exit(code=99), {}, ("skipped", "exited", 99, None, None)),
        ("bash", Exit(code=1), {"last_line": "x"}, ("failed", "exited", 1, None, None)),
        ("bash", Exit(signal=11), {}, ("failed", "signaled", None, 11, None)),
        ("bash", Exit(signal=9), {"is_oom": True}, ("failed", "oom", None, 9, None)),
        ("bash", Exit(signal=9), {"stop_reason": EndReason.TIMEOUT}, ("failed", "timeout", None, 9, None)),
        ("bash", Exit(code=0), {"stop_reason": EndReason.STOPPED}, ("failed", "stopped", 0, None, None)),
        ("bash", Exit(code=99), {"stop_reason": EndReason.STOPPED}, ("failed", "stopped", 99, None, None)),
        ("python", Exit(code=0), {"outcome": SUCCESS}, ("success", "exited", 0, None, "1")),
        # The record counts: what happens to the process after it has been written changes nothing.
        ("python", Exit(signal=9), {"outcome": SUCCESS}, ("success", "exited", 0, 9, "1")),
        ("python", Exit(), {"outcome": SUCCESS}, ("success", "exited", 0, None, "1")),
        ("python", Exit(code=0), {"outcome": SUCCESS, "stop_reason": EndReason.TIMEOUT},
         ("failed", "timeout", 0, None, None)),
        ("python", Exit(code=0), {}, ("failed", "exited", 0, None, None)),
        ("python", Exit(code=99), {}, ("failed", "exited", 99, None, None)),
        ("python", Exit(signal=9), {"is_oom": True}, ("failed", "oom", None, 9, None)),
    ],
)  # fmt: skip
def test_every_end_has_its_reason(tmp_path: Path, kind: str, how: Exit, more: dict[str, Any], expected: Any) -> None:
    assert verdict(tmp_path, kind, how, **more) == expected


KMSG = (
    b"6,1200,5000000,-;usb 1-1: new device\n"
    b"3,1201,9000000,-;Memory cgroup out of memory: Killed process 4711 (python) total-vm:1kB\n"
    b"3,1202,9500000,-;Out of memory: Killed process 4712 (bash) total-vm:1kB\n"
)


@pytest.mark.parametrize(
    ("pid", "since", "expected"),
    [(4711, 8.0, True), (4712, 8.0, True), (4711, 9.5, False), (471, 0.0, False), (1, 0.0, False)],
)
def test_oom_evidence(tmp_path: Path, pid: int, since: float, expected: bool) -> None:
    device = tmp_path / "kmsg"
    device.write_bytes(KMSG)
    assert is_oom_victim(pid, since, str(device)) is expected


def test_no_kernel_log_is_no_evidence(tmp_path: Path) -> None:
    assert not is_oom_victim(1, 0.0, str(tmp_path / "none"))
