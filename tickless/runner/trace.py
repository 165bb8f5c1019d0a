"""Exceptions of user code as their author needs them: no frame of ours, nor of the import system."""

from __future__ import annotations

import sys
import traceback

from tickless.authoring.place import is_own_code
from tickless.authoring.secret import masked
from tickless.wire.outcome import clean_text


def tell(text: str) -> None:
    """A line in the task's log, whatever user code has done to stderr."""
    try:
        sys.stderr.write(text.rstrip("\n") + "\n")
        sys.stderr.flush()
    except Exception:
        pass  # the report says it too


def format_user_traceback(error: BaseException) -> str:
    """The traceback with its causes, at most 16 KiB."""
    whole = traceback.TracebackException.from_exception(error, compact=True)
    parts = [whole]
    for part in parts:  # grows while it is walked
        part.stack = traceback.StackSummary.from_list([f for f in part.stack if not is_own_code(f.filename)])
        parts += [other for other in (part.__cause__, part.__context__) if other is not None]
    return clean_text(masked("".join(whole.format())))
