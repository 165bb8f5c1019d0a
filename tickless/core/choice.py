"""What a branch or a short circuit makes of the tasks below it, and how that is written down.

The runner has translated the choice into terms of the tasks directly below. It is kept as an XCom under Airflow's key,
in Airflow's form, so that it can be applied again when what it skipped is cleared.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from tickless.core.plan import DagPlan

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
