"""Our click classes: commands that take the common options, groups that import their commands only when called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import click

from tickless.cli.options import common_options
from tickless.errors import did_you_mean

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(click.Command):
    """A command with --home, --config and -o."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        # --help stays last, as click puts it.
        return [*params[:-1], *common_options(), *params[-1:]]


class Group(click.Group):
    """A noun: its verbs, and the common options."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            near = did_you_mean(name, self.names(ctx))
            raise click.UsageError(f"No such command {name!r}." + (f" {near}" if near else ""), ctx)
        return super().resolve_command(ctx, args)

    def names(self, ctx: click.Context) -> list[str]:
        """What may be said here."""
        return self.list_commands(ctx)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        return [*params[:-1], *common_options(), *params[-1:]]


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command is, and its line in the root's help; the module is imported when the command is called."""

    where: str
    """module:attribute."""
    short_help: str
    aliases: tuple[str, ...] = ()


class LazyGroup(Group):
    """The root. `--help` and `--version` import no command."""

    def __init__(self, *, lazy: Mapping[str, Lazy], **rest: object) -> None:
        super().__init__(context_settings=dict(_CONTEXT), **rest)  # type: ignore[arg-type]  # passed through to click
        self._lazy = lazy
        self._aliases = {alias: name for name, entry in lazy.items() for alias in entry.aliases}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def names(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *self._aliases]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._lazy.get(self._aliases.get(cmd_name, cmd_name))
        if entry is None:
            return None
        module, _, attribute = entry.where.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.short_help) for name, entry in self._lazy.items()])
