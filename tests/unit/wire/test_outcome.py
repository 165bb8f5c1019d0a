from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tickless.model.state import AttemptState, EndReason
from tickless.wire.outcome import MAX_ERROR_BYTES, Outcome, clean_text, decode_outcome, encode_outcome

DONE = Outcome(attempt_id=1, state=AttemptState.SUCCESS, reason=EndReason.EXITED, output='"x"')


def test_a_record_is_read_up_to_its_newline() -> None:
    older = encode_outcome(Outcome(attempt_id=9, state=AttemptState.FAILED, reason=EndReason.RAISED, error="e" * 500))
    data = encode_outcome(DONE)
    assert decode_outcome(data + older[len(data) :]) == DONE


@pytest.mark.parametrize("data", [b"", b"\n", encode_outcome(DONE)[:-1], encode_outcome(DONE)[5:], b"\xff\n"])
def test_a_torn_record_is_none(data: bytes) -> None:
    assert decode_outcome(data) is None


def test_a_record_with_a_nul_in_its_output_is_none() -> None:
    nul = Outcome(attempt_id=1, state=AttemptState.SUCCESS, reason=EndReason.EXITED, output='"\0"')
    assert decode_outcome(encode_outcome(nul)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"state": AttemptState.RUNNING},
        {"state": AttemptState.LOST},
        {"reason": EndReason.STOPPED},
        {"reason": EndReason.UNSTORABLE},
        {"exit_code": 2**40},
        {"exit_code": -1},
    ],
)
def test_a_record_that_no_runner_writes_is_none(fields: dict[str, Any]) -> None:
    assert decode_outcome(encode_outcome(msgspec.structs.replace(DONE, **fields))) is None


def test_clean_text_can_be_stored() -> None:
    assert clean_text("a\0b\ud800c") == "a\N{SYMBOL FOR NULL}b?c"
    long = clean_text("head" + "ü" * 100_000 + "tail")
    assert len(long.encode()) <= MAX_ERROR_BYTES
    assert (long[:4], long[-4:]) == ("head", "tail")
