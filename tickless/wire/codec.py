"""Bytes on the wire: a frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON.

Decoding is strict: wrong types, unknown tags, NaN, NUL and lone surrogates are refused with `BadMessage`, so nothing
that Postgres could not store comes further in than this.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from tickless.errors import TicklessError

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 16 * 1024 * 1024

_LENGTH = struct.Struct(">I")
encode = msgspec.json.Encoder().encode
"""JSON of one message."""
M = TypeVar("M")


class BadMessage(TicklessError):
    """The peer sent something that is not a message of this protocol."""


def encode_frame(message: object) -> bytes:
    """One message as a frame."""
    body = encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise BadMessage(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class FrameReader(Generic[M]):
    """Cuts a byte stream into messages of one type (a tagged union of msgspec Structs)."""

    def __init__(self, message_type: type[M] | object, *, limit: int = MAX_FRAME_BYTES) -> None:
        self._decoder: msgspec.json.Decoder[M] = msgspec.json.Decoder(message_type)
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes | memoryview) -> Iterator[M]:
        """Add bytes; yield each message that they complete. Raises BadMessage; the stream is then useless."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > self._limit:
                raise BadMessage(f"a frame of {length} bytes is over the limit of {self._limit}")
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            body = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            # An escaped backslash before u0000 is legitimate text; only a real NUL is refused.
            if b"\\u0000" in body and "\x00" in body.decode("utf-8", "replace").encode().decode(
                "unicode_escape", "replace"
            ):
                raise BadMessage("a message holds a NUL character, which Postgres cannot store")
            try:
                yield self._decoder.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise BadMessage(f"cannot read a message: {error}") from error
