"""tickless audit."""

from __future__ import annotations

import json

import click

from tickless.cli.client import Client
from tickless.cli.command import Group
from tickless.cli.options import options_of
from tickless.cli.output import emit_json, emit_table, moment
from tickless.cli.page import every_page
from tickless.cli.ref import run_number

_COLUMNS = {"at": "at", "actor": "who", "action": "what", "dag_id": "dag", "run": "run", "detail": "detail"}

_SURFACES = ["unix", "sql", "task", "tickless"]

audit = Group(name="audit", help="Who asked for what.")


@audit.command("list")
@click.option("--dag", "dag_id", metavar="DAG", help="Only of this DAG.")
@click.option("--run", "run_ref", metavar="RUN", help="Only of this run.")
@click.option("--actor", help="Only by this actor, as unix:alice or sql:app.")
@click.option("--surface", type=click.Choice(_SURFACES), help="Only by this way: unix is the command line and the API.")
@click.option("--action", help="Only this, as start or clear.")
@click.option("--since", metavar="MOMENT", help="Only from this moment on, as 2026-11-22T00:00:00Z.")
@click.option("--until", metavar="MOMENT", help="Only before this moment.")
@click.option("--limit", type=click.IntRange(1), default=25, show_default=True, help="How many, newest first.")
@click.pass_context
def list_events(ctx: click.Context, /, limit: int, run_ref: str | None, **choice: str | None) -> None:
    """List what was asked for, newest first: every change of a run, a task, a DAG, a pool, a variable, a connection."""
    options = options_of(ctx)
    client = Client(options.socket)
    run = None if run_ref is None else run_number(client, run_ref)
    found = every_page(client, "/events", cursor="before", most=limit, run=run, **choice)
    if options.is_json:
        return emit_json(found)
    emit_table([{**each, "at": moment(each["at"]), "detail": json.dumps(each["detail"])} for each in found], _COLUMNS)
