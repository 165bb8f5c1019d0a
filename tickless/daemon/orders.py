"""From a committed attempt to its order. Everything in an order comes from committed rows, so it can be built again."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import anyio
import msgspec

from tickless.core.attempts import XCOM_RETURN_KEY
from tickless.core.mapping import lengths_of, picks
from tickless.core.plan import TaskPlan
from tickless.core.record import Attempt, Instance
from tickless.model.id import RunKey
from tickless.model.order import Order
from tickless.store.base import Store

CACHE_BYTES = 16 * 1024 * 1024
CACHE_LISTS = 16
MAX_ELEMENTS_BYTES = 64 * 1024 * 1024
"""Of all values of a mapped task, when another one is mapped over them: they are held in memory meanwhile."""


@dataclass(frozen=True, slots=True)
class Elements:
    """What a task has handed on, taken apart: JSON texts of the elements of a list, or of the items of a dict."""

    texts: Sequence[str]
    keys: Sequence[str] | None = None


@dataclass(slots=True)
class Inputs:
    """What an order carries of what other tasks have handed on: JSON texts, and what is not at hand."""

    outputs: dict[str, str] = field(default_factory=dict)
    """Task id -> its return value."""
    pushed: dict[tuple[str, str], str] = field(default_factory=dict)
    """(Task id, key) -> what it has pushed."""
    map_picks: dict[str, int] | None = None
    """Of a mapped task: argument -> which element."""
    map_values: dict[str, str] = field(default_factory=dict)
    """Argument -> the element, where another task has handed it on."""
    map_keys: dict[str, str] = field(default_factory=dict)
    """Argument -> the key of the element, where that is an item of a dict."""
    unknown_elements: list[TaskPlan] = field(default_factory=list)
    """Tasks whose single elements are needed."""
    unknown_outputs: list[str] = field(default_factory=list)
    unknown_pushed: list[tuple[str, str]] = field(default_factory=list)
    refusal: str | None = None
    """Why no order can be built: what the task is mapped over is not there any more."""

    @property
    def is_complete(self) -> bool:
        return not self.unknown_outputs and not self.unknown_pushed and not self.unknown_elements

    async def complete(self, store: Store, run: RunKey) -> None:
        """Read what is not at hand."""
        if self.unknown_outputs:
            self.outputs |= await store.outputs(run, self.unknown_outputs)
        if self.unknown_pushed:
            self.pushed |= await store.pushed(run, self.unknown_pushed)

    def keys(self) -> dict[str, dict[str, str]] | None:
        """What was pushed, as an order has it."""
        by_task: dict[str, dict[str, str]] = {}
        for (task_id, key), value in self.pushed.items():
            by_task.setdefault(task_id, {})[key] = value
        return by_task or None


class OutputCache:
    """What tasks that ended lately have handed on, so that the next task's order needs no query. Bounded in bytes.

    A task that handed on nothing is an entry too.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._values: OrderedDict[tuple[RunKey, str], Mapping[str, str]] = OrderedDict()  # key -> value
        self._elements: OrderedDict[tuple[RunKey, str], Elements] = OrderedDict()
        """What is handed on element by element, taken apart once."""
        self._reading = anyio.Lock()
        self._limit = limit_bytes
        self._bytes = 0

    def put(self, run: RunKey, task_id: str, values: Mapping[str, str]) -> None:
        """All that a task has handed on, by key."""
        self._elements.pop((run, task_id), None)
        old = self._values.pop((run, task_id), None)
        self._bytes += _size(values) - (_size(old) if old is not None else 0)
        self._values[run, task_id] = values
        while self._bytes > self._limit:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= _size(dropped)

    def forget(self, run: RunKey, task_id: str) -> None:
        """Nothing is known of this task here any more."""
        self._elements.pop((run, task_id), None)
        old = self._values.pop((run, task_id), None)
        if old is not None:
            self._bytes -= _size(old)

    def find(self, instance: Instance) -> Inputs:
        """What the task instance reads, as far as it is here."""
        run, task = instance.run.key, instance.task.spec
        found = Inputs()
        for task_id in task.inputs:
            values = self._values.get((run, task_id))
            if values is None:
                found.unknown_outputs.append(task_id)
            elif (value := values.get(XCOM_RETURN_KEY)) is not None:
                found.outputs[task_id] = value
        for pair in task.input_keys:
            values = self._values.get((run, pair[0]))
            if values is None:
                found.unknown_pushed.append(pair)
            elif (value := values.get(pair[1])) is not None:
                found.pushed[pair] = value
        if task.mapped:
            self._find_elements(instance, found)
        return found

    def _find_elements(self, instance: Instance, found: Inputs) -> None:
        """Which elements the instance gets, as of now: what it is mapped over may have been made anew meanwhile."""
        run, task = instance.run, instance.task
        lengths = lengths_of(run, task)
        if lengths is None or instance.map_index >= math.prod(lengths):
            found.refusal = "what it is mapped over is not there any more, or has fewer elements: clear it, too"
            return
        found.map_picks = {}
        for over, source, index in zip(
            task.spec.mapped, task.sources, picks(lengths, instance.map_index), strict=True
        ):
            found.map_picks[over.argument] = index
            if source is None:
                continue
            above = run.plan.tasks[source]
            elements = self._elements.get((run.key, above.spec.task_id))
            if elements is None:
                found.unknown_elements.append(above)
            elif index >= len(elements.texts):
                found.refusal = f"{above.spec.task_id} has handed on {len(elements.texts)} elements, but it needs more"
            else:
                self._elements.move_to_end((run.key, above.spec.task_id))
                found.map_values[over.argument] = elements.texts[index]
                if elements.keys is not None:
                    found.map_keys[over.argument] = elements.keys[index]

    async def read_elements(self, store: Store, run: RunKey, task: TaskPlan) -> None:
        """Take what a task has handed on apart, for the instances that get one element each. Raises TooMuch."""
        key = (run, task.spec.task_id)
        async with self._reading:  # many instances start at once, and want the same
            if key in self._elements:
                return
            if task.spec.mapped:
                rows = await store.pull_xcoms(run, XCOM_RETURN_KEY, task_ids=key[1:], most_bytes=MAX_ELEMENTS_BYTES)
                elements = Elements([row.value for row in rows])
            else:
                elements = take_apart((await store.outputs(run, key[1:])).get(task.spec.task_id, "[]"))
            self._elements[key] = elements
            while len(self._elements) > CACHE_LISTS:
                self._elements.popitem(last=False)


def take_apart(text: str) -> Elements:
    """The elements of a JSON list, or the items of a JSON object; nothing else has any."""
    if text.startswith("{"):
        items = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        return Elements([bytes(value).decode() for value in items.values()], list(items))
    if not text.startswith("["):
        return Elements([])
    return Elements([bytes(value).decode() for value in msgspec.json.decode(text, type=list[msgspec.Raw])])


_ENTRY_BYTES = 200


def _size(values: Mapping[str, str]) -> int:
    return _ENTRY_BYTES + sum(len(key) + len(value) for key, value in values.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRules:
    """The settings that go into every order."""

    kill_grace_seconds: float
    max_output_bytes: int


def build_order(attempt: Attempt, instance: Instance, inputs: Inputs, rules: OrderRules) -> Order:
    """The order of one attempt; `inputs` holds what its task reads."""
    run, spec, row = instance.run, instance.task.spec, attempt.row
    version = run.plan.version
    return Order(
        attempt_id=row.attempt_id,
        executor=row.executor,
        dag_id=run.row.dag_id,
        run_key=run.key,
        run_id=run.row.run_id,
        task_id=row.task_id,
        map_index=row.map_index,
        try_number=row.try_number,
        kind=spec.kind,
        bundle=version.bundle,
        file=version.file,
        version=version.hash,
        log_path=row.log_path,
        kill_grace_seconds=rules.kill_grace_seconds,
        max_output_bytes=rules.max_output_bytes,
        conf=run.row.conf,
        logical_date=_text(run.row.logical_date),
        map_picks=inputs.map_picks,
        map_values=inputs.map_values or None,
        map_keys=inputs.map_keys or None,
        inputs=inputs.outputs or None,
        input_keys=inputs.keys(),
        run_type=run.row.run_type,
        run_queued_at=run.row.queued_at.isoformat(),
        run_started_at=_text(run.started_at),
        data_interval_start=_text(run.row.data_interval_start),
        data_interval_end=_text(run.row.data_interval_end),
        command=spec.command,
        needs_runner=spec.needs_runner,
        env=spec.env,
        append_env=spec.append_env,
        cwd=spec.cwd,
        skip_on_exit_code=spec.skip_on_exit_code,
        do_xcom_push=spec.do_xcom_push,
    )


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
