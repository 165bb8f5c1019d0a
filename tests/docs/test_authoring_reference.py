"""The pages about what DAG files can say are made from the code."""

from __future__ import annotations

from tickless.authoring.arguments import TASK_FIELDS, TaskArguments
from tickless.authoring.dag import DagArguments
from tickless.authoring.reference import DAG_DEFAULTS, TASK_DEFAULTS, pages


def test_the_pages_are_current() -> None:
    for path, text in pages().items():
        assert path.read_text(encoding="utf-8") == text, "run: python -m tickless.authoring.reference"


def test_every_argument_has_its_default() -> None:
    assert DAG_DEFAULTS.keys() == DagArguments.__annotations__.keys()
    assert TASK_DEFAULTS.keys() == TaskArguments.__annotations__.keys()
    assert TASK_FIELDS.keys() <= TaskArguments.__annotations__.keys()
