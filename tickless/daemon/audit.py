"""The audit: compares the committed rows with RAM and must find nothing. It looks for bugs, not for work.

Runs that are touched while the rows are being read are left out: for them the two legitimately differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from tickless.core.engine import Engine
from tickless.core.snapshot import Snapshot
from tickless.daemon.term import Term
from tickless.errors import Conflict
from tickless.model.id import RunKey
from tickless.store.reader import Reader
from tickless.telemetry.log import get_log

log = get_log()

MAX_SHOWN = 20


async def audit(term: Term, reader: Reader) -> int:
    """One pass; returns how many runs were compared. When something differs the term is abandoned: RAM is rebuilt."""
    with term.noting_touched() as touched:
        snapshot = await reader.rows_for_audit()
        if term.is_over:
            return 0  # the rows may be the next term's already
        differences = list(compare(term.engine, snapshot, touched))
    if differences:
        for difference in differences[:MAX_SHOWN]:
            log.error("audit.found", difference=difference)
        term.abandon(Conflict(f"the audit found {len(differences)} differences between the database and memory"))
    return sum(row.key not in touched for row in snapshot.runs)


def compare(engine: Engine, snapshot: Snapshot, touched: set[RunKey]) -> Iterator[str]:
    """Sentences, one for each row that is not as RAM has it."""
    in_rows = {row.key for row in snapshot.runs}
    for key in engine.runs.keys() - in_rows - touched:
        yield f"run {key} is live in memory only"
    for row in snapshot.runs:
        if row.key in touched:
            continue
        run = engine.runs.get(row.key)
        if run is None:
            yield f"run {row.key} is live in the database only"
        elif run.image() != row:
            yield f"run {row.key}: the database has {row}, memory has {run.image()}"
    seen = {row.key for row in snapshot.instances}
    for instance_row in snapshot.instances:
        if instance_row.run in touched or instance_row.run not in engine.runs:
            continue
        instance = engine.instance(instance_row.key)
        if instance is None:
            yield f"task instance {instance_row.key} is unfinished in the database only"
        elif instance.image() != instance_row:
            yield f"task instance {instance_row.key}: {instance_row} in the database, {instance.image()} in memory"
    for run in engine.runs.values():
        if run.key not in touched:
            for instance in run.instances.values():
                if instance.key not in seen:
                    yield f"task instance {instance.key} is unfinished in memory only"
    live = {row.attempt_id: row for row in snapshot.attempts}
    for attempt_id in {*live, *engine.attempts}:
        mine, theirs = engine.attempts.get(attempt_id), live.get(attempt_id)
        of_run = mine.row.run if mine is not None else live[attempt_id].run
        if of_run not in touched and (mine.image() if mine is not None else None) != theirs:
            yield f"attempt {attempt_id} of run {of_run}: {theirs} in the database, {mine and mine.image()} in memory"
