"""TriggerDagRunOperator: what is wrong with one is an error of the DAG file; and what asks outside of a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tickless.authoring import daemon as held
from tickless.authoring import registry
from tickless.authoring.connection import Connection
from tickless.authoring.dag import DAG
from tickless.authoring.place import DagError
from tickless.authoring.trigger import TriggerDagRunOperator, trigger_dag
from tickless.authoring.variable import Variable
from tickless.errors import UserError


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No task runs here."""
    registry.reset()
    monkeypatch.setattr(held._Held, "daemon", None)
    yield
    registry.reset()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"poke_interval": 0}, "poke_interval .* above 0"),
        ({"poke_interval": -1}, "poke_interval .* above 0"),
        ({"poke_interval": "often"}, "poke_interval"),
        ({"allowed_states": ["done"]}, "'done'; a run is one of queued, running, success, failed"),
        ({"wait_for_completion": "yes"}, "wait_for_completion"),
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, Any], complaint: str) -> None:
    with DAG("d"), pytest.raises(DagError, match=complaint):
        TriggerDagRunOperator(task_id="t", trigger_dag_id="other", **given)


def test_nothing_is_asked_for_outside_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for call in (
        lambda: Variable.get("k"),
        lambda: Variable.get("k", "default"),
        lambda: Variable.set("k", "v"),
        lambda: Connection.get("c"),
        lambda: trigger_dag("d"),
    ):
        with pytest.raises(UserError, match="outside of a running task"):
            call()
    monkeypatch.setenv("TICKLESS_VAR_K", "1")
    monkeypatch.setenv("AIRFLOW_VAR_K", "2")
    monkeypatch.setenv("AIRFLOW_CONN_C", '{"conn_type": "http", "host": "h"}')
    assert Variable.get("k") == "1", "the environment needs no daemon, and ours comes before Airflow's"
    assert Connection.get("c").host == "h"
