"""The page of states and trigger rules is made from the engine."""

from __future__ import annotations

from tickless.cli.states import PAGE, page
from tickless.model.state import EndReason, RunState, TaskState, TriggerRule


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tickless.cli.states"


def test_every_word_has_a_row() -> None:
    for kind in (TaskState, RunState, TriggerRule, EndReason):
        assert [each for each in kind if f"| `{each}` |" not in page()] == []
