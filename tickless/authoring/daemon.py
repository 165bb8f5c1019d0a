"""The daemon, as the code of a running task sees it: what it may ask for. A runner provides it; nobody else does.

A call returns when the daemon has answered, however long that takes: it survives the daemon's restarts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from tickless.errors import UserError
from tickless.model.state import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class XCom:
    """One value that a task instance has handed on."""

    task_id: str
    map_index: int
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggeredRun:
    """A run that was started."""

    dag_id: str
    run_id: str
    run: int


class Daemon(Protocol):
    """Raises NotFound, Refused or another UserError."""

    def xcoms(
        self,
        *,
        task_ids: Sequence[str] | None = None,
        map_indexes: Sequence[int] | None = None,
        key: str = "return_value",
        dag_id: str | None = None,
        run_id: str | None = None,
        after: int | None = None,
    ) -> list[XCom]:
        """What tasks of a run have handed on, by task id and map index; None: of all. The own run, if none is named.

        With `after`, of one task: as many as fit into an answer after that map index; none when there are no more.
        """
        ...

    def variable(self, key: str) -> str: ...

    def set_variable(self, key: str, value: str, description: str | None = None) -> None: ...

    def delete_variable(self, key: str) -> bool: ...

    def connection(self, conn_id: str) -> dict[str, Any]: ...

    def trigger(
        self, dag_id: str, *, conf: str = "{}", run_id: str | None = None, logical_date: datetime | None = None
    ) -> TriggeredRun: ...

    def run_state(self, dag_id: str, run_id: str, *, until: Sequence[RunState] | None = None) -> str:
        """The state of a run. With `until` it is answered when that is one of these, or earlier: then ask again."""
        ...

    def previous_run(self, state: RunState | None = None) -> dict[str, Any] | None:
        """The run before the own one (in this state), as `dagrun.DagRun` takes it."""
        ...


class _Held:
    daemon: Daemon | None = None


def provide(daemon: Daemon) -> None:
    """Called by the runner."""
    _Held.daemon = daemon


def daemon(what: str) -> Daemon:
    """The daemon; `what` is about to be asked for. UserError where no task runs."""
    if _Held.daemon is None:
        raise UserError(
            f"{what} was asked for outside of a running task",
            hint="Ask inside of the task's function: a DAG file is parsed again and again, and must not depend on it.",
        )
    return _Held.daemon
