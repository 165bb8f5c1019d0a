"""tickless audit."""

from __future__ import annotations

import json

import click

from tickless.cli.client import Client
from tickless.cli.command import Group
from tickless.cli.options import options_of
from tickless.cli.output import emit_json, emit_table, moment
from tickless.cli.page import every_page

_COLUMNS = {"at": "at", "actor": "who", "action": "what", "dag_id": "dag", "run": "run", "detail": "detail"}

audit = Group(name="audit", help="Who asked for what.")


@audit.command("list")
@click.option("--limit", type=click.IntRange(1), default=25, show_default=True, help="How many, newest first.")
@click.pass_context
def list_events(ctx: click.Context, limit: int) -> None:
    """List what people asked for, newest first."""
    options = options_of(ctx)
    found = every_page(Client(options.socket), "/events", cursor="before", most=limit)
    if options.is_json:
        return emit_json(found)
    emit_table([{**each, "at": moment(each["at"]), "detail": json.dumps(each["detail"])} for each in found], _COLUMNS)
