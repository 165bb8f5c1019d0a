"""tickless: a workflow scheduler that never ticks. DAG files import their vocabulary from here.

The names load on first use, so that `tickless --help`, the launcher and the worker do not pay for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickless.authoring.bash import BashOperator
    from tickless.authoring.branch import BranchPythonOperator, ShortCircuitOperator
    from tickless.authoring.dag import DAG, dag
    from tickless.authoring.operators import EmptyOperator, PythonOperator
    from tickless.authoring.relation import chain
    from tickless.authoring.task import task
    from tickless.authoring.xcom import XComArg
    from tickless.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowSkipException,
        TaskFailed,
        TaskSkipped,
    )
    from tickless.model.state import TriggerRule

__all__ = [
    "DAG",
    "AirflowException",
    "AirflowFailException",
    "AirflowSkipException",
    "BashOperator",
    "BranchPythonOperator",
    "EmptyOperator",
    "PythonOperator",
    "ShortCircuitOperator",
    "TaskFailed",
    "TaskSkipped",
    "TriggerRule",
    "XComArg",
    "chain",
    "dag",
    "task",
]

_HOMES = {
    "DAG": "tickless.authoring.dag",
    "AirflowException": "tickless.exceptions",
    "AirflowFailException": "tickless.exceptions",
    "AirflowSkipException": "tickless.exceptions",
    "BashOperator": "tickless.authoring.bash",
    "BranchPythonOperator": "tickless.authoring.branch",
    "EmptyOperator": "tickless.authoring.operators",
    "PythonOperator": "tickless.authoring.operators",
    "ShortCircuitOperator": "tickless.authoring.branch",
    "TaskFailed": "tickless.exceptions",
    "TaskSkipped": "tickless.exceptions",
    "TriggerRule": "tickless.model.state",
    "XComArg": "tickless.authoring.xcom",
    "chain": "tickless.authoring.relation",
    "dag": "tickless.authoring.dag",
    "task": "tickless.authoring.task",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tickless' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
