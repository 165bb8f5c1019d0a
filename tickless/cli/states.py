"""Writes docs/reference/states.md from the engine. After a change: python -m tickless.cli.states"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from tickless.core.machine import RUN_MOVES, TASK_MOVES, Happening, RunHappening
from tickless.core.readiness import UpstreamCounts, Verdict, judge
from tickless.model.state import FINISHED_TASK_STATES, EndReason, RunState, TaskState, TriggerRule

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "states.md"

_UPSTREAM = (
    ("all succeeded", UpstreamCounts(success=3)),
    ("one failed", UpstreamCounts(success=2, failed=1)),
    ("one skipped", UpstreamCounts(success=2, skipped=1)),
    ("all failed", UpstreamCounts(failed=3)),
    ("all skipped", UpstreamCounts(skipped=3)),
    ("one succeeded, two to come", UpstreamCounts(success=1)),
    ("one failed, two to come", UpstreamCounts(failed=1)),
    ("one skipped, two to come", UpstreamCounts(skipped=1)),
)
"""What there may be above a task with three tasks above it."""
_WORDS = {Verdict.WAIT: "", Verdict.RUN: "runs", Verdict.SKIP: "skipped", Verdict.FAIL_UPSTREAM: "upstream_failed"}


def page() -> str:
    """docs/reference/states.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from (
        "# States and trigger rules",
        "",
        "Made from the engine's own tables by `python -m tickless.cli.states`; a test keeps it current. The words are",
        "Airflow's, and the same in the database, the API and the command line.",
        "",
        "## Trigger rules",
        "",
        "What becomes of a task with three tasks directly above it. An empty field: it goes on waiting.",
        "`upstream_failed` counts as failed. A task with nothing above it runs, whatever its rule.",
        "",
        f"| rule | {' | '.join(name for name, _ in _UPSTREAM)} |",
        f"|---|{'---|' * len(_UPSTREAM)}",
    )
    for rule in TriggerRule:
        verdicts = (_WORDS[judge(rule, counts, 3)] for _, counts in _UPSTREAM)
        yield f"| `{rule}` | {' | '.join(verdicts)} |"
    yield from (
        "",
        "Airflow 2's `dummy` is taken as `always`, `none_failed_or_skipped` as `none_failed_min_one_success`.",
    )
    yield from ("", "## States of a task instance", "", "| state | is | then |", "|---|---|---|")
    about = _comments(TaskState)
    for state in TaskState:
        after = {
            to: [each.value for (before, each), to_state in TASK_MOVES.items() if before is state and to_state is to]
            for to in TaskState
        }
        moves = "; ".join(f"`{to}` ({', '.join(sorted(set(names)))})" for to, names in after.items() if names)
        finished = "finished" if state in FINISHED_TASK_STATES else "not used in this release"
        yield f"| `{state}` | {about.get(state.name, finished)} | {moves} |"
    yield from ("", "In brackets is what happens:", "", "| | |", "|---|---|")
    yield from (f"| {each} | {text} |" for each, text in _happenings(Happening))
    yield from ("", "## States of a run", "", "| state | is | then |", "|---|---|---|")
    about = _comments(RunState)
    for run_state in RunState:
        found = [(each.value, to) for (before, each), to in RUN_MOVES.items() if before is run_state]
        yield f"| `{run_state}` | {about.get(run_state.name, '')} | {'; '.join(f'`{to}` ({n})' for n, to in found)} |"
    yield from ("", "In brackets is what happens:", "", "| | |", "|---|---|")
    yield from (f"| {each} | {text} |" for each, text in _happenings(RunHappening))
    yield from ("", "## Why a process ended", "", "`reason` of an attempt.", "", "| reason | |", "|---|---|")
    about = _comments(EndReason)
    yield from (f"| `{reason}` | {about[reason.name]} |" for reason in EndReason)


def _happenings(kind: type[StrEnum]) -> Iterator[tuple[str, str]]:
    about = _comments(kind)
    return ((each.value, about.get(each.name, "")) for each in kind)


def _comments(kind: type[StrEnum]) -> dict[str, str]:
    """Name of a member -> the comment beside it."""
    return dict(re.findall(r"^    (\w+) = \"\w*\"  # (.*)$", inspect.getsource(kind), re.MULTILINE))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
