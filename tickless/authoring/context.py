"""What a running task knows of itself and its run, and what it has to say beside its return value.

A runner makes one `TaskInstance` per attempt. The context (Airflow's word) is the dict of it that functions get as
arguments and templates as names; it is only built when somebody asks for it.
"""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tickless.authoring import macros
from tickless.authoring.daemon import daemon
from tickless.authoring.dagrun import DagRun
from tickless.authoring.keys import CONTEXT, TASK_INSTANCE
from tickless.authoring.standin import Context, Lazy
from tickless.authoring.xcom import RETURN_KEY
from tickless.exceptions import AirflowException, AirflowNotFoundException
from tickless.model.dag import TaskKind
from tickless.model.id import UNMAPPED
from tickless.model.order import Order
from tickless.model.state import RunState, TaskState

if TYPE_CHECKING:
    from tickless.authoring.dag import DAG
    from tickless.authoring.operators import Operator

MAX_PUSHED = 1000
"""Keys that one attempt can push under: they are rows of one commit."""
_STORABLE = re.compile("[^\0\ud800-\udfff]+")
_ABSENT: Any = object()

CONTEXT_KEYS = frozenset(CONTEXT)
"""What the context holds: names that a function may have as arguments without being given them."""


class TaskInstanceKey(NamedTuple):
    """Names an attempt, for people and their dicts."""

    dag_id: str
    task_id: str
    run_id: str
    try_number: int
    map_index: int


class TaskInstance:
    """The `ti` of a running task. What it is told here leaves with the outcome of the attempt, and not before."""

    __slots__ = (
        "_context",
        "_encode",
        "_inputs",
        "_previous",
        "follow",
        "multiple_outputs",
        "order",
        "pushed",
        "skip_below",
        "start_date",
    )

    def __init__(
        self,
        order: Order,
        inputs: Mapping[Any, Any],
        encode: Callable[[str, Any], str | None],
    ) -> None:
        """`inputs`: task id -> return value, and (task id, key) -> pushed value. `encode` makes JSON, or raises."""
        self.order = order
        self.pushed: dict[str, str] = {}
        """Key -> JSON text."""
        self.multiple_outputs = False
        """Each item of the return value is pushed under its own key, too."""
        self.follow: tuple[str, ...] | None = None
        """Of the tasks directly below, those that shall run; None: all, as their trigger rules say."""
        self.skip_below = False
        """Skip everything below, whatever the trigger rules say."""
        self.start_date = datetime.now(UTC)
        """When this process began with the task; what the database has is when its gate was opened."""
        self._inputs = inputs
        self._encode = encode
        self._context: Context | None = None
        self._previous: dict[RunState | None, DagRun | None] = {}

    @property
    def task_id(self) -> str:
        return self.order.task_id

    @property
    def dag_id(self) -> str:
        return self.order.dag_id

    @property
    def run_id(self) -> str:
        return self.order.run_id

    @property
    def map_index(self) -> int:
        return self.order.map_index

    @property
    def try_number(self) -> int:
        return self.order.try_number

    @property
    def max_tries(self) -> int:
        """How many tries may follow the first."""
        return int(self.task.fields.get("retries", 0))

    @property
    def task(self) -> Operator:
        return self.dag.tasks[self.order.task_id]

    @property
    def dag(self) -> DAG:
        from tickless.authoring.registry import dags

        return dags[self.order.dag_id]

    @property
    def dag_run(self) -> DagRun:
        run: DagRun = self.get_template_context()["dag_run"]
        return run

    @property
    def state(self) -> str:
        return TaskState.RUNNING.value

    @property
    def end_date(self) -> None:
        """It runs."""

    @property
    def hostname(self) -> str:
        return socket.gethostname()

    @property
    def operator(self) -> str:
        return self.task.operator_name

    @property
    def pool(self) -> str:
        return str(self.task.pool)

    @property
    def queue(self) -> str:
        return str(self.task.queue)

    @property
    def priority_weight(self) -> int:
        """Its own; what counts in the queue may include that of the tasks below."""
        return int(self.task.priority_weight)

    @property
    def key(self) -> TaskInstanceKey:
        return TaskInstanceKey(self.dag_id, self.task_id, self.run_id, self.try_number, self.map_index)

    @property
    def log(self) -> logging.Logger:
        return logging.getLogger("tickless.task")

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"ti has no {name!r} in this release; it has {', '.join(TASK_INSTANCE)}")

    def get_previous_dagrun(self, state: str | None = None) -> DagRun | None:
        """The run of this DAG before its own by logical date (a run without one counts from when it was asked for);
        the latest one in this state, if a state is given. The daemon is asked once."""
        wanted = None if state is None else RunState(state)
        if wanted not in self._previous:
            found = daemon("the previous run").previous_run(wanted)
            self._previous[wanted] = None if found is None else DagRun(found)
        return self._previous[wanted]

    def xcom_push(self, key: object, value: Any) -> None:
        """Hand on a value under a key. It can be read once this task has ended, also when it fails."""
        if not isinstance(key, str) or not 1 <= len(key) <= 512 or not _STORABLE.fullmatch(key):
            raise AirflowException(f"the key of an XCom is {key!r}, but must be a text of 1 to 512 characters")
        if len(self.pushed) >= MAX_PUSHED and key not in self.pushed:
            raise AirflowException(
                f"task {self.order.task_id!r} pushes under more than {MAX_PUSHED} keys; push one list or dict instead "
                "(and say multiple_outputs=False if the task is annotated to return a dict)"
            )
        if self.order.kind is TaskKind.BASH:
            raise AirflowException(
                "a bash task cannot push: its process becomes the command. The last line of its output is its return "
                "value; what else is to be handed on can be pushed by a @task before or after it"
            )
        text = self._encode(key, value)
        self.pushed[key] = "null" if text is None else text

    def xcom_pull(
        self,
        task_ids: str | Iterable[str] | None = None,
        key: str = RETURN_KEY,
        *,
        default: Any = None,
        map_indexes: int | Sequence[int] | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        include_prior_dates: bool = False,
    ) -> Any:
        """What tasks have handed on: a list for a list of ids, and for a mapped task. `default` is for what is missing.

        Of its own run, if no other is named. What the task was given is at hand; for the rest the daemon is asked.
        """
        if include_prior_dates:
            raise AirflowException(
                "xcom_pull(include_prior_dates=True) is not there; name the run: "
                "xcom_pull(…, run_id=ti.get_previous_dagrun().run_id)"
            )
        is_here = map_indexes is None and dag_id in (None, self.order.dag_id) and run_id in (None, self.order.run_id)

        def pull(task_id: str) -> Any:
            value = self._at_hand(task_id, key) if is_here else _ABSENT
            if value is _ABSENT:
                value = _pull(task_id, key, map_indexes, dag_id, run_id)
            return default if value is None else value

        if task_ids is None or isinstance(task_ids, str):
            return pull(task_ids or self.order.task_id)
        return [pull(task_id) for task_id in task_ids]

    def _at_hand(self, task_id: str, key: str) -> Any:
        if task_id == self.order.task_id and key in self.pushed:
            return json.loads(self.pushed[key])
        return self._inputs.get(task_id if key == RETURN_KEY else (task_id, key), _ABSENT)

    def get_template_context(self) -> Context:
        """The context; made once, then the same dict."""
        if self._context is None:
            self._context = self._make_context()
        return self._context

    def _make_context(self) -> Context:
        run = DagRun.of(self.order)
        at = run.run_after
        dag, task = self.dag, self.task
        conf: dict[str, Any] = run.conf or {}

        def previous(name: str) -> Lazy:
            return Lazy(lambda: getattr(self.get_previous_dagrun(RunState.SUCCESS), name, None))

        context: dict[str, Any] = {
            "conf": conf,
            "conn": Reader(_read_connection),
            "dag": dag,
            "dag_run": run,
            "data_interval_end": run.data_interval_end,
            "data_interval_start": run.data_interval_start,
            "inlets": [],
            "logical_date": at,
            "macros": macros,
            "outlets": [],
            "params": {**dag.param_defaults(), **task.params, **conf},
            "prev_data_interval_end_success": previous("data_interval_end"),
            "prev_data_interval_start_success": previous("data_interval_start"),
            "prev_end_date_success": previous("end_date"),
            "prev_start_date_success": previous("start_date"),
            "run_id": run.run_id,
            "task": task,
            "task_instance": self,
            "task_instance_key_str": f"{run.dag_id}__{task.task_id}__{macros.ds_nodash(at) if at else run.run_id}",
            "templates_dict": None,
            "test_mode": False,
            "ti": self,
            "try_number": self.order.try_number,
            "var": Variables(),
        }
        if at is not None:
            for name in ("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"):
                context[name] = getattr(macros, name)(at)
        return Context(context)


class Reader:
    """`var.value`, `var.json` and `conn` in templates: `.NAME`, or `.get(NAME, default)`."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._read(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value; the default when there is none."""
        try:
            return self._read(name)
        except (KeyError, AirflowNotFoundException):
            return default


class Variables:
    """`var` in templates."""

    def __init__(self) -> None:
        self.value = Reader(_read_variable)
        self.json = Reader(lambda name: json.loads(_read_variable(name)))


def _read_variable(name: str) -> Any:
    from tickless.authoring.variable import Variable

    return Variable.get(name)


def _read_connection(name: str) -> Any:
    from tickless.authoring.connection import Connection

    return Connection.get(name)


def _pull(
    task_id: str, key: str, map_indexes: int | Sequence[int] | None, dag_id: str | None, run_id: str | None
) -> Any:
    """From the daemon; None when there is nothing."""
    wanted = [map_indexes] if isinstance(map_indexes, int) else map_indexes
    found = daemon(f"the XCom {key!r} of task {task_id!r}").xcoms(
        task_ids=[task_id], map_indexes=wanted, key=key, dag_id=dag_id, run_id=run_id
    )
    if not found:
        return None
    is_one = isinstance(map_indexes, int) or (map_indexes is None and found[0].map_index == UNMAPPED)
    return found[0].value if is_one else [each.value for each in found]


_running: TaskInstance | None = None


def enter(instance: TaskInstance) -> None:
    """Called by the runner: this process runs this task."""
    global _running
    _running = instance


def get_current_context() -> Context:
    """The context of the task that is running; for code that is not given it."""
    if _running is None:
        raise RuntimeError("get_current_context() is called, but no task is running in this process")
    return _running.get_template_context()
