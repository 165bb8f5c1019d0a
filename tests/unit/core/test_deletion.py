"""What may be deleted, as the engine sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.playbook import Playbook
from tickless.core.commands import DeleteDag, DeleteRun
from tickless.core.events import DagVanished
from tickless.core.revision import RowsBehind
from tickless.errors import NotFound, Refused
from tickless.model.id import RunKey
from tickless.model.row import DagGone, RunGone


def delete(book: Playbook, run: int = 1, *, is_finished: bool = True) -> list[object]:
    decision = book.engine.step(DeleteRun(run=RunKey(run), is_finished=is_finished), book.clock.now())
    return [write.row for write in decision.writes]


def ended() -> Playbook:
    book = Playbook("a")
    book.start()
    book.finish("a").expect("run success")
    return book


def test_a_finished_run_may_go() -> None:
    assert delete(ended()) == [RunGone(run=RunKey(1))]


def test_an_unfinished_run_is_refused_with_the_way_out() -> None:
    book = Playbook("a")
    book.start()
    with pytest.raises(Refused, match="running") as refused:
        delete(book)
    assert refused.value.hint == "Cancel it first: `tickless run delete 1 --cancel`."


def test_a_run_that_has_just_ended_is_looked_at_again() -> None:
    with pytest.raises(RowsBehind):
        delete(ended(), is_finished=False)


def test_a_run_that_an_unfinished_one_looks_back_at_is_refused() -> None:
    book = ended()
    book.start(run_id="second")
    later = book.engine.runs[RunKey(2)]
    later.row = replace(later.row, previous_run=RunKey(1))
    with pytest.raises(Refused, match="run 2 looks back at run 1"):
        delete(book)


def test_a_run_with_a_process_left_is_refused() -> None:
    book = Playbook("a")
    book.start()
    attempt = next(iter(book.engine.attempts.values()))
    book.finish("a").expect("run success")
    book.engine.attempts[attempt.id] = attempt
    with pytest.raises(Refused, match="a process of 1/a has not ended yet"):
        delete(book)


def dag(book: Playbook, *, is_forced: bool = False, is_last: bool = False, dag_id: str = "dag") -> list[object]:
    command = DeleteDag(dag_id=dag_id, is_forced=is_forced, is_last=is_last)
    return [write.row for write in book.engine.step(command, book.clock.now()).writes]


def test_a_dag_that_a_file_defines_is_refused_unless_forced() -> None:
    book = ended()
    [dag_id] = book.engine.current
    with pytest.raises(Refused, match="is in the file"):
        dag(book, dag_id=dag_id)
    assert dag(book, dag_id=dag_id, is_forced=True) == []
    assert dag(book, dag_id=dag_id, is_forced=True, is_last=True) == [DagGone(dag_id=dag_id)]
    assert dag_id not in book.engine.current
    with pytest.raises(NotFound):
        dag(book, dag_id=dag_id)


@pytest.mark.parametrize("is_last", [True, False])
def test_a_dag_with_unfinished_runs_is_refused(is_last: bool) -> None:
    book = Playbook("a")
    [dag_id] = book.engine.current
    book.start()
    book.engine.step(DagVanished(dag_id=dag_id), book.clock.now())
    with pytest.raises(Refused, match="unfinished runs, as run 1"):
        dag(book, dag_id=dag_id, is_forced=True, is_last=is_last)
