"""Which of what a task reads is secret, and in which forms; and what is looked through."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from typing import Any, cast

import pytest

from tickless.authoring import secret
from tickless.model.connection import ConnectionFields
from tickless.model.secret import Mask


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_mask", Mask())
    monkeypatch.setattr(secret, "_guard", lambda: None)


@pytest.mark.parametrize(
    ("key", "value", "text", "expected"),
    [
        ("bucket", "s3://sales", "s3://sales", "s3://sales"),
        ("api_key", "s3://sales", "at s3://sales.", "at ***."),
        ("API_KEY", "abcd", "abcd", "abcd"),
        ("db_password", "two\nlines of it", "'two\\nlines of it'", "'***'"),
        ("db_password", "one 'quote'", json.dumps("one 'quote'"), '"***"'),
        ("settings", '{"user": "me-myself", "token": "t-1234"}', "me-myself t-1234", "me-myself ***"),
        ("settings", '{"secret": {"deep": ["inside", 5]}}', "inside 5", "*** 5"),
        ("settings", '{"broken', "broken", "broken"),
        ("my_secret", '["first", "second"]', "first, second", "***, ***"),
    ],
)
def test_what_of_a_variable_is_secret(key: str, value: str, text: str, expected: str) -> None:
    secret.hide_variable(key, value)
    assert secret.masked(text) == expected


def test_what_of_a_connection_is_secret() -> None:
    connection = ConnectionFields(
        conn_id="c",
        conn_type="http",
        login="me-myself",
        password="p@ss/1",
        extra='{"token": "tok-1", "region": "north"}',
    )
    secret.hide_connection(connection)
    assert secret.masked(f"{connection.get_uri()} {connection.extra} p@ss/1") == (
        'http://me-myself:***@/?token=***&region=north {"token": "***", "region": "north"} ***'
    )
    secret.hide_connection(ConnectionFields(conn_id="c", conn_type="http"))


def test_only_what_goes_to_the_log_is_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(secret, "_mask", Mask())
    reader, writer = os.pipe()
    memory = io.StringIO()
    log = cast(Any, os.fdopen(writer, "w", buffering=1))
    monkeypatch.setattr(secret, "_is_log", lambda stream: stream is log)
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("a logger with a handler of its own")
    logger.addHandler(handler)
    monkeypatch.setattr(sys, "stdout", memory)
    monkeypatch.setattr(sys, "stderr", log)
    try:
        print("hunter2 before", file=log)
        secret.hide_variable("password", "hunter2")
        secret.hide_variable("password", "hunter2 and more")
        print("hunter2 and more", "hunter2", file=log)
        print("hunter2")
        logger.warning("by hunter2")
        assert log.write("hunter2") == len("hunter2")
        log.flush()
        assert os.read(reader, 1000).decode() == "hunter2 before\n*** ***\nby ***\n***"
        assert memory.getvalue() == "hunter2\n", "a stream in memory is the task's own business"
    finally:
        logger.removeHandler(handler)
        log.close()
        os.close(reader)
