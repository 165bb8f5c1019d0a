from __future__ import annotations

import datetime
import enum
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickless.runner.encode import NotJson, encode_value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner),
)  # fmt: skip


def encode(value: object, limit: int = 1_000_000) -> str | None:
    return encode_value(value, task_id="t", limit=limit)


@given(JSON)
def test_what_is_json_comes_back_equal(value: Any) -> None:
    text = encode(value)
    assert (None if text is None else json.loads(text)) == value


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def test_tuples_become_lists_and_enums_their_values() -> None:
    assert encode({"a": (1, (2,)), "c": Colour.RED, "l": Level.HIGH, Colour.RED: 1}) == (
        '{"a":[1,[2]],"c":"red","l":3,"red":1}'
    )


LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime.date(2026, 1, 1), "not JSON: date"),
        ({"rows": [0, {"day": datetime.datetime(2026, 1, 1)}]}, "datetime at .rows[1].day"),  # noqa: DTZ001
        ([{1}], "set at [0]"),
        ({"x": b"y"}, "bytes at .x"),
        ([float("nan")], "nan at [0]"),
        (float("-inf"), "-inf"),
        ({1: 2}, "the key 1 is an int, not a string"),
        ({"a": {None: 2}}, "the key None is a NoneType, not a string at .a"),
        ({"a b": object()}, "object at ['a b']"),
        ("\0", "a NUL character"),
        ({"\0": 1}, "in a key, a NUL character"),
        ({"ü": "\ud800"}, "half of a surrogate pair at ['ü']"),
        (LOOP, "or into itself"),
    ],
)
def test_the_error_names_the_type_and_the_place(value: object, said: str) -> None:
    with pytest.raises(NotJson) as caught:
        encode(value)
    assert str(caught.value).startswith("return value of 't' is not JSON: ")
    assert said in str(caught.value)


def test_the_limit_counts_bytes() -> None:
    assert encode("ü" * 4, limit=10) == '"üüüü"'
    with pytest.raises(NotJson, match="11 bytes as JSON; the limit is 10"):
        encode("ü" * 4 + "x", limit=10)
