"""The options that every command takes, before or after its name: --home, --config, -o."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tickless.config.place import api_socket, home_folder


@dataclass(slots=True)
class Options:
    """What was said; one object per invocation, at the root of click's contexts."""

    home_option: str | None = None
    config: str | None = None
    output: str = "table"

    @property
    def home(self) -> Path:
        return home_folder(self.home_option, os.environ)

    @property
    def is_json(self) -> bool:
        """Whether the answer is for a program."""
        return self.output in ("json", "jsonl")

    @property
    def socket(self) -> Path:
        """The daemon's API socket."""
        return api_socket(self.home, self.config, os.environ)


def options_of(ctx: click.Context) -> Options:
    """The invocation's options."""
    found = ctx.find_root().ensure_object(Options)
    assert isinstance(found, Options)
    return found


def _store(name: str) -> Any:
    def callback(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        # Only what was said: a command's silence must not undo what was said before its name.
        if value is not None:
            setattr(options_of(ctx), name, value)

    return callback


def common_options() -> list[click.Parameter]:
    """Fresh click parameters for one command."""
    # The environment is read in `Options`, not by click: it would come before what was said earlier on the line.
    return [
        click.Option(
            ["--home"],
            metavar="FOLDER",
            expose_value=False,
            callback=_store("home_option"),
            help="Home folder of the installation (env: TICKLESS_HOME; default: ~/.tickless).",
        ),
        click.Option(
            ["--config"],
            metavar="FILE",
            expose_value=False,
            callback=_store("config"),
            help="Config file (env: TICKLESS_CONFIG; default: HOME/tickless.toml, if it is there).",
        ),
        click.Option(
            ["-o", "--output"],
            type=click.Choice(["json", "jsonl", "table"]),
            expose_value=False,
            callback=_store("output"),
            help="Form of the answer on stdout; jsonl is an object per line.",
        ),
    ]
