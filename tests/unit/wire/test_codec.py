from __future__ import annotations

import pytest

from tickless.wire.codec import MAX_FRAME_BYTES, BadMessage, FrameReader, encode_frame
from tickless.wire.launcher import Ack, Hello, ToLauncher
from tickless.wire.zygote import EXITED, MAX_INLINE_BYTES, Packet, decode_packet, decode_run, encode_packet, encode_run


def reader() -> FrameReader[ToLauncher]:
    return FrameReader(ToLauncher)


def test_messages_survive_any_cut_of_the_stream() -> None:
    messages = [Hello(protocol=1, epoch=2, pid=3), Ack(attempt_ids=[1, 2]), Ack(attempt_ids=[])]
    stream = b"".join(map(encode_frame, messages))
    for cut in range(len(stream)):
        frames = reader()
        assert [*frames.feed(stream[:cut]), *frames.feed(stream[cut:])] == messages


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"nobody"}',
        b'{"type":"ack","attempt_ids":["1"]}',
        b'{"type":"ack","attempt_ids":[NaN]}',
        b'{"type":"ack"',
        b"\xff",
    ],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(BadMessage):
        list(reader().feed(len(body).to_bytes(4, "big") + body))


def test_a_nul_is_refused_and_text_about_one_is_not() -> None:
    frames: FrameReader[str] = FrameReader(str)
    assert list(frames.feed(encode_frame(r"\u0000 and \\u0000"))) == [r"\u0000 and \\u0000"]
    with pytest.raises(BadMessage):
        list(frames.feed(encode_frame("a\0b")))


def test_oversize_is_refused_on_both_sides() -> None:
    with pytest.raises(BadMessage):
        encode_frame("x" * MAX_FRAME_BYTES)
    with pytest.raises(BadMessage):
        list(reader().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


def test_zygote_packets_come_back_equal() -> None:
    packet = Packet(EXITED, 1 << 62, 4_194_304, -1, 9, "wörd")
    assert decode_packet(encode_packet(packet)) == packet
    assert decode_run(encode_run(1 << 62, "ab-1", b'{"x":1}')) == (1 << 62, "ab-1", b'{"x":1}')
    assert len(decode_packet(encode_packet(Packet(b"E", text="ü" * MAX_INLINE_BYTES))).text) == MAX_INLINE_BYTES // 2
