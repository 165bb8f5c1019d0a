"""Tasks that choose: branches follow some of the tasks below them, short circuits all or none. The rest is skipped.

The choice is made in the runner, where the graph is at hand, in terms of the tasks directly below; it leaves with the
outcome of the task and takes effect in the commit of its end.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tickless.authoring import arguments
from tickless.authoring.operators import PythonOperator
from tickless.exceptions import AirflowException

if TYPE_CHECKING:
    from tickless.authoring.context import TaskInstance
    from tickless.authoring.operators import Operator


class BranchPythonOperator(PythonOperator):
    """Calls a function that returns the ids of the tasks or groups to follow: one id, a list of them, or None for none.

    Of the tasks directly below, those are skipped that are not chosen and that no chosen one leads to.
    """

    chooses = True

    def call(self, inputs: Mapping[str, Any], instance: TaskInstance | None = None) -> Any:
        """The choice as the function returned it."""
        choice = super().call(inputs, instance)
        followed = self._followed(choice)
        if instance is not None:
            instance.follow = followed
        return sorted(choice) if isinstance(choice, set | frozenset) else choice

    def _followed(self, choice: object) -> tuple[str, ...]:
        below = downstream_of(self.dag.tasks)
        reached: set[str] = set()
        todo = self._chosen(choice)
        while todo:
            task_id = todo.pop()
            if task_id not in reached:
                reached.add(task_id)
                todo += below.get(task_id, ())
        return tuple(task_id for task_id in below.get(self.task_id, ()) if task_id in reached)

    def _chosen(self, choice: object) -> list[str]:
        if choice is None:
            return []
        ids = [choice] if isinstance(choice, str) else choice
        if not isinstance(ids, Iterable) or isinstance(ids, Mapping):
            ids = [ids]
        chosen = []
        for task_id in ids:
            if not isinstance(task_id, str):
                raise AirflowException(
                    f"the branch {self.task_id!r} returned {choice!r}, but must return a task id, "
                    "a list of task ids, or None"
                )
            if task_id in self.dag.groups:
                chosen += [task.task_id for task in self.dag.groups[task_id].heads()]
                continue
            if task_id not in self.dag.tasks:
                near = difflib.get_close_matches(task_id, [*self.dag.tasks, *self.dag.groups], n=1)
                hint = f". Did you mean {near[0]!r}?" if near else ""
                raise AirflowException(
                    f"the branch {self.task_id!r} chose {task_id!r}, which DAG {self.dag.dag_id!r} does not have{hint}"
                )
            chosen.append(task_id)
        return chosen


class ShortCircuitOperator(PythonOperator):
    """Calls a function; when it returns something false, what is below is skipped.

    By default that is everything below, whatever the trigger rules there say. With
    `ignore_downstream_trigger_rules=False` it is the tasks directly below; from there on trigger rules decide.
    """

    chooses = True
    own_arguments = PythonOperator.own_arguments | {"ignore_downstream_trigger_rules"}

    def __init__(self, *, ignore_downstream_trigger_rules: bool = True, **args: Any) -> None:
        super().__init__(**args)
        name = f"ignore_downstream_trigger_rules of task {self.task_id!r}"
        self.ignore_downstream_trigger_rules = arguments.flag(name, ignore_downstream_trigger_rules)

    def call(self, inputs: Mapping[str, Any], instance: TaskInstance | None = None) -> Any:
        """The condition as the function returned it."""
        condition = super().call(inputs, instance)
        if not condition and instance is not None:
            if self.ignore_downstream_trigger_rules:
                instance.skip_below = True
            else:
                instance.follow = ()
        return condition


def downstream_of(tasks: Mapping[str, Operator]) -> dict[str, list[str]]:
    """Task id -> ids of the tasks that wait for it directly."""
    below: dict[str, list[str]] = {}
    for task in tasks.values():
        for upstream in task.upstream:
            below.setdefault(upstream, []).append(task.task_id)
    return below
