"""What a branch or a short circuit makes of the tasks below it, and how that is written down.

The runner has translated the choice into terms of the tasks directly below. It is kept as an XCom under Airflow's key,
in Airflow's form, so that it can be applied again when what it skipped is cleared.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from tickless.core.commands import BranchChoice
from tickless.core.plan import DagPlan
from tickless.model.id import TaskId

XCOM_CHOICE_KEY = "skipmixin_key"


def not_followed(plan: DagPlan, index: int, follow: Collection[str]) -> tuple[list[int], str]:
    """The tasks directly below that are skipped, and the value to keep. Unknown names in `follow` mean nothing."""
    below = plan.tasks[index].downstream
    skipped = [each for each in below if plan.tasks[each].spec.task_id not in follow]
    followed = [plan.tasks[each].spec.task_id for each in below if each not in skipped]
    return skipped, json.dumps({"followed": followed})


def all_below(plan: DagPlan, index: int) -> tuple[list[int], str]:
    """Everything below, in topological order, and the value to keep."""
    found: set[int] = set()
    todo = [index]
    while todo:
        new = set(plan.tasks[todo.pop()].downstream) - found
        found |= new
        todo += new
    skipped = sorted(found)
    return skipped, json.dumps({"skipped": [plan.tasks[each].spec.task_id for each in skipped]})


def skipped_again(plan: DagPlan, choices: Iterable[BranchChoice]) -> dict[int, str]:
    """Tasks that these choices do not let run, each with the branch that says so.

    Anybody may have handed something on under the same key: what is not in the form above means nothing.
    """
    found: dict[int, str] = {}
    for choice in choices:
        index = plan.index_of.get(TaskId(choice.task_id))
        value = json.loads(choice.value)
        if index is None or not isinstance(value, dict):
            continue
        if isinstance(named := value.get("skipped"), list):
            skipped = [plan.index_of[name] for name in named if isinstance(name, str) and name in plan.index_of]
        elif isinstance(named := value.get("followed"), list):
            skipped, _ = not_followed(plan, index, [name for name in named if isinstance(name, str)])
        else:
            continue
        found |= dict.fromkeys(skipped, choice.task_id)
    return found


def why_skipped(branch: str) -> str:
    """The reason of a task that was not followed."""
    return f"{branch} chose not to follow it"
