"""Clear, mark and delete, by whichever command: show what it comes to, ask, do it, say what was done."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
    """Carry out one command that changes, or deletes, much at once."""
    options = options_of(ctx)
    if is_dry:
        found = client.post(path, {**body, "dry_run": True})
        if options.is_json:
            return emit_json(found)
        emit_table([_row(item) for item in found["first"]], _COLUMNS)
        say(f"would {verb} {_count(found)}")
        return
    make_sure(verb, is_sure=is_sure, count=lambda: _count(client.post(path, {**body, "dry_run": True})))
    done = client.post(path, body)
    if options.is_json:
        return emit_json(done)
    for refusal in done["refused"]:
        say(f"  left alone: {refusal}")
    say(f"{verb}: {_count(done)}")


def make_sure(verb: str, *, is_sure: bool, count: Callable[[], str] | None = None) -> None:
    """Ask whether to do it; `count` says how much that is. Raises UserError where nobody can be asked."""
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise UserError(f"nobody can be asked whether to {verb}", hint="Say --yes, or see it first with --dry-run.")
    click.confirm(f"{verb} {count()}?" if count is not None else f"{verb}?", abort=True, err=True)


def _count(found: dict[str, Any]) -> str:
    return f"{found['tasks']} task instances in {found['runs']} runs"


def _row(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "task": item["task_id"] + ("" if item["map_index"] < 0 else f"[{item['map_index']}]")}
