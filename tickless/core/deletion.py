"""What people delete: finished runs, and DAGs that have none left.

The engine keeps nothing of a finished run, so there is little to forget; it says whether the deletion may be. What may
not: a run that is unfinished, that has a process left, or that an unfinished run still looks back at.
"""

from __future__ import annotations

from tickless.core.attempts import Attempts
from tickless.core.changes import Changes
from tickless.core.commands import DeleteDag, DeleteRun
from tickless.core.decision import Write
from tickless.core.quota import Quota
from tickless.core.revision import RowsBehind
from tickless.core.runs import Runs
from tickless.errors import NotFound, Refused
from tickless.model.row import DagGone, RunGone


class Deletion:
    """Acts on the parts below it; holds nothing of its own."""

    def __init__(self, changes: Changes, quota: Quota, runs: Runs, attempts: Attempts) -> None:
        self._changes = changes
        self._quota = quota
        self._runs = runs
        self._attempts = attempts

    def delete_run(self, command: DeleteRun) -> None:
        """Let the row of a finished run go."""
        key = command.run
        live = self._runs.runs.get(key)
        if live is not None:
            raise Refused(
                f"run {key} ({live.row.dag_id}/{live.row.run_id}) is {live.state}: only finished runs can be deleted",
                hint=f"Cancel it first: `tickless run delete {key} --cancel`.",
            )
        if not command.is_finished:
            raise RowsBehind(f"run {key} has just ended")
        for attempt in self._attempts.attempts.values():
            if attempt.row.run == key:
                raise Refused(
                    f"a process of {attempt.row.key} has not ended yet",
                    hint="Try again when it has: it is being stopped.",
                )
        for other in self._runs.runs.values():
            if other.row.previous_run == key:
                raise Refused(
                    f"run {other.key} looks back at run {key} (depends_on_past)", hint="Wait for its end, or cancel it."
                )
        self._runs.past.changed(key)
        self._changes.writes.append(Write(RunGone(run=key)))
        self._changes.writes.extend(Write(row) for row in command.along)

    def delete_dag(self, command: DeleteDag) -> None:
        """Say whether a DAG may be deleted; in the end forget it."""
        dag_id = command.dag_id
        dag = self._quota.dags.get(dag_id)
        if dag is None or dag.last_number == 0:
            raise NotFound(f"there is no DAG {dag_id!r}", hint="`tickless run list` shows the latest runs of all.")
        plan = self._quota.current.get(dag_id)
        if plan is not None and not command.is_forced:
            raise Refused(
                f"DAG {dag_id!r} is in the file {plan.version.file}",
                hint="Remove it from there first; or say --force, then it loses its runs and begins anew.",
            )
        if dag.live:
            first = min(dag.live)
            raise Refused(
                f"DAG {dag_id!r} has unfinished runs, as run {first}",
                hint=f"Pause it, and cancel them: `tickless dag pause {dag_id}`, `tickless run cancel {first}`.",
            )
        for backfill in dag.backfills.values():
            raise Refused(
                f"backfill {backfill.row.key} of DAG {dag_id!r} is not completed",
                hint=f"Cancel it: `tickless backfill cancel {backfill.row.key}`.",
            )
        if command.is_last:
            self._quota.current.pop(dag_id, None)
            dag.forget()
            self._changes.writes.append(Write(DagGone(dag_id=dag_id)))
        self._changes.writes.extend(Write(row) for row in command.along)
