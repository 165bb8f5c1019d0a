"""tickless dev, daemon, stop, status."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from tickless.cli.client import Client
from tickless.cli.command import Command
from tickless.cli.options import Options, options_of
from tickless.cli.output import emit_fields, emit_json, moment, safe
from tickless.cli.problem import NOT_FOUND, OK, UNREACHABLE, NotRunning, report, say


@click.command("dev", cls=Command)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(exists=True, file_okay=False))
@click.option("--start", "start_dags", metavar="DAG", multiple=True, help="Start a run of this DAG once it is read.")
@click.pass_context
def dev(ctx: click.Context, folder: str | None, start_dags: tuple[str, ...]) -> int:
    """Run everything in the foreground, with a private Postgres, and say what happens.

    DIR holds the DAG files; default: the folder dags here, if there is one, else [dags] folders.
    Ctrl-C stops it; running tasks go on, and the next start takes them over again.
    """
    if folder is None and Path("dags").is_dir():
        folder = "dags"
    overrides: dict[str, Any] = {} if folder is None else {"dags.folders": [os.path.abspath(folder)]}
    return _run(options_of(ctx), overrides, is_dev=True, start_dags=start_dags)


@click.command("daemon", cls=Command)
@click.pass_context
def daemon(ctx: click.Context) -> int:
    """Run the scheduler in the foreground, for systemd or a container."""
    return _run(options_of(ctx), {}, is_dev=False, start_dags=())


def _run(options: Options, overrides: dict[str, Any], *, is_dev: bool, start_dags: tuple[str, ...]) -> int:
    # Imported here: they load pydantic, asyncpg and FastAPI, which no other command may pay for.
    from tickless.config.load import load
    from tickless.daemon.main import run_daemon

    settings = load(options.home, option=options.config, overrides=overrides)
    return run_daemon(home=options.home, settings=settings, dev=is_dev, start_dags=start_dags)


@click.command("status", cls=Command)
@click.pass_context
def status(ctx: click.Context) -> int:
    """Say how the scheduler is. Exit code 0 once it is ready, 3 when it does not run, 6 when it is not ready."""
    options = options_of(ctx)
    try:
        found = Client(options.socket).get("/status")
    except NotRunning as error:
        return report(error, is_json=options.is_json, exit_code=NOT_FOUND)
    if options.is_json:
        emit_json(found)
    else:
        emit_fields(
            {
                "state": found["state"] + ("" if found["is_ready"] else " (not ready)"),
                "version": f"{found['version']} ({found['mode']})",
                "process": f"pid {found['pid']} on {found['host']}, since {moment(found['started_at'])}",
                "home": found["home"],
                "database": found["database"],
                "launcher": found["launcher"],
                "epoch": found["epoch"],
                "DAGs": found["dags"],
                "import errors": found["import_errors"] or None,
                "runs": found["runs"],
                "tasks": found["tasks"],
                "parallelism": found["parallelism"],
            }
        )
        for problem in found["problems"]:
            print(f"problem: {safe(problem)}")
    return OK if found["is_ready"] else UNREACHABLE


@click.command("stop", cls=Command)
@click.option(
    "--all", "everything", is_flag=True, help="Also end running tasks, the launcher and the private Postgres."
)
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds to wait for its end.")
@click.pass_context
def stop(ctx: click.Context, everything: bool, timeout: float) -> int:
    """Stop the scheduler. Running tasks go on under the launcher; the next start takes them over."""
    from tickless.cli.stopping import stop_daemon, stop_leftovers

    options = options_of(ctx)
    try:
        pid = stop_daemon(options, kill_tasks=everything, timeout=timeout)
    except NotRunning as error:
        if not everything:
            return report(error, is_json=options.is_json, exit_code=NOT_FOUND)
        pid = None
    ended = stop_leftovers(options, timeout=timeout) if everything else []
    if options.is_json:
        emit_json({"pid": pid, "ended": ended})
    elif pid is None and not ended:
        say(f"nothing of {options.home} was running")
    else:
        if pid is not None:
            say(f"the daemon (pid {pid}) has stopped")
        for what in ended:
            say(f"{what} has stopped")
    return OK
