"""Every event that the code logs is registered, with its level and keys; the page is current."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tickless.telemetry.events import EVENTS
from tickless.telemetry.human import sentence
from tickless.telemetry.launcher_events import LAUNCHER_EVENTS
from tickless.telemetry.reference import PAGE, page

TICKLESS = Path(__file__).resolve().parents[2] / "tickless"
_NAME = re.compile(r"[a-z]+(?:_[a-z]+)*\.[a-z]+(?:_[a-z]+)*")
_LEVELS = {"debug", "info", "warning", "error"}


def logged() -> Iterator[tuple[str, str, ast.Call]]:
    """Place, level and call of each event in the code. The launcher, which may not import telemetry, logs by itself."""
    for file in sorted(TICKLESS.rglob("*.py")):
        if file.is_relative_to(TICKLESS / "launcher") or file.is_relative_to(TICKLESS / "runner"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if node.func.attr in _LEVELS and name in {"log", "_log"}:
                yield f"{file.relative_to(TICKLESS.parent)}:{node.lineno}", node.func.attr, node


def logged_by_the_launcher() -> Iterator[tuple[str, str, set[str]]]:
    """Place, name and keys of each event: `log("noun.verbed", key=…)`, whatever the logger is called."""
    for file in sorted((TICKLESS / "launcher").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if called in {"log", "_log"} and isinstance(first, ast.Constant) and isinstance(first.value, str):
                keys = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                yield f"{file.relative_to(TICKLESS.parent)}:{node.lineno}", first.value, keys


def literal_names(argument: ast.expr) -> list[str | None]:
    """The event names that an argument may be: a literal, or one of two."""
    if isinstance(argument, ast.IfExp):
        return literal_names(argument.body) + literal_names(argument.orelse)
    return [argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None]


def test_the_code_logs_registered_events_only() -> None:
    wrong = []
    for place, level, call in logged():
        keys = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        for name in literal_names(call.args[0]):
            if name is None:
                continue  # a variable: the logger itself refuses it under test
            if name not in EVENTS:
                wrong.append(f"{place}: {name} is not registered")
            elif EVENTS[name].level != level:
                wrong.append(f"{place}: {name} is logged as {level}, but registered as {EVENTS[name].level}")
            elif unknown := keys - set(EVENTS[name].keys):
                wrong.append(f"{place}: {name} has no key {sorted(unknown)}")
    assert not wrong, "\n".join(wrong)


def test_the_launcher_logs_registered_events_only() -> None:
    found = list(logged_by_the_launcher())
    wrong = [f"{place}: {name} is not registered" for place, name, _ in found if name not in LAUNCHER_EVENTS]
    wrong += [
        f"{place}: {name} has no key {sorted(unknown)}"
        for place, name, keys in found
        if name in LAUNCHER_EVENTS and (unknown := keys - set(LAUNCHER_EVENTS[name].keys))
    ]
    assert not wrong, "\n".join(wrong)
    assert set(LAUNCHER_EVENTS) == {name for _, name, _ in found}, "registered, and logged nowhere"


def test_the_walk_finds_events() -> None:
    assert len(list(logged())) >= 5


def test_names_are_noun_dot_past_participle() -> None:
    assert [name for name in EVENTS if not _NAME.fullmatch(name)] == []


def test_every_sentence_uses_keys_that_exist() -> None:
    for spec in EVENTS.values():
        used = set(re.findall(r"{(\w+)", spec.human))
        assert used <= set(spec.keys), spec.name
        assert sentence(spec.name, {}), spec.name
        assert "{" not in sentence(spec.name, dict.fromkeys(spec.keys, 1)), spec.name


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tickless.telemetry.reference"
