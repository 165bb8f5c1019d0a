"""Connections as URIs and as JSON, there and back."""

from __future__ import annotations

from typing import Any

import pytest

from tickless.errors import UserError
from tickless.model.connection import ConnectionFields, parse_connection


def of(**fields: Any) -> ConnectionFields:
    return ConnectionFields(conn_id="c", **fields)


URIS = [
    ("postgresql://u:p@h:5432/db", of(conn_type="postgres", login="u", password="p", host="h", port=5432, schema="db")),
    ("my-type://Host", of(conn_type="my_type", host="Host")),
    ("http://https://h.example/", of(conn_type="http", host="https://h.example")),
    ("http://https://h.example:8443", of(conn_type="http", host="https://h.example", port=8443)),
    ("aws://AKIA:s%2Fe%40c%3Ar%20et@", of(conn_type="aws", login="AKIA", password="s/e@c:r et")),
    ("x://:only@h", of(conn_type="x", password="only", host="h")),
    ("x://h/?a=1&b=two", of(conn_type="x", host="h", extra='{"a": "1", "b": "two"}')),
    ("x://h/s%2Ft?__extra__=%7B%22a%22%3A+%7B%7D%7D", of(conn_type="x", host="h", schema="s/t", extra='{"a": {}}')),
    ("x://%2Fvar%2Frun%2Fs", of(conn_type="x", host="/var/run/s")),
    ("x://[::1]:80", of(conn_type="x", host="[::1]", port=80)),
    ("sqlite://", of(conn_type="sqlite")),
]  # fmt: skip


@pytest.mark.parametrize(("uri", "expected"), URIS)
def test_a_uri_is_read(uri: str, expected: ConnectionFields) -> None:
    assert ConnectionFields(**parse_connection("c", uri)) == expected


@pytest.mark.parametrize("connection", [connection for _, connection in URIS])
def test_a_connection_survives_its_own_uri(connection: ConnectionFields) -> None:
    again = ConnectionFields(**parse_connection("c", connection.get_uri()))
    assert again.extra_dejson == connection.extra_dejson
    assert again.to_dict() == connection.to_dict()


def test_json_is_read() -> None:
    text = '{"conn_type": "postgresql", "host": "h", "port": "5432", "extra": {"a": [1]}, "login": null}'
    found = ConnectionFields(**parse_connection("c", text))
    assert found == of(conn_type="postgres", host="h", port=5432, extra='{"a": [1]}')


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("secret-password", "neither a URI nor a JSON object"),
        ("{secret-password", "is not JSON"),
        ('{"host": "secret-password"}', "says no conn_type"),
        ('{"conn_type": "x", "passwort": "secret-password"}', "no field 'passwort'"),
        ('{"conn_type": "x", "port": "secret-password"}', "port .* is not a number"),
        ('{"conn_type": "x", "password": ["secret-password"]}', "password .* is not a text"),
        ("x://h:secret-password/", "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_without_the_text_itself(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as raised:
        parse_connection("c", text)
    assert "secret-password" not in str(raised.value)


def test_secrets_are_in_no_repr() -> None:
    assert "secret" not in repr(of(conn_type="x", password="secret", extra='{"a": "secret"}'))
