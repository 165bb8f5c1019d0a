"""A spec compiled for deciding."""

from __future__ import annotations

from tests.support.builders import encode_spec, make_dag, parse_shape
from tests.support.clock import START
from tickless.core.plan import DagPlan, compile_plan
from tickless.model.id import VersionKey
from tickless.model.row import VersionRow


def _plan(shape: str) -> DagPlan:
    spec = make_dag(shape)
    row = VersionRow(
        key=VersionKey(1), dag_id="dag", number=1, spec=encode_spec(spec), hash="", bundle="", file="", created_at=START
    )
    return compile_plan(row, spec)


def test_neighbours_are_indices_and_leaves_have_no_downstream() -> None:
    plan = _plan("a >> [b, c] >> d; x")
    at = plan.index_of
    assert plan.tasks[at["d"]].upstream == tuple(sorted((at["b"], at["c"])))
    assert sorted(plan.tasks[at["a"]].downstream) == sorted((at["b"], at["c"]))
    assert set(plan.leaves) == {at["d"], at["x"]}


def test_upstream_always_has_a_smaller_index() -> None:
    plan = _plan("d; c >> d; b >> c; a >> b")
    assert all(above < task.index for task in plan.tasks for above in task.upstream)


def test_a_dependency_that_is_written_twice_counts_once() -> None:
    assert parse_shape("a >> b; a >> b") == {"a": [], "b": ["a"]}
