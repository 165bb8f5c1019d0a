"""The past of a run: the run before it, and what its tasks with `depends_on_past` wait for there.

The previous run is found once, when a run is made, by whoever has the rows: the engine keeps no finished runs. So it
asks (`PastWanted`), goes on with everything else, and is told (`PastFound`). What was found is a column of the run
(`previous_run`); only runs that were made before count, so the answer is the same whenever it is read.

Of a previous run that is unfinished the engine knows everything. Of one that is finished it keeps the counts as long
as an unfinished run looks at it. Whatever changes such a run, at its end or by a mark, tells the runs that look at it
(its followers). An answer that was read before such a change is thrown away, and asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tickless.core.changes import Changes
from tickless.core.decision import PastWanted
from tickless.core.events import PastFound
from tickless.core.plan import TaskPlan
from tickless.core.record import Instance, Run
from tickless.model.id import RunKey
from tickless.model.row import InstanceTally
from tickless.model.state import RunState, TaskState

ABSENT = "absent"
NONE_BEFORE = RunKey(0)
"""The `previous_run` of the first one."""

_SATISFIED = frozenset({TaskState.SUCCESS, TaskState.SKIPPED, TaskState.REMOVED})
"""An instance that was removed has nothing left to do."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """The finished instances of a finished run, by task and state."""

    index_of: Mapping[str, int]
    tallies: Mapping[int, Mapping[TaskState, int]]

    @staticmethod
    def of(tallies: Iterable[InstanceTally]) -> EndedRun:
        """As it was read."""
        index_of: dict[str, int] = {}
        counts: dict[int, dict[TaskState, int]] = {}
        for tally in tallies:
            index = index_of.setdefault(tally.task_id, len(index_of))
            counts.setdefault(index, {})[tally.state] = tally.count
        return EndedRun(index_of, counts)

    def states(self, task_id: str) -> Mapping[TaskState, int] | None:
        """None: it has no such task."""
        return self.tallies.get(self.index_of.get(task_id, -1))


@dataclass(frozen=True, slots=True)
class Blocker:
    """What an instance waits for in the previous run."""

    previous: RunKey | None
    """None: which one that is has not been read yet."""
    task_id: str
    state: str
    """Of its instances the one that says most; `absent`: the previous run has no such task."""
    is_over: bool
    """It will not go on by itself."""


class Past:
    """Who looks at which run, and what is known of those that are finished."""

    def __init__(self, changes: Changes, runs: Mapping[RunKey, Run]) -> None:
        self.ended: dict[RunKey, EndedRun] = {}
        """Finished runs that unfinished ones look at."""
        self.followers: dict[RunKey, dict[RunKey, Run]] = {}
        """Unfinished runs by their previous run."""
        self._changes = changes
        self._runs = runs
        self._asked: dict[RunKey, tuple[int, set[RunKey]]] = {}  # by whom it is for; with the runs changed since
        self._last_question = 0

    # ---- who looks at whom ------------------------------------------------------------------------------------------

    def enter(self, run: Run) -> None:
        """A run is unfinished from now on."""
        self.ended.pop(run.key, None)
        if not _looks_back(run):
            return
        if self._is_known(run):
            self._follow(run, run.previous_run or NONE_BEFORE)
        else:  # cleared after a while: it may have been deleted since
            run.previous_run = None
            self._ask(run)

    def leave(self, run: Run) -> None:
        """A run has ended."""
        self._asked.pop(run.key, None)
        self._unfollow(run)
        self.revised(run)

    def revised(self, run: Run) -> None:
        """The counts of a finished run are as this record has them."""
        self.changed(run.key)
        if run.key in self.followers:
            self.ended[run.key] = EndedRun(run.plan.index_of, run.tallies)

    def changed(self, key: RunKey) -> None:
        """Answers that were read before now do not count, if they are about this run."""
        for _, changed in self._asked.values():
            changed.add(key)

    def found(self, answer: PastFound) -> Run | None:
        """Take on an answer; the run that it concerns, if there is anything to look at anew."""
        number, changed = self._asked.get(answer.run, (0, set()))
        if number != answer.number:
            return None  # it has ended since, and perhaps was cleared and has asked again
        run = self._runs[answer.run]
        del self._asked[run.key]
        previous = answer.previous or NONE_BEFORE
        if previous in changed and previous not in self._runs:
            self._ask(run)
            return None
        self._changes.touch_run(run)
        run.previous_run = previous
        self._follow(run, previous)
        if previous != NONE_BEFORE and previous not in self._runs:
            self.ended.setdefault(previous, EndedRun.of(answer.tallies))
        return run

    def holds_up_a_running_one(self, run: Run) -> bool:
        """Whether a run that is running looks at this one."""
        return any(each.state is RunState.RUNNING for each in self.followers.get(run.key, {}).values())

    def _follow(self, run: Run, previous: RunKey) -> None:
        if previous != NONE_BEFORE:
            self.followers.setdefault(previous, {})[run.key] = run

    def _unfollow(self, run: Run) -> None:
        previous = run.previous_run
        if previous is None or previous not in self.followers:
            return
        self.followers[previous].pop(run.key, None)
        if not self.followers[previous]:
            del self.followers[previous]
            self.ended.pop(previous, None)

    def _is_known(self, run: Run) -> bool:
        previous = run.previous_run
        return previous is not None and (previous == NONE_BEFORE or previous in self._runs or previous in self.ended)

    def _ask(self, run: Run) -> None:
        row = run.row
        assert row.logical_date is not None
        schedule = run.plan.spec.schedule
        self._last_question += 1
        self._asked[run.key] = (self._last_question, set())
        self._changes.effects.append(
            PastWanted(
                number=self._last_question,
                run=run.key,
                dag_id=row.dag_id,
                logical_date=row.logical_date,
                only_scheduled=schedule is not None and schedule.catchup,
            )
        )

    # ---- what is waited for -----------------------------------------------------------------------------------------

    def blocker(self, instance: Instance) -> Blocker | None:
        """What in the previous run keeps this instance from starting; None: nothing."""
        run, task = instance.run, instance.task
        if not task.looks_at or not _looks_back(run) or run.previous_run == NONE_BEFORE:
            return None
        if run.previous_run is None:
            return Blocker(None, task.spec.task_id, "unknown", is_over=False)
        previous = self._runs.get(run.previous_run)
        for task_id in task.looks_at:
            if previous is not None:
                blocker = _in_unfinished(previous, task, task_id)
            else:
                blocker = _in_finished(run.previous_run, self.ended[run.previous_run], task, task_id)
            if blocker is not None:
                return blocker
        return None


def _looks_back(run: Run) -> bool:
    """A run without a logical date has no place among the others: it has no past, and is nobody's."""
    return bool(run.plan.lookers) and run.row.logical_date is not None


def _in_unfinished(previous: Run, task: TaskPlan, task_id: str) -> Blocker | None:
    index = previous.plan.index_of.get(task_id)
    if index is None:
        return _absent(previous.key, task, task_id)
    tally = previous.tallies.get(index, {})
    if sum(tally.values()) < previous.sizes.get(index, 1):
        unfinished = previous.of_task(index)
        if previous.state is RunState.QUEUED:
            state = "queued with its run"
        else:
            state = unfinished[0].state.value if unfinished else "not made yet"
        return Blocker(previous.key, task_id, state, is_over=False)
    return _unsatisfied(previous.key, task_id, tally)


def _in_finished(key: RunKey, previous: EndedRun, task: TaskPlan, task_id: str) -> Blocker | None:
    tally = previous.states(task_id)
    if not previous.tallies:
        return None  # it was cancelled before it began
    return _absent(key, task, task_id) if tally is None else _unsatisfied(key, task_id, tally)


def _absent(key: RunKey, task: TaskPlan, task_id: str) -> Blocker | None:
    """The previous run has no such task: here it is the first of its kind. A task below does not matter then."""
    if task_id != task.spec.task_id or task.spec.ignore_first_depends_on_past:
        return None
    return Blocker(key, task_id, ABSENT, is_over=True)


def _unsatisfied(key: RunKey, task_id: str, tally: Mapping[TaskState, int]) -> Blocker | None:
    state = next((state for state in tally if state not in _SATISFIED), None)
    return Blocker(key, task_id, state.value, is_over=True) if state is not None else None
