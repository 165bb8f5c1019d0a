"""The outcome record: the last thing a runner writes, in one write, into a file that its launcher reads after its exit.

It outlives both: a new launcher reports from it what an attempt came to while no launcher was there. The file is used
again by later attempts without being truncated: the record ends with a newline, and what follows is an older one's.
"""

from __future__ import annotations

import msgspec

from tickless.model.state import AttemptState, EndReason

MAX_ERROR_BYTES = 16 * 1024
MAX_OUTPUT_BYTES = 4 * 1024 * 1024
"""No order may allow more: as a string inside a frame it may become twice as long."""
MAX_RECORD_BYTES = 2 * MAX_OUTPUT_BYTES + 8 * MAX_ERROR_BYTES
"""No record of a runner is longer; whoever reads one stops there."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What user code came to."""

    attempt_id: int
    state: AttemptState
    reason: EndReason
    exit_code: int | None = None
    error: str | None = None
    output: str | None = None
    """The return value as JSON text."""
    length: int | None = None
    """Of a list or a dict: how many elements it has, for tasks that are mapped over it."""
    xcoms: dict[str, str] = {}
    """What was pushed besides: key -> JSON text. Together with the output at most MAX_OUTPUT_BYTES."""
    may_retry: bool = True
    """False: the task itself said that another try is no use."""
    follow: tuple[str, ...] | None = None
    """Of the tasks directly below, those that shall run; the others are skipped. None: no such choice was made."""
    skip_below: bool = False
    """Everything below is to be skipped, whatever its trigger rules say."""


_STATES = frozenset({AttemptState.SUCCESS, AttemptState.FAILED, AttemptState.SKIPPED})
_REASONS = frozenset({EndReason.EXITED, EndReason.RAISED, EndReason.NOT_STARTED, EndReason.OUTPUT_REFUSED})

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Outcome)


def encode_outcome(outcome: Outcome) -> bytes:
    """What is written at offset 0, in one write."""
    return _encoder.encode(outcome) + b"\n"


def decode_outcome(data: bytes) -> Outcome | None:
    """None when the record is absent or torn: then the exit status is all there is to know."""
    record, newline, _ = data.partition(b"\n")
    if not newline:
        return None
    try:
        outcome = _decoder.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return outcome if _is_a_runners(outcome) else None


def _is_a_runners(outcome: Outcome) -> bool:
    """User code can write to the file, too: nothing may get through that a runner would not write."""
    return (
        outcome.state in _STATES
        and outcome.reason in _REASONS
        and (outcome.exit_code is None or 0 <= outcome.exit_code <= 255)
        and (outcome.length is None or 0 <= outcome.length <= MAX_OUTPUT_BYTES)
        and not any("\0" in text for text in (outcome.output or "", *outcome.xcoms, *outcome.xcoms.values()))
    )


def clean_text(text: str, limit: int = MAX_ERROR_BYTES) -> str:
    """Text as Postgres can store it, at most `limit` bytes: the middle goes, the two ends say most."""
    data = text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace")
    if len(data) > limit:
        head, tail = limit // 4, limit - limit // 4 - 40
        data = data[:head] + b"\n ... (cut here) ...\n" + data[-tail:]
    return data.decode("utf-8", "ignore")
