"""What may be asked of the desk: payloads of commands that delete and that end whole runs, and what is wrong with others."""

from __future__ import annotations

import pytest

from tickless.daemon.choice import CANCEL_RUNS, DELETE_DAG, DELETE_RUN, MARK_RUN, read_deletion
from tickless.daemon.runmark import read_run_mark
from tickless.errors import UserError
from tickless.model.state import RunState

OF_DAG = '{"dag_id": "etl"}'
NAIVE = '{"dag_id": "etl", "since": "2026-11-22T00:00:00"}'


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        (DELETE_RUN, "{}", "needs a run or a filter of runs, one of them"),
        (DELETE_RUN, f'{{"run": 1, "runs": {OF_DAG}}}', "needs a run or a filter of runs, one of them"),
        (DELETE_RUN, '{"dag_id": "etl"}', "needs a run or a filter of runs, one of them"),
        (DELETE_RUN, '{"run": "1"}', "cannot be read"),
        (DELETE_RUN, '{"run": 1, "yes": true}', "cannot be read"),
        (DELETE_RUN, f'{{"runs": {NAIVE}}}', "need a time zone"),
        (DELETE_RUN, '{"runs": {"dag_id": "etl", "states": ["done"]}}', "cannot be read"),
        (DELETE_DAG, "{}", "needs the id of a DAG, and nothing else"),
        (DELETE_DAG, '{"dag_id": "etl", "run": 1}', "needs the id of a DAG, and nothing else"),
        (DELETE_DAG, '{"dag_id": "etl", "force": 1}', "cannot be read"),
    ],
)
def test_a_deletion_that_cannot_be_meant(kind: str, payload: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_deletion(kind, payload)


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        (MARK_RUN, "{}", "needs a run or a filter of runs, one of them"),
        (MARK_RUN, f'{{"run": 1, "runs": {OF_DAG}, "state": "success"}}', "one of them"),
        (MARK_RUN, '{"run": 1}', "can be marked success or failed, not None"),
        (MARK_RUN, '{"run": 1, "state": "running"}', "can be marked success or failed, not running"),
        (MARK_RUN, '{"run": 1, "state": "skipped"}', "cannot be read"),
        (MARK_RUN, f'{{"runs": {NAIVE}, "state": "success"}}', "need a time zone"),
        (CANCEL_RUNS, "{}", "needs a filter of runs, and nothing else"),
        (CANCEL_RUNS, '{"run": 1}', "needs a filter of runs, and nothing else"),
        (CANCEL_RUNS, f'{{"runs": {OF_DAG}, "state": "failed"}}', "needs a filter of runs, and nothing else"),
    ],
)
def test_an_end_of_runs_that_cannot_be_meant(kind: str, payload: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_run_mark(kind, payload)


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ([], (RunState.FAILED, RunState.SUCCESS)),
        (["failed"], (RunState.FAILED,)),
        (["running"], (RunState.RUNNING,)),
    ],
)
def test_a_filter_without_states_deletes_what_is_finished(states: list[str], found: tuple[RunState, ...]) -> None:
    wanted = "".join(f'"{state}"' for state in states)
    order = read_deletion(DELETE_RUN, f'{{"runs": {{"dag_id": "etl", "states": [{wanted}]}}}}')
    assert order.query().states == found


@pytest.mark.parametrize("state", list(RunState))
def test_what_an_order_changes(state: RunState) -> None:
    done = read_run_mark(MARK_RUN, '{"run": 1, "state": "success"}')
    cancelled = read_run_mark(CANCEL_RUNS, f'{{"runs": {OF_DAG}}}')
    assert done.changes(state) is (state is not RunState.SUCCESS)
    assert cancelled.changes(state) is (state in (RunState.QUEUED, RunState.RUNNING))
