"""Line numbers of keys."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickless.config.scan import key_lines, nearest_line

TEXT = (
    '''# a comment with = and [brackets]
top = 1

[limits] # behind a header
parallelism = 32
note = """
fake = 1
[fake]
"""
"quoted.key" = 'it'''
    + "'"
    + """ # no comment here
list = [
  "a ] b", # ]
  [1, 2],
]
a . b = { x = 1, y = "}" }

[executors."my one"]
kind = "local"
[[rows]]
id = 1
""".replace("'it'", "'it'")
)


def test_every_kind_of_key_is_found_on_its_line() -> None:
    tomllib.loads(TEXT)
    assert key_lines(TEXT) == {
        ("top",): 2,
        ("limits",): 4,
        ("limits", "parallelism"): 5,
        ("limits", "note"): 6,
        ("limits", "quoted.key"): 10,
        ("limits", "list"): 11,
        ("limits", "a", "b"): 15,
        ("executors", "my one"): 17,
        ("executors", "my one", "kind"): 18,
        ("rows",): 19,
        ("rows", "id"): 20,
    }


def test_a_key_in_an_inline_table_has_the_line_of_the_table() -> None:
    lines = key_lines("x = 1\ny = { z = 2 }")
    assert nearest_line(lines, ("y", "z")) == 2
    assert nearest_line(lines, ("nowhere",)) is None


@pytest.mark.parametrize("text", ["", "\n\n", "a=1", "a=1\r\n\r\nb=2", 'a="""x"""""', "a='''\n'x''''"])
def test_odd_texts_end(text: str) -> None:
    tomllib.loads(text)
    assert set(key_lines(text)) == {(key,) for key in tomllib.loads(text)}


@given(
    st.dictionaries(st.text("abcdef_-", min_size=1, max_size=4), st.text(max_size=30), max_size=6),
    st.sampled_from(["basic", "literal", "multi"]),
)
def test_strings_never_hide_or_invent_a_key(table: dict[str, str], kind: str) -> None:
    quoted = {key: quote(value, kind) for key, value in table.items()}
    text = "".join(f"{key} = {value}\n" for key, value in quoted.items())
    assert list(tomllib.loads(text)) == list(table)
    lines = key_lines(text)
    assert list(lines) == [(key,) for key in table]
    for (key,), line in lines.items():
        assert text.split("\n")[line - 1].startswith(f"{key} = ")


def quote(value: str, kind: str) -> str:
    """The text as a TOML string of that kind, where it can be one."""
    if kind == "literal" and "'" not in value and value.isprintable():
        return f"'{value}'"
    body = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 0x10000 and not c.isalnum() and c not in " #[]=" else c for c in value
    )
    return f'"""\n{body}"""' if kind == "multi" else f'"{body}"'
