"""Reads the configuration: defaults < config file < TICKLESS_SECTION__KEY < command line. All errors at once.

Each value keeps its origin (`tickless.toml:14`, `TICKLESS_LIMITS__PARALLELISM`), so an error says where to go. The
only module of this package that reads files.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tickless.config.place import config_file
from tickless.config.scan import KeyPath, key_lines, nearest_line
from tickless.config.schema import ExecutorSection, Settings, keys, sections
from tickless.errors import ConfigError

_ENV_PREFIX = "TICKLESS_"
_FREE_TABLES = ("executors", "queues")
"""Tables whose keys are the user's own names."""


@dataclass(slots=True)
class _Merged:
    """Values of all sources so far, later ones on top, and where each came from."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def put(self, path: KeyPath, value: Any, origin: str) -> None:
        at = self.values
        for part in path[:-1]:
            inner = at.setdefault(part, {})
            if not isinstance(inner, dict):
                self.problems.append(f"{origin}: {'.'.join(path)} is set, but {part} is not a table")
                return
            at = inner
        at[path[-1]] = value
        self.origins[path] = origin

    def origin(self, path: KeyPath) -> str | None:
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return None


def load(
    home: Path,
    *,
    option: str | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings for a home folder; `option` is `--config`, `overrides` maps `section.key` to values of flags.

    Raises ConfigError with one line per mistake.
    """
    merged = _Merged()
    file = config_file(home, option, environ)
    if file is not None:
        _read_file(file, merged)
    _read_environ(environ, merged)
    for dotted, value in (overrides or {}).items():
        merged.put(tuple(dotted.split(".")), value, "command line")
    merged.values.setdefault("executors", {})
    merged.values.setdefault("queues", {})
    if isinstance(merged.values["executors"], dict):
        merged.values["executors"].setdefault("local", {})
    if isinstance(merged.values["queues"], dict):
        merged.values["queues"].setdefault("default", "local")
    settings = _validate(merged)
    if merged.problems or settings is None:
        raise ConfigError(
            "\n".join(sorted(merged.problems, key=_by_place)), hint="Every key with its default: docs/config.md."
        )
    return settings


def _read_file(file: Path, merged: _Merged) -> None:
    try:
        text = file.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_error(file, text, str(error))) from error
    lines = key_lines(text)

    def take(path: KeyPath, table: Mapping[str, Any]) -> None:
        for name, value in table.items():
            here = (*path, name)
            where = f"{file}:{nearest_line(lines, here) or 1}"
            if isinstance(value, dict):
                take(here, value)
                merged.origins.setdefault(here, where)
                if not value:
                    merged.put(here, {}, where)
                continue
            canonical = _canonical(here)
            if merged.origins.get(canonical, "").startswith(f"{file}:"):
                merged.problems.append(
                    f"{where}: {name} and its alias are both set, here and at {merged.origins[canonical]}; keep one"
                )
                continue
            merged.put(canonical, _none_if_said(canonical, value), where)

    take((), data)


def _syntax_error(file: Path, text: str, message: str) -> str:
    """tomllib's message with the place in front, as every other error has it."""
    at = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if at:
        return f"{file}:{at[1]}: {message[: at.start()]} (column {at[2]})"
    return f"{file}:{text.count(chr(10)) + 1}: {message}"


def _read_environ(environ: Mapping[str, str], merged: _Merged) -> None:
    for variable, text in sorted(environ.items()):
        if not variable.startswith(_ENV_PREFIX) or "__" not in variable:
            continue
        path = _canonical(tuple(part.lower() for part in variable.removeprefix(_ENV_PREFIX).split("__")))
        merged.put(path, _from_text(path, text), variable)
        merged.origins.setdefault(path[:1], variable)  # a section that only variables speak of


def _canonical(path: KeyPath) -> KeyPath:
    """The path under the key's own name."""
    for info in keys():
        if len(path) == 2 and path[0] == info.section and path[1] in info.aliases:
            return (path[0], info.name)
    return path


def _annotation(path: KeyPath) -> Any:
    """The declared type of a key, or None for an unknown one."""
    if len(path) == 3 and path[0] == "executors":
        declared = ExecutorSection.model_fields.get(path[2])
    elif len(path) == 2 and path[0] in sections() and path[0] not in _FREE_TABLES:
        declared = sections()[path[0]].model_fields.get(path[1])
    else:
        return None
    return declared.annotation if declared else None


def _none_if_said(path: KeyPath, value: Any) -> Any:
    """TOML has no null; where a key may be none, the word says it."""
    return None if value == "none" and type(None) in get_args(_annotation(path)) else value


def _from_text(path: KeyPath, text: str) -> Any:
    """The value of an environment variable: text where text is wanted, else read as TOML."""
    annotation = _annotation(path)
    if annotation == list[str]:
        return _list_from_text(text)
    if annotation in (None, str) or get_origin(annotation) is Literal or str in get_args(annotation):
        return _none_if_said(path, text)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return _none_if_said(path, text)  # the validation says what is wrong with it


def _list_from_text(text: str) -> Any:
    """A TOML array, or names with colons between them, as in PATH."""
    if text.lstrip().startswith("["):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return [part for part in text.split(":") if part]


def _validate(merged: _Merged) -> Settings | None:
    _check_executors(merged)
    try:
        settings = Settings.model_validate(merged.values)
    except ValidationError as error:
        merged.problems += [_problem(merged, detail) for detail in error.errors(include_url=False)]
        return None
    return _with_url_from_file(settings, merged)


def _check_executors(merged: _Merged) -> None:
    """What no single key can tell. On the raw values, so that these mistakes are named together with the others."""
    executors, queues = merged.values["executors"], merged.values["queues"]
    if not isinstance(executors, dict) or not isinstance(queues, dict):
        return
    for name, section in executors.items():
        if (
            isinstance(section, dict)
            and section.get("kind") == "sequential"
            and section.get("slots", 1) not in (None, 1)
        ):
            where = merged.origin(("executors", name, "slots"))
            merged.problems.append(
                f"{where}: executors.{name}.slots is {section['slots']}, but a sequential executor has exactly one"
            )
    for queue, executor in queues.items():
        if isinstance(executor, str) and executor not in executors:
            merged.problems.append(
                f"{merged.origin(('queues', queue))}: queues.{queue} names the unknown executor {executor!r}"
                + _did_you_mean(executor, list(executors))
            )


def _with_url_from_file(settings: Settings, merged: _Merged) -> Settings | None:
    database = settings.database
    if database.url_file is None:
        return settings
    where = merged.origin(("database", "url_file"))
    if database.url is not None:
        merged.problems.append(f"{where}: database.url and database.url_file are both set; keep one")
        return None
    try:
        url = Path(database.url_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        merged.problems.append(f"{where}: cannot read database.url_file {database.url_file}: {error}")
        return None
    if not url.startswith(("postgresql://", "postgres://")):
        # The content stays out of the message: it may be the password.
        merged.problems.append(f"{where}: the file {database.url_file} holds no postgresql:// url")
        return None
    return settings.model_copy(update={"database": database.model_copy(update={"url": url})})


def _problem(merged: _Merged, detail: ErrorDetails) -> str:
    """One mistake as `file:line: key …`."""
    path = tuple(str(part) for part in detail["loc"] if part != "[key]")
    where = merged.origin(path) or "default"
    dotted = ".".join(path)
    if detail["type"] == "extra_forbidden":
        what = "section" if len(path) == 1 else "key"
        return f"{where}: unknown {what} {dotted}" + _did_you_mean(path[-1], _names_beside(path))
    if _is_secret(path):
        return f"{where}: {dotted} must start with postgresql:// (its value is not shown, it may hold a password)"
    return f"{where}: {dotted} is {_shown(detail['input'])}, but {_wish(detail)}"


def _wish(detail: ErrorDetails) -> str:
    """Pydantic's message as the second half of our sentence."""
    message = detail["msg"]
    for verb in ("Input should be ", "String should "):
        message = message.replace(verb, "should be " if verb.startswith("Input") else "should ")
    return message[:1].lower() + message[1:]


def _names_beside(path: KeyPath) -> list[str]:
    """What could have been meant instead of an unknown name."""
    if len(path) == 1:
        return [*sections(), "queues"]
    model = ExecutorSection if path[0] == "executors" else sections().get(path[0])
    if model is None:
        return []
    aliases = [alias for info in keys() if info.section == path[0] for alias in info.aliases]
    return [*model.model_fields, *aliases]


def _did_you_mean(word: str, names: list[str]) -> str:
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known here: {', '.join(names)}" if names else ""


def _by_place(problem: str) -> tuple[str, int]:
    """Sort key: the file (or variable), then the line as a number."""
    at = re.match(r"(.*?):(\d+): ", problem)
    return (at[1], int(at[2])) if at else (problem, 0)


def _is_secret(path: KeyPath) -> bool:
    return any(info.is_secret and path == (info.section, info.name) for info in keys())


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
