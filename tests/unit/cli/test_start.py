"""What the CLI imports and how long it takes to start; parsing of names; tables."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import click
import pytest

from tickless.cli.main import COMMANDS, cli
from tickless.cli.output import cell, duration, emit_table
from tickless.cli.ref import task_and_index

_HEAVY = {
    "pydantic",
    "fastapi",
    "asyncpg",
    "asyncio",
    "anyio",
    "structlog",
    "uvicorn",
    "msgspec",
    "http.client",
    "rich",
}


def imported_by(*words: str) -> set[str]:
    """The modules that are loaded when this command line ends."""
    code = (
        "import sys; from tickless.cli.main import run; run(sys.argv[1:]);"
        "print('MODULES', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    assert imported_by(*words) & _HEAVY == set()


def test_root_help_and_version_import_no_command() -> None:
    """Nor anything of ours that only commands need."""
    for words in ("--help", "--version"):
        modules = imported_by(words)
        assert not {entry.where.partition(":")[0] for entry in COMMANDS.values()} & modules
        assert not {"tickless.core", "tickless.daemon", "tickless.store"} & modules


def test_no_help_of_any_command_imports_what_a_daemon_needs() -> None:
    """The whole tree in one process: what one of them imports shows."""
    lines = [["--help"], *([*path, "--help"] for path in _every_command())]
    assert len(lines) > 40
    code = (
        "import sys, json; from tickless.cli.main import run\n"
        f"for words in json.loads({json.dumps(json.dumps(lines))}):\n"
        "    assert run(words) == 0, words\n"
        "print('MODULES', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stderr.rpartition("MODULES")[2].split())
    # Every noun that speaks to the daemon needs the client; nothing else of the list.
    assert modules & _HEAVY == {"http.client"}
    assert not {name for name in modules if name.startswith(("tickless.daemon", "tickless.store", "tickless.api"))}


def _every_command() -> list[list[str]]:
    found = []
    with click.Context(cli) as root:
        for name in cli.list_commands(root):
            command = cli.get_command(root, name)
            found.append([name])
            if isinstance(command, click.Group):
                found += [[name, verb] for verb in command.list_commands(root)]
    return found


def test_a_client_command_imports_only_the_http_client() -> None:
    assert imported_by("--home", "/nonexistent", "run", "list") & _HEAVY == {"http.client"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_root_help_names_real_commands(name: str) -> None:
    module, _, attribute = COMMANDS[name].where.partition(":")
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    with click.Context(command) as ctx:
        options = {option for param in command.get_params(ctx) for option in param.opts}
    assert {"--home", "--output", "--config"} <= options


@pytest.mark.parametrize(
    ("text", "task"), [("load", ("load", -1)), ("load[3]", ("load", 3)), ("load[x]", ("load[x]", -1))]
)
def test_mapped_tasks_are_named_with_their_index(text: str, task: tuple[str, int]) -> None:
    assert task_and_index(text) == task


def test_tables_are_aligned_for_wide_characters_and_show_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    emit_table([{"a": "日本", "b": 1}, {"a": "x\x1b[2J", "b": None}], {"a": "a", "b": "b"})
    assert capsys.readouterr().out == "A      B\n日本   1\nx·[2J  -\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0123, "12 ms"), (1.234, "1.23 s"), (245.0, "4 min 5 s"), (11220.0, "3 h 7 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_cells() -> None:
    assert [cell(value) for value in (None, True, {"running": 2}, [1, 2], "x")] == [
        "-",
        "yes",
        "2 running",
        "1, 2",
        "x",
    ]


_PIPE_BREAKS = """
import os, sys
from tickless.cli import main
def broken(**_):
    raise BrokenPipeError(32, "somebody else's pipe")
main.cli.main = broken
sys.exit(main.run(["daemon"]))
"""


def test_only_the_pipe_of_our_own_output_ends_us_silently() -> None:
    """A daemon that meets a broken pipe somewhere inside has a bug, and must not hide it."""
    done = subprocess.run([sys.executable, "-c", _PIPE_BREAKS], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "somebody else's pipe" in done.stderr


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    tickless = [sys.executable, "-m", "tickless", "--help"]
    with subprocess.Popen(tickless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1
