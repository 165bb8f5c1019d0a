"""What a task has read that is secret is kept out of its log, and out of the error that is told of it.

A task writes its log itself, straight into a file, and pays nothing for this until it reads a secret. From then on what
it prints and logs through `sys.stdout` and `sys.stderr` is looked through, piece by piece as it is written. That does
not see what was written before, what is written past these two (`os.write`, `sys.stdout.buffer`, C), or by processes
that the task starts: bash and other programs.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tickless.model.secret import MIN_LENGTH, Mask, is_sensitive

if TYPE_CHECKING:  # it brings urllib along, which every zygote would load
    from tickless.model.connection import ConnectionFields

_LINE_LENGTH = 16
"""Lines of a secret (a private key) that are as long are secrets by themselves: logs are read line by line."""

_mask = Mask()


def hide_variable(key: str, text: str) -> None:
    """A variable was read or set: it is secret by its name, or holds JSON with secrets by theirs."""
    if is_sensitive(key):
        _hide(text)
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text)
        except ValueError:
            return
        for each in _secrets(value, is_secret=is_sensitive(key)):
            _hide(each)


def hide_connection(connection: ConnectionFields) -> None:
    """A connection was read: its password, and what in its extra is secret by its name."""
    if connection.password is not None:
        _hide(connection.password)
    for each in _secrets(connection.extra_dejson):
        _hide(each)


def masked(text: str) -> str:
    """The text without the secrets that were read."""
    found: str = _mask.masked(text)
    return found


def _secrets(value: Any, *, is_secret: bool = False) -> Iterator[str]:
    """The strings in it, or those under names that say that they are secret."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _secrets(item, is_secret=is_secret or is_sensitive(str(name)))
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item, is_secret=is_secret)
    elif is_secret and isinstance(value, str):
        yield value


def _hide(secret: str) -> None:
    if len(secret) < MIN_LENGTH:
        return
    from urllib.parse import quote

    lines = [line for line in secret.splitlines() if len(line) >= _LINE_LENGTH]
    for form in {secret, *lines, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")}:
        _mask.hide(form)
    _guard()


def _guard() -> None:
    """Look through what is written to descriptors 1 and 2 from now on, whoever holds the stream."""
    handlers = [handler for logger in _loggers() for handler in logger.handlers]
    streams = [sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__]
    for stream in [*streams, *(getattr(handler, "stream", None) for handler in handlers)]:
        if stream is not None and "write" not in getattr(stream, "__dict__", {"write": None}) and _is_log(stream):
            _look_through(stream)


def _loggers() -> Iterator[logging.Logger]:
    yield logging.getLogger()
    yield from (each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger))


def _is_log(stream: Any) -> bool:
    try:
        return stream.fileno() in (1, 2)
    except (OSError, ValueError, AttributeError):
        return False  # a stream in memory, or closed


def _look_through(stream: Any) -> None:
    write = stream.write

    def write_masked(text: str) -> int:
        write(masked(text))
        return len(text)

    stream.write = write_masked
