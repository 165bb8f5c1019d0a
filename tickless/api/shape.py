"""The two kinds of models of the API. The text below a field is its description in the OpenAPI document."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class View(BaseModel):
    """What the API answers with."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Body(BaseModel):
    """What the API is sent. A field that it does not know is an error, not a wish that nobody hears.

    Strict: `false` is not the number 0. What JSON has no type for says so itself: `Instant`, `Lax`.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", strict=True)


def _written(value: Any) -> Any:
    """Pydantic would take a number for seconds since 1970: a slip of the hand, not a moment."""
    if not isinstance(value, str) or value.lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError(f"{value!r} is no moment; write it as 2026-11-22T00:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    """If it says its time zone: Postgres refuses some offsets that Python takes."""
    try:
        return value.astimezone(UTC) if value.tzinfo is not None else value
    except OverflowError:
        raise ValueError("is too far away") from None


def _zoned(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("has no time zone; write it as 2026-11-22T00:00:00Z")
    return _in_utc(value)


Instant = Annotated[datetime, Field(strict=False), BeforeValidator(_written), AfterValidator(_zoned)]
"""A moment that somebody sends, with its time zone."""
Moment = Annotated[datetime, Field(strict=False), BeforeValidator(_written), AfterValidator(_in_utc)]
"""The same; without a time zone it is in one that follows from something else."""
Lax = Field(strict=False)
"""For enums in a body: JSON has only their texts."""
