"""The page about `tickless why` quotes what it really says."""

from __future__ import annotations

import re

import pytest

from tests.support.house import ROOT

SOURCE = (ROOT / "tickless" / "core" / "explain.py").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "howto" / "why.md").read_text(encoding="utf-8")
QUOTES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)


_VARIABLE = re.compile(
    r"'[^']*'|\d+(?:\.\d+)?|run …|…|\([^)]*\)|\b(?:etl|extract|all_success|dag_concurrency|parallelism|tasks)\b"
)


def fixed_parts(quote: str) -> list[str]:
    """What of a sentence does not stand for a name, a state or a number."""
    parts = [part.strip(" .:;") for part in _VARIABLE.split(quote)]
    return [part for part in parts if len(part) > 2]


def test_what_of_a_sentence_is_fixed() -> None:
    assert len(QUOTES) >= 12
    assert fixed_parts("2 of 2 slots of pool 'gpu' are used; it needs 1.") == ["slots of pool", "are used; it needs"]


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_answer_is_one(quote: str) -> None:
    text = re.sub(r"\"\s*\n\s*f?\"", "", SOURCE)  # sentences that are written in several pieces
    text = re.sub(r"\{[^{}]*\}", "{}", text)
    missing = [part for part in fixed_parts(quote) if part not in text]
    assert missing == []
