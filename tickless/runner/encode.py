"""Return values as JSON, strictly: what goes in comes out equal, or the error names the type and its place.

json.dumps alone would turn the key 1 into "1" and NaN into something that is not JSON. Tuples become lists; that is
the one change that is let pass, because JSON has nothing else.
"""

from __future__ import annotations

import json
import math
import re

from tickless.authoring.lazy import LazyXComs
from tickless.authoring.xcom import RETURN_KEY

_MAX_DEPTH = 200
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class NotJson(Exception):
    """The value cannot be stored; the message is for its author."""


def encode_value(value: object, *, task_id: str, limit: int, key: str = RETURN_KEY) -> str | None:
    """JSON text of a value to hand on; None for None. Raises NotJson, also when it has more than `limit` bytes."""
    if value is None:
        return None
    value = _without_lazy(value)
    fault = _find_fault(value, "", 0)
    if fault is not None:
        raise NotJson(f"{_name(task_id, key)} is not JSON: {fault}")
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    size = len(text) if text.isascii() else len(text.encode())
    if size > limit:
        raise NotJson(
            f"{_name(task_id, key)} is {size:,} bytes as JSON; the limit is {limit:,} (max_output_bytes). "
            "Store it in a file or a table and return where it is."
        )
    return text


def _without_lazy(value: object) -> object:
    """The values of mapped tasks as lists, where a task returns them as it got them."""
    if isinstance(value, LazyXComs):
        return list(value)
    if type(value) is dict and any(isinstance(each, LazyXComs) for each in value.values()):
        return {key: _without_lazy(each) for key, each in value.items()}
    if type(value) in (list, tuple) and any(isinstance(each, LazyXComs) for each in value):  # type: ignore[attr-defined]
        return [_without_lazy(each) for each in value]  # type: ignore[attr-defined]
    return value


def _name(task_id: str, key: str) -> str:
    return f"return value of {task_id!r}" if key == RETURN_KEY else f"XCom {key!r} of {task_id!r}"


def _find_fault(value: object, place: str, depth: int) -> str | None:
    """What is wrong, and where; None when nothing is."""
    if value is None or isinstance(value, bool | int):
        return None
    if isinstance(value, str):
        return _text_fault(value, place)
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value!r}{_at(place)}"
    if depth >= _MAX_DEPTH:
        return f"nested deeper than {_MAX_DEPTH} levels, or into itself{_at(place[:60] + '…')}"
    if isinstance(value, dict):
        return _mapping_fault(value, place, depth)
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if fault := _find_fault(item, f"{place}[{index}]", depth + 1):
                return fault
        return None
    return f"{type(value).__qualname__}{_at(place)}"


def _mapping_fault(value: dict[object, object], place: str, depth: int) -> str | None:
    for key, item in value.items():
        if type(key) is not str and not isinstance(key, str):
            return f"the key {key!r} is {_article(type(key).__qualname__)}, not a string{_at(place)}"
        if fault := _text_fault(key, place):
            return f"in a key, {fault}"
        below = f"{place}.{key}" if _IDENTIFIER.fullmatch(key) else f"{place}[{key!r}]"
        if fault := _find_fault(item, below, depth + 1):
            return fault
    return None


def _text_fault(value: str, place: str) -> str | None:
    if value.isascii():
        return f"a NUL character{_at(place)}" if "\0" in value else None
    if "\0" in value:
        return f"a NUL character{_at(place)}"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"half of a surrogate pair{_at(place)}"
    return None


def _at(place: str) -> str:
    return f" at {place}" if place else ""


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
