"""The part of the store's contract that is about variables, connections and values that tasks pull."""

from __future__ import annotations

import pytest

from tests.support.store import NOW, Subject, attempt, instance, new, run, version, xcom
from tickless.errors import Conflict, Unstorable
from tickless.model.id import AttemptId, Epoch, RunKey
from tickless.model.row import EventRow
from tickless.model.setting import ConnectionRow, SettingGone, VariableRow
from tickless.store.base import Store, TooMuch

pytest_plugins = ["tests.support.store"]
pytestmark = pytest.mark.anyio

ODD = 'quote " backslash \\ newline \n emoji 😀 \\u0000 written out'


@pytest.fixture
def store(subject: Subject) -> Store:
    return subject.store


@pytest.fixture
async def epoch(store: Store) -> Epoch:
    epoch = await store.take_epoch("host:1")
    await store.flush(epoch, new(version(), run(), instance(), attempt(1), attempt(2)))
    return epoch


def variable(key: str = "k", val: str = "sealed", description: str | None = None) -> VariableRow:
    return VariableRow(key=key, val=val, description=description, changed_at=NOW)


FULL = ConnectionRow(
    conn_id="db",
    conn_type="postgres",
    description=ODD,
    host="h",
    schema="s",
    login="l",
    password="p",
    port=65535,
    extra="x",
    changed_at=NOW,
)


async def test_settings_come_back_as_they_were_written(store: Store, epoch: Epoch) -> None:
    assert await store.variable("k") is None
    assert await store.connection("db") is None
    assert await store.write_settings(epoch, [variable(val=ODD, description=ODD), FULL])
    assert await store.variable("k") == variable(val=ODD, description=ODD)
    assert await store.connection("db") == FULL


async def test_a_variable_keeps_its_description_and_a_connection_is_replaced_whole(store: Store, epoch: Epoch) -> None:
    await store.write_settings(epoch, [variable(description="said once"), FULL])
    bare = ConnectionRow(conn_id="db", conn_type="http", changed_at=NOW)
    await store.write_settings(epoch, [variable(val="other"), bare])
    assert await store.variable("k") == variable(val="other", description="said once")
    assert await store.connection("db") == bare


async def test_removing_says_whether_there_was_one(store: Store, epoch: Epoch) -> None:
    await store.write_settings(epoch, [variable(), FULL])
    for gone in (SettingGone(table="variable", name="k"), SettingGone(table="connection", name="db")):
        assert await store.write_settings(epoch, [gone])
        assert not await store.write_settings(epoch, [gone])
    assert await store.variable("k") is None
    assert await store.connection("db") is None


async def test_a_repeated_request_changes_nothing_and_is_answered_alike(store: Store, epoch: Epoch) -> None:
    gone = SettingGone(table="variable", name="k")
    first = (AttemptId(1), 4)
    await store.write_settings(epoch, [variable()], request=(AttemptId(1), 3))
    assert await store.write_settings(epoch, [gone], request=first)
    await store.write_settings(epoch, [variable(val="from somebody else")])
    later = await store.take_epoch("host:2")
    assert await store.write_settings(later, [gone], request=first), "the answer of the first time"
    assert await store.variable("k") == variable(val="from somebody else"), "and nothing is removed again"
    assert await store.write_settings(later, [gone], request=(AttemptId(2), 4)), "another attempt's is another request"
    assert not await store.write_settings(later, [gone], request=(AttemptId(1), 5))


async def test_the_audit_has_a_line_of_what_was_changed_and_of_nothing_else(subject: Subject, epoch: Epoch) -> None:
    def event(action: str) -> EventRow:
        return EventRow(at=NOW, actor="unix:alice", action=action, detail='{"key": "k"}')

    gone, store = SettingGone(table="variable", name="k"), subject.store
    await store.write_settings(epoch, [variable()], event=event("set"))
    await store.write_settings(epoch, [gone], request=(AttemptId(1), 3), event=event("gone"))
    await store.write_settings(epoch, [gone], request=(AttemptId(1), 3), event=event("gone again"))
    await store.write_settings(epoch, [gone], event=event("there was none"))
    await store.write_settings(epoch, [], event=event("about everything"))
    assert await subject.audit() == ["set", "gone", "about everything"]


async def test_an_old_leader_writes_no_settings(store: Store, epoch: Epoch) -> None:
    await store.take_epoch("host:2")
    with pytest.raises(Conflict):
        await store.write_settings(epoch, [variable()])
    assert await store.variable("k") is None


@pytest.mark.parametrize("key", ["", "x" * 251, "a\0b"])
async def test_what_postgres_refuses_changes_nothing(store: Store, epoch: Epoch, key: str) -> None:
    with pytest.raises(Unstorable):
        await store.write_settings(epoch, [variable("good"), variable(key)])
    assert await store.variable("good") is None
    await store.write_settings(epoch, [variable("good")])


async def test_values_are_pulled_by_task_index_and_key(store: Store, epoch: Epoch) -> None:
    rows = [
        xcom("b", value="2"),
        xcom("a", value='{"x":  1}'),
        xcom("a", map_index=1, value="11"),
        xcom("a", map_index=0, value="10"),
        xcom("a", key="other", value="0"),
        xcom("a", run=2, value="99"),
    ]
    await store.flush(epoch, new(run(2), *rows))

    async def pull(key: str = "return_value", **which: list[str] | list[int]) -> list[tuple[str, int, str]]:
        found = await store.pull_xcoms(RunKey(1), key, most_bytes=1000, **which)  # type: ignore[arg-type]  # as the parameters say
        return [(each.task_id, each.map_index, each.value) for each in found]

    assert await pull() == [("a", -1, '{"x":  1}'), ("a", 0, "10"), ("a", 1, "11"), ("b", -1, "2")]
    assert await pull(task_ids=["b", "no"]) == [("b", -1, "2")]
    assert await pull(map_indexes=[1, 0]) == [("a", 0, "10"), ("a", 1, "11")]
    assert await pull(task_ids=[]) == []
    assert await pull("other") == [("a", -1, "0")]
    with pytest.raises(TooMuch, match=r"these 4 values are 14 bytes; one answer holds 13"):
        await store.pull_xcoms(RunKey(1), "return_value", most_bytes=13)


async def test_values_of_a_mapped_task_are_read_page_by_page(store: Store, epoch: Epoch) -> None:
    rows = [
        *(xcom("m", map_index=n, value=value) for n, value in ((0, "10"), (2, '"long one"'), (3, "13"), (9, "19"))),
        xcom("n", map_index=1, value="0"),
        xcom("m", map_index=1, key="other", value="0"),
        xcom("m", run=2, map_index=1, value="99"),
    ]
    await store.flush(epoch, new(run(2), *rows))

    async def page(after: int, most_bytes: int) -> list[tuple[int, str]]:
        found = await store.page_xcoms(RunKey(1), "return_value", "m", after=after, most_bytes=most_bytes)
        assert {each.task_id for each in found} <= {"m"}
        return [(each.map_index, each.value) for each in found]

    assert await page(-1, 100) == [(0, "10"), (2, '"long one"'), (3, "13"), (9, "19")]
    assert await page(-1, 12) == [(0, "10"), (2, '"long one"')]
    assert await page(-1, 11) == [(0, "10")]
    assert await page(0, 1) == [(2, '"long one"')]
    assert await page(2, 4) == [(3, "13"), (9, "19")]
    assert await page(9, 100) == []
