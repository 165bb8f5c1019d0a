"""DAG: `with DAG("id"):` and the `@dag` factory. Collects its tasks; `to_spec` turns it into data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypedDict, Unpack, overload

from tickless.authoring import param, registry
from tickless.authoring.arguments import (
    ABSENT_DAG_ARGUMENTS,
    TaskArguments,
    check_task_arguments,
    document,
    flag,
    optional_seconds,
    optional_text,
    refuse_unknown,
    text,
    whole,
)
from tickless.authoring.attributes import DagAttributes
from tickless.authoring.field import Templating
from tickless.authoring.param import read_params
from tickless.authoring.place import DagError, Place, caller, importing_file
from tickless.authoring.schedule import Timetable, read_schedule
from tickless.authoring.weight import with_effective_weights
from tickless.errors import UserError
from tickless.model.dag import DagSpec, EdgeLabel, check_id
from tickless.model.schedule import ScheduleKind

if TYPE_CHECKING:
    from tickless.authoring.group import TaskGroup
    from tickless.authoring.mapping import Partial
    from tickless.authoring.operators import Operator
    from tickless.authoring.template import Templates

P = ParamSpec("P")


class DagArguments(TypedDict, total=False):
    """What `DAG(...)` and `@dag(...)` take beside the id."""

    description: str | None
    schedule: str | timedelta | Timetable | None
    """When runs are due: a preset, cron, `@once`, `@continuous`, a timedelta, a timetable; None = only when asked."""
    start_date: datetime | None
    """No run is due before it. Its time zone is that of the schedule."""
    end_date: datetime | None
    """No run is due after it."""
    catchup: bool
    """Also make the runs that were due since start_date or the last run, instead of the latest one; default False."""
    is_paused_upon_creation: bool | None
    """Whether a DAG that was not known before begins paused; default: as configured."""
    max_consecutive_failed_dag_runs: int
    """Pause the DAG when this many runs have failed in a row; 0 = never; default: as configured."""
    tags: Iterable[str] | None
    max_active_tasks: int | None
    """Queued and running tasks of one run; default: the installation's `dag_concurrency`."""
    max_active_runs: int | None
    """Runs at once; default: the installation's `max_active_runs_per_dag`."""
    dagrun_timeout: float | timedelta | None
    """A run that has been running for so long fails: what runs of it is stopped, the rest is skipped."""
    fail_fast: bool
    """The first task that fails for good ends its run in the same way; default False."""
    default_args: TaskArguments | Mapping[str, Any] | None
    """Task arguments for every task that does not say otherwise."""
    doc_md: str | None
    params: Mapping[str, Any] | None
    """Names and defaults, or `Param`s, of what a run can be started with; conf gives other values."""
    template_searchpath: str | Iterable[str] | None
    """Folders of template files, after which that of the DAG file is searched."""
    template_undefined: Any
    """What a name in a template is that nobody defined; default: jinja2.StrictUndefined, an error."""
    user_defined_macros: Mapping[str, Any] | None
    user_defined_filters: Mapping[str, Callable[..., Any]] | None
    jinja_environment_kwargs: Mapping[str, Any] | None
    render_template_as_native_obj: bool
    """Templates give Python values instead of strings."""


class DAG(DagAttributes):
    """A DAG being written. It registers itself when it is made; `file` is the file it belongs to."""

    def __init__(self, dag_id: str, *, _place: Place | None = None, **args: Unpack[DagArguments]) -> None:
        self.place = _place or caller()
        self.file = importing_file()
        try:
            check_id("dag_id", dag_id)
        except UserError as error:
            raise DagError(error.message, hint=error.hint) from None
        self.dag_id = dag_id
        self.given = args
        self.fields = _check_arguments(dag_id, args)
        self.default_fields: dict[str, Any] = self.fields.pop("default_fields")
        self.params = read_params(f"DAG {dag_id!r}", args.get("params"))
        required = [name for name, each in self.params.items() if each.is_required]
        if required and self.fields["schedule"] is not None:
            raise DagError(
                f"DAG {dag_id!r} has a schedule, but its param {required[0]!r} has no default.",
                hint="Give it one: scheduled runs are started without a conf.",
            )
        self.templating = Templating.read(f"DAG {dag_id!r}", args)
        self._templates: Templates | None = None
        self.tasks: dict[str, Operator] = {}
        self.groups: dict[str, TaskGroup] = {}
        self.partials: list[Partial] = []
        """Every `.partial()` of its tasks."""
        self.edge_labels: dict[tuple[str, str], str] = {}
        registry.register(self)

    def add(self, task: Operator) -> None:
        """Called by each new operator."""
        if task.task_id in self.tasks:
            raise DagError(
                f"DAG {self.dag_id!r} has two tasks with the id {task.task_id!r}; "
                f"the first is made at {self.tasks[task.task_id].place}.",
                hint="Give one of them another task_id.",
            )
        if task.task_id in self.groups:
            raise DagError(
                f"DAG {self.dag_id!r} has a task and a group with the id {task.task_id!r}; "
                f"the group is made at {self.groups[task.task_id].place}.",
                hint="Give one of them another id.",
            )
        self.tasks[task.task_id] = task

    def current_group(self) -> TaskGroup | None:
        """The innermost group of this DAG whose `with` block or `@task_group` function is being executed."""
        return groups_open[-1] if groups_open and groups_open[-1].dag is self else None

    @property
    def templates(self) -> Templates:
        """Reads and renders its templates; made at the first use, which imports jinja2."""
        if self._templates is None:
            from tickless.authoring.template import Templates

            self._templates = Templates(self)
        return self._templates

    def param_defaults(self) -> dict[str, Any]:
        return {name: param.default for name, param in self.params.items()}

    def is_above(self, task_id: str, task: Operator) -> bool:
        """Whether a task has ended, one way or another, before `task` can start under the default trigger rule."""
        todo = list(task.upstream)
        seen = set(todo)
        for above in todo:  # grows while it is walked
            if above == task_id:
                return True
            new = [name for name in self.tasks[above].upstream if name not in seen]
            seen.update(new)
            todo += new
        return False

    def to_spec(self) -> DagSpec:
        """The DAG as data: checked, ordered, with effective priority weights."""
        try:
            for partial in self.partials:
                partial.check()
            specs = []
            for task in self.tasks.values():
                specs.append(task.to_spec())
            spec = DagSpec.build(
                dag_id=self.dag_id,
                tasks=specs,
                params=tuple(param.to_spec(name, each) for name, each in self.params.items()),
                groups=tuple(group.to_spec() for group in self.groups.values()),
                edge_labels=tuple(
                    EdgeLabel(upstream=above, downstream=below, label=label)
                    for (above, below), label in self.edge_labels.items()
                ),
                lineno=self.place.line if self.place.file == self.file else None,
                **self.fields,
            )
        except DagError:
            raise
        except UserError as error:
            raise DagError(error.message, hint=error.hint, place=self._place_of(error.message)) from None
        return with_effective_weights(spec, {task_id: task.weight_rule for task_id, task in self.tasks.items()})

    def _place_of(self, message: str) -> Place:
        """The line of the task that the message starts with; else that of the DAG."""
        for task in self.tasks.values():
            if message.startswith(f"task {task.task_id!r} of DAG"):
                return task.place
        return self.place

    def __enter__(self) -> DAG:
        if _open:
            raise DagError(
                f"DAG {self.dag_id!r} is opened inside DAG {_open[-1].dag_id!r}: DAGs do not nest.",
                hint="Call the @dag function, or open the `with` block, at the top level of the file.",
            )
        _open.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _open.remove(self)

    def __repr__(self) -> str:
        return f"<DAG {self.dag_id!r}>"


_open: list[DAG] = []
groups_open: list[TaskGroup] = []
"""The task groups that are being filled, innermost last."""


def current_dag() -> DAG | None:
    """The DAG whose `with` block or `@dag` function is being executed."""
    return _open[-1] if _open else None


@overload
def dag(function: Callable[P, Any], /) -> Callable[P, DAG]: ...
@overload
def dag(dag_id: str = "", /, **args: Unpack[DagArguments]) -> Callable[[Callable[P, Any]], Callable[P, DAG]]: ...
@overload
def dag(*, dag_id: str, **args: Unpack[DagArguments]) -> Callable[[Callable[P, Any]], Callable[P, DAG]]: ...
def dag(*positional: Any, **args: Any) -> Any:
    """Make a function into a factory of a DAG: the tasks made while it runs belong to the DAG.

    The id is `dag_id` or the function's name; its docstring is the default `doc_md`. The factory must be called.
    """
    if len(positional) == 1 and callable(positional[0]) and not args:
        return _factory(positional[0], None, {})
    if len(positional) > 1 or (positional and not isinstance(positional[0], str)):
        raise DagError("@dag takes at most one positional argument, the dag_id.")
    dag_id = args.pop("dag_id", None) or (positional[0] if positional else None)
    return lambda function: _factory(function, dag_id, args)


def _factory(function: Callable[P, Any], dag_id: str | None, args: dict[str, Any]) -> Callable[P, DAG]:
    code = function.__code__
    place = Place(code.co_filename, code.co_firstlineno)
    unused = registry.Factory(function.__name__, place)
    registry.factories.append(unused)

    @functools.wraps(function)
    def make(*call_args: P.args, **call_kwargs: P.kwargs) -> DAG:
        unused.is_called = True
        given: Any = {"doc_md": function.__doc__, **args}
        with DAG(dag_id or function.__name__, _place=place, **given) as made:
            function(*call_args, **call_kwargs)
        return made

    return make


def _check_arguments(dag_id: str, args: DagArguments) -> dict[str, Any]:
    """DAG arguments as written -> fields of a DagSpec, plus `default_fields`."""
    of = f"DAG {dag_id!r}"
    for name, value in args.items():
        if name not in DagArguments.__annotations__:
            refuse_unknown(of, name, value, ["dag_id", *DagArguments.__annotations__], ABSENT_DAG_ARGUMENTS)
    tags = args.get("tags") or ()
    if isinstance(tags, str):
        raise DagError(f"tags of {of} is the string {tags!r}, but must be a list of strings.")
    defaults = dict(args.get("default_args") or {})
    if "dag" in defaults:
        raise DagError(f"default_args of {of} has no argument 'dag'.")
    schedule = read_schedule(of, args, defaults)
    for name in ("start_date", "end_date"):
        defaults.pop(name, None)  # of the schedule; Airflow's users write them here, too
    paused = args.get("is_paused_upon_creation")
    failures = args.get("max_consecutive_failed_dag_runs")
    return {
        "schedule": schedule,
        "is_paused_upon_creation": None if paused is None else flag(f"is_paused_upon_creation of {of}", paused),
        "max_consecutive_failed_dag_runs": (
            None if failures is None else _limit(f"max_consecutive_failed_dag_runs of {of}", failures, least=0)
        ),
        "description": optional_text(f"description of {of}", args.get("description")),
        "tags": tuple(dict.fromkeys(text(f"a tag of {of}", tag) for tag in tags)),
        "max_active_tasks": _limit(f"max_active_tasks of {of}", args.get("max_active_tasks")),
        "max_active_runs": (
            _limit(f"max_active_runs of {of}", args.get("max_active_runs"))
            if schedule is None or schedule.kind is not ScheduleKind.CONTINUOUS
            else 1
        ),
        "dagrun_timeout_seconds": optional_seconds(f"dagrun_timeout of {of}", args.get("dagrun_timeout")),
        "fail_fast": flag(f"fail_fast of {of}", args.get("fail_fast", False)),
        "doc": document(f"doc_md of {of}", args.get("doc_md")),
        "default_fields": check_task_arguments(f"default_args of {of}", defaults),
    }


def _limit(name: str, value: object, *, least: int = 1) -> int | None:
    if value is None:
        return None
    limit = whole(name, value)
    if limit < least:
        raise DagError(f"{name} is {limit}, but must be at least {least}.")
    return limit
