"""Every sabotage can still be planted: its place is there, what comes of it is Python, and so are its tests.

That each turns its tests red is what `make planted` shows; it takes too long to be shown with every change.
"""

from __future__ import annotations

import ast

import pytest

from tests.planted.runner import ROOT, Sabotage, all_sabotages


@pytest.mark.parametrize("sabotage", all_sabotages(), ids=lambda each: each.name)
def test_a_sabotage_can_be_planted(sabotage: Sabotage) -> None:
    text = (ROOT / sabotage.file).read_text()
    assert text.count(sabotage.old) == 1
    if sabotage.file.endswith(".py"):
        ast.parse(text.replace(sabotage.old, sabotage.new))
    for node in sabotage.tests:
        file, *names = node.split("::")
        source = (ROOT / file).read_text()
        for name in names:
            name = name.split("[")[0]
            assert f"def {name}" in source or f"class {name}" in source or f"{name} =" in source, f"{node} is not there"
