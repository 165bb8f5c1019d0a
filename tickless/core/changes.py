"""What one step has touched, in the order in which it will be written, and what it has to say."""

from __future__ import annotations

from datetime import UTC, datetime

from tickless.core.decision import AttemptEnded, Decision, Effect, RunChanged, Write
from tickless.core.record import Attempt, Instance, Run
from tickless.model.id import RunKey
from tickless.model.row import EventRow, RequestDone


class Changes:
    """Shared by all parts of the engine; `begin` opens a step, `into` closes it.

    A record must be touched before its first change in a step: that notes the guard of its write.
    """

    def __init__(self) -> None:
        self.now = datetime.min.replace(tzinfo=UTC)
        self.focus: Run | None = None
        """The run that was worked on last: the one to blame when a step raises."""
        self.writes: list[Write] = []
        self.effects: list[Effect] = []
        self.stale = 0
        # With the guards of the writes (None = insert).
        self._touched_runs: dict[Run, tuple[object, ...] | None] = {}
        self._touched_instances: dict[Instance, tuple[object, ...] | None] = {}
        self._touched_attempts: dict[Attempt, tuple[object, ...] | None] = {}
        self._touched_maps: dict[tuple[Run, int], None] = {}

    def begin(self, now: datetime) -> None:
        """Forget the last step."""
        self.now = now
        self._touched_runs.clear()
        self._touched_instances.clear()
        self._touched_attempts.clear()
        self._touched_maps.clear()
        self.writes = []
        self.effects = []
        self.stale = 0
        self.focus = None

    def into(self, decision: Decision) -> Decision:
        """Put the images of all that was touched, and the effects, into the decision of the step."""
        writes = self.writes
        for run, expected in self._touched_runs.items():
            run.row = run.image()
            writes.append(Write(run.row, expected, expected is None))
        for instance, expected in self._touched_instances.items():
            writes.append(Write(instance.image(), expected, expected is None))
        for attempt, expected in self._touched_attempts.items():
            writes.append(Write(attempt.image(), expected, expected is None))
        for run, index in self._touched_maps:
            writes.append(Write(run.map_image(index)))
        decision.writes, decision.effects, decision.stale = writes, self.effects, self.stale
        return decision

    # ---- touching -------------------------------------------------------------------------------------------------

    def new_run(self, run: Run) -> None:
        self._touched_runs[run] = None

    def new_instance(self, instance: Instance) -> None:
        self._touched_instances[instance] = None

    def new_attempt(self, attempt: Attempt) -> None:
        self._touched_attempts[attempt] = None

    def touch(self, instance: Instance) -> None:
        self.focus = instance.run
        if instance not in self._touched_instances:
            self._touched_instances[instance] = (instance.state, instance.attempt_id)

    def touch_run(self, run: Run) -> None:
        self.focus = run
        if run not in self._touched_runs:
            self._touched_runs[run] = (run.state,)

    def touch_attempt(self, attempt: Attempt) -> None:
        if attempt not in self._touched_attempts:
            self._touched_attempts[attempt] = (attempt.state,)

    def touch_map(self, run: Run, index: int) -> None:
        """The length of what a task returned is known, or an expansion goes on."""
        self._touched_maps[run, index] = None

    # ---- telling --------------------------------------------------------------------------------------------------

    def tell(self, run: Run, seconds: float | None) -> None:
        self.effects.append(
            RunChanged(run=run.key, dag_id=run.row.dag_id, run_id=run.row.run_id, state=run.state, seconds=seconds)
        )

    def tell_end(self, at: int, attempt: Attempt, instance: Instance) -> None:
        self.effects.insert(
            at,
            AttemptEnded(
                attempt=attempt.image(),
                dag_id=instance.run.row.dag_id,
                run_id=instance.run.row.run_id,
                task_state=instance.state,
                due_at=instance.due_at,
            ),
        )

    def audit(self, actor: str, action: str, *, dag_id: str, run: RunKey | None = None, detail: str = "{}") -> None:
        """A line of the audit, in the commit of what it tells of."""
        row = EventRow(at=self.now, actor=actor, action=action, dag_id=dag_id, run=run, detail=detail)
        self.writes.append(Write(row))

    def request_done(self, table: str, request_id: int | None, run: RunKey | None) -> None:
        if request_id is not None:
            self.writes.append(Write(RequestDone(table=table, id=request_id, run=run)))
