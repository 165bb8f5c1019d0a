"""Requests and answers on the wire: what is refused before anybody looks at it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tickless.wire.codec import BadMessage, FrameReader, encode_frame
from tickless.wire.launcher import Answers, FromLauncher, Requests, ToLauncher
from tickless.wire.request import (
    MAX_REQUEST_BYTES,
    Answer,
    Ask,
    AttemptAnswer,
    AttemptRequest,
    ConnectionGet,
    Request,
    RunStateGet,
    TriggerRun,
    VariableDelete,
    VariableGet,
    VariableSet,
    XComGet,
)

ASKS: list[Ask] = [
    XComGet(),
    XComGet(task_ids=["a", "b"], map_indexes=[-1, 0], key="k", dag_id="d", run_id="r"),
    VariableGet(key="k"),
    VariableSet(key="k", value="ä\n", description="d"),
    VariableDelete(key="k"),
    ConnectionGet(conn_id="c"),
    TriggerRun(dag_id="d", conf='{"a": 1}', run_id="r", logical_date=datetime(2026, 11, 23, tzinfo=UTC)),
    RunStateGet(dag_id="d", run_id="r"),
]


@pytest.mark.parametrize("ask", ASKS)
def test_every_request_arrives_as_it_left(ask: Ask) -> None:
    request = Request(number=1, ask=ask)
    assert list(FrameReader(Request).feed(encode_frame(request))) == [request]
    stamped = Requests(requests=[AttemptRequest(attempt_id=1 << 40, number=1, ask=ask)])
    assert list(FrameReader(FromLauncher).feed(encode_frame(stamped))) == [stamped]


def test_answers_arrive_as_they_left() -> None:
    for answer in (Answer(number=1, value='"\\""'), Answer(number=2, error="no", code="refused")):
        told = Answers(answers=[AttemptAnswer(attempt_id=1 << 40, answer=answer)])
        assert list(FrameReader(ToLauncher).feed(encode_frame(told))) == [told]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b'{"number": 0, "ask": {"type": "variable_get", "key": "k"}}',
        b'{"number": 99999999999, "ask": {"type": "variable_get", "key": "k"}}',
        b'{"number": 1, "ask": {"type": "variable_get", "key": ""}}',
        b'{"number": 1, "ask": {"type": "variable_get"}}',
        b'{"number": 1, "ask": {"type": "shell", "command": "ls"}}',
        b'{"number": 1, "ask": {"type": "variable_set", "key": "k", "value": 1}}',
        b'{"number": 1, "ask": {"type": "variable_set", "key": "k", "value": "\\u0000"}}',
        b'{"number": 1, "ask": {"type": "variable_get", "key": "' + b"k" * 251 + b'"}}',
        b'{"number": 1, "ask": {"type": "xcom_get", "task_ids": [' + b'"a",' * 1000 + b'"a"]}}',
        b'{"number": 1, "ask": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadMessage):
        list(FrameReader(Request).feed(len(body).to_bytes(4, "big") + body))


def test_a_frame_over_the_limit_is_refused_by_its_head() -> None:
    with pytest.raises(BadMessage, match="over the limit"):
        list(FrameReader(Request, limit=MAX_REQUEST_BYTES).feed((MAX_REQUEST_BYTES + 1).to_bytes(4, "big")))


def test_a_second_frame_waits_in_the_reader() -> None:
    """The launcher takes one at a time."""
    frames = b"".join(encode_frame(Request(number=number, ask=VariableGet(key="k"))) for number in (1, 2))
    reader: FrameReader[Request] = FrameReader(Request)
    first = next(reader.feed(frames), None)
    second = next(reader.feed(b""), None)
    assert [each and each.number for each in (first, second)] == [1, 2]
    assert next(reader.feed(b""), None) is None
