"""The part of the store's contract that is about what people do after the fact: commands that read rows back and come
in several commits, deletions, notes. What one store does, the other does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.store import NOW, Subject, attempt, change, instance, new, run, version, xcom
from tickless.core.decision import Write
from tickless.errors import Conflict
from tickless.model.id import UNMAPPED, AttemptId, Epoch, RunKey, TaskId, VersionKey
from tickless.model.row import (
    CommandProgress,
    DagGone,
    EventRow,
    InstanceTally,
    MapRow,
    NoteRow,
    RequestDone,
    RunGone,
    RunRemains,
    XComsDropped,
)
from tickless.model.state import RunState, TaskState
from tickless.store.base import CommandOutcome, CommandRequest, Remains, RunQuery, Store

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio

DONE, FAILED = TaskState.SUCCESS, TaskState.FAILED


@pytest.fixture
def store(subject: Subject) -> Store:
    return subject.store


@pytest.fixture
async def epoch(store: Store) -> Epoch:
    """Runs 1 (success) and 2 (failed) of version 1, run 3 (running) of version 2; of run 1 all there can be."""
    epoch = await store.take_epoch("host:1")
    rows = (
        *(version(1), version(2, number=2)),
        run(1, state=RunState.SUCCESS, queued_at=NOW),
        run(2, state=RunState.FAILED, queued_at=NOW + timedelta(hours=1)),
        run(3, version=VersionKey(2), queued_at=NOW + timedelta(hours=2)),
        *(instance(f"t{n}", state=DONE if n else FAILED) for n in range(3)),
        *(instance("m", map_index=n, state=DONE) for n in range(2)),
        *(instance("t0", run=2, state=FAILED), instance("t0", run=3)),
        *(attempt(n, f"t{n}", state="success") for n in range(1, 4)),
        *(xcom("t1"), xcom("t2", key="other"), xcom("t0", run=2)),
        *(MapRow(run=RunKey(1), task_id=TaskId(name), length=2) for name in ("t1", "t2")),
    )
    await store.flush(epoch, new(*rows))
    return epoch


def note(task_id: str = "", text: str | None = "said", *, of_run: int = 1, map_index: int = UNMAPPED) -> NoteRow:
    return NoteRow(
        run=RunKey(of_run), task_id=task_id, map_index=map_index, text=text, author="unix:alice", changed_at=NOW
    )


# ---- commands that read rows back ---------------------------------------------------------------------------------


async def test_a_command_is_open_until_it_is_done_and_keeps_its_cursor(store: Store, epoch: Epoch) -> None:
    first = await store.add_command("clear", '{"run": 1}', "unix:alice")
    second = await store.add_command("mark", "{}", "unix:bob")
    assert await store.command_outcomes([first, second]) == []
    progress = CommandProgress(id=first, cursor='{"place": 7}')
    await store.flush(epoch, new(progress))
    open_now = await store.open_commands()
    assert [(each.id, each.kind, each.cursor, each.actor) for each in open_now] == [
        (first, "clear", '{"place": 7}', "unix:alice"),
        (second, "mark", None, "unix:bob"),
    ]
    await store.flush(
        epoch, new(RequestDone(table="command", id=first), RequestDone(table="command", id=2, error="no"))
    )
    assert await store.open_commands() == []
    assert await store.command_outcomes([first, second, 99]) == [
        CommandOutcome(id=first, error=None, cursor='{"place": 7}'),
        CommandOutcome(id=second, error="no", cursor=None),
    ]


async def test_what_sql_asks_for_has_an_actor(subject: Subject, epoch: Epoch) -> None:
    number = await subject.command("clear", '{"run": 1}')
    [found] = await subject.store.open_commands()
    assert found == CommandRequest(id=number, kind="clear", payload='{"run": 1}', actor=found.actor)
    assert found.actor.startswith("sql:")
    await subject.request("etl")
    [asked] = await subject.store.open_requests()
    assert asked.actor == found.actor


async def test_a_finished_run_comes_back_with_its_version_and_its_counts(store: Store, epoch: Epoch) -> None:
    found = await store.committed_run(RunKey(1))
    assert found is not None
    assert (found.row.key, found.row.state, found.version.key) == (1, RunState.SUCCESS, 1)
    counts = [("m", DONE, 2), ("t0", FAILED, 1), ("t1", DONE, 1), ("t2", DONE, 1)]
    assert sorted(found.tallies, key=lambda each: each.task_id) == [
        InstanceTally(run=RunKey(1), task_id=TaskId(name), state=state, count=count) for name, state, count in counts
    ]
    live = await store.committed_run(RunKey(3))
    assert live is not None and (live.row.state, live.tallies) == (RunState.RUNNING, ())
    assert await store.committed_run(RunKey(9)) is None


@pytest.mark.parametrize(
    ("task_ids", "states", "after", "limit", "found"),
    [
        (["t2", "t0"], [], (-1, -1), 10, [("t2", -1), ("t0", -1)]),
        (["t2", "t0"], [], (0, -1), 10, [("t0", -1)]),
        (["t0", "t1", "t2"], [FAILED], (-1, -1), 10, [("t0", -1)]),
        (["m", "t1"], [], (-1, -1), 2, [("m", 0), ("m", 1)]),
        (["m", "t1"], [], (0, 0), 10, [("m", 1), ("t1", -1)]),
        (["nobody"], [], (-1, -1), 10, []),
        ([], [], (-1, -1), 10, []),
    ],
)
async def test_chosen_instances_come_in_the_order_of_the_tasks(
    store: Store,
    epoch: Epoch,
    task_ids: list[str],
    states: list[TaskState],
    after: tuple[int, int],
    limit: int,
    found: list[tuple[str, int]],
) -> None:
    rows = await store.chosen_instances(RunKey(1), task_ids, states, after=after, limit=limit)
    assert [(row.task_id, row.map_index) for row in rows] == found


@pytest.mark.parametrize(
    ("single", "found"),
    [
        ({"m": [1]}, [("t0", -1), ("m", 1)]),
        ({"m": [0, 1, 7]}, [("t0", -1), ("m", 0), ("m", 1)]),
        ({"m": [7]}, [("t0", -1)]),
        ({"t2": [7]}, [("t0", -1), ("m", 0), ("m", 1)]),
    ],
)
async def test_single_instances_are_chosen_by_their_map_index(
    store: Store, epoch: Epoch, single: dict[str, list[int]], found: list[tuple[str, int]]
) -> None:
    rows = await store.chosen_instances(RunKey(1), ["t0", "m"], [], after=(-1, -1), limit=10, single=single)
    assert [(row.task_id, row.map_index) for row in rows] == found


@pytest.mark.parametrize(
    ("query", "after", "found"),
    [
        (RunQuery(dag_id="etl"), 0, 1),
        (RunQuery(dag_id="etl"), 1, 2),
        (RunQuery(dag_id="etl"), 3, None),
        (RunQuery(dag_id="other"), 0, None),
        (RunQuery(dag_id="etl", states=(RunState.RUNNING,)), 0, 3),
        (RunQuery(dag_id="etl", states=(RunState.FAILED, RunState.RUNNING)), 2, 3),
        (RunQuery(dag_id="etl", since=NOW + timedelta(hours=1)), 0, 2),
        (RunQuery(dag_id="etl", until=NOW + timedelta(hours=1)), 1, None),
        (RunQuery(dag_id="etl", since=NOW, until=NOW), 0, None),
    ],
)
async def test_the_next_run_that_fits(
    store: Store, epoch: Epoch, query: RunQuery, after: int, found: int | None
) -> None:
    assert await store.next_run(query, RunKey(after)) == found


async def test_what_a_cleared_task_handed_on_goes_and_what_follows_stays(store: Store, epoch: Epoch) -> None:
    dropped = XComsDropped(run=RunKey(1), task_id=TaskId("t1"), map_index=UNMAPPED)
    await store.flush(epoch, new(dropped))
    assert await store.outputs(RunKey(1), ["t1"]) == {}
    await store.flush(epoch, new(dropped, xcom("t1", "2")))
    assert await store.outputs(RunKey(1), ["t1"]) == {"t1": "2"}
    assert await store.outputs(RunKey(2), ["t0"]) == {"t0": "1"}


async def test_lines_of_the_audit_are_committed_with_the_flush_or_not_at_all(subject: Subject, epoch: Epoch) -> None:
    event = EventRow(at=NOW, actor="unix:alice", action="clear", dag_id="etl", run=RunKey(1))
    await subject.store.flush(epoch, new(event))
    with pytest.raises(Conflict):
        await subject.store.flush(epoch, [*new(event), change(run(3), RunState.QUEUED)])
    assert await subject.audit() == ["clear"]


# ---- deletions ----------------------------------------------------------------------------------------------------


async def test_a_deleted_run_is_gone_at_once_and_its_remains_go_in_batches(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, new(note(), note("t0")))
    await store.flush(epoch, new(RunGone(run=RunKey(1))))
    assert await store.committed_run(RunKey(1)) is None
    assert await store.next_run(RunQuery(dag_id="etl"), RunKey(0)) == 2
    left = await store.remains(RunKey(1), 2)
    paths = [f"etl/1/t{n}/1-{n}.log" for n in (1, 2)]
    assert left == Remains(attempts=((AttemptId(1), paths[0]), (AttemptId(2), paths[1])), has_more=True)
    rounds = 0
    while not (left := await store.remains(RunKey(1), 2)).is_over:
        attempts = tuple(attempt_id for attempt_id, _ in left.attempts)
        await store.flush(epoch, new(RunRemains(run=RunKey(1), attempts=attempts, most=2)))
        rounds += 1
    assert rounds == 3, "five instances, two at a time"
    assert await store.notes([RunKey(1)]) == []
    other = await store.committed_run(RunKey(2))
    assert other is not None and len(other.tallies) == 1
    assert await store.outputs(RunKey(2), ["t0"]) == {"t0": "1"}


@pytest.mark.parametrize("key", [3, 9])
async def test_only_a_finished_run_can_be_deleted_and_nothing_else_of_the_flush_is_done(
    store: Store, epoch: Epoch, key: int
) -> None:
    with pytest.raises(Conflict):
        await store.flush(epoch, new(note(of_run=2), RunGone(run=RunKey(key))))
    assert await store.notes([RunKey(2)]) == []
    assert (await store.load()).last_run == 3


async def test_the_number_of_a_deleted_run_or_version_is_never_given_again(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, [change(replace(run(3, version=VersionKey(2)), state=RunState.FAILED), RunState.RUNNING)])
    await store.flush(epoch, new(*(RunGone(run=RunKey(key)) for key in (1, 2, 3))))
    await store.flush(epoch, new(DagGone(dag_id="etl")))
    found = await store.load()
    assert (found.last_run, found.last_version) == (3, 2)
    assert (found.versions, found.current, found.dags, found.last_numbers) == ([], {}, [], {})


async def test_a_dag_with_runs_cannot_be_deleted(store: Store, epoch: Epoch) -> None:
    with pytest.raises(Conflict):
        await store.flush(epoch, new(DagGone(dag_id="etl")))
    assert (await store.load()).current == {"etl": 2}


async def test_a_dag_that_comes_again_in_the_flush_that_deletes_it_begins_anew(store: Store, epoch: Epoch) -> None:
    late = version(9, dag_id="late")
    await store.flush(epoch, new(late))
    again = version(10, dag_id="late")
    await store.flush(epoch, new(version(8, dag_id="late", number=2), DagGone(dag_id="late"), again))
    found = await store.load()
    assert [each for each in found.versions if each.dag_id == "late"] == [again]
    assert (found.current["late"], found.last_numbers["late"]) == (10, 1)


# ---- notes --------------------------------------------------------------------------------------------------------


async def test_notes_are_set_replaced_and_removed(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, new(note(), note("t1"), note("m", map_index=1), note(of_run=2, text="2")))
    assert await store.notes([RunKey(1)]) == [note(), note("m", map_index=1), note("t1")]
    assert await store.notes([RunKey(2), RunKey(1)], only_of_runs=True) == [note(), note(of_run=2, text="2")]
    await store.flush(epoch, new(note(text="other"), note("t1", None), note("t2", None)))
    assert await store.notes([RunKey(1)]) == [note(text="other"), note("m", map_index=1)]


async def test_there_is_no_note_of_a_run_that_is_not_there(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, new(note(of_run=9)))
    assert await store.notes([RunKey(9)]) == []


async def test_an_old_leader_deletes_nothing(store: Store, epoch: Epoch) -> None:
    await store.take_epoch("host:2")
    with pytest.raises(Conflict):
        await store.flush(epoch, [Write(RunGone(run=RunKey(1)))])
    assert await store.committed_run(RunKey(1)) is not None
