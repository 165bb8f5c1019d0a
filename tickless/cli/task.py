"""tickless task."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from tickless.cli.alteration import alter
from tickless.cli.client import Client, ConnectionBroke, path_of
from tickless.cli.command import Group
from tickless.cli.note import take_note
from tickless.cli.options import options_of
from tickless.cli.output import emit_json, emit_table, moment, seconds_between
from tickless.cli.page import every_page
from tickless.cli.problem import say
from tickless.cli.ref import run_number, task_and_index
from tickless.cli.run import conf_object
from tickless.errors import UserError
from tickless.model.state import TaskState

FOLLOW_PATIENCE_SECONDS = 120.0

_COLUMNS = {
    "task": "task",
    "state": "state",
    "try_number": "try",
    "started": "started",
    "took": "took",
    "reason": "reason",
}

_STATES = [state.value for state in TaskState]

task = Group(
    name="task", help="Task instances of a run, and their logs. RUN is a run's number, DAG/RUN_ID or DAG@latest."
)


@task.command("list")
@click.argument("run_ref", metavar="RUN")
@click.option(
    "--state", type=click.Choice(_STATES), multiple=True, help="Only tasks in this state; may be given more than once."
)
@click.pass_context
def list_tasks(ctx: click.Context, run_ref: str, state: tuple[str, ...]) -> None:
    """List the task instances of a run."""
    options = options_of(ctx)
    client = Client(options.socket)
    found = every_page(client, path_of("runs", run_number(client, run_ref), "tasks"), state=state or None)
    if options.is_json:
        return emit_json(found)
    # As they ran; what has not started comes last.
    found.sort(key=lambda item: (item["started_at"] is None, item["started_at"] or "", item["ended_at"] or ""))
    has_notes = any(item["note"] for item in found)
    emit_table([_row(item) for item in found], _COLUMNS | ({"note_text": "note"} if has_notes else {}))


@task.command("logs")
@click.argument("run_ref", metavar="RUN")
@click.argument("task_ref", metavar="TASK")
@click.option("-f", "--follow", is_flag=True, help="Go on as the task writes, until it ends.")
@click.option("--try", "try_number", type=click.IntRange(1), help="Of this try; default: the latest.")
@click.pass_context
def logs(ctx: click.Context, run_ref: str, task_ref: str, follow: bool, try_number: int | None) -> None:
    """Print what a task wrote. TASK is a task_id, or task_id[3] of a mapped one.

    With -f it goes on with the next try of a task that is tried again, until the task has ended."""
    client = Client(options_of(ctx).socket)
    task_id, map_index = task_and_index(task_ref)
    path = path_of("runs", run_number(client, run_ref), "tasks", task_id, "logs")
    query: dict[str, Any] = {"map_index": map_index, "try_number": try_number}
    if not follow:
        for chunk in client.stream(path, **query):
            sys.stdout.buffer.write(chunk)
        return
    _Follower(client, path, {**query, "follow": True}).run(is_one=try_number is not None)


@task.command("test")
@click.argument("source", metavar="FILE")
@click.argument("task_id", metavar="TASK")
@click.option("--dag", "dag_id", metavar="DAG", help="Which DAG of FILE; needed when it has several.")
@click.option("-c", "--conf", metavar="JSON", help="A JSON object, as the run's conf.")
@click.option(
    "--input", "inputs", metavar="TASK=JSON", multiple=True, help="What a task above is to have returned; else None."
)
@click.pass_context
def test(
    ctx: click.Context, source: str, task_id: str, dag_id: str | None, conf: str | None, inputs: tuple[str, ...]
) -> int:
    """Run one task of FILE alone, without a daemon and without a record in a database.

    FILE may also be the name of a DAG that a running daemon knows. What the task writes goes to stdout, what happens
    to stderr; retries come at once. Exit code 0 if it succeeded, 1 if it failed.
    """
    from tickless.cli.trial import run_trial, subject_of

    options = options_of(ctx)
    conf_text = json.dumps(conf_object(conf))
    given = dict(_input(text) for text in inputs)
    return run_trial(options, subject_of(options, source, dag_id=dag_id, task_id=task_id, conf=conf_text, inputs=given))


@task.command("clear")
@click.argument("run_ref", metavar="RUN")
@click.argument("tasks", metavar="[TASK]...", nargs=-1)
@click.option("--upstream", is_flag=True, help="Also all tasks above them.")
@click.option("--downstream", is_flag=True, help="Also all tasks below them.")
@click.option("--failed", "only_failed", is_flag=True, help="Of these only what failed, or failed upstream.")
@click.option("--dry-run", is_flag=True, help="Say what would be cleared, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def clear(
    ctx: click.Context, /, run_ref: str, tasks: tuple[str, ...], dry_run: bool, yes: bool, **choice: bool
) -> None:
    """Run tasks again: those named, or all of the run. What runs is stopped first."""
    client = Client(options_of(ctx).socket)
    path = path_of("runs", run_number(client, run_ref), "clear")
    alter(ctx, client, path, {"tasks": list(tasks), **choice}, "clear", is_dry=dry_run, is_sure=yes)


@task.command("mark")
@click.argument("state", type=click.Choice(["success", "failed"]))
@click.argument("run_ref", metavar="RUN")
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@click.option("--upstream", is_flag=True, help="Also all tasks above them.")
@click.option("--downstream", is_flag=True, help="Also all tasks below them.")
@click.option("--dry-run", is_flag=True, help="Say what would be marked, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def mark(
    ctx: click.Context, /, state: str, run_ref: str, tasks: tuple[str, ...], dry_run: bool, yes: bool, **choice: bool
) -> None:
    """Declare tasks done (success) or give them up (failed). What runs is stopped first.

    After success, what failed below for want of it runs again.
    """
    client = Client(options_of(ctx).socket)
    path = path_of("runs", run_number(client, run_ref), "mark")
    body = {"tasks": list(tasks), "state": state, **choice}
    alter(ctx, client, path, body, f"mark as {state}", is_dry=dry_run, is_sure=yes)


@task.command("note")
@click.argument("run_ref", metavar="RUN")
@click.argument("task_ref", metavar="TASK")
@click.argument("text", required=False)
@click.option("--delete", "is_deleted", is_flag=True, help="Remove the note.")
@click.pass_context
def note(ctx: click.Context, run_ref: str, task_ref: str, text: str | None, is_deleted: bool) -> None:
    """Write a note about a task instance; without TEXT print it. TASK is a task_id, or task_id[3] of a mapped one."""
    client = Client(options_of(ctx).socket)
    task_id, map_index = task_and_index(task_ref)
    about = path_of("runs", run_number(client, run_ref), "tasks", task_id)
    take_note(ctx, client, about, text, is_deleted=is_deleted, query={"map_index": map_index})


def _input(text: str) -> tuple[str, str]:
    """`extract={"n": 1}`."""
    task_id, _, value = text.partition("=")
    try:
        return task_id, json.dumps(json.loads(value))
    except ValueError as error:
        raise UserError(
            f"--input {text!r} is not TASK=JSON: {error}", hint="""Write it as --input 'extract={"n": 1}'."""
        ) from error


class _Follower:
    """Follows attempt after attempt; after a broken connection it goes on at the byte where it was."""

    def __init__(self, client: Client, path: str, query: dict[str, Any]) -> None:
        self._client = client
        self._path = path
        self._query = query
        self._offset = 0

    def run(self, *, is_one: bool) -> None:
        """Until the end of the task, or of this one attempt."""
        while self._attempt() and not is_one:
            self._query["after_attempt"] = self._query.pop("attempt_id")
            self._offset = 0

    def _attempt(self) -> bool:
        """False when there is none any more."""
        try:
            return self._read()
        except ConnectionBroke:
            return self._client.patiently(self._read, seconds=FOLLOW_PATIENCE_SECONDS, is_known=True)

    def _read(self) -> bool:
        stream = self._client.open(self._path, **self._query, offset=self._offset)
        attempt = stream.header("Tickless-Attempt")
        if attempt is None:
            return False
        if self._query.pop("after_attempt", None) is not None:
            say(f"--- try {stream.header('Tickless-Try')}")
        # The same attempt after a new connection, though a later one may have started meanwhile.
        self._query["attempt_id"] = attempt
        for chunk in stream:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            self._offset += len(chunk)
        return True


def _row(item: dict[str, Any]) -> dict[str, Any]:
    name = item["task_id"] + ("" if item["map_index"] < 0 else f"[{item['map_index']}]")
    took = seconds_between(item["started_at"], item["ended_at"])
    noted = item["note"]["text"] if item["note"] else None
    return {**item, "note_text": noted, "task": name, "started": moment(item["started_at"]), "took": took}
