"""Task groups: tasks that belong together in the graph, and that others can wait for, or let wait, as one.

A group is no thing of its own when a DAG runs: dependencies of a group are dependencies of the tasks in it that no
other task in it leads to (to wait), or that lead to no other task in it (to be waited for).
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, overload

from tickless.authoring import arguments
from tickless.authoring.arguments import check_task_arguments, refuse_unknown
from tickless.authoring.dag import DAG, current_dag, groups_open
from tickless.authoring.operators import Operator
from tickless.authoring.place import DagError, caller
from tickless.authoring.relation import Relative
from tickless.model.dag import GroupSpec

P = ParamSpec("P")
R = TypeVar("R")
_ID = re.compile(r"[\w\-]{1,200}")
_LOOKS: Mapping[str, object] = {"ui_color": "CornflowerBlue", "ui_fgcolor": "#000", "group_display_name": ""}
"""Airflow's arguments for the look of a group; they change nothing here."""
_NAMES = ("group_id", "prefix_group_id", "parent_group", "dag", "default_args", "tooltip", "add_suffix_on_collision")


class TaskGroup(Relative):
    """`with TaskGroup("extract"):` Tasks made inside have ids that begin with `extract.`, unless prefix_group_id=False.

    `default_args` are for the tasks inside that do not say otherwise; they go before those of the DAG.
    """

    def __init__(
        self,
        group_id: object,
        prefix_group_id: bool = True,
        parent_group: TaskGroup | None = None,
        dag: DAG | None = None,
        default_args: Mapping[str, Any] | None = None,
        tooltip: str = "",
        add_suffix_on_collision: bool = False,
        **looks: Any,
    ) -> None:
        self.place = caller()
        if not isinstance(group_id, str) or not _ID.fullmatch(group_id):
            raise DagError(f"group_id {group_id!r} is not allowed.", hint="Use letters, digits, dashes, underscores.")
        of = f"task group {group_id!r}"
        for name, value in looks.items():
            if name not in _LOOKS:
                refuse_unknown(of, name, value, _NAMES, _LOOKS)
        if dag is None:
            dag = parent_group.dag if parent_group is not None else current_dag()
        if dag is None:
            raise DagError(f"{of} is made outside of any DAG.", hint="Make it inside @dag or `with DAG(...):`.")
        self.dag: DAG = dag
        self.parent = parent_group or (groups_open[-1] if groups_open and groups_open[-1].dag is dag else None)
        self.prefix_group_id = arguments.flag(f"prefix_group_id of {of}", prefix_group_id)
        self.tooltip = inspect.cleandoc(arguments.text(f"tooltip of {of}", tooltip))
        own = check_task_arguments(f"default_args of {of}", dict(default_args or {}))
        outer = self.parent.default_fields if self.parent else dag.default_fields
        self.default_fields: dict[str, Any] = {**outer, **own}
        self.children: dict[str, Operator | TaskGroup] = {}
        self.group_id = self._place_under(self.parent, group_id, add_suffix_on_collision)
        dag.groups[self.group_id] = self
        if self.parent is not None:
            self.parent.children[self.group_id] = self

    def _place_under(self, parent: TaskGroup | None, group_id: str, may_number: bool) -> str:
        full = first = parent.child_id(group_id) if parent is not None else group_id
        number = 1
        while may_number and (full in self.dag.groups or full in self.dag.tasks):
            full, number = f"{first}__{number}", number + 1
        if full in self.dag.groups or full in self.dag.tasks:
            other = self.dag.groups[full].place if full in self.dag.groups else self.dag.tasks[full].place
            raise DagError(
                f"DAG {self.dag.dag_id!r} has a task or group with the id {full!r} already, made at {other}.",
                hint="Give one of them another id.",
            )
        return full

    def child_id(self, label: str) -> str:
        """The id of a task or group in here that is called `label`."""
        return f"{self.group_id}.{label}" if self.prefix_group_id else label

    def add(self, task: Operator) -> None:
        """Called by each new operator."""
        self.children[task.task_id] = task

    def tasks(self) -> Iterator[Operator]:
        """All tasks in it, those of inner groups too."""
        for child in self.children.values():
            if isinstance(child, TaskGroup):
                yield from child.tasks()
            else:
                yield child

    def heads(self) -> list[Operator]:
        inside = self._inside()
        return [task for task in inside.values() if not any(upstream in inside for upstream in task.upstream)]

    def tails(self) -> list[Operator]:
        inside = self._inside()
        waited_for = {upstream for task in inside.values() for upstream in task.upstream}
        return [task for task in inside.values() if task.task_id not in waited_for]

    def _inside(self) -> dict[str, Operator]:
        inside = {task.task_id: task for task in self.tasks()}
        if not inside:
            raise DagError(
                f"task group {self.group_id!r} is given a dependency while it has no task: it would be lost.",
                hint="Set it after the `with` block that makes the tasks.",
            )
        return inside

    def to_spec(self) -> GroupSpec:
        """The group as data."""
        parent = self.parent.group_id if self.parent is not None else None
        return GroupSpec(group_id=self.group_id, parent=parent, tooltip=self.tooltip)

    def __enter__(self) -> TaskGroup:
        groups_open.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        groups_open.remove(self)

    def __repr__(self) -> str:
        return f"<TaskGroup {self.group_id!r}>"


class GroupFactory(Generic[P, R]):
    """A function under `@task_group`: each call makes a group of the tasks that are made while it runs."""

    is_task_factory = True

    def __init__(self, function: Callable[P, R], args: Mapping[str, Any]) -> None:
        self.function = function
        self.args = {"group_id": function.__name__, "tooltip": function.__doc__ or "", **args}
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """What the function returns, or the group when that is nothing."""
        with TaskGroup(**{"add_suffix_on_collision": True, **self.args}) as group:
            returned = self.function(*args, **kwargs)
        return group if returned is None else returned

    def override(self, **args: Any) -> GroupFactory[P, R]:
        """The same function with other arguments: `section.override(group_id="second")()`."""
        return GroupFactory(self.function, {**self.args, **args})

    def __getattr__(self, name: str) -> NoReturn:
        if name in {"expand", "expand_kwargs", "partial"}:
            raise DagError(
                f"@task_group {self.function.__name__!r} is mapped with .{name}(), which comes in a later release."
            )
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"<@task_group function {self.function.__name__!r}>"


@overload
def task_group(function: Callable[P, R], /) -> GroupFactory[P, R]: ...
@overload
def task_group(group_id: str | None = None, /, **args: Any) -> Callable[[Callable[P, R]], GroupFactory[P, R]]: ...
def task_group(*positional: Any, **args: Any) -> Any:
    """Make a function into a factory of task groups: `@task_group` or `@task_group(group_id=..., tooltip=...)`."""
    if len(positional) == 1 and callable(positional[0]) and not args:
        return GroupFactory(positional[0], {})
    if len(positional) > 1 or (positional and positional[0] is not None and not isinstance(positional[0], str)):
        raise DagError("@task_group takes at most one positional argument, the group_id.")
    if positional and positional[0] is not None:
        args["group_id"] = positional[0]
    for name, value in args.items():
        if name not in _NAMES and name not in _LOOKS:
            refuse_unknown("@task_group", name, value, _NAMES, _LOOKS)
    return lambda function: GroupFactory(function, args)
