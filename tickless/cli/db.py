"""tickless db."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import click

from tickless.cli.client import Client
from tickless.cli.command import Group
from tickless.cli.options import Options, options_of
from tickless.cli.output import emit_json
from tickless.cli.problem import NotRunning, say
from tickless.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from tickless.daemon.database import Database

T = TypeVar("T")

db = Group(name="db", help="Migrate the database, or reach it.")


@db.command("migrate")
@click.pass_context
def migrate(ctx: click.Context) -> None:
    """Bring the database's schema up to date. A starting daemon does it, too."""
    options = options_of(ctx)
    database = _database(options)
    _with_server(database, database.open, lambda: None)
    if options.is_json:
        return emit_json({"database": database.about})
    say(f"the schema is up to date: {database.about}")


@db.command("url")
@click.pass_context
def url(ctx: click.Context) -> None:
    """Print the database's URL, password included."""
    options = options_of(ctx)
    found = _url_of_daemon(options)
    if found is None:
        try:
            found = _database(options).dsn
        except Unavailable as error:
            raise NotFound(
                f"the private Postgres of {options.home} is not running", hint="`tickless dev` starts it."
            ) from error
    if options.is_json:
        return emit_json({"url": found})
    print(found)


@db.command("shell", context_settings={"ignore_unknown_options": True})
@click.argument("psql_arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def shell(ctx: click.Context, psql_arguments: tuple[str, ...]) -> int:
    """Open psql on the database, in the schema tickless. What follows goes to psql: `db shell -- -c 'select 1'`."""
    options = options_of(ctx)
    psql = _find_psql(options)
    found = _url_of_daemon(options)
    if found is not None:
        return _psql(psql, found, psql_arguments)
    database = _database(options)
    return _with_server(database, database.revive, lambda: _psql(psql, database.dsn, psql_arguments))


def _url_of_daemon(options: Options) -> str | None:
    """The URL that the running daemon uses; None when none runs."""
    try:
        return str(Client(options.socket).get("/database")["url"]) or None
    except NotRunning:
        return None


def _database(options: Options) -> Database:
    from tickless.config.load import load
    from tickless.daemon.database import Database
    from tickless.telemetry.log import configure

    configure(level="warning", format="human")  # that a server was started for us is no news
    return Database(options.home, load(options.home, option=options.config))


def _with_server(database: Database, start: Callable[[], object], action: Callable[[], T]) -> T:
    """Do it while the private Postgres runs, and leave it as it was found."""
    import anyio

    was_running = _is_running(database)
    anyio.run(start)  # type: ignore[arg-type]  # open or revive: coroutine functions without arguments
    try:
        return action()
    finally:
        if was_running:
            database.leave()
        else:
            anyio.run(database.stop)


def _is_running(database: Database) -> bool:
    try:
        return bool(database.dsn)
    except Unavailable:
        return False


def _find_psql(options: Options) -> str:
    from tickless.store.binaries import find_binaries
    from tickless.store.embedded import EmbeddedPostgres

    beside = find_binaries(None, EmbeddedPostgres(options.home).data).program("psql")
    if beside.exists():
        return str(beside)
    on_path = shutil.which("psql")
    if on_path is None:
        raise NotFound(
            "there is no psql on this machine", hint="Install it (apt install postgresql-client), or use `db url`."
        )
    return on_path


def _psql(program: str, dsn: str, arguments: tuple[str, ...]) -> int:
    parts = urlsplit(dsn)
    environment = {**os.environ, "PGOPTIONS": f"-c search_path=tickless,public {os.environ.get('PGOPTIONS', '')}"}
    if parts.password is not None:
        # Not on the command line, where everybody on the machine could read it.
        environment["PGPASSWORD"] = unquote(parts.password)
        user, _, host = parts.netloc.rpartition("@")
        parts = parts._replace(netloc=f"{user.partition(':')[0]}@{host}")
    return subprocess.run([program, "--dbname", urlunsplit(parts), *arguments], env=environment, check=False).returncode
