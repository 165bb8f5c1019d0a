"""tickless why."""

from __future__ import annotations

import click

from tickless.cli.client import Client, path_of
from tickless.cli.command import Command
from tickless.cli.options import options_of
from tickless.cli.output import emit_json, safe
from tickless.cli.ref import run_number, task_and_index


@click.command("why", cls=Command)
@click.argument("run_ref", metavar="RUN")
@click.argument("task_ref", metavar="[TASK]", required=False)
@click.pass_context
def why(ctx: click.Context, run_ref: str, task_ref: str | None) -> None:
    """Say what a run or a task waits for, with the numbers, and what would change it."""
    options = options_of(ctx)
    client = Client(options.socket)
    number = run_number(client, run_ref)
    if task_ref is None:
        reasons = client.get(path_of("runs", number, "why"))["items"]
    else:
        task_id, map_index = task_and_index(task_ref)
        reasons = client.get(path_of("runs", number, "tasks", task_id, "why"), map_index=map_index)["items"]
    if options.is_json:
        return emit_json(reasons)
    if not reasons:
        print(f"Nothing holds run {number} back.")
    for reason in reasons:
        who = ""
        if reason["task_id"] is not None and task_ref is None:
            who = reason["task_id"] + ("" if reason["map_index"] < 0 else f"[{reason['map_index']}]") + ": "
        print(safe(f"{who}{reason['message']}"))
        if reason["hint"]:
            print(safe(f"  {reason['hint']}"))
