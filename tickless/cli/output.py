"""Answers on stdout: JSON, or a plain aligned table. Control characters in what users wrote are made visible."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from tickless.cli.options import options_of

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_COLOURS = {
    "success": "green",
    "running": "cyan",
    "failed": "red",
    "upstream_failed": "red",
    "lost": "yellow",
    "up_for_retry": "yellow",
}


def emit_json(value: object) -> None:
    """The answer as one JSON document; with -o jsonl each item of a list on a line of its own."""
    context = click.get_current_context(silent=True)
    if context is not None and options_of(context).output == "jsonl":
        for item in value if isinstance(value, list) else [value]:
            print(json.dumps(item, ensure_ascii=False))
        return
    print(json.dumps(value, indent=2, ensure_ascii=False))


def emit_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """A table; `columns` maps keys of the rows to headings. No rows: the headings alone."""
    cells = [[cell(row.get(key)) for key in columns] for row in rows]
    headings = [heading.upper() for heading in columns.values()]
    widths = [max(_width(line[index]) for line in [headings, *cells]) for index in range(len(headings))]
    print(_line(headings, widths))
    for line in cells:
        print(_line(line, widths, has_colour=wants_colour()))


def emit_fields(fields: Mapping[str, Any]) -> None:
    """One thing: a line per key that has a value."""
    shown = {key: cell(value) for key, value in fields.items() if value not in (None, "", [], {})}
    width = max((len(key) for key in shown), default=0)
    for key, text in shown.items():
        print(f"{key:<{width}}  {_coloured(text) if wants_colour() else text}")


def cell(value: Any) -> str:
    """A value for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return duration(value)
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(str(part) for part in value) or "-"
    return safe(str(value))


def safe(text: str) -> str:
    """The text without anything that moves a terminal's cursor."""
    return _CONTROL.sub("·", text)


def duration(seconds: float | None) -> str:
    """12 ms, 1.23 s, 4 min 5 s, 3 h 7 min."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(text: str | None) -> str | None:
    """An instant of the API in local time."""
    if text is None:
        return None
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Between two instants of the API; None unless both are known."""
    if start is None or end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def wants_colour() -> bool:
    """Whether stdout is a terminal that shows colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _line(texts: Sequence[str], widths: Sequence[int], *, has_colour: bool = False) -> str:
    padded = [text + " " * (width - _width(text)) for text, width in zip(texts, widths, strict=True)]
    if has_colour:
        padded = [_coloured(text) for text in padded]
    return "  ".join(padded).rstrip()


def _coloured(text: str) -> str:
    colour = _COLOURS.get(text.strip())
    return click.style(text, fg=colour) if colour else text


def _width(text: str) -> int:
    """Columns on a terminal: wide East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
