"""Errors on the command line: what, where, hint on stderr (an object with -o json), and the exit code."""

from __future__ import annotations

import json
import sys

import click

from tickless.errors import ConfigError, NotFound, Refused, TicklessError, Unavailable, UserError

OK = 0
FAILED = 1
"""The operation, or the run that was waited for, failed."""
USAGE = 2
NOT_FOUND = 3
"""No such thing; or, from `status` and `stop`, no daemon is running."""
NOT_ALLOWED = 4
REFUSED = 5
UNREACHABLE = 6
BAD_CONFIG = 78
TIMED_OUT = 124
"""A wait with --timeout came to its end before what was waited for."""
INTERRUPTED = 130


class NotRunning(Unavailable):
    """No daemon listens on the home's socket."""


class NotAllowed(TicklessError):
    """The daemon is another user's."""


# The first match counts: subclasses stand before their bases.
_BY_FAMILY: tuple[tuple[type[TicklessError], int, str], ...] = (
    (NotFound, NOT_FOUND, "not_found"),
    (Refused, REFUSED, "refused"),
    (ConfigError, BAD_CONFIG, "bad_config"),
    (UserError, USAGE, "invalid"),
    (NotAllowed, NOT_ALLOWED, "not_allowed"),
    (NotRunning, UNREACHABLE, "not_running"),
    (Unavailable, UNREACHABLE, "unavailable"),
    (TicklessError, FAILED, "internal"),
)


def report(error: TicklessError | click.ClickException, *, is_json: bool, exit_code: int | None = None) -> int:
    """Print the error; returns the exit code (`exit_code` overrides that of the error's family)."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and not is_json:
        print(error.format_message(), file=sys.stderr)
        return USAGE
    if isinstance(error, click.ClickException):
        code, name, message, hint = error.exit_code, "usage", error.format_message(), _usage_hint(error)
    else:
        code, name = next((code, name) for family, code, name in _BY_FAMILY if isinstance(error, family))
        message, hint = error.message, error.hint
    if is_json:
        content = {"code": name, "message": message, **({"hint": hint} if hint else {})}
        print(json.dumps({"error": content}), file=sys.stderr)
    else:
        print(f"error: {message}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
    return code if exit_code is None else exit_code


_before = ""


def say(text: str) -> None:
    """A remark for people, on stderr."""
    print(f"{_before}{text}", file=sys.stderr, flush=True)


def write_before_remarks(text: str) -> None:
    """From now on: what takes away the line that stands on the terminal."""
    global _before
    _before = text


def _usage_hint(error: click.ClickException) -> str | None:
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return f"{ctx.command_path} --help" if ctx else None
