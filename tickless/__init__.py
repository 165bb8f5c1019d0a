"""tickless: a workflow scheduler that never ticks. DAG files import their vocabulary from here.

The names load on first use, so that `tickless --help`, the launcher and the worker do not pay for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickless.authoring.bash import BashOperator
    from tickless.authoring.branch import BranchPythonOperator, ShortCircuitOperator
    from tickless.authoring.connection import Connection, get_connection
    from tickless.authoring.context import get_current_context
    from tickless.authoring.dag import DAG, dag
    from tickless.authoring.group import TaskGroup, task_group
    from tickless.authoring.operators import EmptyOperator, PythonOperator
    from tickless.authoring.param import Param
    from tickless.authoring.relation import Label, chain, chain_linear, cross_downstream
    from tickless.authoring.schedule import (
        CronDataIntervalTimetable,
        CronTriggerTimetable,
        DeltaDataIntervalTimetable,
        DeltaTriggerTimetable,
        MultipleCronTriggerTimetable,
    )
    from tickless.authoring.task import task
    from tickless.authoring.trigger import TriggerDagRunOperator, trigger_dag
    from tickless.authoring.variable import Variable
    from tickless.authoring.xcom import XComArg
    from tickless.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSkipException,
        TaskFailed,
        TaskSkipped,
    )
    from tickless.model.state import TriggerRule

__all__ = [
    "DAG",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSkipException",
    "BashOperator",
    "BranchPythonOperator",
    "Connection",
    "CronDataIntervalTimetable",
    "CronTriggerTimetable",
    "DeltaDataIntervalTimetable",
    "DeltaTriggerTimetable",
    "EmptyOperator",
    "Label",
    "MultipleCronTriggerTimetable",
    "Param",
    "PythonOperator",
    "ShortCircuitOperator",
    "TaskFailed",
    "TaskGroup",
    "TaskSkipped",
    "TriggerDagRunOperator",
    "TriggerRule",
    "Variable",
    "XComArg",
    "chain",
    "chain_linear",
    "cross_downstream",
    "dag",
    "get_connection",
    "get_current_context",
    "task",
    "task_group",
    "trigger_dag",
]

_HOMES = {
    "DAG": "tickless.authoring.dag",
    "AirflowException": "tickless.exceptions",
    "AirflowFailException": "tickless.exceptions",
    "AirflowNotFoundException": "tickless.exceptions",
    "AirflowSkipException": "tickless.exceptions",
    "BashOperator": "tickless.authoring.bash",
    "BranchPythonOperator": "tickless.authoring.branch",
    "Connection": "tickless.authoring.connection",
    "EmptyOperator": "tickless.authoring.operators",
    "Label": "tickless.authoring.relation",
    "Param": "tickless.authoring.param",
    "PythonOperator": "tickless.authoring.operators",
    "ShortCircuitOperator": "tickless.authoring.branch",
    "TaskFailed": "tickless.exceptions",
    "TaskGroup": "tickless.authoring.group",
    "TaskSkipped": "tickless.exceptions",
    "TriggerRule": "tickless.model.state",
    "Variable": "tickless.authoring.variable",
    "XComArg": "tickless.authoring.xcom",
    "chain": "tickless.authoring.relation",
    "chain_linear": "tickless.authoring.relation",
    "cross_downstream": "tickless.authoring.relation",
    "dag": "tickless.authoring.dag",
    "get_current_context": "tickless.authoring.context",
    "task": "tickless.authoring.task",
    "task_group": "tickless.authoring.group",
    "TriggerDagRunOperator": "tickless.authoring.trigger",
    "trigger_dag": "tickless.authoring.trigger",
    "get_connection": "tickless.authoring.connection",
    "CronDataIntervalTimetable": "tickless.authoring.schedule",
    "CronTriggerTimetable": "tickless.authoring.schedule",
    "DeltaDataIntervalTimetable": "tickless.authoring.schedule",
    "DeltaTriggerTimetable": "tickless.authoring.schedule",
    "MultipleCronTriggerTimetable": "tickless.authoring.schedule",
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
