"""tickless dag."""

from __future__ import annotations

import json

import click

from tickless.cli.alteration import alter
from tickless.cli.client import Client, path_of
from tickless.cli.command import Group
from tickless.cli.options import options_of
from tickless.cli.output import emit_fields, emit_json, emit_table, moment, safe
from tickless.cli.page import every_page
from tickless.cli.problem import say
from tickless.cli.run import conf_object, start

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
            "next": "paused" if dag["is_paused"] else moment(dag["next_run_at"]),
            "last": f"{dag['last_run']['run']}: {dag['last_run']['state']}" if dag["last_run"] else None,
            "problem": "import error" if dag["import_error"] else None,
        }
        for dag in dags
    ]
    columns = {
        "dag_id": "dag",
        "version": "version",
        "file": "file",
        "schedule": "schedule",
        "next": "next run",
        "live_runs": "live runs",
        "last": "last run",
    }
    if any(row["problem"] for row in rows):
        columns["problem"] = "problem"
    emit_table(rows, columns)


@dag.command("show")
@click.argument("dag_id", metavar="DAG")
@click.pass_context
def show(ctx: click.Context, dag_id: str) -> None:
    """Show one DAG, when its next run is due, and what stands in the way."""
    options = options_of(ctx)
    client = Client(options.socket)
    found = client.get(path_of("dags", dag_id))
    reasons = client.get(path_of("dags", dag_id, "why"))["items"]
    if options.is_json:
        return emit_json({**found, "why": reasons})
    last = found["last_run"]
    emit_fields(
        {
            **{key: found[key] for key in ("dag_id", "version", "file", "schedule", "timezone")},
            "paused": found["is_paused"],
            "next run": moment(found["next_run_at"]) if found["next_run_at"] else None,
            "live runs": found["live_runs"],
            "last run": f"{last['run']} ({last['run_id']}): {last['state']}" if last else None,
            "import error": found["import_error"],
        }
    )
    for reason in reasons:
        print(safe(reason["message"]))
        if reason["hint"]:
            print(safe(f"  {reason['hint']}"))


@dag.command("graph")
@click.argument("dag_id", metavar="DAG")
@click.option("--svg", metavar="FILE", type=click.Path(), help="Write SVG to this file (`-`: stdout) instead.")
@click.pass_context
def graph(ctx: click.Context, dag_id: str, svg: str | None) -> None:
    """Draw a DAG: a line per task, with rails to the tasks that wait for it."""
    from tickless.cli.graph import svg_graph, text_graph

    options = options_of(ctx)
    found = Client(options.socket).get(path_of("dags", dag_id, "graph"))
    if svg is not None:
        with click.open_file(svg, "w", encoding="utf-8") as file:
            file.write(svg_graph(found))
    elif options.is_json:
        emit_json(found)
    else:
        for line in text_graph(found):
            print(line)


@dag.command("next")
@click.argument("dag_id", metavar="DAG")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many.")
@click.pass_context
def list_next(ctx: click.Context, dag_id: str, count: int) -> None:
    """List when the next runs of a DAG are due, and the data intervals that they will have."""
    options = options_of(ctx)
    client = Client(options.socket)
    slots = client.get(path_of("dags", dag_id, "next"), limit=count)["items"]
    if options.is_json:
        return emit_json(slots)
    names = {"run_after": "run after", "data_interval_start": "interval start", "data_interval_end": "interval end"}
    emit_table([{key: moment(slot[key]) for key in names} for slot in slots], names)
    for reason in client.get(path_of("dags", dag_id, "why"))["items"]:
        say(reason["message"])


@dag.command("pause")
@click.argument("dag_id", metavar="DAG")
@click.pass_context
def pause(ctx: click.Context, dag_id: str) -> None:
    """Pause a DAG: its schedule makes no runs, none of its tasks is sent off. What runs goes on."""
    _pause(ctx, dag_id, "pause")


@dag.command("unpause")
@click.argument("dag_id", metavar="DAG")
@click.pass_context
def unpause(ctx: click.Context, dag_id: str) -> None:
    """Let a paused DAG go on."""
    _pause(ctx, dag_id, "unpause")


def _pause(ctx: click.Context, dag_id: str, verb: str) -> None:
    options = options_of(ctx)
    found = Client(options.socket).post(path_of("dags", dag_id, verb))
    if options.is_json:
        return emit_json(found)
    if found["is_paused"]:
        return say(f"DAG {dag_id} is paused")
    due = f", its next run is due {moment(found['next_run_at'])}" if found["next_run_at"] else ""
    say(f"DAG {dag_id} is not paused{due}")


@dag.command("delete")
@click.argument("dag_id", metavar="DAG")
@click.option("--force", is_flag=True, help="Also a DAG that a file defines: it loses its runs and begins anew.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def delete(ctx: click.Context, dag_id: str, force: bool, dry_run: bool, yes: bool) -> None:
    """Delete a DAG whose file is gone, with all its runs, versions and logs. It must have no unfinished runs."""
    client = Client(options_of(ctx).socket)
    path = path_of("dags", dag_id, "delete")
    alter(ctx, client, path, {"force": force}, "delete", is_dry=dry_run, is_sure=yes)


dag.add_command(start, "trigger")


@dag.command("test")
@click.argument("source", metavar="FILE")
@click.argument("dag_id", metavar="[DAG]", required=False)
@click.option("--conf", metavar="JSON", help="A JSON object for the tasks of the run.")
@click.pass_context
def test(ctx: click.Context, source: str, dag_id: str | None, conf: str | None) -> int:
    """Run the DAG in FILE once, task after task, without a daemon and without a database.

    FILE may also be the name of a DAG that a running daemon knows: then it is the file as the daemon has read it.
    What the tasks write goes to stdout, what happens to stderr; with -o json it is the other way round, and the task
    instances are the answer. Retries come at once. Exit code 0 if the run succeeded, 1 if it failed.
    """
    from tickless.cli.trial import run_trial, subject_of

    options = options_of(ctx)
    return run_trial(options, subject_of(options, source, dag_id=dag_id, conf=json.dumps(conf_object(conf))))


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
