"""`import tickless` is light, and its names are what they say."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tickless


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_tickless_loads_no_authoring() -> None:
    assert not any(name.startswith("tickless.") for name in loaded_by("import tickless"))


def test_the_authoring_vocabulary_needs_the_standard_library_only() -> None:
    loaded = loaded_by("from tickless import *; import tickless.authoring.loader")
    assert not loaded & {
        "msgspec",
        "anyio",
        "asyncio",
        "asyncpg",
        "pydantic",
        "structlog",
        "click",
        "typing_extensions",
        "jinja2",
        "jsonschema",
    }
    ours = {name.split(".")[1] for name in loaded if name.startswith("tickless.")}
    assert ours == {"authoring", "errors", "exceptions", "model"}


def test_every_public_name_loads() -> None:
    for name in tickless.__all__:
        assert getattr(tickless, name) is not None
        assert name in dir(tickless)
    assert set(tickless.__all__) == set(tickless._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tickless.nothing  # noqa: B018 - the attribute raises


@pytest.mark.parametrize(
    ("dag", "libraries"),
    [
        ("BashOperator(task_id='t', bash_command='echo')", set()),
        ("BashOperator(task_id='t', bash_command='echo {{ ds }}')", {"jinja2"}),
        ("DAG('y', params={'a': 1})", set()),
        ("DAG('y', params={'a': Param(1, type='integer')})", {"jsonschema"}),
    ],
)
def test_libraries_are_loaded_where_they_are_used(dag: str, libraries: set[str]) -> None:
    made = "from tickless import *\nfrom tickless.authoring import registry\nwith DAG('x'):\n "
    loaded = loaded_by(f"{made}{dag}\nregistry.collect()\nregistry.prepare()")
    assert loaded & {"jinja2", "jsonschema"} == libraries


def test_a_process_that_waits_for_its_task_has_loaded_no_more_than_it_needs() -> None:
    """Each page that a zygote has is one that its forks may have to copy."""
    assert not loaded_by("import tickless.runner.zygote") & {"urllib", "jinja2", "jsonschema", "http", "asyncio", "ssl"}
