"""The error families of tickless. The class of an error says whose fault it is.

`UserError`        the input is wrong (DAG, config, request, SQL): no traceback, exit 2, HTTP 4xx
`Unavailable`      a dependency is away: back off and retry, health degrades
`Conflict`         someone moved first: drop what we believed and decide again
`InvariantBroken`  our own bug: stop or quarantine, never guess

Driver exceptions stop at the adapter that owns the driver, which raises one of these `from` it.
"""

from __future__ import annotations

from collections.abc import Iterable


class TicklessError(Exception):
    """Base of every error that tickless raises on purpose.

    `hint` is the way out, a full sentence or a command; surfaces print it on a line of its own.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(TicklessError):
    """The input is wrong; the same input will fail again."""


class NotFound(UserError):
    """The named thing does not exist (exit 3, HTTP 404)."""


class Refused(UserError):
    """The request is well formed, but the present state forbids it (exit 5, HTTP 409)."""


class ConfigError(UserError):
    """The configuration is wrong (exit 78, EX_CONFIG)."""


class Unavailable(TicklessError):
    """A dependency cannot be reached or is shutting down; retry later."""


class Conflict(TicklessError):
    """The database is not what we believed (lost epoch, unexpected row count): rebuild from rows."""


class Unstorable(TicklessError):
    """Postgres refuses the data itself (SQLSTATE classes 22, 23, 42, 54): retrying is useless.

    `sqlstate` is the five-character code, for the record kept with the refused event.
    """

    def __init__(self, message: str, *, sqlstate: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate


class InvariantBroken(TicklessError):
    """Something that cannot happen happened: a bug in tickless."""


def did_you_mean(word: str, names: Iterable[str]) -> str | None:
    """A hint for a misspelt name: the nearest of those there are, None when none is near."""
    import difflib  # only for whoever made a mistake: every process of a task imports this module

    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return f"Did you mean {folded[near[0]]!r}?" if near else None
