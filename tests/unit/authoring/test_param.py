"""Params: read from a DAG file, and held against the conf of a run."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tickless import DAG, EmptyOperator, Param
from tickless.authoring.place import DagError
from tickless.daemon.conf import check_conf
from tickless.errors import UserError
from tickless.model.dag import DagSpec, ParamSpec


def spec_with(params: dict[str, Any]) -> DagSpec:
    with DAG("x", params=params) as made:
        EmptyOperator(task_id="t")
    return made.to_spec()


def test_params_are_data_in_the_spec() -> None:
    spec = spec_with(
        {"plain": 3, "full": Param("a", "What.", type="string", enum=["a", "b"]), "asked": Param(type="integer")}
    )
    assert spec.params == (
        ParamSpec(name="plain", default=3),
        ParamSpec(name="full", default="a", description="What.", schema={"type": "string", "enum": ["a", "b"]}),
        ParamSpec(name="asked", is_required=True, schema={"type": "integer"}),
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"params": ["a"]}, "params of DAG 'x' is ['a'], but must be a dict"),
        ({"params": {1: 2}}, "has the name 1"),
        ({"params": {"a": {1, 2}}}, "the default of param 'a' of DAG 'x' is {1, 2}, which is not JSON"),
        ({"params": {"a": float("nan")}}, "which is not JSON"),
        ({"params": {"a": (1, 2)}}, "which is not JSON: it does not come out"),
        ({"params": {"a": Param("x", type="integer")}}, "does not fit its schema: 'x' is not of type 'integer'"),
        ({"params": {"a": Param(None, type="string")}}, 'type=["null", ...] allows None'),
        ({"params": {"a": Param(1, type="number", maximum="x")}}, "the schema of param 'a' of DAG 'x' is wrong"),
        ({"params": {"a": Param(1, type="numbr")}}, "the schema of param 'a' of DAG 'x' is wrong"),
        ({"params": {"a": Param("x", format="date")}}, "'x' is not a 'date'"),
        (
            {"params": {"a": Param(type="string")}, "schedule": timedelta(days=1)},
            "has a schedule, but its param 'a' has no default",
        ),
    ],
)
def test_mistakes_are_errors_of_the_dag_file(args: dict[str, Any], words: str) -> None:
    with pytest.raises(DagError) as caught:
        DAG("x", **args)
    assert words in str(caught.value)
    assert caught.value.place.file == __file__


PARAMS = {
    "n": Param(1, type="integer", minimum=0),
    "asked": Param(type=["string", "null"]),
    "at": Param("2026-11-22T00:00:00Z", format="date-time"),
    "list": Param([], type="array", items={"type": "string"}),
    "any": None,
}


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"asked": "a"}, None),
        ({"asked": None, "n": 5, "any": {"x": 1}, "unknown": 1}, None),
        ({"asked": "a", "at": "2026-11-22T10:00:00+01:00", "list": ["a"]}, None),
        ({}, ["asked: it has no default"]),
        ({"asked": 3, "n": -1}, ["n: -1 is less than the minimum of 0", "asked: 3 is not of type 'string', 'null'"]),
        ({"asked": "a", "n": True}, ["n: True is not of type 'integer'"]),
        ({"asked": "a", "at": "2026-11-22T10:00:00"}, ["at: '2026-11-22T10:00:00' is not a 'date-time'"]),
        ({"asked": "a", "list": ["a", 2]}, ["list: 2 is not of type 'string' at [1]"]),
        ([1], ["must be a JSON object"]),
    ],
)
def test_a_conf_against_params(conf: Any, words: list[str] | None) -> None:
    spec = spec_with(PARAMS)
    if words is None:
        check_conf(spec, json.dumps(conf))
        return
    with pytest.raises(UserError) as caught:
        check_conf(spec, json.dumps(conf))
    assert all(each in caught.value.message for each in words)


def test_a_dag_without_params_takes_any_conf() -> None:
    check_conf(spec_with({}), "[1]")
