"""JSON schemas of params: the same check when a DAG file is parsed and when a run is started.

jsonschema is imported here, and this module only where a param has a schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, SchemaError

_formats = FormatChecker()


@_formats.checks("date-time", raises=ValueError)
def _is_instant(value: object) -> bool:
    """RFC 3339: with its offset, or a Z."""
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@_formats.checks("time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or time.fromisoformat(value) is not None


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with the schema itself."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return str(error.message)
    return None


def value_fault(schema: Mapping[str, Any], value: object) -> str | None:
    """Why the value does not fit, in words, with the place inside the value."""
    for error in Draft202012Validator(schema, format_checker=_formats).iter_errors(value):
        place = "".join(f"[{part!r}]" for part in error.absolute_path)
        return f"{error.message}{f' at {place}' if place else ''}"
    return None
