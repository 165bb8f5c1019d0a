"""A connection: where something outside is and how to log in there; in Airflow's forms as a URI and as JSON.

conn_type://login:password@host:port/schema?key=value        the query is the extra
conn_type://...?__extra__={"nested": {"json": 1}}             or all of it, as JSON
conn_type://https://host/                                     a protocol of its own is part of the host
{"conn_type": "postgres", "host": "db", "extra": {...}}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from tickless.errors import UserError

_EXTRA_KEY = "__extra__"
_ALIASES = {"postgresql": "postgres"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFields:
    """What a connection holds. `extra` is the text of a JSON object."""

    conn_id: str
    conn_type: str
    description: str | None = None
    host: str | None = None
    schema: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    port: int | None = None
    extra: str | None = field(default=None, repr=False)

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extra as a dict; empty when there is none."""
        found: dict[str, Any] = json.loads(self.extra) if self.extra else {}
        return found

    def get_uri(self) -> str:
        """The connection as a URI, password included."""
        uri = f"{self.conn_type.lower().replace('_', '-')}://"
        host = self.host or ""
        if "://" in host:
            protocol, host = host.split("://", 1)
            uri += f"{protocol}://"
        if self.login is not None:
            uri += quote(self.login, safe="")
        if self.password is not None:
            uri += f":{quote(self.password, safe='')}"
        if self.login is not None or self.password is not None:
            uri += "@"
        uri += host if host.startswith("[") else quote(host, safe="")
        if self.port is not None:
            uri += f":{self.port}"
        if self.schema is not None:
            uri += f"/{quote(self.schema, safe='')}"
        elif self.extra:
            uri += "/"
        if self.extra:
            extra = self.extra_dejson
            is_flat = (
                bool(extra) and all(isinstance(value, str) for value in extra.values()) and _EXTRA_KEY not in extra
            )
            uri += "?" + urlencode(extra if is_flat else {_EXTRA_KEY: self.extra})
        return uri

    def to_dict(self) -> dict[str, Any]:
        """The fields that have a value, without the id; the extra as an object."""
        found: dict[str, Any] = {}
        for each in fields(ConnectionFields):
            value = getattr(self, each.name)
            if each.name != "conn_id" and value is not None:
                found[each.name] = self.extra_dejson if each.name == "extra" else value
        return found


def parse_connection(conn_id: str, text: str) -> dict[str, Any]:
    """The fields that a URI or a JSON object gives. UserError without the text, which holds secrets."""
    return from_json(conn_id, text) if text.lstrip().startswith("{") else from_uri(conn_id, text)


def from_json(conn_id: str, text: str) -> dict[str, Any]:
    """See `parse_connection`."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UserError(f"connection {conn_id!r} is not JSON: {type(error).__name__}") from None
    if not isinstance(given, dict):
        raise UserError(f"connection {conn_id!r} is not a JSON object")
    return from_dict(conn_id, given)


def from_dict(conn_id: str, given: dict[str, Any]) -> dict[str, Any]:
    """See `parse_connection`."""
    known = {each.name for each in fields(ConnectionFields)} - {"conn_id"}
    if unknown := sorted(set(given) - known - {"conn_id"}):
        raise UserError(
            f"connection {conn_id!r} has no field {', '.join(map(repr, unknown))}",
            hint=f"There are: {', '.join(sorted(known))}.",
        )
    found = {name: value for name, value in given.items() if value is not None and name != "conn_id"}
    if not isinstance(found.get("conn_type"), str) or not found["conn_type"]:
        raise UserError(f"connection {conn_id!r} says no conn_type", hint='For example "conn_type": "postgres".')
    found["conn_type"] = _normal_type(found["conn_type"])
    if isinstance(found.get("port"), str) and found["port"].isdigit():
        found["port"] = int(found["port"])
    if "port" in found and (not isinstance(found["port"], int) or isinstance(found["port"], bool)):
        raise UserError(f"the port of connection {conn_id!r} is not a number")
    if isinstance(found.get("extra"), dict):
        found["extra"] = json.dumps(found["extra"])
    for name, value in found.items():
        if name != "port" and not isinstance(value, str):
            raise UserError(f"{name} of connection {conn_id!r} is not a text")
    if not found.get("extra"):
        found.pop("extra", None)
    return {"conn_id": conn_id, **found}


def from_uri(conn_id: str, uri: str) -> dict[str, Any]:
    """See `parse_connection`."""
    conn_type, separator, rest = uri.strip().partition("://")
    if not separator or not conn_type:
        raise UserError(
            f"connection {conn_id!r} is neither a URI nor a JSON object",
            hint="Write it as TYPE://LOGIN:PASSWORD@HOST:PORT/SCHEMA.",
        )
    protocol, separator, after = rest.partition("://")
    has_protocol = bool(separator) and protocol.isalnum()
    try:
        parts = urlsplit(f"//{after if has_protocol else rest}")
        port = parts.port
    except ValueError as error:
        raise UserError(f"the URI of connection {conn_id!r} cannot be read: {type(error).__name__}") from None
    host: str | None = _host_of(parts.netloc) or None
    if has_protocol:
        host = f"{protocol}://{host or ''}"
    extra = None
    if parts.query:
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        extra = query[_EXTRA_KEY] if _EXTRA_KEY in query else json.dumps(query)
    found: dict[str, Any] = {
        "conn_type": _normal_type(conn_type),
        "host": host,
        "schema": unquote(parts.path[1:]) or None,
        "login": None if parts.username is None else unquote(parts.username) or None,
        "password": None if parts.password is None else unquote(parts.password),
        "port": port,
        "extra": extra or None,
    }
    return {"conn_id": conn_id, **{name: value for name, value in found.items() if value is not None}}


def _host_of(netloc: str) -> str:
    """As written: urlsplit would turn it into lower case."""
    host = netloc.rpartition("@")[2]
    return unquote(host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0])


def _normal_type(conn_type: str) -> str:
    normal = conn_type.replace("-", "_")
    return _ALIASES.get(normal, normal)
