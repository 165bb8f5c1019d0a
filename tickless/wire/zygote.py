"""The packets between a launcher and its zygotes, over SOCK_SEQPACKET pairs: one packet is one message.

Binary, because they are many, small and between processes of one version on one host. An order travels as its JSON
untouched: only the forked child decodes it.

    launcher -> base zygote   JSON of `DagSource`                  + [control socket of the new DAG zygote]
    launcher -> DAG zygote    `encode_run`                         + [log, gate, order?]

An order over MAX_INLINE_BYTES comes as a third descriptor (a memfd) and leaves its place in the packet empty.
The gate is one end of a socket pair: a byte opens it; its end, without a byte, means exit and run nothing. Once open
it carries the attempt's requests, see request.py.
"""

from __future__ import annotations

import struct

import msgspec

MAX_INLINE_BYTES = 64 * 1024
MAX_PACKET_BYTES = MAX_INLINE_BYTES + 64
_RUN = struct.Struct(">QB")
_HEAD = struct.Struct(">cQiii")


def encode_run(attempt_id: int, workspace: str, order: bytes) -> bytes:
    """Fork for this attempt. `order` is empty when it comes as a descriptor."""
    name = workspace.encode()
    return _RUN.pack(attempt_id, len(name)) + name + order


def decode_run(data: bytes) -> tuple[int, str, bytes]:
    """The inverse of `encode_run`."""
    attempt_id, length = _RUN.unpack_from(data)
    end = _RUN.size + length
    return attempt_id, data[_RUN.size : end].decode(), data[end:]


class DagSource(msgspec.Struct, frozen=True, kw_only=True):
    """What a DAG zygote imports; also its key."""

    bundle: str
    file: str
    version: str


class Packet(msgspec.Struct, frozen=True):
    """From a DAG zygote to its launcher. Which fields mean something depends on `kind`."""

    kind: bytes
    attempt_id: int = 0
    pid: int = 0
    exit_code: int = -1
    """-1 when the process was killed by a signal."""
    signal: int = 0
    text: str = ""


BORN = b"B"  # pid: the DAG zygote exists and begins to import
READY = b"R"  # imported, fit to be forked
UNFIT = b"U"  # text: the import left something behind that a fork would break; it has exited
BROKEN = b"E"  # text: the traceback of the import; it has exited
FORKED = b"F"  # attempt_id, pid: stands at its gate
NOT_FORKED = b"N"  # attempt_id, text
EXITED = b"X"  # attempt_id, pid, exit_code or signal: still a zombie while this is sent


def encode_packet(packet: Packet) -> bytes:
    """One packet; `text` is cut at what a packet holds."""
    head = _HEAD.pack(packet.kind, packet.attempt_id, packet.pid, packet.exit_code, packet.signal)
    return head + packet.text.encode("utf-8", "replace")[:MAX_INLINE_BYTES]


def decode_packet(data: bytes) -> Packet:
    """The inverse of `encode_packet`."""
    kind, attempt_id, pid, exit_code, signal = _HEAD.unpack_from(data)
    return Packet(kind, attempt_id, pid, exit_code, signal, data[_HEAD.size :].decode("utf-8", "ignore"))
