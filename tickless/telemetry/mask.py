"""The secrets that this process has seen, to be kept out of its log."""

from __future__ import annotations

from typing import Any

from tickless.model.secret import Mask

_mask = Mask()


def hide(secret: str | None) -> None:
    """Keep it out of the log from now on."""
    _mask.hide(secret)


def masked(value: Any) -> Any:
    """The value of a log key without secrets."""
    return _mask.masked(value)
