"""The terminal's side of `tickless dag test`. Loads what a daemon loads, so it is imported only when it is wanted."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from tickless.cli.output import duration, emit_json, safe
from tickless.cli.problem import FAILED, OK, say
from tickless.core.decision import AttemptEnded
from tickless.daemon.trial import Outcome, Teller, try_dag
from tickless.model.state import RunState, TaskState
from tickless.telemetry.log import configure


def run_trial(file: Path, dag_id: str | None, conf: str, *, is_json: bool) -> int:
    """Run it and tell of it; the exit code."""
    out = sys.stderr.buffer if is_json else sys.stdout.buffer

    def wrote(chunk: bytes) -> None:
        out.write(chunk)
        out.flush()

    tell = Teller(begun=lambda task, number: say(f"--- {task}, try {number}"), wrote=wrote, ended=_say_end)
    configure(level="error")  # what the daemon would log is told here in other words
    outcome = anyio.run(try_dag, file.absolute(), dag_id, conf, tell)
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
    say(f"    {ended.task_state if not again else row.state} after {duration(took)}{again}{error}")


def _say_result(outcome: Outcome) -> None:
    counts: dict[str, int] = {}
    for row in outcome.instances:
        counts[row.state] = counts.get(row.state, 0) + 1
    say(f"{outcome.run.dag_id}: {outcome.run.state} ({', '.join(f'{count} {name}' for name, count in counts.items())})")
