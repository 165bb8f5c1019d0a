"""tickless run."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import click

from tickless.cli.alteration import alter, make_sure
from tickless.cli.client import Client, path_of
from tickless.cli.command import Group
from tickless.cli.note import take_note
from tickless.cli.options import Options, options_of
from tickless.cli.output import duration, emit_fields, emit_json, emit_table, moment, safe, seconds_between
from tickless.cli.page import every_page
from tickless.cli.problem import FAILED, OK, TIMED_OUT, say
from tickless.cli.progress import Progress, is_wanted
from tickless.cli.ref import run_number
from tickless.errors import Refused, Unavailable, UserError
from tickless.model.state import RunState

START_PATIENCE_SECONDS = 30.0
"""How long an unanswered start is tried again. It has an idempotency key, so it starts one run only."""
WAIT_PATIENCE_SECONDS = 120.0
"""How long `--wait` waits for a daemon that went away."""

_COLUMNS = {
    "run": "run",
    "dag_id": "dag",
    "run_id": "run id",
    "state": "state",
    "started": "started",
    "took": "took",
}

_MOST_FAILURES = 5
_VERDICTS = ("success", "failed")
_STATES = [state.value for state in RunState]


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose among the runs of a DAG."""
    for option in (
        click.option("--until", help="Only runs queued before this moment."),
        click.option("--since", help="Only runs queued at or after this moment, as 2026-11-22T00:00:00Z."),
        click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Only runs in this state."),
    ):  # the last one that is put on comes first in the help
        command = option(command)
    return command


run = Group(
    name="run",
    help="Start, list, show, cancel, clear, mark and delete dag runs. RUN is a run's number, DAG/RUN_ID or DAG@latest.",
)


@run.command("start")
@click.argument("dag")
@click.option("-c", "--conf", metavar="JSON", help="A JSON object for the tasks of the run.")
@click.option("-r", "--run-id", help="The run's name within its DAG; default: manual__ and the time.")
@click.option(
    "-l", "--logical-date", metavar="MOMENT", help="Its logical date, as 2026-11-22T00:00:00Z; default: none."
)
@click.option("--wait", is_flag=True, help="Wait for its end; exit code 0 if it succeeded, 1 if it failed.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400),
    metavar="SECONDS",
    help="Wait so long at most; then the exit code is 124, and the run goes on.",
)
@click.pass_context
def start(
    ctx: click.Context,
    /,
    dag: str,
    conf: str | None,
    run_id: str | None,
    logical_date: str | None,
    wait: bool,
    timeout: float | None,
) -> int:
    """Start a run of DAG, and print its number."""
    options = options_of(ctx)
    client = Client(options.socket)
    body = {
        "conf": conf_object(conf),
        "run_id": run_id,
        "logical_date": logical_date,
        "idempotency_key": str(uuid.uuid4()),
    }
    started = client.patiently(lambda: client.post(path_of("dags", dag, "runs"), body), seconds=START_PATIENCE_SECONDS)
    number = started["run"]
    name = f"{started['dag_id']}/{started['run_id']}"
    if not wait and timeout is None:
        if options.is_json:
            emit_json(started)
        else:
            print(number)
            say(f"run {number} started: {name}")
        return OK
    say(f"run {number} started: {name}")
    if not options.is_json:
        print(number, flush=True)
    return _watch(client, number, timeout, options, started)


@run.command("watch")
@click.argument("run_ref", metavar="RUN")
@click.option("--timeout", type=click.FloatRange(0, 86400), metavar="SECONDS", help="Watch so long at most.")
@click.pass_context
def watch(ctx: click.Context, run_ref: str, timeout: float | None) -> int:
    """Say what happens in a run until its end. Exit code 0 if it succeeded, 1 if it failed, 124 after --timeout."""
    options = options_of(ctx)
    client = Client(options.socket)
    return _watch(client, run_number(client, run_ref), timeout, options, {})


@run.command("list")
@click.argument("dag", required=False)
@click.option(
    "--state", type=click.Choice(_STATES), multiple=True, help="Only runs in this state; may be given more than once."
)
@click.option("--backfill", type=click.IntRange(1), metavar="BACKFILL", help="Only runs that this backfill has made.")
@click.option("--limit", type=click.IntRange(1), default=25, show_default=True, help="How many, newest first.")
@click.pass_context
def list_runs(ctx: click.Context, dag: str | None, state: tuple[str, ...], backfill: int | None, limit: int) -> None:
    """List runs, newest first."""
    options = options_of(ctx)
    client = Client(options.socket)
    found = every_page(client, "/runs", cursor="before", most=limit, dag_id=dag, state=state or None, backfill=backfill)
    if options.is_json:
        return emit_json(found)
    emit_table([_row(item) for item in found], _COLUMNS)


@run.command("show")
@click.argument("run_ref", metavar="RUN")
@click.pass_context
def show(ctx: click.Context, run_ref: str) -> None:
    """Show one run."""
    options = options_of(ctx)
    client = Client(options.socket)
    found = client.get(path_of("runs", run_number(client, run_ref)))
    if options.is_json:
        return emit_json(found)
    emit_fields(
        {
            **{key: found[key] for key in ("run", "dag_id", "run_id", "state", "run_type", "version")},
            "conf": json.dumps(found["conf"]) if found["conf"] else None,
            "run after": moment(found["run_after"]) if found["run_after"] else None,
            "data interval": (
                f"{moment(found['data_interval_start'])} to {moment(found['data_interval_end'])}"
                if found["data_interval_start"]
                else None
            ),
            "queued": moment(found["queued_at"]),
            "started": moment(found["started_at"]),
            "ended": moment(found["ended_at"]),
            "took": seconds_between(found["started_at"], found["ended_at"]),
            "tasks": found["tasks"],
            "cancelled": _cancelled(found),
            "ended by": found["cancel_reason"],
            "frozen": found["frozen"],
            "note": f"{found['note']['text']} ({found['note']['author']})" if found["note"] else None,
        }
    )


@run.command("cancel")
@click.argument("run_ref", metavar="[RUN]", required=False)
@click.option("--dag", "dag_id", metavar="DAG", help="Instead of RUN: every unfinished run of this DAG that fits.")
@_filters
@click.option("--dry-run", is_flag=True, help="With --dag: say what would be cancelled, and cancel nothing.")
@click.option("-y", "--yes", is_flag=True, help="With --dag: do not ask.")
@click.pass_context
def cancel(
    ctx: click.Context,
    run_ref: str | None,
    dag_id: str | None,
    states: tuple[str, ...],
    since: str | None,
    until: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Stop a run: its running tasks are ended, the others skipped."""
    _check_choice((run_ref,) if run_ref is not None else (), dag_id, states, since, until)
    options = options_of(ctx)
    client = Client(options.socket)
    if dag_id is not None:
        body = {"states": list(states), "since": since, "until": until}
        return alter(ctx, client, path_of("dags", dag_id, "cancel-runs"), body, "cancel", is_dry=dry_run, is_sure=yes)
    if dry_run:
        raise UserError("--dry-run goes with --dag", hint=f"`tickless run show {run_ref}` shows the run.")
    assert run_ref is not None
    number = run_number(client, run_ref)
    found = client.post(path_of("runs", number, "cancel"))
    if options.is_json:
        return emit_json(found)
    say(f"run {number} ({found['dag_id']}/{found['run_id']}) is being cancelled")


def _watch(client: Client, number: int, timeout: float | None, options: Options, known: dict[str, Any]) -> int:
    """Wait for the end of a run, and say how it ended; the exit code says it, too."""
    try:
        with Progress(f"run {number}") if is_wanted() else nullcontext() as line:
            found = _wait(client, number, timeout, line)
    except KeyboardInterrupt:
        say(f"\nrun {number} goes on; `tickless run show {number}` shows it, `tickless run cancel {number}` ends it")
        raise
    if options.is_json:
        emit_json({**known, **found})
    name = f"{found['dag_id']}/{found['run_id']}"
    if not found["is_finished"]:
        say(f"run {number} ({name}) goes on: it is {found['state']} after {timeout:g} s of waiting")
        return TIMED_OUT
    took = duration(seconds_between(found["started_at"], found["ended_at"]))
    say(f"run {number} ({name}): {found['state']} after {took}")
    if found["state"] == "success":
        return OK
    _say_failures(client, number)
    return FAILED


def conf_object(text: str | None) -> dict[str, Any]:
    """The value of a --conf."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"--conf is not JSON: {error}", hint="""Write it as '{"day": "2026-11-22"}'.""") from error
    if not isinstance(value, dict):
        raise UserError(f"--conf must be a JSON object, not {text}", hint="""Write it as '{"day": "2026-11-22"}'.""")
    return value


@run.command("rerun")
@click.argument("run_ref", metavar="RUN")
@click.option("--dry-run", is_flag=True, help="Say what would run again, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def rerun(ctx: click.Context, run_ref: str, dry_run: bool, yes: bool) -> None:
    """Run all tasks of a run again, in the version that it started with."""
    client = Client(options_of(ctx).socket)
    path = path_of("runs", run_number(client, run_ref), "clear")
    alter(ctx, client, path, {}, "clear", is_dry=dry_run, is_sure=yes)


@run.command("clear")
@click.argument("dag_id", metavar="DAG")
@click.argument("tasks", metavar="[TASK]...", nargs=-1)
@_filters
@click.option("--upstream", is_flag=True, help="Also all tasks above those named.")
@click.option("--downstream", is_flag=True, help="Also all tasks below those named.")
@click.option("--failed", "only_failed", is_flag=True, help="Of these only what failed, or failed upstream.")
@click.option("--dry-run", is_flag=True, help="Say what would be cleared, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def clear(
    ctx: click.Context,
    /,
    dag_id: str,
    tasks: tuple[str, ...],
    states: tuple[str, ...],
    since: str | None,
    until: str | None,
    dry_run: bool,
    yes: bool,
    **choice: bool,
) -> None:
    """Run tasks again in every run of DAG that fits: those named, or all."""
    client = Client(options_of(ctx).socket)
    body = {"tasks": list(tasks), "states": list(states), "since": since, "until": until, **choice}
    alter(ctx, client, path_of("dags", dag_id, "clear"), body, "clear", is_dry=dry_run, is_sure=yes)


@run.command("mark")
@click.argument("words", metavar="[RUN]... success|failed", nargs=-1, required=True)
@click.option("--dag", "dag_id", metavar="DAG", help="Instead of RUN: every run of this DAG that fits.")
@_filters
@click.option("--dry-run", is_flag=True, help="Say what would be marked, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def mark(
    ctx: click.Context,
    words: tuple[str, ...],
    dag_id: str | None,
    states: tuple[str, ...],
    since: str | None,
    until: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Declare runs done (success) or give them up (failed).

    What runs is stopped first. The unfinished tasks become success; of a run that is given up those that ran become
    failed, the others skipped. Tasks that are finished stay as they are.
    """
    *run_refs, state = words if words[-1] in _VERDICTS else (*words[1:], words[0])
    if state not in _VERDICTS:
        raise UserError("marked as what?", hint="Say success or failed: tickless run mark 41 success.")
    _check_choice(tuple(run_refs), dag_id, states, since, until)
    client = Client(options_of(ctx).socket)
    verb = f"mark as {state}"
    body: dict[str, Any] = {"state": state}
    if dag_id is not None:
        body |= {"states": list(states), "since": since, "until": until}
        alter(ctx, client, path_of("dags", dag_id, "mark-runs"), body, verb, is_dry=dry_run, is_sure=yes)
    for number in [run_number(client, text) for text in run_refs]:
        alter(ctx, client, path_of("runs", number, "mark-run"), body, verb, is_dry=dry_run, is_sure=yes)


@run.command("note")
@click.argument("run_ref", metavar="RUN")
@click.argument("text", required=False)
@click.option("--delete", "is_deleted", is_flag=True, help="Remove the note.")
@click.pass_context
def note(ctx: click.Context, run_ref: str, text: str | None, is_deleted: bool) -> None:
    """Write a note about a run; without TEXT print it."""
    client = Client(options_of(ctx).socket)
    take_note(ctx, client, path_of("runs", run_number(client, run_ref)), text, is_deleted=is_deleted)


@run.command("delete")
@click.argument("run_refs", metavar="[RUN]...", nargs=-1)
@click.option("--dag", "dag_id", metavar="DAG", help="Instead of RUN: every finished run of this DAG that fits.")
@_filters
@click.option("--cancel", "is_cancelled", is_flag=True, help="Cancel a RUN that is not finished, and wait for its end.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def delete(
    ctx: click.Context,
    run_refs: tuple[str, ...],
    dag_id: str | None,
    states: tuple[str, ...],
    since: str | None,
    until: str | None,
    is_cancelled: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete finished runs, with their tasks, attempts, XComs, notes and logs. The audit keeps its lines."""
    _check_choice(run_refs, dag_id, states, since, until)
    client = Client(options_of(ctx).socket)
    if dag_id is not None:
        if is_cancelled:
            raise UserError(
                "--cancel is for RUNs that are named", hint="Without a filter: tickless run delete RUN --cancel."
            )
        body = {"states": list(states), "since": since, "until": until}
        alter(ctx, client, path_of("dags", dag_id, "delete-runs"), body, "delete", is_dry=dry_run, is_sure=yes)
        return
    for number in [run_number(client, text) for text in run_refs]:
        if is_cancelled and not dry_run:
            _cancel_and_wait(client, number, is_sure=yes)
        alter(ctx, client, path_of("runs", number, "delete"), {}, "delete", is_dry=dry_run, is_sure=yes)


def _check_choice(
    run_refs: tuple[str, ...], dag_id: str | None, states: tuple[str, ...], since: str | None, until: str | None
) -> None:
    if bool(run_refs) == (dag_id is not None):
        raise UserError("which runs?", hint="Give RUNs, or --dag DAG with --state, --since, --until.")
    if dag_id is None and (states or since or until):
        raise UserError("--state, --since and --until go with --dag", hint="Name a DAG, or leave them out.")


def _cancel_and_wait(client: Client, number: int, *, is_sure: bool) -> None:
    if client.get(path_of("runs", number))["is_finished"]:
        return
    make_sure(f"cancel run {number}", is_sure=is_sure)
    try:
        client.post(path_of("runs", number, "cancel"))
    except Refused:
        pass  # it has ended meanwhile
    _wait(client, number, None, None)


def _cancelled(found: dict[str, Any]) -> str | None:
    """When, and by whom; what ended a run without anybody's word stands in its reason."""
    if not found["is_cancelled"] or found["cancel_reason"]:
        return None
    return str(moment(found["cancelled_at"])) + (f" by {found['cancelled_by']}" if found["cancelled_by"] else "")


def _row(item: dict[str, Any]) -> dict[str, Any]:
    took = seconds_between(item["started_at"], item["ended_at"])
    return {**item, "started": moment(item["started_at"]), "took": took}


def _wait(client: Client, number: int, timeout: float | None, line: Progress | None) -> dict[str, Any]:
    """The run when it has finished, or after the timeout. Says on stderr what happens meanwhile, also that the daemon
    went away and came back."""
    # A client's patience is not a decision of the scheduler: it may read a clock.
    deadline = None if timeout is None else time.monotonic() + timeout

    def attempt() -> dict[str, Any] | None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        asked = {"timeout_seconds": left, "progress": True if line is not None else None}
        for news in client.lines(path_of("runs", number, "wait"), **asked):
            if "run" in news:
                found: dict[str, Any] = news["run"]
                return found if found["is_finished"] or left is not None else None
            if line is not None and "tasks" in news:
                line.show(news["tasks"])
            else:
                _say_attempt(news)
        return None

    while True:
        ended = client.patiently(attempt, seconds=WAIT_PATIENCE_SECONDS, is_known=True)
        if ended is not None:
            return ended


def _say_attempt(line: dict[str, Any]) -> None:
    index = "" if line["map_index"] < 0 else f"[{line['map_index']}]"
    again = ", will be tried again" if line["task_state"] == "up_for_retry" else ""
    error = f": {safe(line['error'])}" if line["error"] else ""
    say(f"  {line['task_id']}{index}: {line['state']} after {duration(line['seconds'])}{again}{error}")


def _say_failures(client: Client, number: int) -> None:
    """Which tasks failed, and where to read on. Their news may have come before anybody listened."""
    try:
        page = client.get(path_of("runs", number, "tasks"), state=("failed",), limit=_MOST_FAILURES + 1)
    except Unavailable:
        return  # the verdict is known; this was only to help
    for item in page["items"][:_MOST_FAILURES]:
        index = "" if item["map_index"] < 0 else f"[{item['map_index']}]"
        code = (item["attempt"] or {}).get("exit_code")
        why = (item["reason"] or "") + (f", exit code {code}" if code else "")
        say(f"  {item['task_id']}{index}: failed ({why}); tickless task logs {number} {item['task_id']}{index}")
    if len(page["items"]) > _MOST_FAILURES:
        say(f"  and more: tickless task list {number} --state failed")
