"""tickless dag."""

from __future__ import annotations

import click

from tickless.cli.client import Client
from tickless.cli.command import Group
from tickless.cli.options import options_of
from tickless.cli.output import emit_json, emit_table, moment, safe
from tickless.cli.page import every_page
from tickless.cli.problem import say

dag = Group(name="dag", help="DAGs and the errors in their files.")


@dag.command("list")
@click.pass_context
def list_dags(ctx: click.Context) -> None:
    """List the DAGs."""
    options = options_of(ctx)
    dags = every_page(Client(options.socket), "/dags")
    if options.is_json:
        return emit_json(dags)
    rows = [
        {
            **dag,
            "last": f"{dag['last_run']['run']}: {dag['last_run']['state']}" if dag["last_run"] else None,
            "problem": "import error" if dag["import_error"] else None,
        }
        for dag in dags
    ]
    columns = {"dag_id": "dag", "version": "version", "file": "file", "live_runs": "live runs", "last": "last run"}
    if any(row["problem"] for row in rows):
        columns["problem"] = "problem"
    emit_table(rows, columns)


@dag.command("errors")
@click.option("--traceback", is_flag=True, help="Show whole tracebacks.")
@click.pass_context
def list_errors(ctx: click.Context, traceback: bool) -> None:
    """List the DAG files that cannot be read."""
    options = options_of(ctx)
    errors = Client(options.socket).get("/import-errors")["items"]
    if options.is_json:
        return emit_json(errors)
    if not errors:
        return say("no DAG file has an error")
    for error in errors:
        line = f":{error['line']}" if error["line"] is not None else ""
        print(f"{safe(error['file'])}{line}: {safe(error['error'])}")
        print(f"  in {safe(error['folder'])}, since {moment(error['at'])}")
        if traceback and error["traceback"]:
            for text in error["traceback"].splitlines():
                print(f"  | {safe(text)}")
