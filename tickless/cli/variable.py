"""tickless variable."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from tickless.cli.client import Client, path_of
from tickless.cli.command import Group
from tickless.cli.options import options_of
from tickless.cli.output import emit_json, emit_table
from tickless.cli.page import every_page
from tickless.cli.problem import say
from tickless.cli.secretfile import read_object, write_object
from tickless.errors import NotFound, UserError

_COLUMNS = {"key": "key", "value": "value", "description": "description"}

variable = Group(name="variable", help="Values that tasks share: list, get, set, delete, import, export.")


@variable.command("list")
@click.option("--show-secrets", is_flag=True, help="Also show the values of those whose name tells a secret.")
@click.pass_context
def list_variables(ctx: click.Context, show_secrets: bool) -> None:
    """List the variables."""
    options = options_of(ctx)
    found = every_page(Client(options.socket), "/secrets/variables" if show_secrets else "/variables")
    if options.is_json:
        return emit_json(found)
    emit_table(found, _COLUMNS)


@variable.command("get")
@click.argument("key")
@click.option("-d", "--default", help="Print this when there is no such variable.")
@click.pass_context
def get_variable(ctx: click.Context, key: str, default: str | None) -> None:
    """Print the value of a variable, also of a secret one."""
    options = options_of(ctx)
    try:
        found = Client(options.socket).get("/secrets" + path_of("variables", key))
    except NotFound:
        if default is None:
            raise
        found = {"key": key, "value": default}
    if options.is_json:
        return emit_json(found)
    print(found["value"])


@variable.command("set")
@click.argument("key")
@click.argument("value")
@click.option("--description", help="What it is for; a former description stays if this is not given.")
@click.pass_context
def set_variable(ctx: click.Context, key: str, value: str, description: str | None) -> None:
    """Create a variable, or change its value. VALUE `-` reads it from stdin, so that it is in no history."""
    options = options_of(ctx)
    if value == "-":
        value = sys.stdin.read().removesuffix("\n")
    found = Client(options.socket).put(path_of("variables", key), {"value": value, "description": description})
    if options.is_json:
        return emit_json(found)
    say(f"variable {key} is set")


@variable.command("delete")
@click.argument("key")
@click.pass_context
def delete_variable(ctx: click.Context, key: str) -> None:
    """Remove a variable."""
    options = options_of(ctx)
    Client(options.socket).call("DELETE", path_of("variables", key))
    if options.is_json:
        return emit_json({"key": key})
    say(f"variable {key} is removed")


@variable.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--existing",
    type=click.Choice(["overwrite", "skip", "fail"]),
    default="overwrite",
    show_default=True,
    help="What to do with those that are there already.",
)
@click.pass_context
def import_variables(ctx: click.Context, file: str, existing: str) -> None:
    """Set variables from a JSON file: {"KEY": VALUE} or {"KEY": {"value": VALUE, "description": TEXT}}."""
    options = options_of(ctx)
    client = Client(options.socket)
    given = {key: _body(key, value) for key, value in read_object(file).items()}
    there = {each["key"] for each in every_page(client, "/variables")} if existing != "overwrite" else set()
    if existing == "fail" and (taken := sorted(there & given.keys())):
        raise UserError(f"there already: {', '.join(taken)}", hint="Nothing was changed.")
    wanted = {key: body for key, body in given.items() if key not in there}
    for key, body in wanted.items():
        client.put(path_of("variables", key), body)
    if options.is_json:
        return emit_json({"set": len(wanted), "skipped": len(given) - len(wanted)})
    say(f"{len(wanted)} variables are set, {len(given) - len(wanted)} skipped")


@variable.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.pass_context
def export_variables(ctx: click.Context, file: str) -> None:
    """Write all variables, secrets included, to a JSON file (`-`: stdout) that `import` reads."""
    options = options_of(ctx)
    content: dict[str, Any] = {}
    for each in every_page(Client(options.socket), "/secrets/variables"):
        text = each["description"]
        content[each["key"]] = each["value"] if text is None else {"value": each["value"], "description": text}
    write_object(file, content)
    if file != "-":
        say(f"{len(content)} variables are in {file}")


def _body(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and "value" in value and value.keys() <= {"value", "description"}:
        return {"value": _text(value["value"]), "description": value.get("description")}
    return {"value": _text(value)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
