"""The store port's contract, for Postgres and for the fake: what one does, the other does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.store import NOW, Subject, attempt, change, instance, new, run, version, xcom
from tickless.core.decision import Write
from tickless.core.snapshot import Snapshot
from tickless.errors import Conflict, Unavailable, Unstorable
from tickless.model.backfill import BackfillKey, BackfillRow, Reprocess
from tickless.model.id import UNMAPPED, AttemptId, Epoch, RunKey, TaskId, TaskKey, VersionKey
from tickless.model.row import (
    DagGone,
    DagRow,
    DagVanishedRow,
    InstanceTally,
    MapRow,
    PoolRow,
    RequestDone,
    RunRow,
    XComRow,
)
from tickless.model.schedule import ScheduleKind, ScheduleSpec
from tickless.model.state import AttemptState, EndReason, RunState, TaskState
from tickless.store.base import ImportProblem, QuarantinedEvent, Store

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio


@pytest.fixture
def store(subject: Subject) -> Store:
    return subject.store


@pytest.fixture
async def epoch(store: Store) -> Epoch:
    """An epoch, and run 1 with its instance `extract`, not yet decided."""
    epoch = await store.take_epoch("host:1")
    await store.flush(epoch, new(version(), run(), instance()))
    return epoch


def mapped(task_id: str, length: int, upto: int | None = None) -> MapRow:
    return MapRow(run=RunKey(1), task_id=TaskId(task_id), length=length, expanded_upto=upto)


# ---- flush and load -----------------------------------------------------------------------------------------------


async def test_every_field_comes_back_as_it_was_written(store: Store) -> None:
    epoch = await store.take_epoch("host:1")
    odd = 'quote " backslash \\ newline \n emoji 😀 \\u0000 written out'
    rows = (
        version(7, number=3, spec=odd, file="sub/etl.py"),
        run(
            *(41,),
            version=7,
            conf='{"z": 1.50, "a": {"ü": null}}',
            logical_date=NOW - timedelta(days=1),
            started_at=NOW + timedelta(microseconds=1),
            created_upto=17,
            cancel_requested_at=NOW,
            frozen=odd,
            idempotency_key="key-1",
            run_after=NOW,
            data_interval_start=NOW - timedelta(days=1),
            data_interval_end=NOW + timedelta(microseconds=1),
            previous_run=RunKey(7),
        ),
        instance(
            *("extract",),
            run=41,
            map_index=3,
            state=TaskState.UP_FOR_RETRY,
            try_number=2,
            attempt_id=AttemptId(5 << 40 | 9),
            lost_count=1,
            scheduled_at=NOW,
            queued_at=NOW,
            started_at=NOW,
            ended_at=NOW,
            due_at=NOW + timedelta(seconds=300),
            reason=odd,
        ),
        attempt(
            *(5 << 40 | 9,),
            run=41,
            state=AttemptState.RUNNING,
            started_at=NOW,
            timeout_seconds=0.1,
            stop_requested_at=NOW,
            stop_reason=EndReason.TIMEOUT,
            exit_code=-1,
            signal=9,
            reason=EndReason.SIGNALED,
            error=odd,
            pid=4_000_000,
            host="worker-1",
        ),
        PoolRow(name="wide", slots=0),
        DagRow(
            dag_id="etl",
            is_paused=True,
            last_interval_start=NOW - timedelta(days=1),
            last_interval_end=NOW,
            scheduled_since=NOW - timedelta(days=2),
            failed_in_a_row=2,
        ),
    )
    await store.flush(epoch, new(*rows))
    found = await store.load()
    assert found == Snapshot(
        versions=[rows[0]],
        current={"etl": 7},
        dags=[rows[5]],
        last_numbers={"etl": 3},
        runs=[rows[1]],
        instances=[rows[2]],
        tallies=[],
        attempts=[rows[3]],
        pools=[PoolRow(name="default_pool", slots=128), rows[4]],
        last_run=RunKey(41),
        last_version=7,
    )


async def test_an_empty_store_loads_as_nothing(store: Store) -> None:
    assert await store.load() == Snapshot(pools=[PoolRow(name="default_pool", slots=128)])


async def test_what_is_finished_is_counted_but_not_loaded(store: Store) -> None:
    epoch = await store.take_epoch("host:1")
    await store.flush(
        epoch,
        new(
            version(),
            run(1),
            run(2, state=RunState.FAILED),
            run(3, state=RunState.QUEUED),
            instance("a", state=TaskState.SUCCESS),
            instance("m", map_index=0, state=TaskState.SUCCESS),
            instance("m", map_index=1, state=TaskState.SUCCESS),
            instance("m", map_index=2, state=TaskState.SKIPPED),
            instance("n"),
            instance("q", state=TaskState.QUEUED),
            instance("z", run=2, state=TaskState.RUNNING),
            attempt(1, "a", state=AttemptState.SUCCESS),
            attempt(2, "q"),
            attempt(3, "z", run=2, state=AttemptState.RUNNING),
        ),
    )
    found = await store.load()
    assert [row.key for row in found.runs] == [1, 3]
    assert [row.key for row in found.instances] == [(1, "n", -1), (1, "q", -1)]
    assert found.tallies == [
        InstanceTally(run=RunKey(1), task_id=TaskId("a"), state=TaskState.SUCCESS, count=1),
        InstanceTally(run=RunKey(1), task_id=TaskId("m"), state=TaskState.SKIPPED, count=1),
        InstanceTally(run=RunKey(1), task_id=TaskId("m"), state=TaskState.SUCCESS, count=2),
    ]
    assert [row.attempt_id for row in found.attempts] == [2, 3], "a live attempt counts, also of a finished run"
    assert found.last_run == 3


async def test_versions_that_live_runs_are_pinned_to_are_loaded_with_the_current_ones(store: Store) -> None:
    epoch = await store.take_epoch("host:1")
    versions = [version(key, number=key) for key in (1, 2, 3)]
    await store.flush(epoch, new(*versions, run(1, version=VersionKey(1)), run(2, version=2, state=RunState.SUCCESS)))
    found = await store.load()
    assert [row.key for row in found.versions] == [1, 3]
    assert found.current == {"etl": 3}


async def test_a_dag_that_vanishes_keeps_its_numbers_and_comes_back(store: Store) -> None:
    epoch = await store.take_epoch("host:1")
    await store.flush(epoch, new(version(1, number=4)))
    await store.flush(epoch, new(DagVanishedRow(dag_id="etl", at=NOW)))
    gone = await store.load()
    assert (gone.current, gone.versions, gone.last_numbers) == ({}, [], {"etl": 4})
    await store.flush(epoch, new(version(2, number=5)))
    assert (await store.load()).current == {"etl": 2}


@pytest.mark.parametrize(("order", "current"), [("gone, made", {"etl": 2}), ("made, gone", {})])
async def test_of_vanishing_and_returning_in_one_flush_the_last_counts(
    store: Store, order: str, current: dict[str, int]
) -> None:
    epoch = await store.take_epoch("host:1")
    await store.flush(epoch, new(version(1)))
    happenings = {"gone": DagVanishedRow(dag_id="etl", at=NOW), "made": version(2, number=2)}
    await store.flush(epoch, new(*(happenings[word] for word in order.split(", "))))
    assert (await store.load()).current == current


async def test_what_is_known_of_a_dag_outlives_its_versions(store: Store, epoch: Epoch) -> None:
    assert (await store.load()).dags == [DagRow(dag_id="etl")]
    kept = DagRow(dag_id="etl", is_paused=True, last_interval_start=NOW, last_interval_end=NOW, failed_in_a_row=1)
    await store.flush(epoch, new(kept))
    await store.flush(epoch, new(version(2, number=2)))
    await store.flush(epoch, new(DagVanishedRow(dag_id="etl", at=NOW)))
    assert (await store.load()).dags == [kept]
    await store.flush(epoch, new(version(3, number=3), DagRow(dag_id="etl")))
    assert (await store.load()).dags == [DagRow(dag_id="etl")], "also back to nothing"


async def test_writes_of_one_row_become_one_with_the_first_guard_and_the_last_image(store: Store, epoch: Epoch) -> None:
    steps = [
        replace(instance(), state=TaskState.SCHEDULED, try_number=1),
        replace(instance(), state=TaskState.QUEUED, try_number=1, attempt_id=AttemptId(7)),
    ]
    late = attempt(7, state=AttemptState.RUNNING)
    await store.flush(
        epoch,
        [
            change(steps[0], TaskState.NONE, 0),
            change(steps[1], TaskState.SCHEDULED, 0),
            *new(attempt(7), run(2, state=RunState.QUEUED)),
            change(late, AttemptState.QUEUED),
            change(run(2, created_upto=1), RunState.QUEUED),
            change(run(2, created_upto=2), RunState.RUNNING),
            *new(xcom(value="1"), xcom(value="2"), PoolRow(name="p", slots=1), PoolRow(name="p", slots=2)),
        ],
    )
    found = await store.load()
    assert found.instances == [steps[1]]
    assert found.attempts == [late]
    assert found.runs[1].created_upto == 2
    assert found.pools[1].slots == 2
    assert await store.outputs(RunKey(1), ["extract"]) == {"extract": "2"}


async def test_an_update_changes_every_changeable_field(store: Store, epoch: Epoch) -> None:
    after = replace(
        run(),
        state=RunState.QUEUED,
        started_at=NOW,
        ended_at=NOW,
        created_upto=9,
        cancel_requested_at=NOW,
        frozen="x",
        previous_run=RunKey(7),
    )
    ended = attempt(
        *(1,),
        state=AttemptState.RUNNING,
        started_at=NOW,
        ended_at=NOW,
        stop_requested_at=NOW,
        stop_reason=EndReason.STOPPED,
        exit_code=3,
        signal=15,
        reason=EndReason.EXITED,
        error="no",
        pid=1,
        host="h",
    )
    decided = replace(
        instance(),
        state=TaskState.RUNNING,
        try_number=3,
        attempt_id=AttemptId(1),
        lost_count=2,
        scheduled_at=NOW,
        queued_at=NOW,
        started_at=NOW,
        ended_at=NOW,
        due_at=NOW,
        reason="r",
    )
    await store.flush(epoch, new(attempt(1)))
    await store.flush(
        epoch,
        [change(after, RunState.RUNNING), change(ended, AttemptState.QUEUED), change(decided, TaskState.NONE, 0)],
    )
    found = await store.load()
    assert (found.runs, found.attempts, found.instances) == ([after], [ended], [decided])
    # And back to nothing: what is None in the image becomes NULL.
    await store.flush(epoch, [change(instance(), TaskState.RUNNING, 1), change(run(), RunState.QUEUED)])
    found = await store.load()
    assert (found.runs, found.instances) == ([run()], [instance()])


# ---- guards -------------------------------------------------------------------------------------------------------

_BYSTANDER = [PoolRow(name="bystander", slots=1), xcom("extract", "5"), run(77)]

GUARDS: dict[str, list[Write]] = {
    "run exists": new(run(1, run_id="another name")),
    "instance exists": new(instance()),
    "attempt exists": new(attempt(1)),
    "run has another state": [change(run(state=RunState.FAILED), RunState.QUEUED)],
    "instance has another state": [change(instance(state=TaskState.RUNNING), TaskState.QUEUED, 0)],
    "instance is decided": [change(instance("done", state=TaskState.QUEUED), TaskState.NONE, 0)],
    "instance has another attempt": [change(instance(state=TaskState.RUNNING), TaskState.NONE, 9)],
    "attempt has another state": [change(attempt(1), AttemptState.RUNNING)],
    "run is missing": [change(run(9), RunState.RUNNING)],
    "instance is missing": [change(instance("load"), TaskState.NONE, 0)],
    "attempt is missing": [change(attempt(9), AttemptState.QUEUED)],
    "instance of no run": new(instance(run=9)),
    "xcom of no run": new(xcom(run=9)),
    "dag is missing": new(DagRow(dag_id="nothing")),
}


async def test_lengths_and_cursors_of_mapped_tasks_are_kept_while_their_run_is_live(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, new(mapped("list", 7), mapped("extract", 2, 0)))
    await store.flush(epoch, new(mapped("extract", 2, 1), instance(map_index=0)))
    loaded = await store.load()
    assert loaded.maps == [mapped("extract", 2, 1), mapped("list", 7)]
    assert [row.map_index for row in loaded.instances] == [UNMAPPED, 0]
    ended = change(run(state=RunState.FAILED), RunState.RUNNING)
    await store.flush(epoch, [ended])
    assert (await store.load()).maps == []


async def test_when_all_its_instances_are_there_the_unexpanded_one_goes(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, new(mapped("extract", 1, 0)))
    await store.flush(epoch, new(instance(map_index=0), mapped("extract", 1, 1)))
    assert [row.map_index for row in (await store.load()).instances] == [0]
    writes = new(instance("other"), mapped("other", 1, 0), instance("other", map_index=0), mapped("other", 1, 1))
    await store.flush(epoch, writes)  # all of it in one flush
    assert [row.key for row in (await store.load()).instances] == [
        TaskKey(RunKey(1), TaskId("extract"), 0),
        TaskKey(RunKey(1), TaskId("other"), 0),
    ]


async def test_what_is_cleared_and_fully_expanded_in_one_flush_goes(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, [change(instance(state=TaskState.SKIPPED), TaskState.NONE, 0)])
    cleared = change(instance(state=TaskState.NONE), TaskState.SKIPPED, 0)
    await store.flush(epoch, [cleared, *new(instance(map_index=0), mapped("extract", 1, 1))])
    assert [row.map_index for row in (await store.load()).instances] == [0]


@pytest.mark.parametrize("state", [None, TaskState.SKIPPED])
async def test_an_expansion_whose_unexpanded_instance_is_not_as_believed_is_a_conflict(
    store: Store, epoch: Epoch, state: TaskState | None
) -> None:
    if state is not None:
        await store.flush(epoch, [change(instance(state=state), TaskState.NONE, 0)])
    writes = new(instance(map_index=0), mapped("extract" if state else "nobody", 1, 1))
    with pytest.raises(Conflict):
        await store.flush(epoch, writes)
    assert (await store.load()).maps == []


@pytest.mark.parametrize("writes", GUARDS.values(), ids=GUARDS.keys())
async def test_a_guard_that_does_not_hold_rolls_everything_back(
    store: Store, epoch: Epoch, writes: list[Write]
) -> None:
    await store.flush(epoch, new(attempt(1), instance("done", state=TaskState.SUCCESS)))
    before = await store.load()
    with pytest.raises(Conflict):
        await store.flush(epoch, [*new(*_BYSTANDER), *writes])
    assert await store.load() == before
    assert await store.outputs(RunKey(1), ["extract"]) == {}
    await store.flush(epoch, new(*_BYSTANDER))  # the store is as usable as before


async def test_the_hand_of_an_operator_is_a_conflict(subject: Subject, epoch: Epoch) -> None:
    await subject.edit(instance(state=TaskState.SUCCESS))
    with pytest.raises(Conflict):
        await subject.store.flush(epoch, [change(instance(state=TaskState.SCHEDULED), TaskState.NONE, 0)])
    assert [tally.state for tally in (await subject.store.load()).tallies] == [TaskState.SUCCESS]


# ---- epochs -------------------------------------------------------------------------------------------------------


async def test_each_taking_makes_a_higher_epoch_even_from_ourselves(store: Store) -> None:
    epochs = [await store.take_epoch("host:1") for _ in range(3)]
    assert epochs == sorted(set(epochs))


async def test_nothing_is_written_in_an_epoch_that_is_over(subject: Subject, epoch: Epoch) -> None:
    store = subject.store
    before = await store.load()
    await store.take_epoch("other:2")
    problem = ImportProblem(folder="dags", file="x.py", error="no")
    event = QuarantinedEvent(run=RunKey(1), attempt_id=None, kind="Started", event="", traceback="", at=NOW)
    for write in (
        store.flush(epoch, new(run(2))),
        store.flush(epoch, []),
        store.quarantine(epoch, event),
        store.set_import_problems(epoch, [problem]),
    ):
        with pytest.raises(Conflict, match="other:2"):
            await write
    assert await store.load() == before
    assert await subject.import_errors() == {}


async def test_an_epoch_that_is_not_yet_is_refused_too(store: Store, epoch: Epoch) -> None:
    with pytest.raises(Conflict):
        await store.flush(Epoch(epoch + 1), [])


async def test_a_broken_write_is_unavailable_and_a_new_epoch_mends_it(subject: Subject, epoch: Epoch) -> None:
    store = subject.store
    await subject.break_next_write()
    with pytest.raises(Unavailable):
        await store.flush(epoch, new(run(2)))
    again = await store.take_epoch("host:1")
    assert again > epoch
    assert [row.key for row in (await store.load()).runs] == [1]
    await store.flush(again, new(run(2)))


# ---- data that Postgres refuses -----------------------------------------------------------------------------------

UNSTORABLE: dict[str, tuple[str, Any]] = {
    "NUL in a text": ("22", attempt(1, error="a\0b")),
    "lone surrogate in a text": ("22", attempt(1, error="a\ud800b")),
    "NUL in a value": ("22", xcom(value='{"a": "\\u0000"}')),
    "NUL in a key of a value": ("22", xcom(value='[{"\\u0000": 1}]')),
    "lone surrogate in a value": ("22", xcom(value='"\\ud800"')),
    "raw lone surrogate in a value": ("22", xcom(value='"\ud800"')),
    "a value that is not JSON": ("22", xcom(value="{")),
    "NaN": ("22", xcom(value="NaN")),
    "conf that is not JSON": ("22", run(2, conf="{'a': 1}")),
    "a value that is too large": ("23", xcom(value='"' + "x" * 16 * 1024 * 1024 + '"')),
    "a value that is nested too deeply": ("54", xcom(value="[" * 100_000 + "]" * 100_000)),
    "a name that is too long": ("23", run(2, run_id="x" * 251)),
    "an empty name": ("23", instance("")),
    "a key of a value that is too long": ("23", xcom(key="x" * 251)),
    "a number of more than 64 bits": ("22", attempt(1, pid=2**70)),
    "a number of more than 32 bits": ("22", attempt(1, pid=2**40)),
    "a negative pool": ("23", PoolRow(name="p", slots=-1)),
    "the name of another run": ("23", run(2, run_id="manual__1")),
    "the idempotency key of another run": ("23", run(2, idempotency_key="key")),
}


@pytest.mark.parametrize(("state_class", "row"), UNSTORABLE.values(), ids=UNSTORABLE.keys())
async def test_what_cannot_be_stored_is_refused_whole(store: Store, epoch: Epoch, state_class: str, row: Any) -> None:
    await store.flush(epoch, new(run(10, idempotency_key="key")))
    before = await store.load()
    with pytest.raises(Unstorable) as refusal:
        await store.flush(epoch, [*new(*_BYSTANDER), *new(row)])
    assert refusal.value.sqlstate[:2] == state_class
    assert "xxx" not in str(refusal.value), "row data does not belong into messages"
    assert await store.load() == before
    await store.flush(epoch, new(*_BYSTANDER))  # still in the same epoch


async def test_what_is_only_odd_is_stored(store: Store, epoch: Epoch) -> None:
    values = ['"\\\\u0000"', "1e400", '"\\ud83d\\ude00"', "  [1,\n 2]  ", '{"b":1,"a":2,"b":3}', '""', "null"]
    await store.flush(epoch, new(*(xcom(f"t{number}", value) for number, value in enumerate(values))))
    found = await store.outputs(RunKey(1), [f"t{number}" for number in range(len(values))])
    assert [found[f"t{number}"] for number in range(len(values))] == values, "a value comes back as it was written"


# ---- outputs, requests, problems ----------------------------------------------------------------------------------


async def test_outputs_are_the_return_values_of_unmapped_tasks(store: Store, epoch: Epoch) -> None:
    mapped = XComRow(run=RunKey(1), task_id=TaskId("m"), map_index=0, key="return_value", value="3", created_at=NOW)
    await store.flush(
        epoch,
        new(run(2), xcom("a", "1"), xcom("b", "2", key="other"), mapped, xcom("a", "4", run=2), xcom("c", "null")),
    )
    assert await store.outputs(RunKey(1), ["a", "b", "m", "c", "none"]) == {"a": "1", "c": "null"}
    assert await store.outputs(RunKey(1), []) == {}
    await store.flush(epoch, new(xcom("a", '"again"')))
    assert await store.outputs(RunKey(1), ["a"]) == {"a": '"again"'}


async def test_what_is_pushed_is_found_by_task_and_key(store: Store, epoch: Epoch) -> None:
    mapped = XComRow(run=RunKey(1), task_id=TaskId("m"), map_index=0, key="k", value="3", created_at=NOW)
    await store.flush(
        epoch,
        new(
            run(2),
            xcom("a", "1", key="k"),
            xcom("a", "2", key="l"),
            xcom("b", "4"),
            mapped,
            xcom("a", "5", key="k", run=2),
        ),
    )
    wanted = [("a", "k"), ("a", "l"), ("b", "k"), ("m", "k"), ("none", "k")]
    assert await store.pushed(RunKey(1), wanted) == {("a", "k"): "1", ("a", "l"): "2"}
    assert await store.pushed(RunKey(1), []) == {}


def day(key: int, number: int | None, **rest: Any) -> RunRow:
    """A run for the logical date of that day."""
    date = NOW + timedelta(days=number) if number is not None else None
    return run(key, logical_date=date, **({"run_type": "manual"} | rest))


@pytest.mark.parametrize(
    ("others", "only_scheduled", "expected"),
    [
        ([], False, None),
        ([day(2, 1), day(3, 2)], False, 3),
        ([day(2, 2), day(3, 1)], False, 2),
        ([day(2, 2), day(3, 2)], False, 3),
        ([day(2, 4), day(3, 3)], False, None),  # day 3 is asked for
        ([day(2, 1), day(11, 2)], False, 2),  # made after run 10, which asks
        ([day(2, None)], False, None),
        ([day(2, 1), day(3, 2, dag_id="other")], False, 2),
        ([day(2, 1, run_type="scheduled"), day(3, 2)], False, 3),
        ([day(2, 1, run_type="scheduled"), day(3, 2)], True, 2),
        ([day(2, 1, run_type="backfill"), day(3, 2, run_type="operator_triggered")], True, 2),
        ([day(2, 1, state=RunState.FAILED), day(3, 0)], False, 2),
    ],
)
async def test_the_previous_run_is_the_latest_by_logical_date_among_those_made_before(
    store: Store, epoch: Epoch, others: list[RunRow], only_scheduled: bool, expected: int | None
) -> None:
    await store.flush(epoch, new(version(2, dag_id="other"), *others))
    found = await store.previous_run(RunKey(10), "etl", NOW + timedelta(days=3), only_scheduled=only_scheduled)
    assert (found.key if found is not None else None) == expected


async def test_the_previous_run_comes_with_its_counts_and_so_does_it_with_a_load(store: Store, epoch: Epoch) -> None:
    finished = [
        *(instance("extract", run=2, state=TaskState.SUCCESS, map_index=index) for index in (0, 1)),
        instance("extract", run=2, state=TaskState.FAILED, map_index=2),
        instance("load", run=2, state=TaskState.SKIPPED),
    ]
    unread = instance("load", run=3, state=TaskState.SUCCESS)
    await store.flush(
        epoch,
        new(
            *(day(2, 1, state=RunState.FAILED), day(3, 2, state=RunState.SUCCESS)),
            *(day(4, 3, previous_run=RunKey(2)), day(5, 4, previous_run=RunKey(4)), day(6, 0, previous_run=RunKey(0))),
            day(7, 5, state=RunState.SUCCESS, previous_run=RunKey(3)),
            *(*finished, unread, instance("load", run=4, state=TaskState.SUCCESS)),
        ),
    )
    expected = [
        InstanceTally(run=RunKey(2), task_id=TaskId(task_id), state=state, count=count)
        for task_id, state, count in (
            ("extract", TaskState.FAILED, 1),
            ("extract", TaskState.SUCCESS, 2),
            ("load", TaskState.SKIPPED, 1),
        )
    ]
    found = await store.previous_run(RunKey(4), "etl", NOW + timedelta(days=2), only_scheduled=False)
    assert found is not None and sorted(found.tallies, key=str) == sorted(expected, key=str)
    # Of finished runs only those that an unfinished one looks at.
    assert sorted((await store.load()).past_tallies, key=str) == sorted(expected, key=str)


async def test_open_requests_come_oldest_first_until_they_are_done(subject: Subject, epoch: Epoch) -> None:
    store = subject.store
    first = await subject.request("etl", conf='{"a": 1}', run_id="r", logical_date=NOW, idempotency_key="k")
    second = await subject.request("etl")
    third = await subject.request("nothing")
    found = await store.open_requests()
    assert [request.id for request in found] == [first, second, third]
    assert (found[0].dag_id, found[0].conf, found[0].run_id) == ("etl", '{"a": 1}', "r")
    assert (found[0].logical_date, found[0].idempotency_key) == (NOW, "k")
    assert (found[1].conf, found[1].run_id, found[1].logical_date, found[1].idempotency_key) == ("{}", None, None, None)
    done = [
        RequestDone(table="trigger_request", id=first, run=RunKey(1)),
        RequestDone(table="trigger_request", id=third, error="there is no such DAG"),
        RequestDone(table="command", id=second),
        RequestDone(table="trigger_request", id=10**6, run=RunKey(1)),
    ]
    await store.flush(epoch, new(*done))
    assert [request.id for request in await store.open_requests()] == [second]


async def test_an_open_request_names_the_run_that_has_its_key_or_its_name(subject: Subject, epoch: Epoch) -> None:
    """Also a finished one, which no engine remembers."""
    store = subject.store
    await store.flush(epoch, new(run(2, run_id="r", state=RunState.SUCCESS, idempotency_key="k")))
    dag_id = run(2).dag_id
    await subject.request(dag_id, idempotency_key="k")
    await subject.request(dag_id, run_id="r")
    await subject.request("other", run_id="r", idempotency_key="other")
    await subject.request(dag_id)
    found = [(request.key_of, request.name_of) for request in await store.open_requests()]
    assert found == [(2, None), (None, 2), (None, None), (None, None)]


async def test_open_commands_come_oldest_first_until_they_are_done(subject: Subject, epoch: Epoch) -> None:
    store = subject.store
    first = await subject.command("pause_dag", '{"dag_id": "etl"}')
    second = await subject.command("dance", "{}")
    found = await store.open_commands()
    assert [(each.id, each.kind, each.payload) for each in found] == [
        (first, "pause_dag", '{"dag_id": "etl"}'),
        (second, "dance", "{}"),
    ]
    await store.flush(
        epoch,
        new(RequestDone(table="command", id=first), RequestDone(table="trigger_request", id=second)),
    )
    assert [each.id for each in await store.open_commands()] == [second]


async def test_names_of_runs_are_taken_also_by_finished_ones(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, new(run(2, run_id="over", state=RunState.SUCCESS)))
    asked = [("etl", "over"), ("etl", run().run_id), ("etl", "free"), ("other", "over")]
    assert await store.taken_names(asked) == {("etl", "over"), ("etl", run().run_id)}
    assert await store.taken_names([]) == set()


async def test_a_quarantined_event_freezes_its_run_whatever_it_holds(store: Store, epoch: Epoch) -> None:
    event = QuarantinedEvent(
        *(),
        run=RunKey(1),
        attempt_id=AttemptId(3),
        kind="Finished",
        event="NUL \0 and half a pair \ud800",
        traceback="Traceback \0",
        at=NOW,
    )
    entry = await store.quarantine(epoch, event)
    frozen = (await store.load()).runs[0].frozen
    assert frozen is not None
    assert str(entry) in frozen
    assert await store.quarantine(epoch, replace(event, run=None, attempt_id=None)) > entry
    # The guard of a run is its state, so that a frozen one can still be cancelled.
    await store.flush(epoch, [change(run(state=RunState.FAILED), RunState.RUNNING)])


async def test_import_problems_are_recorded_replaced_and_cleared(subject: Subject, epoch: Epoch) -> None:
    store = subject.store

    def problem(file: str, error: str | None) -> ImportProblem:
        return ImportProblem(folder="dags", file=file, error=error, traceback="T\0", line=3)

    await store.set_import_problems(epoch, [problem("a.py", "one\0"), problem("b.py", "two"), problem("b.py", "three")])
    assert await subject.import_errors() == {("dags", "a.py"): "one\\u0000", ("dags", "b.py"): "three"}
    await store.set_import_problems(epoch, [problem("a.py", None), problem("b.py", "four"), problem("c.py", None)])
    assert await subject.import_errors() == {("dags", "b.py"): "four"}
    await store.set_import_problems(epoch, [])
    assert await subject.import_errors() == {("dags", "b.py"): "four"}


# ---- backfills ----------------------------------------------------------------------------------------------------


def backfill(key: int = 1, **rest: Any) -> BackfillRow:
    schedule = ScheduleSpec(
        kind=ScheduleKind.CRON, text="@daily", crons=("0 0 * * *",), timezone="UTC", has_intervals=True, start_at=NOW
    )
    defaults: dict[str, Any] = {
        "key": BackfillKey(key),
        "dag_id": "etl",
        "schedule": schedule,
        "from_at": NOW - timedelta(days=3),
        "to_at": NOW - timedelta(days=1),
        "reprocess": Reprocess.FAILED,
        "max_active": 3,
        "is_backwards": True,
        "conf": '{"z": 1.50, "a": "ü"}',
        "created_at": NOW,
    }
    return BackfillRow(**defaults | rest)


async def test_a_backfill_comes_back_as_it_was_written_and_as_it_was_changed(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, new(backfill(), run(2, backfill=BackfillKey(1))))
    assert (await store.load()).backfills == [backfill()]
    assert (await store.load()).runs[-1].backfill == 1
    changed = backfill(place=NOW, made=2, passed=3, is_paused=True, cancelled_at=NOW)
    await store.flush(epoch, [Write(changed)])
    loaded = await store.load()
    assert loaded.backfills == [changed] and loaded.last_backfill == 1


@pytest.mark.parametrize(("last", "is_loaded"), [(None, True), (timedelta(days=1), True), (timedelta(hours=23), False)])
async def test_a_completed_backfill_is_loaded_until_the_schedule_is_past_it(
    store: Store, epoch: Epoch, last: timedelta | None, is_loaded: bool
) -> None:
    done = backfill(completed_at=NOW)
    start = NOW - last if last is not None else None
    await store.flush(
        epoch, [Write(done), Write(DagRow(dag_id="etl", last_interval_start=start, last_interval_end=NOW))]
    )
    loaded = await store.load()
    assert loaded.backfills == ([done] if is_loaded else []) and loaded.last_backfill == 1


async def test_runs_in_the_way_of_slots_are_found_by_date_and_by_name(store: Store, epoch: Epoch) -> None:
    days = [NOW - timedelta(days=number) for number in range(4)]
    rows = [
        run(2, logical_date=days[1], state=RunState.FAILED),
        run(3, logical_date=days[1], state=RunState.SUCCESS),
        run(4, run_id="taken"),
        run(5, logical_date=days[3]),
        run(6, logical_date=days[1], dag_id="other"),
    ]
    await store.flush(epoch, new(*rows))
    found = await store.slot_runs("etl", days[:3], ["taken", "free"])
    assert [(each.key, each.run_id, each.logical_date, each.state) for each in found] == [
        (2, "manual__2", days[1], "failed"),
        (3, "manual__3", days[1], "success"),
        (4, "taken", None, "running"),
    ]
    assert await store.slot_runs("etl", [], []) == []


async def test_backfills_go_with_their_dag_and_their_numbers_are_not_given_again(store: Store, epoch: Epoch) -> None:
    await store.flush(epoch, new(version(2, dag_id="gone", number=1), backfill(7, dag_id="gone"), backfill(3)))
    await store.flush(epoch, [Write(backfill(7, dag_id="gone", made=1)), Write(DagGone(dag_id="gone"))])
    loaded = await store.load()
    assert [row.key for row in loaded.backfills] == [3] and loaded.last_backfill == 7
