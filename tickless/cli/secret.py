"""tickless secret."""

from __future__ import annotations

import click

from tickless.cli.client import Client
from tickless.cli.command import Group
from tickless.cli.options import options_of
from tickless.cli.output import emit_json
from tickless.cli.problem import say

secret = Group(name="secret", help="The key that seals variables and connections in the database.")


@secret.command("rotate")
@click.pass_context
def rotate(ctx: click.Context) -> None:
    """Seal everything with a new key and forget the old one. Other hosts need the new key file (HOME/secret.key)."""
    options = options_of(ctx)
    found = Client(options.socket).post("/secrets/rotate")
    if options.is_json:
        return emit_json(found)
    say(f"{found['sealed']} variables and connections are sealed with a new key; keep a backup of secret.key")
