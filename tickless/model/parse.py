"""What parsing a DAG file gave: the one document that crosses from the parsing child to the daemon."""

from __future__ import annotations

from dataclasses import dataclass

from tickless.model.dag import DagSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedDag:
    """One DAG of a file. `hash` changes when, and only when, a new version of the DAG is due."""

    spec: DagSpec
    hash: str
    """SHA-256 of the spec and of everything in the file's closure; no absolute path goes into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseProblem:
    """Why a file could not be parsed. `file` is relative to the bundle, and may be a helper that the file imports."""

    message: str
    file: str
    line: int | None = None
    hint: str | None = None
    traceback: str | None = None
    """Frames of user code only; None when the message says it all."""
    output: str | None = None
    """What the import printed, shortened; only with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseResult:
    """Everything about one file; `problem` None = parsed. A file without a DAG is parsed and has no `dags`."""

    file: str
    dags: tuple[ParsedDag, ...] = ()
    closure: tuple[str, ...] = ()
    """What the result depends on, relative to the bundle: files, and folders (ending in /) with all that is in them."""
    problem: ParseProblem | None = None
    warnings: tuple[str, ...] = ()
    """Allowed, but likely a mistake: threads, connections, children, prints while importing …"""
