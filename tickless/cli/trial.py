"""The terminal's side of `dag test` and `task test`. Loads what a daemon loads: imported only when it is wanted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio

from tickless.cli.client import Client, path_of
from tickless.cli.options import Options
from tickless.cli.output import duration, emit_json, safe
from tickless.cli.problem import FAILED, OK, NotRunning, say
from tickless.core.decision import AttemptEnded
from tickless.daemon.trial import Outcome, Subject, Teller, try_dag
from tickless.errors import NotFound
from tickless.model.state import RunState, TaskState
from tickless.telemetry.log import configure


def subject_of(options: Options, source: str, **rest: Any) -> Subject:
    """What to try: `source` is a DAG file, or a DAG that the running daemon knows. `rest` is the other fields."""
    path = Path(source).absolute()
    if path.is_file():
        return Subject(folder=path.parent, file=path.name, **rest)
    if path.suffix == ".py" or "/" in source:
        raise NotFound(f"there is no file {path}", hint="Give a DAG file, or the name of a DAG.")
    try:
        found = Client(options.socket).get(path_of("dags", source))
    except NotRunning as error:
        raise NotFound(
            f"{source!r} is no file here, and no daemon runs that could know a DAG of this name",
            hint="Give the path of the DAG file.",
        ) from error
    if found["file"] is None:
        raise NotFound(f"no file defines DAG {source!r} any more", hint="Give the path of a DAG file.")
    rest["dag_id"] = rest.get("dag_id") or source
    return Subject(folder=Path(found["bundle"]), file=found["file"], **rest)


def run_trial(options: Options, subject: Subject) -> int:
    """Run it and tell of it; the exit code."""
    is_json = options.is_json
    out = sys.stderr.buffer if is_json else sys.stdout.buffer

    def wrote(chunk: bytes) -> None:
        out.write(chunk)
        out.flush()

    tell = Teller(begun=lambda task, number: say(f"--- {task}, try {number}"), wrote=wrote, ended=_say_end)
    configure(level="error")  # what the daemon would log is told here in other words
    outcome = anyio.run(try_dag, subject, tell)
    if is_json:
        emit_json(
            [
                {
                    "task_id": row.task_id,
                    "map_index": row.map_index,
                    "state": row.state,
                    "try_number": row.try_number,
                    "reason": row.reason,
                }
                for row in outcome.instances
            ]
        )
    _say_result(outcome)
    return OK if outcome.run.state is RunState.SUCCESS else FAILED


def _say_end(ended: AttemptEnded) -> None:
    row = ended.attempt
    took = (row.ended_at - row.started_at).total_seconds() if row.ended_at and row.started_at else None
    again = ", tried again" if ended.task_state is TaskState.UP_FOR_RETRY else ""
    error = f": {safe(row.error.strip().rsplit(chr(10), 1)[-1])}" if row.error else ""
    name = row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"
    say(f"    {name}: {ended.task_state if not again else row.state} after {duration(took)}{again}{error}")


def _say_result(outcome: Outcome) -> None:
    counts: dict[str, int] = {}
    for row in outcome.instances:
        counts[row.state] = counts.get(row.state, 0) + 1
    say(f"{outcome.run.dag_id}: {outcome.run.state} ({', '.join(f'{count} {name}' for name, count in counts.items())})")
