"""Clear and mark, by whichever command: show what it comes to, ask, do it, say what was done."""

from __future__ import annotations

import sys
from typing import Any

import click

from tickless.cli.client import Client
from tickless.cli.options import options_of
from tickless.cli.output import emit_json, emit_table
from tickless.cli.problem import say
from tickless.errors import UserError

_COLUMNS = {"run": "run", "task": "task", "state": "state"}


def alter(
    ctx: click.Context, client: Client, path: str, body: dict[str, Any], verb: str, *, is_dry: bool, is_sure: bool
) -> None:
    """Carry out one command that changes task instances."""
    options = options_of(ctx)
    if is_dry:
        found = client.post(path, {**body, "dry_run": True})
        if options.is_json:
            return emit_json(found)
        emit_table([_row(item) for item in found["first"]], _COLUMNS)
        say(f"would {verb} {_count(found)}")
        return
    if not is_sure:
        if not sys.stdin.isatty():
            raise UserError(f"nobody can be asked whether to {verb}", hint="Say --yes, or see it first with --dry-run.")
        found = client.post(path, {**body, "dry_run": True})
        click.confirm(f"{verb} {_count(found)}?", abort=True, err=True)
    done = client.post(path, body)
    if options.is_json:
        return emit_json(done)
    for refusal in done["refused"]:
        say(f"  left alone: {refusal}")
    say(f"{verb}: {_count(done)}")


def _count(found: dict[str, Any]) -> str:
    return f"{found['tasks']} task instances in {found['runs']} runs"


def _row(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "task": item["task_id"] + ("" if item["map_index"] < 0 else f"[{item['map_index']}]")}
