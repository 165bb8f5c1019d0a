"""Writes docs/cli.md from the command tree. After a change: python -m tickless.cli.reference"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from tickless.cli import problem
from tickless.cli.main import COMMANDS, cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"

_EXIT_CODES = {
    problem.OK: "done; of a run that was waited for: it succeeded",
    problem.FAILED: "the operation failed; of a run that was waited for: it failed",
    problem.USAGE: "the command line, or what it asks for, makes no sense",
    problem.NOT_FOUND: "there is no such thing; from `status` and `stop`: no daemon is running",
    problem.NOT_ALLOWED: "not allowed: the daemon is another user's",
    problem.REFUSED: "refused as things are: a name is taken, a run is over, a home is in use",
    problem.UNREACHABLE: "the daemon, or its database, cannot be reached now",
    problem.BAD_CONFIG: "the configuration has an error",
    problem.TIMED_OUT: "a wait with `--timeout` came to its end first",
    problem.INTERRUPTED: "Ctrl-C",
}


def page() -> str:
    """docs/cli.md."""
    out = [
        "# Command line",
        "",
        "Made from the commands themselves by `python -m tickless.cli.reference`; a test keeps it current.",
        "",
        "`tickless NOUN VERB`; nouns may be plural. Data goes to stdout, everything else to stderr. Each command takes",
        "`--home FOLDER` (`TICKLESS_HOME`), `--config FILE` (`TICKLESS_CONFIG`) and `-o json|jsonl|table`; with a JSON",
        'form errors are JSON, too: `{"error": {"code", "message", "hint"}}` on stderr. RUN is a run\'s number or',
        "DAG/RUN_ID. `tickless completion bash|zsh|fish` prints completions.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in _EXIT_CODES.items()),
        "",
    ]
    context = click.Context(cli, info_name="tickless")
    for name, entry in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        aliases = f" (also: {', '.join(f'`{alias}`' for alias in entry.aliases)})" if entry.aliases else ""
        out += [f"## tickless {name}{aliases}", ""]
        if not isinstance(command, click.Group):
            out += [f"`{_usage(command, name, context)}`", ""]
        out += [*_about(command), ""]
        if isinstance(command, click.Group):
            inner = click.Context(command, info_name=name, parent=context)
            for verb, sub in sorted(command.commands.items()):
                out += [f"### `{_usage(sub, verb, inner)}`", "", *_about(sub), ""]
    return "\n".join(out).rstrip() + "\n"


def _usage(command: click.Command, name: str, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    arguments = [
        piece
        for param in command.params
        if isinstance(param, click.Argument)
        for piece in param.get_usage_pieces(context)
    ]
    return " ".join([context.command_path, *arguments])


def _about(command: click.Command) -> Iterator[str]:
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    options = [param for param in command.params if isinstance(param, click.Option)]
    if options:
        yield ""
    for option in options:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        value = "" if option.is_flag else f" {option.make_metavar(click.Context(command))}"
        yield f"- {names}{value.replace('|', ' | ')}: {option.help or ''}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
