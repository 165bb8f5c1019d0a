"""What Postgres takes, and what it refuses.

Data is never mended on its way into the tables of the engine: it is refused (`Unstorable`), because RAM would hold
another value than the row. Only what is kept for people (tracebacks, dumps of events) is made storable. The checks
here are for the in-memory store; Postgres has its own, and the contract's tests hold the two together.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from tickless.model.row import MAX_NOTE_LENGTH, NoteRow, XComRow

MAX_ID_LENGTH = 250
MAX_VALUE_BYTES = 16 * 1024 * 1024

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL, and halves of a surrogate pair."""
_IDS = {"dag_id", "task_id", "run_id", "key", "name", "conn_id"}
_JSON = {"conf", "cursor", "detail"}
_BIG = {"run", "key", "attempt_id", "version", "id"}
"""bigint columns; every other integer is an int."""


def make_storable(text: str) -> str:
    """The text with NULs and lone surrogates escaped: what is kept for debugging must never be refused itself."""
    return _UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def why_unstorable(row: Any) -> str | None:
    """The SQLSTATE with which Postgres refuses a row image, None when it takes it."""
    for each in fields(row):
        value = getattr(row, each.name)
        if isinstance(value, str) and not isinstance(value, StrEnum):
            if "\x00" in value:
                return "22P05"
            if _UNSTORABLE.search(value):
                return "22021"
            least = 0 if isinstance(row, NoteRow) else 1  # a note about a run names no task
            if each.name in _IDS and not least <= len(value) <= MAX_ID_LENGTH:
                return "23514"
            if isinstance(row, NoteRow) and each.name == "text" and not 0 < len(value) <= MAX_NOTE_LENGTH:
                return "23514"
            is_json = each.name in _JSON or (each.name == "value" and isinstance(row, XComRow))
            if is_json and (sqlstate := why_bad_json(value)) is not None:
                return sqlstate
        elif isinstance(value, int):
            bits = 63 if each.name in _BIG else 31
            if not -(1 << bits) <= value < 1 << bits:
                return "22003"
            if each.name == "slots" and value < 0:
                return "23514"
        elif isinstance(value, datetime) and value.tzinfo is None:
            raise ValueError(f"{each.name} of {row!r} has no time zone")
    return None


def why_bad_json(text: str) -> str | None:
    """The SQLSTATE with which Postgres refuses it as a JSON value, None when it takes it."""
    if len(text.encode()) > MAX_VALUE_BYTES:
        return "23514"
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return "22P02"
    except RecursionError:
        return "54001"
    stack = [value]
    while stack:
        match stack.pop():
            case str() as found if _UNSTORABLE.search(found):
                return "22P05"
            case list() as found:
                stack.extend(found)
            case dict() as found:
                stack.extend(found)
                stack.extend(found.values())
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
