"""Variables and connections, and their rows: secrets in a row are sealed (store/vault.py) wherever it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from tickless.model.connection import ConnectionFields


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable, opened."""

    key: str
    value: str = field(repr=False)
    description: str | None = None
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection(ConnectionFields):
    """A connection, opened."""

    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableRow:
    """`variable`."""

    key: str
    val: str
    """Sealed."""
    description: str | None
    """None, when it is written: as it was."""
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRow:
    """`connection`."""

    conn_id: str
    conn_type: str
    description: str | None = None
    host: str | None = None
    schema: str | None = None
    login: str | None = None
    password: str | None = None
    """Sealed."""
    port: int | None = None
    extra: str | None = None
    """Sealed JSON object."""
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingGone:
    """A variable or a connection is to be removed."""

    table: str
    """variable or connection."""
    name: str


SettingRow = VariableRow | ConnectionRow | SettingGone
