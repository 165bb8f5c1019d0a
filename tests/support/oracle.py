"""The oracle: how a run of a DAG may end, worked out slowly and obviously from Airflow's decision tables alone.

It shares no code with the engine and was written without a look at it. Two readings that disagree are the point: a test
runs random DAGs on a whole daemon and asks here whether what came out is right.

How it works. A moment of a run is the state of each of its task instances: nothing yet, running, or a final state.
From a moment, the next one is reached by one step:

    1. A rule decides: a task whose trigger rule holds begins to run; one whose rule can no longer hold gets its state.
       Rules decide at once, so as long as there is such a step, nothing else happens.
    2. Otherwise a running task ends. Which one is first, nobody knows: limits, the machine and chance choose. When it
       is one that chooses, what it does not choose is skipped with its end.

`outcomes` follows every step from every moment it meets, so it finds each ending that is possible, usually exactly
one. (There are more when a rule stops looking early: an all_success whose one upstream is skipped and whose other one
fails becomes skipped or upstream_failed, depending on which came first.)

What a task does is known beforehand, try by try, so its final state and the number of its tries are, too. Limits,
pools, priorities and retry delays are not looked at: they choose among the orders, and all orders are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SUCCESS, FAILED, SKIPPED, UPSTREAM_FAILED = "success", "failed", "skipped", "upstream_failed"


class Act(StrEnum):
    """What one try of a task does."""

    SUCCEED = "succeed"
    FAIL = "fail"
    GIVE_UP = "give_up"
    """It fails, and there shall be no further try."""
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """A task of a random DAG."""

    task_id: str
    groups: tuple[str, ...] = ()
    """The groups it is in, outermost first."""
    kind: str = "python"
    """python, bash, branch, short_circuit, or empty, which never runs at all."""
    upstream: tuple[str, ...] = ()
    """Tasks and groups, as they are written in the DAG file."""
    rule: str = "all_success"
    acts: tuple[Act, ...] = (Act.SUCCEED,)
    """What the first try does, the second one …; the last act is that of all further tries."""
    chooses: tuple[str, ...] = ()
    """The ids that a branch returns when it succeeds."""
    condition: bool = True
    """What a short circuit returns when it succeeds."""
    ignores_rules: bool = True
    """A short circuit's ignore_downstream_trigger_rules."""
    retries: int = 0
    retry_delay: float = 0
    pool: str | None = None
    pool_slots: int = 1
    priority_weight: int = 1

    @property
    def name(self) -> str:
        return self.task_id


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """A group of tasks."""

    group_id: str
    groups: tuple[str, ...] = ()
    """The groups that it is in, outermost first."""
    upstream: tuple[str, ...] = ()
    is_prefixed: bool = True
    """Whether the ids of what is in it begin with its own."""

    @property
    def name(self) -> str:
        return self.group_id


Unit = TaskPlan | GroupPlan


@dataclass(frozen=True, kw_only=True)
class DagPlan:
    """A random DAG. Its tasks stand behind their upstream."""

    dag_id: str
    tasks: tuple[TaskPlan, ...]
    groups: tuple[GroupPlan, ...] = ()
    max_active_tasks: int | None = None

    @property
    def units(self) -> list[Unit]:
        return [*self.tasks, *self.groups]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a task instance has ended, or how far it has come."""

    state: str | None
    tries: int = 0


NOTHING = Ending(state=None)
RUNNING = Ending(state="running")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run has ended."""

    run: str
    tasks: tuple[tuple[str, Ending], ...]
    """By task id, in its order."""


def in_order(endings: Mapping[str, Ending]) -> tuple[tuple[str, Ending], ...]:
    """As an outcome has them."""
    return tuple((task_id, endings[task_id]) for task_id in sorted(endings))


class TooManyMomentsError(Exception):
    """There are too many orders to try them all: take a smaller DAG."""


@dataclass
class Counts:
    """How many of the direct upstream of a task are in which state: the letters of the decision table."""

    U: int = 0
    s: int = 0
    k: int = 0
    f: int = 0
    u: int = 0
    setups: int = 0
    setups_s: int = 0
    setups_k: int = 0

    @property
    def d(self) -> int:
        """All that are finished."""
        return self.s + self.k + self.f + self.u


RUN = "run"
"""The rule holds. The other decisions are final states."""
Decision = str | None
"""None: wait."""


def all_success(c: Counts) -> Decision:
    if c.f or c.u:
        return UPSTREAM_FAILED
    if c.k:
        return SKIPPED
    return RUN if c.U - c.s <= 0 else None


def all_failed(c: Counts) -> Decision:
    if c.s or c.k:
        return SKIPPED
    return RUN if c.U - c.f - c.u <= 0 else None


def all_done(c: Counts) -> Decision:
    return RUN if c.d >= c.U else None


def all_done_min_one_success(c: Counts) -> Decision:
    if c.k:
        return SKIPPED
    if c.d < c.U:
        return None
    return RUN if c.s >= 1 else UPSTREAM_FAILED


def all_done_setup_success(c: Counts) -> Decision:
    if c.d < c.U:
        return None
    if not c.setups:
        return RUN
    if c.setups_k == c.setups:
        return SKIPPED
    return RUN if c.setups_s >= 1 else UPSTREAM_FAILED


def one_success(c: Counts) -> Decision:
    if c.s >= 1:
        return RUN
    if c.d < c.U:
        return None
    return SKIPPED if c.k == c.U else UPSTREAM_FAILED


def one_failed(c: Counts) -> Decision:
    if c.f or c.u:
        return RUN
    return SKIPPED if c.d >= c.U else None


def one_done(c: Counts) -> Decision:
    if c.s + c.f >= 1:
        return RUN
    return SKIPPED if c.d >= c.U else None


def none_failed(c: Counts) -> Decision:
    if c.f or c.u:
        return UPSTREAM_FAILED
    return RUN if c.U - c.s - c.k <= 0 else None


def none_failed_min_one_success(c: Counts) -> Decision:
    if c.f or c.u:
        return UPSTREAM_FAILED
    if c.k == c.U:
        return SKIPPED
    if c.d < c.U:
        return None
    return RUN if c.s >= 1 else UPSTREAM_FAILED


def none_skipped(c: Counts) -> Decision:
    if c.k:
        return SKIPPED
    return RUN if c.d >= c.U else None


def all_skipped(c: Counts) -> Decision:
    if c.s or c.f or c.u:
        return SKIPPED
    return RUN if c.U - c.k <= 0 else None


def always(_: Counts) -> Decision:
    return RUN


RULES: Mapping[str, Callable[[Counts], Decision]] = {
    rule.__name__: rule
    for rule in (
        all_success, all_failed, all_done, all_done_min_one_success, all_done_setup_success, one_success, one_failed,
        one_done, none_failed, none_failed_min_one_success, none_skipped, all_skipped, always,
    )
}  # fmt: skip

Moment = tuple[Ending, ...]
"""How far each task is, in the order of the DAG's tasks."""


@dataclass
class Oracle:
    """One DAG and the moments of its runs that were met so far."""

    dag: DagPlan
    limit: int = 50_000
    met: set[Moment] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.place = {task.task_id: place for place, task in enumerate(self.dag.tasks)}
        self.edges: set[tuple[str, str]] = set()
        for unit in sorted(self.dag.units, key=lambda unit: -len(unit.groups)):
            # From the inside to the outside: the heads and tails of a group depend on the edges inside.
            for upstream in unit.upstream:
                self.edges |= {(tail, head) for tail in self.tails(upstream) for head in self.heads(unit.name)}
        self.upstream = {task.task_id: {b for b, a in self.edges if a == task.task_id} for task in self.dag.tasks}
        self.has_downstream = {before for before, _ in self.edges}

    def inside(self, name: str) -> set[str]:
        """The tasks of a group; a task by itself is one, too."""
        return {task.task_id for task in self.dag.tasks if task.task_id == name or name in task.groups}

    def heads(self, name: str) -> set[str]:
        """The tasks that wait when a group waits: those that wait for none of its own."""
        inside = self.inside(name)
        return {task for task in inside if not any((other, task) in self.edges for other in inside)}

    def tails(self, name: str) -> set[str]:
        """The tasks that are waited for when a group is waited for."""
        inside = self.inside(name)
        return {task for task in inside if not any((task, other) in self.edges for other in inside)}

    def directly_below(self, task_id: str) -> set[str]:
        return {after for before, after in self.edges if before == task_id}

    def all_below(self, task_id: str) -> set[str]:
        """Everything that a chain of dependencies leads to."""
        direct = self.directly_below(task_id)
        return direct.union(*(self.all_below(each) for each in direct))

    def outcomes(self) -> set[Outcome]:
        """Every way in which a run may end."""
        found = set()
        todo: list[Moment] = [(NOTHING,) * len(self.dag.tasks)]
        while todo:
            moment = todo.pop()
            if moment in self.met:
                continue
            self.met.add(moment)
            if len(self.met) > self.limit:
                raise TooManyMomentsError(self.dag.dag_id)
            following = list(self.next_moments(moment))
            todo += following
            if not following:
                found.add(self.outcome(moment))
        return found

    def next_moments(self, moment: Moment) -> Iterator[Moment]:
        """Where one step may lead."""
        decided = [(place, decision) for place, decision in enumerate(self.decisions(moment)) if decision is not None]
        for place, decision in decided:
            if decision == RUN:
                # No rule asks whether a task runs: when it begins is the same to all others.
                yield self.after(moment, place, self.begin(self.dag.tasks[place]))
                return
        for place, decision in decided:
            yield self.after(moment, place, Ending(state=decision))
        if decided:
            return
        running = [(place, self.dag.tasks[place]) for place, ending in enumerate(moment) if ending == RUNNING]
        for place, task in running:
            if task.task_id not in self.has_downstream:
                # Nobody waits for it: when it ends is the same to all others.
                yield self.end(moment, place, task)
                return
        for place, task in running:
            yield self.end(moment, place, task)

    def decisions(self, moment: Moment) -> Iterator[Decision]:
        """What the rules say to each task for which nothing is decided yet."""
        for place, task in enumerate(self.dag.tasks):
            if moment[place] != NOTHING:
                yield None
            elif not self.upstream[task.task_id]:
                yield RUN  # whatever its rule: there is nothing to wait for
            else:
                yield RULES[task.rule](self.counts(moment, task))

    def counts(self, moment: Moment, task: TaskPlan) -> Counts:
        """The upstream of a task."""
        upstreams = self.upstream[task.task_id]
        counts = Counts(U=len(upstreams))
        for upstream in upstreams:
            state = moment[self.place[upstream]].state
            counts.s += state == SUCCESS
            counts.k += state == SKIPPED
            counts.f += state == FAILED
            counts.u += state == UPSTREAM_FAILED
        return counts

    def begin(self, task: TaskPlan) -> Ending:
        """A task that is empty is a success without having run."""
        return Ending(state=SUCCESS) if task.kind == "empty" else RUNNING

    def end(self, moment: Moment, place: int, task: TaskPlan) -> Moment:
        """A task has run. What it does not choose is skipped in the same step, unless that has begun already."""
        ending = last_try(task)
        moment = self.after(moment, place, ending)
        if ending.state == SUCCESS:
            for victim in self.skipped_by(task):
                if moment[self.place[victim]] == NOTHING:
                    moment = self.after(moment, self.place[victim], Ending(state=SKIPPED))
        return moment

    def skipped_by(self, task: TaskPlan) -> set[str]:
        """The tasks that a success of this one skips, whatever their trigger rules say."""
        if task.kind == "branch":
            kept = set(task.chooses).union(*(self.all_below(chosen) for chosen in task.chooses))
            return self.directly_below(task.task_id) - kept
        if task.kind == "short_circuit" and not task.condition:
            return self.all_below(task.task_id) if task.ignores_rules else self.directly_below(task.task_id)
        return set()

    def after(self, moment: Moment, place: int, ending: Ending) -> Moment:
        """The moment with one task changed."""
        return (*moment[:place], ending, *moment[place + 1 :])

    def outcome(self, moment: Moment) -> Outcome:
        """What is written down of a run in which nothing happens any more."""
        endings = {task.task_id: ending for task, ending in zip(self.dag.tasks, moment, strict=True)}
        leaves = [endings[task.task_id].state for task in self.dag.tasks if task.task_id not in self.has_downstream]
        is_stuck = NOTHING in moment
        is_failed = is_stuck or FAILED in leaves or UPSTREAM_FAILED in leaves
        return Outcome(run=FAILED if is_failed else SUCCESS, tasks=in_order(endings))


def last_try(task: TaskPlan) -> Ending:
    """How a task ends that runs: as its last try does."""
    for number in range(1, task.retries + 2):
        act = task.acts[min(number, len(task.acts)) - 1]
        if act is Act.SUCCEED:
            return Ending(state=SUCCESS, tries=number)
        if act is Act.SKIP:
            return Ending(state=SKIPPED, tries=number)
        if act is Act.GIVE_UP:
            return Ending(state=FAILED, tries=number)
    return Ending(state=FAILED, tries=task.retries + 1)
