"""Secrets stay out of the log, wherever in a line they are."""

from __future__ import annotations

import json
import os

import pytest

from tickless.model.secret import MOST, Mask, is_sensitive
from tickless.telemetry import mask
from tickless.telemetry.log import configure, get_log


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask, "_mask", Mask())


def test_a_secret_in_a_line_is_masked() -> None:
    mask.hide("hunter2")
    mask.hide("hunter2 and more")
    reader, writer = os.pipe()
    configure(format="json", fd=writer, is_strict=True)
    try:
        get_log().warning("library.warned", logger="x", message="it was hunter2 and more, or hunter2", traceback=None)
        line = json.loads(os.read(reader, 4096))
    finally:
        configure(is_strict=True)
        os.close(reader)
        os.close(writer)
    assert line["message"] == "it was ***, or ***"
    assert line["event"] == "library.warned"


def test_what_is_too_short_or_absent_is_not_looked_for() -> None:
    mask.hide("abc")
    mask.hide(None)
    assert mask.masked("abc") == "abc"


def test_lists_and_dicts_are_masked_inside() -> None:
    mask.hide("hunter2")
    assert mask.masked({"a": ["hunter2", 1], "b": ("x", "my hunter2")}) == {"a": ["***", 1], "b": ["x", "my ***"]}


def test_only_the_latest_are_known() -> None:
    for number in range(MOST + 1):
        mask.hide(f"secret {number:05}")
    assert mask.masked("secret 00000") == "secret 00000"
    assert mask.masked("secret 00001") == "***"


@pytest.mark.parametrize(
    ("name", "expected"), [("DB_PASSWORD", True), ("apiKey", True), ("token", True), ("bucket", False)]
)
def test_names_tell_secrets(name: str, expected: bool) -> None:
    assert is_sensitive(name) is expected
