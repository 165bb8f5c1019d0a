"""tickless pool."""

from __future__ import annotations

import click

from tickless.cli.client import Client, path_of
from tickless.cli.command import Group
from tickless.cli.options import options_of
from tickless.cli.output import emit_json, emit_table
from tickless.cli.problem import say

_COLUMNS = {"name": "pool", "slots": "slots", "running": "running", "queued": "queued", "open": "open"}

pool = Group(name="pool", help="List pools and change their size.")


@pool.command("list")
@click.pass_context
def list_pools(ctx: click.Context) -> None:
    """List the pools, with what is taken of them."""
    options = options_of(ctx)
    pools = Client(options.socket).get("/pools")["items"]
    if options.is_json:
        return emit_json(pools)
    emit_table(pools, _COLUMNS)


@pool.command("set")
@click.argument("name")
@click.argument("slots", type=click.IntRange(0, 2**31 - 1))
@click.pass_context
def set_pool(ctx: click.Context, name: str, slots: int) -> None:
    """Create a pool, or change its size. A smaller size drains: it stops nothing."""
    options = options_of(ctx)
    found = Client(options.socket).put(path_of("pools", name), {"slots": slots})
    if options.is_json:
        return emit_json(found)
    say(f"pool {name} has {found['slots']} slots, {found['running'] + found['queued']} of them taken")
