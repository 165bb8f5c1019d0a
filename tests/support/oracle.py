"""The oracle: how a run of a DAG may end, worked out slowly and obviously from Airflow's decision tables alone.

It shares no code with the engine and was written without a look at it. Two readings that disagree are the point: a test
runs random DAGs on a whole daemon and asks here whether what came out is right.

How it works. A moment of a run is the state of each of its task instances: nothing yet, running, or a final state.
From a moment, the next one is reached by one step:

    1. A rule decides: a task whose trigger rule holds begins to run; one whose rule can no longer hold gets its state.
       Rules decide at once, so as long as there is such a step, nothing else happens.
    2. Otherwise a running task ends. Which one is first, nobody knows: limits, the machine and chance choose. When it
       is one that chooses, what it does not choose is skipped with its end. (Only then does it matter that tasks also
       wait for slots: one that was free to run before the choice may have begun, or may not.)

`outcomes` follows every step from every moment it meets, so it finds each ending that is possible, usually exactly
one. (There are more when a rule stops looking early: an all_success whose one upstream is skipped and whose other one
fails becomes skipped or upstream_failed, depending on which came first.)

What a task does is known beforehand, try by try, so its final state and the number of its tries are, too. Limits,
pools, priorities and retry delays are not looked at: they choose among the orders, and all orders are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.support.dag_plan import Act, DagPlan, TaskPlan
from tests.support.oracle_rules import FAILED, RULES, RUN, SKIPPED, SUCCESS, UPSTREAM_FAILED, Counts, Decision


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a task instance has ended, or how far it has come."""

    state: str | None
    tries: int = 0


Instance = tuple[str, int]
"""A task id and a map index; it is -1 for a task that is not mapped, or not expanded."""
Moment = tuple[tuple[Instance, Ending], ...]
"""How far each instance is, in the order of instances."""
Instances = Mapping[Instance, Ending]
NOTHING = Ending(state=None)
SCHEDULED = Ending(state="scheduled")
RUNNING = Ending(state="running")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run has ended."""

    run: str
    instances: Moment


class TooManyMomentsError(Exception):
    """There are too many orders to try them all: take a smaller DAG."""


@dataclass
class Oracle:
    """One DAG and the moments of its runs that were met so far."""

    dag: DagPlan
    limit: int = 50_000
    met: set[Moment] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tasks = {task.task_id: task for task in self.dag.tasks}
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
        todo = [self.first_moment()]
        while todo:
            moment = todo.pop()
            if moment in self.met:
                continue
            self.met.add(moment)
            if len(self.met) > self.limit:
                raise TooManyMomentsError(self.dag.dag_id)
            following = list(self.next_moments(dict(moment)))
            todo += following
            if not following:
                found.add(self.outcome(moment))
        return found

    def first_moment(self) -> Moment:
        """Nothing is decided. A list that stands in the file is known from the beginning."""
        instances: dict[Instance, Ending] = {}
        for task in self.dag.tasks:
            known = range(task.mapped_over) if isinstance(task.mapped_over, int) else ()
            instances |= {(task.task_id, index): NOTHING for index in known or (-1,)}
        return in_order(instances)

    def next_moments(self, now: Instances) -> Iterator[Moment]:
        """Where one step may lead."""
        decided = [(instance, decision) for instance in now if (decision := self.decision(now, instance)) is not None]
        for instance, decision in decided:
            if decision == RUN:
                # No rule asks whether a task has begun: when it does is the same to all others.
                yield self.begin(now, instance)
                return
        for instance, decision in decided:
            yield after(now, {instance: Ending(state=decision)})
        if decided:
            return
        for instance in now:
            if now[instance] == SCHEDULED:
                yield after(now, {instance: RUNNING})
        running = [instance for instance, ending in now.items() if ending == RUNNING]
        for instance in running:
            if instance[0] not in self.has_downstream:
                # Nobody waits for it: when it ends is the same to all others.
                yield self.end(now, instance)
                return
        for instance in running:
            yield self.end(now, instance)

    def decision(self, now: Instances, instance: Instance) -> Decision:
        """What is said to an instance for which nothing is decided yet."""
        task = self.tasks[instance[0]]
        if now[instance] != NOTHING:
            return None
        # A rule has nothing to say to a task that waits for nothing.
        decision = RULES[task.rule](self.counts(now, task)) if self.upstream[task.task_id] else RUN
        if decision == RUN and isinstance(task.mapped_over, str) and instance[1] == -1:
            return self.expansion(now, task.mapped_over)
        return decision

    def expansion(self, now: Instances, source: str) -> Decision:
        """A task that is mapped over what another one returns needs it, whatever its own trigger rule."""
        state = now[source, -1].state
        if state == SKIPPED:
            return SKIPPED
        if state in (FAILED, UPSTREAM_FAILED):
            return UPSTREAM_FAILED
        return RUN if state == SUCCESS else None

    def counts(self, now: Instances, task: TaskPlan) -> Counts:
        """The direct upstream of a task. All tasks of a mapped one count."""
        counts = Counts()
        for (task_id, _), ending in now.items():
            if task_id in self.upstream[task.task_id]:
                counts.U += 1
                counts.s += ending.state == SUCCESS
                counts.k += ending.state == SKIPPED
                counts.f += ending.state == FAILED
                counts.u += ending.state == UPSTREAM_FAILED
        return counts

    def begin(self, now: Instances, instance: Instance) -> Moment:
        """What becomes of an instance that may run."""
        task_id, index = instance
        task = self.tasks[task_id]
        if task.mapped_over is not None and index == -1:
            length = task.mapped_over if isinstance(task.mapped_over, int) else self.tasks[task.mapped_over].returns
            if length == 0:
                return after(now, {instance: Ending(state=SKIPPED)})
            others = {each: ending for each, ending in now.items() if each != instance}
            return after(others, {(task_id, number): NOTHING for number in range(length)})
        if task.kind == "empty":
            return after(now, {instance: Ending(state=SUCCESS)})  # without having run
        is_safe = not any(
            task_id in self.skipped_by(other) and now.get((other.task_id, -1)) in (NOTHING, SCHEDULED, RUNNING)
            for other in self.dag.tasks
        )
        return after(now, {instance: RUNNING if is_safe else SCHEDULED})

    def end(self, now: Instances, instance: Instance) -> Moment:
        """A task has run. What it does not choose is skipped in the same step, unless that runs already.

        A task that waits for nothing but a slot is not left alone: Airflow's UPDATE does not spare it either.
        """
        task = self.tasks[instance[0]]
        ending = last_try(task, instance[1])
        victims = self.skipped_by(task) if ending.state == SUCCESS else ()
        skipped = {
            each: Ending(state=SKIPPED) for each in now if each[0] in victims and now[each] in (NOTHING, SCHEDULED)
        }
        return after(now, {instance: ending} | skipped)

    def skipped_by(self, task: TaskPlan) -> set[str]:
        """The tasks that a success of this one skips, whatever their trigger rules say."""
        if task.kind == "branch":
            chosen = {head for name in task.chooses for head in self.heads(name)}
            kept = chosen.union(*(self.all_below(each) for each in chosen))
            return self.directly_below(task.task_id) - kept
        if task.kind == "short_circuit" and not task.condition:
            return self.all_below(task.task_id) if task.ignores_rules else self.directly_below(task.task_id)
        return set()

    def outcome(self, moment: Moment) -> Outcome:
        """What is written down of a run in which nothing happens any more."""
        leaves = [ending.state for (task_id, _), ending in moment if task_id not in self.has_downstream]
        is_stuck = any(ending == NOTHING for _, ending in moment)
        is_failed = is_stuck or FAILED in leaves or UPSTREAM_FAILED in leaves
        return Outcome(run=FAILED if is_failed else SUCCESS, instances=moment)


def in_order(instances: Instances) -> Moment:
    """A moment, always written in the same way."""
    return tuple(sorted(instances.items(), key=lambda item: item[0]))


def after(now: Instances, changed: Instances) -> Moment:
    """The moment after a change."""
    return in_order({**now, **changed})


def last_try(task: TaskPlan, index: int = -1) -> Ending:
    """How a task ends that runs: as its last try does."""
    acts = task.mapped_acts[index] if 0 <= index < len(task.mapped_acts) else task.acts
    for number in range(1, task.retries + 2):
        act = acts[min(number, len(acts)) - 1]
        if act is Act.SUCCEED:
            return Ending(state=SUCCESS, tries=number)
        if act is Act.SKIP:
            return Ending(state=SKIPPED, tries=number)
        if act is Act.GIVE_UP:
            return Ending(state=FAILED, tries=number)
    return Ending(state=FAILED, tries=task.retries + 1)
