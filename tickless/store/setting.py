"""Variables and connections on their way into the database and out of it; shared by the stores and the reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from tickless.errors import Unstorable
from tickless.model.setting import ConnectionRow, SettingGone, SettingRow, VariableRow
from tickless.store.base import TooMuch
from tickless.store.pool import Record


def encode_settings(rows: Sequence[SettingRow]) -> str:
    """The argument of `write_settings_v2`. Raises Unstorable for a lone surrogate."""
    try:
        return msgspec.json.encode([_image(row) for row in rows]).decode()
    except (UnicodeEncodeError, OverflowError) as error:
        raise Unstorable(f"a row cannot be encoded: {error}", sqlstate="22021") from error


def _image(row: SettingRow) -> dict[str, Any]:
    match row:
        case SettingGone(table="variable"):
            return {"table": "variable", "is_gone": True, "key": row.name}
        case SettingGone():
            return {"table": "connection", "is_gone": True, "conn_id": row.name}
        case VariableRow():
            return {"table": "variable", **asdict(row)}
        case ConnectionRow():
            return {"table": "connection", **asdict(row)}


def variable_row(row: Record) -> VariableRow:
    return VariableRow(**row)


def connection_row(row: Record) -> ConnectionRow:
    return ConnectionRow(**row)


def too_much(count: int, found: int, most: int) -> TooMuch:
    """The refusal of an answer that would be too large."""
    return TooMuch(
        f"these {count} values are {found:,} bytes; one answer holds {most:,}",
        hint="Ask for fewer tasks or map indexes at a time.",
    )
