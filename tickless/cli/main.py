"""The entry point: `tickless NOUN VERB`. Data on stdout, everything else on stderr, exit codes as in `problem.py`."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence

import click

from tickless.cli.command import Lazy, LazyGroup
from tickless.cli.options import Options
from tickless.cli.problem import INTERRUPTED, report
from tickless.errors import TicklessError

COMMANDS = {
    "dev": Lazy(
        "tickless.cli.daemon:dev", "Run everything in the foreground, with a private Postgres.", ("standalone",)
    ),
    "daemon": Lazy("tickless.cli.daemon:daemon", "Run the scheduler."),
    "stop": Lazy("tickless.cli.daemon:stop", "Stop the scheduler; running tasks go on."),
    "status": Lazy("tickless.cli.daemon:status", "Say how the scheduler is; exit code 0 once it is ready."),
    "dag": Lazy("tickless.cli.dag:dag", "DAGs and the errors in their files.", ("dags",)),
    "run": Lazy("tickless.cli.run:run", "Start, list, show and cancel dag runs.", ("runs",)),
    "backfill": Lazy("tickless.cli.backfill:backfill", "Run a schedule over the past.", ("backfills",)),
    "task": Lazy("tickless.cli.task:task", "Task instances of a run, and their logs.", ("tasks",)),
    "why": Lazy("tickless.cli.why:why", "Say why a run or a task does not run."),
    "audit": Lazy("tickless.cli.audit:audit", "Who asked for what."),
    "pool": Lazy("tickless.cli.pool:pool", "List pools and change their size.", ("pools",)),
    "variable": Lazy("tickless.cli.variable:variable", "Values that tasks share.", ("variables",)),
    "connection": Lazy("tickless.cli.connection:connection", "How tasks log in elsewhere.", ("connections",)),
    "secret": Lazy("tickless.cli.secret:secret", "Rotate the key that seals secrets.", ("secrets",)),
    "db": Lazy("tickless.cli.db:db", "Migrate the database, or reach it."),
    "completion": Lazy("tickless.cli.completion:completion", "Print the completions of a shell."),
}


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version  # 20 ms that the other commands need not pay

        click.echo(f"tickless {version('tickless')}")
        ctx.exit()


cli = LazyGroup(
    name="tickless",
    lazy=COMMANDS,
    help="""A workflow scheduler that never ticks.

    \b
    tickless dev examples        start everything, with the DAGs in the folder examples
    tickless run start etl_csv   start a run; it prints the run's number
    tickless why 1               say what run 1 waits for

    RUN is a run's number or DAG/RUN_ID. Exit codes: 0 ok, 1 it failed, 2 usage, 3 not found or not running,
    4 not allowed, 5 refused, 6 unreachable, 78 bad configuration, 124 a wait timed out, 130 Ctrl-C.""",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print the version.",
        )
    ],
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run the command line; returns the exit code. A command returns its own code, None = 0."""
    options = Options()
    try:
        code = cli.main(args=argv, prog_name="tickless", obj=options, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (TicklessError, click.ClickException) as error:
        return report(error, is_json=options.is_json or _asks_for_json(argv))
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        if not _output_is_cut_off():
            raise
        # The reader of our output went away (`| head`): nothing more to say, and no traceback at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _output_is_cut_off() -> bool:
    """Whether nobody reads our stdout any more; any other broken pipe is somebody's bug."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    return any(mask & select.POLLERR for _, mask in poll.poll(0))


def _asks_for_json(argv: list[str]) -> bool:
    """Whether the line asks for JSON anywhere: a mistake before that place must be told as JSON, too."""
    for index, word in enumerate(argv):
        if word == "--":
            return False
        said = argv[index + 1 : index + 2] if word in ("-o", "--output") else [word]
        if said and said[0].removeprefix("-o").removeprefix("--output=") in ("json", "jsonl"):
            return True
    return False
