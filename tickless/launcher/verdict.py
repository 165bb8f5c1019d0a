"""What became of an attempt, from all that is known of its end. Pure: the table of end reasons in one place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tickless.model.dag import TaskKind
from tickless.model.order import Order
from tickless.model.report import Finished, Started
from tickless.model.state import AttemptState, EndReason
from tickless.wire.outcome import Outcome, clean_text

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended; both None when nobody could tell (its parent died, and it was not ours)."""

    code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything there is to judge by."""

    order: Order
    at: datetime
    started: Started
    exit: Exit
    stop_reason: EndReason | None = None
    """Set when we signalled it while it was alive."""
    is_oom: bool = False
    outcome: Outcome | None = None
    last_line: str | None = None
    """Of the output of a bash task that may push it."""
    last_line_error: str | None = None


def judge(evidence: Evidence) -> Finished:
    """A stop wins over everything, then the runner's own record, then the exit status."""
    outcome, order = evidence.outcome, evidence.order
    if evidence.stop_reason is not None:
        return _finished(evidence, AttemptState.FAILED, evidence.stop_reason, error=outcome.error if outcome else None)
    if outcome is not None:
        return _finished(
            evidence,
            outcome.state,
            outcome.reason,
            code=outcome.exit_code,
            error=clean_text(outcome.error) if outcome.error else None,
            output=outcome.output,
            length=outcome.length,
            xcoms=outcome.xcoms,
            may_retry=outcome.may_retry,
            follow=outcome.follow,
            skip_below=outcome.skip_below,
        )
    if evidence.exit.signal is not None:
        if evidence.is_oom:
            return _finished(evidence, AttemptState.FAILED, EndReason.OOM, error="killed by the kernel: out of memory")
        return _finished(evidence, AttemptState.FAILED, EndReason.SIGNALED)
    if order.kind is not TaskKind.BASH:
        error = "the process ended without recording an outcome (os._exit, or it could not write the record)"
        return _finished(evidence, AttemptState.FAILED, EndReason.EXITED, error=error)
    return _judge_command(evidence)


def not_started(order: Order, at: datetime, host: str, error: str) -> Finished:
    """The end of an attempt whose process could not be made."""
    return Finished(
        attempt_id=order.attempt_id,
        at=at,
        state=AttemptState.FAILED,
        reason=EndReason.NOT_STARTED,
        error=clean_text(error),
        host=host,
    )


def _judge_command(evidence: Evidence) -> Finished:
    order, code = evidence.order, evidence.exit.code
    if code == order.skip_on_exit_code and code is not None:
        return _finished(evidence, AttemptState.SKIPPED, EndReason.EXITED)
    if code != 0:
        return _finished(evidence, AttemptState.FAILED, EndReason.EXITED)
    if evidence.last_line_error is not None:
        return _finished(evidence, AttemptState.FAILED, EndReason.OUTPUT_REFUSED, error=evidence.last_line_error)
    output = None
    if evidence.last_line is not None:
        output = json.dumps(evidence.last_line, ensure_ascii=False)
        if (size := len(output.encode())) > order.max_output_bytes:
            error = (
                f"the last line of the output is {size:,} bytes; the limit is {order.max_output_bytes:,} "
                "(max_output_bytes). Set do_xcom_push=False, or print a shorter last line."
            )
            return _finished(evidence, AttemptState.FAILED, EndReason.OUTPUT_REFUSED, error=error)
    return _finished(evidence, AttemptState.SUCCESS, EndReason.EXITED, output=output)


def _finished(
    evidence: Evidence,
    state: AttemptState,
    reason: EndReason,
    *,
    code: int | None = None,
    error: str | None = None,
    output: str | None = None,
    length: int | None = None,
    xcoms: Mapping[str, str] = _NOTHING,
    may_retry: bool = True,
    follow: tuple[str, ...] | None = None,
    skip_below: bool = False,
) -> Finished:
    return Finished(
        attempt_id=evidence.order.attempt_id,
        at=evidence.at,
        state=state,
        reason=reason,
        exit_code=evidence.exit.code if code is None else code,
        signal=evidence.exit.signal,
        error=error,
        output=output,
        length=length,
        xcoms=xcoms,
        may_retry=may_retry,
        follow=follow,
        skip_below=skip_below,
        started_at=evidence.started.at,
        pid=evidence.started.pid,
        host=evidence.started.host,
    )
