"""tickless connection."""

from __future__ import annotations

import sys
from typing import Any

import click

from tickless.cli.client import Client, path_of
from tickless.cli.command import Group
from tickless.cli.options import options_of
from tickless.cli.output import emit_fields, emit_json, emit_table
from tickless.cli.page import every_page
from tickless.cli.problem import say
from tickless.cli.secretfile import read_object, write_object
from tickless.errors import UserError
from tickless.model.connection import ConnectionFields, from_dict, from_json, parse_connection

_COLUMNS = {"conn_id": "connection", "conn_type": "type", "host": "host", "port": "port", "login": "login"}
_SECRET = click.option("--show-secrets", is_flag=True, help="Also show passwords and secret extras.")

connection = Group(name="connection", help="How tasks log in elsewhere: list, get, add, delete, import, export.")


@connection.command("list")
@_SECRET
@click.pass_context
def list_connections(ctx: click.Context, show_secrets: bool) -> None:
    """List the connections."""
    options = options_of(ctx)
    found = every_page(Client(options.socket), "/secrets/connections" if show_secrets else "/connections")
    if options.is_json:
        return emit_json(found)
    emit_table(found, _COLUMNS | ({"password": "password"} if show_secrets else {}))


@connection.command("get")
@click.argument("conn_id")
@_SECRET
@click.pass_context
def get_connection(ctx: click.Context, conn_id: str, show_secrets: bool) -> None:
    """Show a connection."""
    options = options_of(ctx)
    found = Client(options.socket).get(("/secrets" if show_secrets else "") + path_of("connections", conn_id))
    if options.is_json:
        return emit_json(found)
    if show_secrets:
        found["uri"] = _fields(found).get_uri()
    emit_fields(found)


@connection.command("add")
@click.argument("conn_id")
@click.option("--conn-uri", help="TYPE://LOGIN:PASSWORD@HOST:PORT/SCHEMA?KEY=VALUE; `-` reads it from stdin.")
@click.option("--conn-json", help="A JSON object with the fields below (without conn-); `-` reads it from stdin.")
@click.option("--conn-type")
@click.option("--conn-description")
@click.option("--conn-host")
@click.option("--conn-login")
@click.option("--conn-password", help="`-` reads it from stdin, so that it is in no history.")
@click.option("--conn-schema")
@click.option("--conn-port", type=click.IntRange(0, 65535))
@click.option("--conn-extra", help="A JSON object.")
@click.pass_context
def add_connection(
    ctx: click.Context, /, conn_id: str, conn_uri: str | None, conn_json: str | None, **given: str | int | None
) -> None:
    """Create a connection, from a URI, from JSON or from its fields."""
    options = options_of(ctx)
    fields = {
        name if name == "conn_type" else name.removeprefix("conn_"): value
        for name, value in given.items()
        if value is not None
    }
    forms = [conn_uri is not None, conn_json is not None, bool(fields.keys() - {"description"})]
    if sum(forms) != 1:
        raise UserError(
            f"connection {conn_id!r} needs one of --conn-uri, --conn-json, or --conn-type with other fields"
        )
    if conn_uri is not None:
        found = parse_connection(conn_id, _stdin(conn_uri)) | fields
    elif conn_json is not None:
        found = from_json(conn_id, _stdin(conn_json)) | fields
    else:
        if fields.get("password") == "-":
            fields["password"] = _stdin("-")
        found = from_dict(conn_id, fields)
    made = Client(options.socket).post("/connections", found)
    if options.is_json:
        return emit_json(made)
    say(f"connection {conn_id} is there")


@connection.command("delete")
@click.argument("conn_id")
@click.pass_context
def delete_connection(ctx: click.Context, conn_id: str) -> None:
    """Remove a connection."""
    options = options_of(ctx)
    Client(options.socket).call("DELETE", path_of("connections", conn_id))
    if options.is_json:
        return emit_json({"conn_id": conn_id})
    say(f"connection {conn_id} is removed")


@connection.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--overwrite", is_flag=True, help="Also replace those that are there; they are skipped otherwise.")
@click.pass_context
def import_connections(ctx: click.Context, file: str, overwrite: bool) -> None:
    """Add connections from a JSON file: {"CONN_ID": URI} or {"CONN_ID": {"conn_type": …, …}}."""
    options = options_of(ctx)
    client = Client(options.socket)
    given: dict[str, dict[str, Any]] = {}
    for conn_id, value in read_object(file).items():
        if not isinstance(value, str | dict):
            raise UserError(f"{file}: connection {conn_id!r} is neither a URI nor an object")
        given[conn_id] = parse_connection(conn_id, value) if isinstance(value, str) else from_dict(conn_id, value)
    there = set() if overwrite else {each["conn_id"] for each in every_page(client, "/connections")}
    wanted = {conn_id: fields for conn_id, fields in given.items() if conn_id not in there}
    for conn_id, fields in wanted.items():
        del fields["conn_id"]
        client.put(path_of("connections", conn_id), fields)
    if options.is_json:
        return emit_json({"set": len(wanted), "skipped": len(given) - len(wanted)})
    say(f"{len(wanted)} connections are set, {len(given) - len(wanted)} skipped")


@connection.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.pass_context
def export_connections(ctx: click.Context, file: str) -> None:
    """Write all connections, secrets included, to a JSON file (`-`: stdout) that `import` reads."""
    options = options_of(ctx)
    found = every_page(Client(options.socket), "/secrets/connections")
    write_object(file, {each["conn_id"]: _fields(each).to_dict() for each in found})
    if file != "-":
        say(f"{len(found)} connections are in {file}")


def _fields(view: dict[str, Any]) -> ConnectionFields:
    given = {name: value for name, value in view.items() if name != "changed_at"}
    return ConnectionFields(**from_dict(view["conn_id"], given))


def _stdin(text: str) -> str:
    return sys.stdin.read().strip() if text == "-" else text
