"""A random DAG as a DAG file: what a plan says, in tickless's own words."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.dag_plan import DagPlan, TaskPlan, Unit

# What a try does is looked up by its number; in bash it is its exit code.
HEAD = '''
from tickless import AirflowFailException, AirflowSkipException, BranchPythonOperator, ShortCircuitOperator, TaskGroup

ERRORS = {"fail": RuntimeError, "give_up": AirflowFailException, "skip": AirflowSkipException}

def act(*acts):
    def body():
        time.sleep(0.02)  # so that tasks meet each other at the limits
        this = acts[min(int(os.environ["TICKLESS_TRY_NUMBER"]), len(acts)) - 1]
        if this == "hang":
            time.sleep(3600)
        if this == "die":
            os.kill(os.getpid(), 9)
        if this != "succeed":
            raise ERRORS[this]("as planned")
    return body

def script(*acts):
    return f"acts=({' '.join(acts)}); " + CODE

CODE = """
nap 0.02
this=${acts[TICKLESS_TRY_NUMBER - 1]:-${acts[-1]}}
case $this in fail) exit 1 ;; skip) exit 99 ;; die) kill -KILL $$ ;; hang) sleep 3600 ;; esac
"""

def chooser(operator, task_id, body, choice, **args):
    def call():
        note("S")
        body()
        note("E")
        return choice
    return operator(task_id=task_id, python_callable=call, **args)
'''

ARGUMENTS = ("retries", "execution_timeout", "pool", "pool_slots", "priority_weight")


def source_of(dags: Sequence[DagPlan]) -> str:
    """A file with some DAGs, without the ledger's head."""
    return HEAD + "".join(map(body_of, dags))


def body_of(dag: DagPlan) -> str:
    """The DAG itself."""
    limit = f", max_active_tasks={dag.max_active_tasks}" if dag.max_active_tasks else ""
    limit += f", max_active_runs={dag.max_active_runs}" if dag.max_active_runs else ""
    return "\n".join([f"with DAG({dag.dag_id!r}{limit}):", *_scope(dag, ())]) + "\n"


def _scope(dag: DagPlan, groups: tuple[str, ...]) -> list[str]:
    """What is directly in a group, or in none, and then how it depends on what."""
    indent = "    " * (len(groups) + 1)
    lines = []
    units = sorted(
        (unit for unit in dag.units if unit.groups == groups),
        key=lambda unit: _number(unit, dag),
    )
    for unit in units:
        if isinstance(unit, TaskPlan):
            lines.append(f"{indent}{_label(unit.task_id)} = {_call(unit)}")
        else:
            prefix = "" if unit.is_prefixed else ", prefix_group_id=False"
            lines.append(f"{indent}with TaskGroup({_label(unit.group_id)!r}{prefix}) as {_label(unit.group_id)}:")
            lines += _scope(dag, (*groups, unit.group_id))
    for unit in units:
        if unit.upstream:
            lines.append(f"{indent}[{', '.join(map(_label, unit.upstream))}] >> {_label(unit.name)}")
    return lines


def _number(unit: Unit, dag: DagPlan) -> int:
    """Where the first task of a unit stands: a group is drawn, and written, in one piece."""
    for place, task in enumerate(dag.tasks):
        if task is unit or unit.name in task.groups:
            return place
    raise ValueError(f"{unit} is empty")


def _label(full: str) -> str:
    """The last part of an id, which is unique in these DAGs: it is also the name of the variable."""
    return full.rsplit(".", 1)[-1]


def _call(task: TaskPlan) -> str:
    name = _label(task.task_id)
    args = f", retry_delay={task.retry_delay}"
    for argument in ARGUMENTS:
        if (value := getattr(task, argument)) != getattr(TaskPlan, argument):
            args += f", {argument}={value!r}"
    if task.rule != "all_success":
        args += f", trigger_rule={task.rule!r}"
    acts = ", ".join(repr(act.value) for act in task.acts)
    match task.kind:
        case "empty":
            return f"EmptyOperator(task_id={name!r}{args})"
        case "bash":
            return f"bash({name!r}, script({acts}){args})"
        case "branch":
            choice = task.chooses[0] if len(task.chooses) == 1 else list(task.chooses) or None
            return f"chooser(BranchPythonOperator, {name!r}, act({acts}), {choice!r}{args})"
        case "short_circuit":
            args += "" if task.ignores_rules else ", ignore_downstream_trigger_rules=False"
            return f"chooser(ShortCircuitOperator, {name!r}, act({acts}), {task.condition}{args})"
        case _:
            return f"python({name!r}, act({acts}){args})"
