"""Log lines for people: the time of day and the event's sentence, in colour on a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from structlog.typing import EventDict, WrappedLogger

from tickless.telemetry.events import EVENTS

_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_DIM, _RED, _YELLOW, _GREEN, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOUR_OF_STATE = {"success": _GREEN, "failed": _RED, "upstream_failed": _RED, "lost": _YELLOW, "skipped": _DIM}
_COLOUR_OF_LEVEL = {"debug": _DIM, "warning": _YELLOW, "error": _RED}


class HumanRenderer:
    """structlog's last processor."""

    def __init__(self, *, has_colour: bool) -> None:
        self._has_colour = has_colour

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> bytes:
        at, level, name = event.pop("at"), event.pop("level"), event.pop("event")
        # What users wrote (an error's text, a run id) must not move the cursor of whoever reads the log.
        text = _CONTROL.sub("·", sentence(name, event))
        if self._has_colour:
            colour = _COLOUR_OF_STATE.get(str(event.get("state"))) or _COLOUR_OF_LEVEL.get(level, "")
            return f"{_DIM}{at.astimezone():%H:%M:%S}{_PLAIN} {colour}{text}{_PLAIN}".encode()
        mark = "" if level in ("debug", "info") else f"{level}: "
        return f"{at.astimezone():%H:%M:%S} {mark}{text}".encode()


def sentence(name: str, keys: Mapping[str, object]) -> str:
    """The event in words; an unregistered one as name and key=value."""
    spec = EVENTS.get(name)
    if spec is None:
        return " ".join([name, *(f"{key}={value}" for key, value in keys.items())])

    def keep(part: re.Match[str]) -> str:
        fields = [field for _, field, _, _ in Formatter().parse(part[1]) if field]
        return part[1] if all(keys.get(field) not in (None, 0) for field in fields) else ""

    return _filler.vformat(_OPTIONAL.sub(keep, spec.human), (), keys)


class _Filler(Formatter):
    """str.format that puts a dash where a key is missing: a log line must not raise."""

    def get_value(self, key: int | str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        return kwargs.get(str(key))

    def format_field(self, value: Any, format_spec: str) -> str:
        try:
            return "-" if value is None else format(value, format_spec)
        except (ValueError, TypeError):
            return str(value)


_filler = _Filler()
