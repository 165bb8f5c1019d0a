"""Arguments that say when a task runs, waits and runs again: from the file to the spec, as a table."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tickless import DAG, EmptyOperator
from tickless.authoring.place import DagError
from tickless.model.state import TriggerRule


@pytest.mark.parametrize(
    ("args", "fields"),
    [
        ({}, {"retry_exponential_backoff": 0.0, "max_retry_delay_seconds": None}),
        ({"retry_exponential_backoff": True}, {"retry_exponential_backoff": 2.0}),
        ({"retry_exponential_backoff": False}, {"retry_exponential_backoff": 0.0}),
        ({"retry_exponential_backoff": 3}, {"retry_exponential_backoff": 3.0}),
        ({"retry_exponential_backoff": 1.5}, {"retry_exponential_backoff": 1.5}),
        ({"max_retry_delay": timedelta(minutes=10)}, {"max_retry_delay_seconds": 600.0}),
        ({"max_retry_delay": 90}, {"max_retry_delay_seconds": 90.0}),
        ({"max_active_tis_per_dag": 3}, {"max_active_tis_per_dag": 3, "max_active_tis_per_dagrun": None}),
        ({"max_active_tis_per_dagrun": 2}, {"max_active_tis_per_dag": None, "max_active_tis_per_dagrun": 2}),
        ({"trigger_rule": "dummy"}, {"trigger_rule": TriggerRule.ALWAYS}),
        ({"trigger_rule": "none_failed_or_skipped"}, {"trigger_rule": TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS}),
        ({"trigger_rule": "none_failed"}, {"trigger_rule": TriggerRule.NONE_FAILED}),
    ],
)
def test_what_is_written_is_in_the_spec(args: dict[str, Any], fields: dict[str, Any]) -> None:
    with DAG("x") as single:
        EmptyOperator(task_id="t", **args)
    with DAG("y", default_args=args) as by_default:
        EmptyOperator(task_id="t")
    for made in (single, by_default):
        spec = made.to_spec().tasks[0]
        assert {name: getattr(spec, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"retry_exponential_backoff": -1}, "must be True, False or a multiplier"),
        ({"retry_exponential_backoff": "2"}, "must be True, False or a multiplier"),
        ({"retry_exponential_backoff": float("inf")}, "must be True, False or a multiplier"),
        ({"max_retry_delay": "10m"}, "must be a number of seconds or a timedelta"),
        ({"max_active_tis_per_dag": 0}, "max_active_tis_per_dag is 0, but must be at least 1"),
        ({"max_active_tis_per_dagrun": "1"}, "must be a whole number"),
        ({"max_retry_delay": 0}, "max_retry_delay is 0.0 s, but must be above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(args: dict[str, Any], words: str) -> None:
    def write() -> None:
        with DAG("x") as made:
            EmptyOperator(task_id="t", **args)
        made.to_spec()

    with pytest.raises(DagError) as caught:
        write()
    assert words in str(caught.value)
    assert caught.value.place.file == __file__
