"""structlog, set up once per process: lines for people on a terminal, JSON lines elsewhere, always on stderr.

    log = get_log()
    log.info("run.finished", dag_id="etl", run_id="manual__1", state="success")

Names and keys come from `telemetry.events`. Under test (`is_strict`, or TICKLESS_STRICT_EVENTS=1 in the environment of
a whole daemon) an unregistered name, an unknown key or a wrong level raises; in production that is not looked at.
A line that cannot be written is dropped: a full disk behind stderr must not stop the scheduler.
"""

from __future__ import annotations

import logging
import os
import traceback
from typing import Any, Literal, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from tickless.clock import SystemClock
from tickless.errors import InvariantBroken
from tickless.telemetry.events import EVENTS, Level
from tickless.telemetry.human import HumanRenderer
from tickless.telemetry.mask import masked

Format = Literal["auto", "human", "json"]

_LEVELS: dict[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_clock = SystemClock()


class _State:
    """What `configure` sets and every `EventLog` reads; one per process, so that a reload reaches all of them."""

    def __init__(self) -> None:
        self.threshold = _LEVELS["info"]
        self.is_strict = os.environ.get("TICKLESS_STRICT_EVENTS") == "1"
        self.sink: FilteringBoundLogger | None = None
        self.format: Format = "auto"
        self.fd = 2


_state = _State()


class EventLog:
    """A logger with some keys bound. Cheap to make, safe to keep: it holds no configuration."""

    __slots__ = ("_bound",)

    def __init__(self, **bound: object) -> None:
        self._bound = bound

    def bind(self, **keys: object) -> EventLog:
        """A logger that adds these keys to every event."""
        return EventLog(**{**self._bound, **keys})

    def debug(self, event: str, **keys: object) -> None:
        if _state.threshold <= 10:
            self._emit("debug", event, keys)

    def info(self, event: str, **keys: object) -> None:
        if _state.threshold <= 20:
            self._emit("info", event, keys)

    def warning(self, event: str, **keys: object) -> None:
        if _state.threshold <= 30:
            self._emit("warning", event, keys)

    def error(self, event: str, **keys: object) -> None:
        self._emit("error", event, keys)

    def _emit(self, level: Level, event: str, keys: dict[str, object]) -> None:
        if self._bound:
            keys = {**self._bound, **keys}
        if _state.is_strict:
            _check(level, event, keys)
        if _state.sink is None:
            configure()
        getattr(_state.sink, level)(event, **keys)


def get_log(**bound: object) -> EventLog:
    """A logger; `bound` keys go with each of its events."""
    return EventLog(**bound)


def configure(*, level: Level = "info", format: Format = "auto", fd: int = 2, is_strict: bool | None = None) -> None:
    """Set up (or change) the log of this process. `auto` is human on a terminal and JSON elsewhere."""
    _state.fd, _state.format = fd, format
    if is_strict is not None:
        _state.is_strict = is_strict
    is_terminal = os.isatty(fd)
    if format == "human" or (format == "auto" and is_terminal):
        renderer: Any = HumanRenderer(has_colour=is_terminal and _wants_colour())
    else:
        renderer = _render_json
    _state.threshold = _LEVELS[level]
    # The filter in front is EventLog's; the sink itself lets everything through, so a change of level is one store.
    _state.sink = cast(
        FilteringBoundLogger,
        structlog.wrap_logger(
            structlog.BytesLogger(cast(Any, _Output(fd))),
            processors=[_add_level_and_time, renderer],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS["debug"]),
            cache_logger_on_first_use=True,
        ).bind(),
    )
    _bridge_logging()


def set_level(level: Level) -> None:
    """Change the level of every logger, at once (reload, USR2)."""
    _state.threshold = _LEVELS[level]


def _check(level: Level, event: str, keys: dict[str, object]) -> None:
    spec = EVENTS.get(event)
    if spec is None:
        raise InvariantBroken(f"log event {event!r} is not in tickless/telemetry/events.py")
    if spec.level != level:
        raise InvariantBroken(f"log event {event!r} is registered as {spec.level}, but was logged as {level}")
    if unknown := set(keys) - set(spec.keys):
        raise InvariantBroken(f"log event {event!r} has no key {', '.join(sorted(unknown))}")


def _wants_colour() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _add_level_and_time(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        event[key] = masked(value)
    event["level"] = method
    event["at"] = _clock.now()
    return event


_encoder = msgspec.json.Encoder(enc_hook=str)


def _render_json(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    """`at`, `level` and `event` first, then the keys that have a value."""
    line = {"at": event.pop("at"), "level": event.pop("level"), "event": event.pop("event")}
    for key, value in event.items():
        if value is not None:
            line[key] = value
    return _encoder.encode(line)


class _Output:
    """The descriptor as structlog's file: one write(2) per line, and never an exception into the caller."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError:
            pass  # a closed pipe or a full disk; there is nowhere to tell it

    def flush(self) -> None:
        pass


class _Bridge(logging.Handler):
    """Python's logging, as used by asyncio and libraries, into our log."""

    def emit(self, record: logging.LogRecord) -> None:
        trace = "".join(traceback.format_exception(*record.exc_info)).strip() if record.exc_info else None
        get_log().warning("library.warned", logger=record.name, message=record.getMessage(), traceback=trace)


def _bridge_logging() -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, _Bridge) for handler in root.handlers):
        root.addHandler(_Bridge(level=logging.WARNING))
