"""Random DAGs from seeds: descriptions for the oracle and for `random_dag_files`.

The dice are loaded so that things happen: many tasks fail, skip or try again, and joints of several tasks have a rule
other than all_success more often than not. `coverage` counts what was really there.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

from tests.support.dag_plan import Act, DagPlan, GroupPlan, TaskPlan
from tests.support.oracle import Oracle, TooManyMomentsError, last_try
from tests.support.oracle_rules import RULES

POOLS = {"narrow": 2, "wide": 3}
MOST_TASKS = 15
MOST_MOMENTS = 4_000
KINDS = {"python": 9, "bash": 3, "empty": 3, "branch": 2, "short_circuit": 1}
ENDS = (Act.FAIL, Act.FAIL, Act.SKIP, Act.SKIP, Act.GIVE_UP, Act.DIE)
"""How a task ends that does not succeed."""


def random_dag(seed: int) -> DagPlan:
    """The DAG of a seed, always the same."""
    dice = random.Random(seed)
    while True:
        dag = Artist(dice).draw(f"random_{seed}")
        try:
            outcomes = Oracle(dag, limit=MOST_MOMENTS).outcomes()
        except TooManyMomentsError:
            continue
        # The ledger has one plan for all runs of a DAG.
        return dag if len(outcomes) == 1 else replace(dag, runs=1)


@dataclass
class Artist:
    """Draws one DAG."""

    dice: random.Random
    tasks: list[TaskPlan] = field(default_factory=list)
    groups: list[GroupPlan] = field(default_factory=list)

    def draw(self, dag_id: str) -> DagPlan:
        self.trouble = self.dice.choice((0.1, 0.4, 0.7))
        self.draw_layers((), "", self.dice.randint(2, MOST_TASKS))
        self.tasks = [self.with_choice(task) for task in self.tasks]
        return DagPlan(
            dag_id=dag_id,
            tasks=tuple(self.tasks),
            groups=tuple(self.groups),
            max_active_tasks=self.dice.choice((None, None, 1, 2)),
            max_active_runs=self.dice.choice((None, None, 1)),
            runs=self.dice.choice((1, 1, 1, 1, 1, 1, 2)),
        )

    def draw_layers(self, groups: tuple[str, ...], prefix: str, count: int) -> None:
        """Fill a group, or the DAG: what is in a layer depends on things before it, mostly of the layer above."""
        layers: list[list[str]] = []
        until = len(self.tasks) + count
        while len(self.tasks) < until:
            layer = []
            for _ in range(self.dice.choice((1, 1, 2, 2, 3, 4))):
                room = until - len(self.tasks)
                if room >= 2 and len(groups) < 2 and self.dice.random() < 0.2:
                    layer.append(self.draw_group(groups, prefix, layers, self.dice.randint(2, min(room, 5))))
                elif room:
                    layer.append(self.draw_task(groups, prefix, layers))
            layers.append(layer)

    def draw_group(self, groups: tuple[str, ...], prefix: str, layers: list[list[str]], count: int) -> str:
        group_id = f"{prefix}g{len(self.groups)}"
        upstream = self.draw_upstream("all_success", layers) if layers and self.dice.random() < 0.8 else ()
        is_prefixed = self.dice.random() < 0.8
        self.groups.append(GroupPlan(group_id=group_id, groups=groups, upstream=upstream, is_prefixed=is_prefixed))
        self.draw_layers((*groups, group_id), f"{group_id}." if is_prefixed else "", count)
        return group_id

    def draw_upstream(self, rule: str, layers: list[list[str]]) -> tuple[str, ...]:
        """Some of the layer above, sometimes a task from anywhere."""
        wanted = {"all_failed": "failed", "one_failed": "failed", "all_skipped": "skipped"}.get(rule)
        likely = [task.task_id for task in self.tasks if task.kind != "empty" and last_try(task).state == wanted]
        if likely and self.dice.random() < 0.6:  # these would hardly ever run if it were left to chance
            return tuple(self.dice.sample(likely, min(len(likely), self.dice.randint(1, 2))))
        upstream = self.dice.sample(layers[-1], self.dice.randint(1, len(layers[-1])))
        if self.dice.random() < 0.3:
            upstream.append(self.dice.choice(self.tasks).task_id)
        return tuple(dict.fromkeys(upstream))

    def draw_task(self, groups: tuple[str, ...], prefix: str, layers: list[list[str]]) -> str:
        dice = self.dice
        rule = dice.choice(list(RULES)) if dice.random() < 0.55 else "all_success"
        upstream = self.draw_upstream(rule, layers) if layers and dice.random() < 0.9 else ()
        kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
        retries = dice.choice((0, 0, 1, 2))
        acts = self.draw_acts(kind, retries)
        pool, pool_slots = dice.choice(
            ((None, 1), (None, 1), (None, 1), ("narrow", 1), ("narrow", 2), ("wide", 1), ("wide", 2))
        )
        task = TaskPlan(
            task_id=f"{prefix}t{len(self.tasks)}",
            groups=groups,
            kind=kind,
            upstream=upstream,
            rule=rule,
            acts=acts,
            condition=dice.random() < 0.3,
            ignores_rules=dice.random() < 0.5,
            retries=retries,
            retry_delay=dice.choice((0, 0.01)),
            execution_timeout=0.1 if Act.HANG in acts else None,
            pool=pool,
            pool_slots=pool_slots,
            priority_weight=dice.choice((1, 1, 5)),
        )
        self.tasks.append(task)
        return task.task_id

    def draw_acts(self, kind: str, retries: int) -> tuple[Act, ...]:
        """Most tasks succeed at once; others fail a few times, and then succeed, or do not."""
        if kind == "empty" or self.dice.random() > self.trouble:
            return (Act.SUCCEED,)
        if self.dice.random() < 0.05:  # at each try: what else it did would be a race against its timeout
            return (Act.HANG,)
        failures = self.dice.randint(0, retries)
        if failures and self.dice.random() < 0.6:
            end = Act.SUCCEED
        else:
            # Bash cannot ask for no further try.
            end = self.dice.choice([end for end in ENDS if kind != "bash" or end is not Act.GIVE_UP])
        return (*(Act.FAIL,) * failures, end)

    def with_choice(self, task: TaskPlan) -> TaskPlan:
        """A branch chooses among what is directly below it, rarely something else of the DAG, sometimes nothing."""
        if task.kind != "branch":
            return task
        so_far = DagPlan(dag_id="", tasks=tuple(self.tasks), groups=tuple(self.groups))
        oracle = Oracle(so_far)
        below = oracle.directly_below(task.task_id)
        if not below:
            return replace(task, kind="python")
        groups = [group.group_id for group in self.groups if oracle.heads(group.group_id) & below]
        chosen = self.dice.sample(sorted(below), self.dice.randint(0, len(below)))
        if groups and self.dice.random() < 0.5:
            chosen = [*self.dice.sample(chosen, len(chosen) // 2), self.dice.choice(groups)]
        if self.dice.random() < 0.2:
            chosen.append(self.dice.choice(self.tasks).task_id)
        return replace(task, chooses=tuple(dict.fromkeys(chosen)))


def coverage(dags: list[DagPlan]) -> Counter[str]:
    """What is there, and what comes of it."""
    found: Counter[str] = Counter()
    for dag in dags:
        oracle = Oracle(dag)
        outcomes = oracle.outcomes()
        found["dags with one outcome"] += len(outcomes) == 1
        found["dags with several outcomes"] += len(outcomes) > 1
        outcome = min(outcomes, key=repr)
        found[f"run {outcome.run}"] += 1
        found["groups"] += len(dag.groups)
        found["groups in groups"] += sum(bool(group.groups) for group in dag.groups)
        found["groups that wait"] += sum(bool(group.upstream) for group in dag.groups)
        found["groups waited for"] += sum(group.group_id in unit.upstream for group in dag.groups for unit in dag.units)
        found["dags with max_active_tasks"] += dag.max_active_tasks is not None
        found["dags with several runs"] += dag.runs > 1
        found["dags with runs one after the other"] += dag.runs > 1 and dag.max_active_runs == 1
        found["tasks"] += len(dag.tasks)
        found["in a pool"] += sum(task.pool is not None for task in dag.tasks)
        for (task_id, _), ending in outcome.instances:
            task = oracle.tasks[task_id]
            is_success = ending.state == "success"
            found["tries"] += ending.tries
            found[f"kind {task.kind}"] += 1
            found[f"state {ending.state}"] += 1
            found["retried, then success"] += ending.tries > 1 and is_success
            found["retried, in vain"] += ending.tries > 1 and ending.state == "failed"
            found["gave up before its last try"] += ending.tries <= task.retries and ending.state == "failed"
            found["branch follows some"] += task.kind == "branch" and bool(task.chooses) and is_success
            found["branch follows a group"] += is_success and any(
                group.group_id in task.chooses for group in dag.groups
            )
            found["branch follows none"] += task.kind == "branch" and not task.chooses and is_success
            found["short circuit"] += task.kind == "short_circuit" and not task.condition and is_success
            found["died"] += ending.tries > 0 and Act.DIE in task.acts
            found["timed out"] += ending.tries > 0 and Act.HANG in task.acts
            if oracle.upstream[task_id]:
                has_run = ending.tries > 0 or is_success  # an empty one has no tries
                found[f"rule {task.rule} {'runs' if has_run else 'forbids'}"] += 1
    return found
