"""tickless backfill."""

from __future__ import annotations

from typing import Any

import click

from tickless.cli.client import Client, path_of
from tickless.cli.command import Group
from tickless.cli.options import options_of
from tickless.cli.output import emit_fields, emit_json, emit_table, moment
from tickless.cli.page import every_page
from tickless.cli.problem import say
from tickless.cli.run import conf_object

_COLUMNS = {
    "backfill": "backfill",
    "dag_id": "dag",
    "state": "state",
    "from": "from",
    "to": "to",
    "at": "at",
    "made": "made",
    "passed": "passed over",
    "runs": "runs",
}
_SLOT_COLUMNS = {"due": "due", "start": "interval start", "end": "interval end", "what": "what", "run": "run it has"}

backfill = Group(name="backfill", help="Run the schedule of a DAG over the past. BACKFILL is a backfill's number.")


@backfill.command("create")
@click.argument("dag")
@click.option("--from", "from_at", required=True, metavar="DATE", help="No slot before it.")
@click.option(
    "--to", "to_at", required=True, metavar="DATE", help="No slot after it. Slots that were not due yet are left out."
)
@click.option(
    "--reprocess",
    type=click.Choice(["none", "failed", "completed"]),
    default="none",
    show_default=True,
    help="Which slots that have a run already get another one.",
)
@click.option("--max-active", type=click.IntRange(1, 500), default=10, show_default=True, help="Runs of it at a time.")
@click.option("--backwards", is_flag=True, help="The newest slot first.")
@click.option("--conf", metavar="JSON", help="A JSON object for the tasks of its runs.")
@click.option("--dry-run", is_flag=True, help="Show the slots, and make nothing.")
@click.pass_context
def create(
    ctx: click.Context,
    dag: str,
    from_at: str,
    to_at: str,
    reprocess: str,
    max_active: int,
    backwards: bool,
    conf: str | None,
    dry_run: bool,
) -> None:
    """Make a run of DAG for each slot of its schedule between two dates, both included; print the backfill's number.

    A date is 2026-11-22 or 2026-11-22T06:00, with a time zone or in that of the schedule.
    """
    options = options_of(ctx)
    client = Client(options.socket)
    body = {
        "from_at": _date(from_at),
        "to_at": _date(to_at),
        "reprocess": reprocess,
        "max_active": max_active,
        "backwards": backwards,
        "conf": conf_object(conf),
    }
    if dry_run:
        return _preview(client, dag, body, is_json=options.is_json)
    made = client.post(path_of("dags", dag, "backfills"), body)
    if options.is_json:
        return emit_json(made)
    print(made["backfill"])
    say(f"backfill {made['backfill']} of {dag} begins: tickless backfill show {made['backfill']}")
    if made["why"]:
        say(made["why"])


@backfill.command("list")
@click.argument("dag", required=False)
@click.option("--open", "is_open", is_flag=True, help="Only those that are not completed.")
@click.option("--limit", type=click.IntRange(1), default=25, show_default=True, help="How many, newest first.")
@click.pass_context
def list_backfills(ctx: click.Context, dag: str | None, is_open: bool, limit: int) -> None:
    """List backfills, newest first."""
    options = options_of(ctx)
    found = every_page(
        Client(options.socket), "/backfills", cursor="before", most=limit, dag_id=dag, open=is_open or None
    )
    if options.is_json:
        return emit_json(found)
    rows = [
        {**each, "from": moment(each["from_at"]), "to": moment(each["to_at"]), "at": moment(each["place"])}
        for each in found
    ]
    emit_table(rows, _COLUMNS)


@backfill.command("show")
@click.argument("number", metavar="BACKFILL", type=int)
@click.pass_context
def show(ctx: click.Context, number: int) -> None:
    """Show one backfill: how far it has come, and what holds it back. `run list --backfill` lists its runs."""
    options = options_of(ctx)
    found = Client(options.socket).get(path_of("backfills", number))
    if options.is_json:
        return emit_json(found)
    emit_fields(
        {
            **{key: found[key] for key in ("backfill", "dag_id", "state", "schedule")},
            "from": moment(found["from_at"]),
            "to": moment(found["to_at"]),
            **{key: found[key] for key in ("reprocess", "max_active", "backwards")},
            "conf": found["conf"],
            "created": moment(found["created_at"]),
            "at slot": moment(found["place"]),
            "runs made": str(found["made"]),
            "slots passed over": str(found["passed"]),
            "runs": found["runs"],
            "cancelled": moment(found["cancelled_at"]),
            "completed": moment(found["completed_at"]),
            "why": found["why"],
        }
    )


@backfill.command("pause")
@click.argument("number", metavar="BACKFILL", type=int)
@click.pass_context
def pause(ctx: click.Context, number: int) -> None:
    """Make no runs of it for now, and start none; what runs goes on."""
    _control(ctx, number, "pause", "is paused")


@backfill.command("unpause")
@click.argument("number", metavar="BACKFILL", type=int)
@click.pass_context
def unpause(ctx: click.Context, number: int) -> None:
    """Let it go on."""
    _control(ctx, number, "unpause", "goes on")


@backfill.command("cancel")
@click.argument("number", metavar="BACKFILL", type=int)
@click.pass_context
def cancel(ctx: click.Context, number: int) -> None:
    """Make no more runs of it, and end its queued ones; what runs goes on."""
    _control(ctx, number, "cancel", "is cancelled")


def _control(ctx: click.Context, number: int, verb: str, outcome: str) -> None:
    options = options_of(ctx)
    found = Client(options.socket).post(path_of("backfills", number, verb))
    if options.is_json:
        return emit_json(found)
    say(f"backfill {number} of {found['dag_id']} {outcome}")


def _preview(client: Client, dag: str, body: dict[str, Any], *, is_json: bool) -> None:
    slots: list[Any] = []
    at: str | None = None
    while True:
        page = client.post(path_of("dags", dag, "backfills", "preview"), body, after=at, limit=1000)
        slots += page["items"]
        at = page["next"]
        if at is None:
            break
    if is_json:
        return emit_json(slots)
    emit_table(
        [
            {
                "due": moment(slot["run_after"]),
                "start": moment(slot["data_interval_start"]),
                "end": moment(slot["data_interval_end"]),
                "what": "run" if slot["is_run"] else "pass over",
                "run": f"{slot['run']} ({slot['run_state']})" if slot["run"] is not None else None,
            }
            for slot in slots
        ],
        _SLOT_COLUMNS,
    )
    count = sum(slot["is_run"] for slot in slots)
    say(f"{count} runs, {len(slots) - count} slots passed over; nothing was made")


def _date(text: str) -> str:
    """A date alone is its midnight."""
    return f"{text}T00:00:00" if len(text) == len("2026-11-22") else text
