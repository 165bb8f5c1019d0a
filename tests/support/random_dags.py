"""Random DAGs from seeds: a description for the oracle, and the DAG file that does the same in tickless.

The dice are loaded so that things happen: many tasks fail, skip or try again, and joints of several tasks have a rule
other than all_success more often than not. `Coverage` counts what was really there.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from tests.support.oracle import RULES, Act, DagPlan, Oracle, TaskPlan, TooManyMomentsError, last_try

POOLS = {"narrow": 2, "wide": 3}
MOST_TASKS = 15
MOST_MOMENTS = 4_000

# What a try does is looked up by its number; in bash it is its exit code.
HEAD = """
from tickless import AirflowFailException, AirflowSkipException, BranchPythonOperator, ShortCircuitOperator

ERRORS = {"fail": RuntimeError, "give_up": AirflowFailException, "skip": AirflowSkipException}

def act(*acts):
    def body():
        time.sleep(0.02)  # so that tasks meet each other at the limits
        this = acts[min(int(os.environ["TICKLESS_TRY_NUMBER"]), len(acts)) - 1]
        if this != "succeed":
            raise ERRORS[this]("as planned")
    return body

def codes(*acts):
    numbers = " ".join({"succeed": "0", "fail": "1", "skip": "99"}[each] for each in acts)
    return f'nap 0.02; codes=({numbers}); n=$((TICKLESS_TRY_NUMBER - 1)); ' + CODE

CODE = 'c=${codes[n]:-${codes[-1]}}; [ $c = 0 ] || exit $c'

def chooser(operator, task_id, body, choice, **args):
    def call():
        note("S")
        body()
        note("E")
        return choice
    return operator(task_id=task_id, python_callable=call, **args)
"""


def random_dag(seed: int) -> DagPlan:
    """The DAG of a seed, always the same."""
    dice = random.Random(seed)
    while True:
        dag = _draw(dice, f"random_{seed}")
        try:
            Oracle(dag, limit=MOST_MOMENTS).outcomes()
        except TooManyMomentsError:
            continue
        return dag


def _draw(dice: random.Random, dag_id: str) -> DagPlan:
    """Layers; a task hangs on tasks before it, mostly of the layer above."""
    layers: list[list[TaskPlan]] = []
    count = dice.randint(2, MOST_TASKS)
    trouble = dice.choice((0.1, 0.4, 0.7))
    while (made := sum(map(len, layers))) < count:
        width = min(dice.choice((1, 1, 2, 2, 3, 4)), count - made)
        layers.append([_draw_task(dice, f"t{made + number}", layers, trouble) for number in range(width)])
    tasks = [task for layer in layers for task in layer]
    return DagPlan(
        dag_id=dag_id,
        tasks=tuple(_with_choice(dice, task, tasks) for task in tasks),
        max_active_tasks=dice.choice((None, None, 1, 2)),
    )


def _draw_upstream(dice: random.Random, rule: str, layers: list[list[TaskPlan]]) -> set[str]:
    """Some of the layer above, sometimes one from anywhere."""
    anywhere = [task for layer in layers for task in layer]
    wanted = {"all_failed": "failed", "one_failed": "failed", "all_skipped": "skipped"}.get(rule)
    likely = [task.task_id for task in anywhere if task.kind != "empty" and last_try(task).state == wanted]
    if likely and dice.random() < 0.6:  # these would hardly ever run if it were left to chance
        return set(dice.sample(likely, min(len(likely), dice.randint(1, 2))))
    above = [task.task_id for task in layers[-1]]
    upstream = set(dice.sample(above, dice.randint(1, len(above))))
    if dice.random() < 0.3:
        upstream.add(dice.choice(anywhere).task_id)
    return upstream


def _draw_task(dice: random.Random, task_id: str, layers: list[list[TaskPlan]], trouble: float) -> TaskPlan:
    rule = dice.choice(list(RULES)) if dice.random() < 0.55 else "all_success"
    upstream = _draw_upstream(dice, rule, layers) if layers and dice.random() < 0.9 else set()
    kind = dice.choices(("python", "bash", "empty", "branch", "short_circuit"), (9, 3, 3, 0, 0))[0]
    retries = dice.choice((0, 0, 1, 2))
    acts: tuple[Act, ...] = (Act.SUCCEED,)
    if kind != "empty" and dice.random() < trouble:
        ends = (Act.FAIL, Act.SKIP)
        failures = dice.randint(0, retries)
        acts = (*(Act.FAIL,) * failures, Act.SUCCEED if failures and dice.random() < 0.6 else dice.choice(ends))
    pool, pool_slots = dice.choice(
        ((None, 1), (None, 1), (None, 1), ("narrow", 1), ("narrow", 2), ("wide", 1), ("wide", 2))
    )
    return TaskPlan(
        task_id=task_id,
        kind=kind,
        upstream=tuple(sorted(upstream, key=lambda name: int(name[1:]))),
        rule=rule,
        acts=acts,
        condition=dice.random() < 0.3,
        ignores_rules=dice.random() < 0.5,
        retries=retries,
        retry_delay=dice.choice((0, 0.01)),
        pool=pool,
        pool_slots=pool_slots,
        priority_weight=dice.choice((1, 1, 5)),
    )


def _with_choice(dice: random.Random, task: TaskPlan, tasks: list[TaskPlan]) -> TaskPlan:
    """A branch chooses among what is directly below it, rarely something else of the DAG, sometimes nothing."""
    if task.kind != "branch":
        return task
    below = [other.task_id for other in tasks if task.task_id in other.upstream]
    if not below:
        return replace(task, kind="python")
    chosen = dice.sample(below, dice.randint(0, len(below)))
    if dice.random() < 0.2:
        chosen.append(dice.choice(tasks).task_id)
    return replace(task, chooses=tuple(dict.fromkeys(chosen)))


def source_of(dag: DagPlan) -> str:
    """The DAG file, without the ledger's head."""
    return HEAD + body_of(dag)


def body_of(dag: DagPlan) -> str:
    """The DAG itself."""
    limit = f", max_active_tasks={dag.max_active_tasks}" if dag.max_active_tasks else ""
    lines = [f"with DAG({dag.dag_id!r}{limit}):"]
    lines += [f"    {task.task_id} = {_call(task)}" for task in dag.tasks]
    for task in dag.tasks:
        if task.upstream:
            lines.append(f"    [{', '.join(task.upstream)}] >> {task.task_id}")
    return "\n".join(lines) + "\n"


def _call(task: TaskPlan) -> str:
    args = ""
    for name in ("retries", "retry_delay", "pool", "pool_slots", "priority_weight"):
        if (value := getattr(task, name)) != getattr(TaskPlan, name) or name == "retry_delay":
            args += f", {name}={value!r}"
    if task.rule != "all_success":
        args += f", trigger_rule={task.rule!r}"
    acts = ", ".join(repr(act.value) for act in task.acts)
    match task.kind:
        case "empty":
            return f"EmptyOperator(task_id={task.task_id!r}{args})"
        case "bash":
            return f"bash({task.task_id!r}, codes({acts}){args})"
        case "branch":
            choice = task.chooses[0] if len(task.chooses) == 1 else list(task.chooses) or None
            return f"chooser(BranchPythonOperator, {task.task_id!r}, act({acts}), {choice!r}{args})"
        case "short_circuit":
            args += "" if task.ignores_rules else ", ignore_downstream_trigger_rules=False"
            return f"chooser(ShortCircuitOperator, {task.task_id!r}, act({acts}), {task.condition}{args})"
        case _:
            return f"python({task.task_id!r}, act({acts}){args})"


def coverage(dags: list[DagPlan]) -> Counter[str]:
    """What is there, and what comes of it."""
    found: Counter[str] = Counter()
    for dag in dags:
        outcomes = Oracle(dag).outcomes()
        found["dags with one outcome"] += len(outcomes) == 1
        found["dags with several outcomes"] += len(outcomes) > 1
        outcome = min(outcomes, key=repr)
        found[f"run {outcome.run}"] += 1
        found["dags with max_active_tasks"] += dag.max_active_tasks is not None
        endings = dict(outcome.tasks)
        for task in dag.tasks:
            ending = endings[task.task_id]
            found["tasks"] += 1
            found["tries"] += ending.tries
            found[f"kind {task.kind}"] += 1
            found[f"state {ending.state}"] += 1
            found["retried, then success"] += ending.tries > 1 and ending.state == "success"
            found["retried, in vain"] += ending.tries > 1 and ending.state == "failed"
            found["gave up before its last try"] += ending.tries <= task.retries and ending.state == "failed"
            found["in a pool"] += task.pool is not None
            found["branch follows some"] += task.kind == "branch" and bool(task.chooses) and ending.state == "success"
            found["branch follows none"] += task.kind == "branch" and not task.chooses and ending.state == "success"
            found["short circuit"] += task.kind == "short_circuit" and not task.condition and ending.state == "success"
            if task.upstream:
                found[f"rule {task.rule} runs"] += ending.tries > 0 or (
                    task.kind == "empty" and ending.state == "success"
                )
                found[f"rule {task.rule} forbids"] += ending.tries == 0 and ending.state != "success"
    return found
