"""From a committed attempt to its order. Everything in an order comes from committed rows, so it can be built again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from tickless.core.record import Attempt, Instance
from tickless.model.id import RunKey
from tickless.model.order import Order

CACHE_BYTES = 16 * 1024 * 1024


class OutputCache:
    """Return values of tasks that ended lately, so that the next task's order needs no query. Bounded in bytes.

    `None` is an entry too: the task returned nothing.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._values: OrderedDict[tuple[RunKey, str], str | None] = OrderedDict()
        self._limit = limit_bytes
        self._bytes = 0

    def put(self, run: RunKey, task_id: str, value: str | None) -> None:
        self._bytes += _size(value) - (
            _size(old) if (old := self._values.pop((run, task_id), _ABSENT)) != _ABSENT else 0
        )
        self._values[run, task_id] = value
        while self._bytes > self._limit:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= _size(dropped)

    def find(self, run: RunKey, task_ids: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
        """The values that are here, and the task ids of which nothing is known here."""
        found, unknown = {}, []
        for task_id in task_ids:
            value = self._values.get((run, task_id), _ABSENT)
            if value is _ABSENT:
                unknown.append(task_id)
            elif value is not None:
                found[task_id] = value
        return found, unknown


_ABSENT = "\0absent"
_ENTRY_BYTES = 200


def _size(value: str | None) -> int:
    return _ENTRY_BYTES + (len(value) if value is not None else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRules:
    """The settings that go into every order."""

    kill_grace_seconds: float
    max_output_bytes: int


def build_order(attempt: Attempt, instance: Instance, inputs: Mapping[str, str], rules: OrderRules) -> Order:
    """The order of one attempt; `inputs` holds the return values that its task reads."""
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
        logical_date=run.row.logical_date.isoformat() if run.row.logical_date is not None else None,
        inputs=inputs or None,
        command=spec.command,
        needs_runner=spec.needs_runner,
        env=spec.env,
        append_env=spec.append_env,
        cwd=spec.cwd,
        skip_on_exit_code=spec.skip_on_exit_code,
        do_xcom_push=spec.do_xcom_push,
    )
