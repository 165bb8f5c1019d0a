"""Where in the user's code we are: every message about a DAG file names the file and the line."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import NamedTuple

from tickless.errors import UserError

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Place(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class DagError(UserError):
    """A DAG file asks for something that cannot be; `place` is the line that asks."""

    def __init__(self, message: str, *, place: Place | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.place = place or caller()

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f" {self.hint}" if self.hint else "")


def is_own_code(file: str) -> bool:
    """Whether a frame of this file is machinery (ours or the import system's), not the user's."""
    return file.startswith((_OWN_FOLDER, "<frozen "))


def caller() -> Place:
    """The innermost line of user code that is being executed."""
    frame = _user_frame()
    return Place(frame.f_code.co_filename, frame.f_lineno) if frame else Place("<unknown>", 0)


def importing_file() -> str | None:
    """The file whose top-level code is being executed, innermost first.

    A DAG belongs to it, and not to the file of a factory function that it called.
    """
    frame = _user_frame()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return frame.f_code.co_filename if frame else None


def line_in(file: str | None) -> int | None:
    """The line of `file` that is being executed, innermost first."""
    frame = _user_frame()
    while frame is not None and frame.f_code.co_filename != file:
        frame = frame.f_back
    return frame.f_lineno if frame else None


def _user_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_own_code(frame.f_code.co_filename):
        frame = frame.f_back
    return frame
