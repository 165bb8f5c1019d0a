"""Which slot comes next. Each row is a rule: the schedule, the last run's data interval, the moment, the slot."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickless.errors import UserError
from tickless.model.schedule import Interval, ScheduleKind, ScheduleRules, ScheduleSpec, Slot
from tickless.schedule.timetable import check_schedule, first_skipped, make_timetable, next_slot, upcoming

RULES = ScheduleRules()
DAY = 86_400.0


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def show(moment: datetime) -> str:
    return (f"{moment:%m-%d %H:%M:%S}" + (f".{moment:%f}" if moment.microsecond else "")).removesuffix(":00")


def cron(*crons: str, start: str | None = None, end: str | None = None, **rest: Any) -> ScheduleSpec:
    fields: dict[str, Any] = {"start_at": at(start) if start else None, "end_at": at(end) if end else None, **rest}
    return ScheduleSpec(kind=ScheduleKind.CRON, text=" ".join(crons), crons=crons, **fields)


def delta(seconds: float, start: str | None = None, end: str | None = None, **rest: Any) -> ScheduleSpec:
    fields: dict[str, Any] = {"start_at": at(start) if start else None, "end_at": at(end) if end else None, **rest}
    return ScheduleSpec(kind=ScheduleKind.DELTA, text="", every_seconds=seconds, **fields)


def days(*crons: str, **rest: Any) -> ScheduleSpec:
    return cron(*crons, has_intervals=True, **rest)


def hours(seconds: float, **rest: Any) -> ScheduleSpec:
    return delta(seconds, has_intervals=True, **rest)


def kind(which: ScheduleKind, start: str | None = None, end: str | None = None) -> ScheduleSpec:
    return ScheduleSpec(kind=which, text="", start_at=at(start) if start else None, end_at=at(end) if end else None)


DAILY, NOON = "0 0 * * *", "2026-01-10 12:00"
ONCE, CONTINUOUS = ScheduleKind.ONCE, ScheduleKind.CONTINUOUS

ROWS: list[tuple[str, ScheduleSpec, tuple[str, str] | None, str, str | None]] = [
    # what, schedule, last interval, now, "run_after [start, end]", without the interval when that is empty, or None
    # -- cron, trigger convention, no catchup
    ("the first run waits for the next slot", cron(DAILY), None, NOON, "01-11 00:00"),
    ("a slot that is now is due", cron(DAILY), None, "2026-01-10 00:00", "01-10 00:00"),
    (
        "with a start date the slot that has just passed is due at once",
        cron(DAILY, start="2026-01-01"), None, NOON, "01-10 00:00",
    ),
    ("a start date to come", cron(DAILY, start="2026-02-01 06:00"), None, NOON, "02-02 00:00"),
    ("a start date on a slot", cron(DAILY, start="2026-02-01"), None, NOON, "02-01 00:00"),
    (
        "after a run comes the next slot",
        cron(DAILY), ("2026-01-10", "2026-01-10"), NOON, "01-11 00:00",
    ),
    (
        "of what was missed only the latest is due",
        cron(DAILY), ("2026-01-03", "2026-01-03"), NOON, "01-10 00:00",
    ),
    (
        "a clock that was set back fires nothing again",
        cron(DAILY), ("2026-01-10", "2026-01-10"), "2026-01-05", "01-11 00:00",
    ),
    (
        "a later start date holds back what goes on",
        cron(DAILY, start="2026-03-01"), ("2026-01-10", "2026-01-10"), NOON, "03-01 00:00",
    ),
    (
        "an interval reaches back from the slot",
        cron(DAILY, interval_seconds=3600.0), None, NOON, "01-11 00:00 [01-10 23:00, 01-11 00:00]",
    ),
    ("the end date is a slot, too", cron(DAILY, end="2026-01-11"), None, NOON, "01-11 00:00"),
    ("nothing after the end date", cron(DAILY, end="2026-01-10 23:59"), None, NOON, None),
    ("several crons are one set of slots", cron(DAILY, "0 18 * * *"), None, NOON, "01-10 18:00"),
    (
        "several crons: of what was missed only the latest",
        cron(DAILY, "0 6 * * *"), ("2026-01-03", "2026-01-03"), NOON, "01-10 06:00",
    ),
    (
        "two crons at one moment are one slot",
        cron(DAILY, "0 */12 * * *"), ("2026-01-10", "2026-01-10"), "2026-01-10 00:00",
        "01-10 12:00",
    ),
    (
        "run_immediately=True takes the last slot",
        cron(DAILY, first_within_seconds=None), None, NOON, "01-10 00:00",
    ),
    (
        "run_immediately=timedelta takes it when it is near",
        cron(DAILY, first_within_seconds=DAY / 2), None, NOON, "01-10 00:00",
    ),
    (
        "run_immediately=timedelta leaves it when it is far",
        cron(DAILY, first_within_seconds=3600.0), None, NOON, "01-11 00:00",
    ),
    (
        "run_immediately=None takes it within a tenth",
        cron(DAILY, first_within_seconds=-1.0), None, "2026-01-10 02:20", "01-10 00:00",
    ),
    (
        "run_immediately=None leaves it after a tenth",
        cron(DAILY, first_within_seconds=-1.0), None, "2026-01-10 02:30", "01-11 00:00",
    ),
    # -- cron, trigger convention, catchup
    (
        "catchup begins at the start date",
        cron(DAILY, start="2026-01-01 10:00", catchup=True), None, NOON, "01-02 00:00",
    ),
    (
        "catchup goes on slot by slot",
        cron(DAILY, start="2026-01-01", catchup=True), ("2026-01-02", "2026-01-02"), NOON,
        "01-03 00:00",
    ),
    ("catchup without a start date begins now", cron(DAILY, catchup=True), None, NOON, "01-11 00:00"),
    (
        "catchup ends at the end date",
        cron(DAILY, start="2026-01-01", end="2026-01-03", catchup=True), ("2026-01-03", "2026-01-03"), NOON, None,
    ),
    # -- cron, data intervals
    ("the latest complete interval is due at once", days(DAILY), None, NOON, "01-10 00:00 [01-09 00:00, 01-10 00:00]"),
    (
        "an interval that ends now is complete",
        days(DAILY), None, "2026-01-10 00:00", "01-10 00:00 [01-09 00:00, 01-10 00:00]",
    ),
    (
        "after a run comes the interval that begins where it ended",
        days(DAILY), ("2026-01-09", "2026-01-10"), NOON, "01-11 00:00 [01-10 00:00, 01-11 00:00]",
    ),
    (
        "intervals that were missed are skipped but for the latest",
        days(DAILY), ("2026-01-02", "2026-01-03"), NOON, "01-10 00:00 [01-09 00:00, 01-10 00:00]",
    ),
    (
        "the first interval begins at the start date",
        days(DAILY, start="2026-02-01"), None, NOON, "02-02 00:00 [02-01 00:00, 02-02 00:00]",
    ),
    (
        "or at the slot after it",
        days(DAILY, start="2026-02-01 06:00"), None, NOON, "02-03 00:00 [02-02 00:00, 02-03 00:00]",
    ),
    (
        "catchup covers every interval",
        days(DAILY, start="2026-01-01", catchup=True), None, NOON, "01-02 00:00 [01-01 00:00, 01-02 00:00]",
    ),
    (
        "catchup of intervals goes on",
        days(DAILY, start="2026-01-01", catchup=True), ("2026-01-01", "2026-01-02"), NOON,
        "01-03 00:00 [01-02 00:00, 01-03 00:00]",
    ),
    (
        "an interval that begins at the end date is the last",
        days(DAILY, start="2026-01-01", end="2026-01-03", catchup=True), ("2026-01-02", "2026-01-03"), NOON,
        "01-04 00:00 [01-03 00:00, 01-04 00:00]",
    ),
    (
        "no interval begins after the end date",
        days(DAILY, start="2026-01-01", end="2026-01-03", catchup=True), ("2026-01-03", "2026-01-04"), NOON, None,
    ),
    (
        "a changed cron is joined at its own slot",
        days("0 6 * * *", start="2026-01-01", catchup=True), ("2026-01-09", "2026-01-10"), NOON,
        "01-10 06:00 [01-09 06:00, 01-10 06:00]",
    ),
    (
        "a month is as long as it is",
        days("0 0 L * *"), ("2026-01-31", "2026-02-28"), NOON, "03-31 00:00 [02-28 00:00, 03-31 00:00]",
    ),
    (
        "the day of the change has 23 hours",
        days(DAILY, timezone="Europe/Berlin"), ("2026-03-27 23:00", "2026-03-28 23:00"), "2026-03-29 12:00",
        "03-29 22:00 [03-28 23:00, 03-29 22:00]",
    ),
    # -- timedelta
    ("a delta begins at once", delta(3600), None, NOON, "01-10 12:00"),
    ("a delta counts from its last run", delta(3600), ("2026-01-10 11:20",) * 2, NOON, "01-10 12:20"),
    (
        "a delta keeps its beat when it has missed some",
        delta(3600), ("2026-01-10 03:20",) * 2, NOON, "01-10 11:20",
    ),
    (
        "a delta counts from the start date",
        delta(3600, start="2026-01-01 00:15"), None, NOON, "01-10 11:15",
    ),
    ("a delta waits for the start date", delta(3600, start="2026-02-01 00:15"), None, NOON, "02-01 00:15"),
    (
        "a delta catches up from the start date",
        delta(3600, start="2026-01-01 00:15", catchup=True), None, NOON, "01-01 00:15",
    ),
    (
        "a delta catches up one by one",
        delta(3600, start="2026-01-01 00:15", catchup=True), ("2026-01-01 00:15",) * 2, NOON,
        "01-01 01:15",
    ),
    ("a delta of fractions", delta(0.5), ("2026-01-10 12:00",) * 2, NOON, "01-10 12:00:00.500000"),
    ("a delta ends", delta(3600, end="2026-01-10 12:10"), ("2026-01-10 11:20",) * 2, NOON, None),
    ("a covering delta begins with the hour before", hours(3600), None, NOON, "01-10 12:00 [01-10 11:00, 01-10 12:00]"),
    (
        "a covering delta goes on",
        hours(3600), ("2026-01-10 10:20", "2026-01-10 11:20"), NOON, "01-10 12:20 [01-10 11:20, 01-10 12:20]",
    ),
    (
        "a covering delta skips",
        hours(3600), ("2026-01-10 02:20", "2026-01-10 03:20"), NOON, "01-10 11:20 [01-10 10:20, 01-10 11:20]",
    ),
    (
        "a covering delta catches up",
        hours(3600, start="2026-01-01", catchup=True), None, NOON, "01-01 01:00 [01-01 00:00, 01-01 01:00]",
    ),
    # -- @once and @continuous
    ("@once is due at once", kind(ONCE), None, NOON, "01-10 12:00"),
    ("@once waits for its start date", kind(ONCE, start="2026-02-01"), None, NOON, "02-01 00:00"),
    ("@once is never due again", kind(ONCE, start="2026-01-01"), ("2026-01-01", "2026-01-01"), NOON, None),
    ("@once after its end date", kind(ONCE, end="2026-01-01"), None, NOON, None),
    ("@continuous begins at once", kind(CONTINUOUS), None, NOON, "01-10 12:00"),
    (
        "@continuous goes on where it ended",
        kind(CONTINUOUS, start="2026-01-01"), ("2026-01-10 11:00", "2026-01-10 11:30"), NOON,
        "01-10 12:00 [01-10 11:30, 01-10 12:00]",
    ),
    (
        "@continuous runs at most once a second",
        kind(CONTINUOUS), ("2026-01-10 11:00", NOON), NOON, "01-10 12:00:01 [01-10 12:00, 01-10 12:00:01]",
    ),
    ("@continuous waits for its start date", kind(CONTINUOUS, start="2026-02-01"), None, NOON, "02-01 00:00"),
    ("@continuous ends", kind(CONTINUOUS, end="2026-01-10"), None, NOON, None),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "last", "now", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_next_slot(spec: ScheduleSpec, last: tuple[str, str] | None, now: str, expected: str | None) -> None:
    slot = next_slot(spec, RULES, Interval(at(last[0]), at(last[1])) if last else None, at(now))
    if slot is None:
        assert expected is None
        return
    interval = f" [{show(slot.start)}, {show(slot.end)}]" if slot.start != slot.end else ""
    assert slot.end == slot.run_after
    assert show(slot.run_after) + interval == expected


def test_the_installation_settles_what_the_file_leaves_open() -> None:
    open_cron, open_delta = cron(DAILY, has_intervals=None), delta(3600, has_intervals=None)
    both = ScheduleRules(create_cron_data_intervals=True, create_delta_data_intervals=True)
    for spec in (open_cron, open_delta):
        last = Interval(at("2026-01-09"), at("2026-01-10"))
        bare = next_slot(spec, RULES, last, at("2026-01-10 00:30"))
        covering = next_slot(spec, both, last, at("2026-01-10 00:30"))
        assert bare is not None and bare.start == bare.end
        assert covering is not None and covering.start == last.end < covering.end
    east = ScheduleRules(default_timezone="Asia/Tokyo")
    slot = next_slot(open_cron, east, None, at(NOON))
    assert slot is not None and slot.run_after == at("2026-01-10 15:00")


def test_a_naive_start_date_is_in_the_zone_of_the_schedule() -> None:
    spec = ScheduleSpec(
        kind=ScheduleKind.CRON, text="", crons=("0 6 * * *",), timezone="Europe/Berlin", catchup=True,
        start_at=datetime(2026, 7, 1, 6),  # noqa: DTZ001  # that is the point
    )  # fmt: skip
    slot = next_slot(spec, RULES, None, at("2026-07-05"))
    assert slot is not None and slot.run_after == at("2026-07-01 04:00")


def test_a_run_by_hand_has_the_interval_that_was_complete() -> None:
    now = at(NOON)
    for spec, expected in (
        (cron(DAILY), (now, now)),
        (cron(DAILY, interval_seconds=3600.0), (at("2026-01-10 11:00"), now)),
        (days(DAILY), (at("2026-01-09"), at("2026-01-10"))),
        (kind(ONCE), (now, now)),
        (kind(CONTINUOUS), (now, now)),
    ):
        assert make_timetable(spec, RULES, None, now).interval_of_manual(now) == expected


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (cron(DAILY, start="2026-02-01", end="2026-01-01"), "is after end_date"),
        (cron("0 0 31 2 *"), "never due"),
        (cron(DAILY, timezone="Mars/Olympus"), "no time zone 'Mars/Olympus'"),
        (cron(DAILY, timezone="Europe"), "no time zone 'Europe'"),
        (cron(DAILY, timezone="../etc/passwd"), "no time zone"),
    ],
)
def test_what_cannot_be_is_refused(spec: ScheduleSpec, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_schedule(spec, RULES)


SPECS = st.sampled_from(
    [
        row[1]
        for row in ROWS
        if row[1].end_at is None and row[1].kind in (ScheduleKind.CRON, ScheduleKind.DELTA, ScheduleKind.CONTINUOUS)
    ]
)
STEPS = st.lists(st.sampled_from((0.0, 0.4, 60.0, 3600.0, 90_000.0, -7200.0, 1e6)), min_size=1, max_size=12)


@given(spec=SPECS, steps=STEPS)
def test_slots_only_go_forward_whatever_the_clock_does(spec: ScheduleSpec, steps: list[float]) -> None:
    """Each slot that was acted upon is in the past of the next one: so none comes twice (I5)."""
    now, seen = at("2026-03-28 22:00"), []
    last: Interval | None = None
    for step in steps:
        now += timedelta(seconds=step)
        slot = next_slot(spec, RULES, last, now)
        assert slot is not None
        again = next_slot(spec, RULES, last, now)
        assert again == slot
        if slot.run_after <= now:
            seen.append(slot.run_after)
            assert last is None or (slot.run_after > last.end and slot.start <= slot.end == slot.run_after)
            last = Interval(slot.start, slot.end)
    assert seen == sorted(set(seen))


@given(spec=SPECS.filter(lambda spec: spec.kind is not ScheduleKind.CONTINUOUS), jump=st.integers(1, 2_000_000))
def test_catchup_leaves_no_slot_out(spec: ScheduleSpec, jump: int) -> None:
    """Slot by slot with the clock, or all at once after a long sleep: the same slots."""
    spec = replace(spec, catchup=True, start_at=at("2026-01-01 00:20"))
    late = at("2026-01-01 00:20") + timedelta(seconds=jump)
    slept: list[Slot] = []
    awake: list[Slot] = []
    for found, is_awake in ((slept, False), (awake, True)):
        now, last = at("2026-01-01 00:20"), None
        for _ in range(30):
            slot = next_slot(spec, RULES, last, now if is_awake else late)
            assert slot is not None
            if slot.run_after > late:
                break
            now = max(now, slot.run_after)
            last = Interval(slot.start, slot.end)
            found.append(slot)
    assert slept == awake


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (cron(DAILY), "01-10 00:00"),  # the daemon was away when the first slot was due
        (cron(DAILY, catchup=True), "01-04 00:00"),
        (hours(3600, catchup=True), "01-03 12:00 [01-03 11:00, 01-03 12:00]"),
        (days(DAILY, catchup=True), "01-03 00:00 [01-02 00:00, 01-03 00:00]"),
        (delta(5 * 3600), "01-10 09:00"),
        (kind(ONCE), "01-03 12:00"),
        (kind(CONTINUOUS), "01-10 12:00 [01-03 12:00, 01-10 12:00]"),
    ],
)
def test_without_a_start_date_a_schedule_counts_from_when_it_was_first_seen(spec: ScheduleSpec, expected: str) -> None:
    slot = next_slot(spec, RULES, None, at(NOON), since=at("2026-01-03 12:00"))
    assert slot is not None
    interval = f" [{show(slot.start)}, {show(slot.end)}]" if slot.start != slot.end else ""
    assert show(slot.run_after) + interval == expected


def test_what_comes_is_told_in_order() -> None:
    last = Interval(at("2026-01-03"), at("2026-01-03"))
    slots = [slot.run_after for slot, _ in zip(upcoming(cron(DAILY), RULES, last, at(NOON)), range(3), strict=False)]
    assert slots == [at("2026-01-10"), at("2026-01-11"), at("2026-01-12")]
    ending = cron(DAILY, end="2026-01-11")
    assert [slot.run_after for slot in upcoming(ending, RULES, last, at(NOON))] == [at("2026-01-10"), at("2026-01-11")]


@pytest.mark.parametrize(
    ("spec", "last", "now", "skipped"),
    [
        (cron(DAILY), "2026-01-09", NOON, None),
        (cron(DAILY), "2026-01-07", NOON, "2026-01-08"),
        (cron(DAILY, "0 6 * * *"), "2026-01-09", NOON, "2026-01-09 06:00"),
        (delta(3600), "2026-01-10 11:00", NOON, None),
        (delta(3600), "2026-01-10 09:00", NOON, "2026-01-10 10:00"),
        (kind(CONTINUOUS), "2026-01-09", NOON, None),
    ],
)
def test_what_is_skipped_is_known(spec: ScheduleSpec, last: str, now: str, skipped: str | None) -> None:
    before = Interval(at(last), at(last))
    slot = next_slot(spec, RULES, before, at(now))
    assert slot is not None
    assert first_skipped(spec, RULES, before, slot) == (at(skipped) if skipped else None)
