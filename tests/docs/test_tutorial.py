"""Who follows the tutorial sees what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.house import ROOT
from tests.support.page import Reader, shape, steps


@pytest.mark.parametrize("name", ["first-dag.md"])
def test_every_command_of_a_tutorial_prints_what_it_shows(name: str, tmp_path: Path) -> None:
    page = ROOT / "docs" / "tutorial" / name
    todo = list(steps(page))
    assert len(todo) > 15
    with Reader(tmp_path) as reader:
        for step in todo:
            found = reader.follow(step)
            where = f"{os.path.relpath(page, ROOT)}:{step.line}: {step.text if step.file is None else step.file}"
            assert shape(found) == shape(step.output), where


def test_only_what_differs_between_runs_is_left_out_of_the_comparison() -> None:
    before = "run 1 (a/manual__2026-11-23T05:32:08.539709+00:00): success after 42 ms\n  a  b\n"
    assert shape(before) == "run 1 (a/manual__TIME): success after TOOK\n a b"
    assert shape("2 tasks, 3 success") == "2 tasks, 3 success"
    assert shape("/tmp/x/home/bundles/91ac/f.py") == shape("~/.tickless/bundles/00/f.py") == "BUNDLE/f.py"
