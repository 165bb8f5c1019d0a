"""Slots of a stretch of the past: each rule is a row, and each row is read in both directions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.builders import cron
from tickless.model.schedule import ScheduleKind, ScheduleRules, ScheduleSpec, Slot
from tickless.schedule.span import Span, as_instant, settle

RULES = ScheduleRules()
LATE = datetime(2030, 1, 1, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def span(spec: ScheduleSpec, first: str, last: str, *, due_until: datetime = LATE, backwards: bool = False) -> Span:
    spec = settle(spec, RULES, None, at(first))
    return Span(spec, at(first), at(last), due_until=due_until, is_backwards=backwards)


def every(found: Span) -> list[Slot]:
    slots: list[Slot] = []
    place = None
    while (slot := found.next(place)) is not None:
        slots.append(slot)
        place = found.place_of(slot)
        assert len(slots) < 100
    return slots


def delta(hours: float, **fields: object) -> ScheduleSpec:
    return ScheduleSpec(kind=ScheduleKind.DELTA, text="delta", every_seconds=hours * 3600, **fields)  # type: ignore[arg-type]  # whatever a schedule takes


@pytest.mark.parametrize(
    ("spec", "first", "last", "starts", "ends"),
    [
        # both ends are included; the convention decides of what
        (cron("0 6 * * *"), "2026-01-01T06", "2026-01-03T06", ["01-01T06", "01-02T06", "01-03T06"], None),
        (cron("0 6 * * *"), "2026-01-01T07", "2026-01-03T05", ["01-02T06"], None),
        (
            cron("0 6 * * *", has_intervals=True),
            *("2026-01-01T06", "2026-01-02T06"),
            *(["01-01T06", "01-02T06"], ["01-02T06", "01-03T06"]),
        ),
        (
            cron("0 6 * * *", interval_seconds=3600.0),
            *("2026-01-01T06", "2026-01-01T06", ["01-01T05"], ["01-01T06"]),
        ),
        # several crons are one set of slots
        (
            cron("0 6 * * *", "0 18 * * *"),
            *("2026-01-01T00", "2026-01-02T06", ["01-01T06", "01-01T18", "01-02T06"], None),
        ),
        # months end when they end
        (
            cron("0 0 L * *", has_intervals=True),
            *("2026-01-31T00", "2026-03-31T00"),
            *(["01-31T00", "02-28T00", "03-31T00"], ["02-28T00", "03-31T00", "04-30T00"]),
        ),
        # summer time begins and ends: the time of day stays, the distance does not
        (
            cron("30 2 * * *", timezone=BERLIN),
            *("2026-03-28T00", "2026-03-30T12", ["03-28T01:30", "03-29T01:30", "03-30T00:30"], None),
        ),
        (
            cron("30 2 * * *", timezone=BERLIN, has_intervals=True),
            *("2026-10-24T00", "2026-10-25T12"),
            *(["10-24T00:30", "10-25T01:30"], ["10-25T01:30", "10-26T01:30"]),
        ),
        (
            cron("0 * * * *", timezone=BERLIN),
            *("2026-10-25T00", "2026-10-25T03", ["10-25T00", "10-25T01", "10-25T02", "10-25T03"], None),
        ),
        # a delta counts from its start_date, whatever the range begins with, else from there
        (
            delta(6, start_at=at("2026-01-01T02")),
            "2026-01-02T00",
            "2026-01-02T14",
            ["01-02T02", "01-02T08", "01-02T14"],
            None,
        ),
        (
            delta(6, start_at=at("2026-01-05T02"), has_intervals=True),
            *("2026-01-02T00", "2026-01-02T08", ["01-02T02", "01-02T08"], ["01-02T08", "01-02T14"]),
        ),
        (delta(6, has_intervals=False), "2026-01-02T01", "2026-01-02T13", ["01-02T01", "01-02T07", "01-02T13"], None),
        # start_date and end_date of a cron do not bound it
        (
            cron("0 6 * * *", start_at=at("2027-01-01"), end_at=at("2025-01-01")),
            *("2026-01-01T06", "2026-01-01T06", ["01-01T06"], None),
        ),
        (cron("0 0 29 2 *"), "2026-01-01", "2026-12-31", [], None),
    ],
)
def test_the_slots_of_a_range(
    spec: ScheduleSpec, first: str, last: str, starts: list[str], ends: list[str] | None
) -> None:
    starts = [f"2026-{text}" for text in starts]
    ends = [f"2026-{text}" for text in ends] if ends is not None else starts
    expected = [Slot(at(end), at(start), at(end)) for start, end in zip(starts, ends, strict=True)]
    forward, backward = span(spec, first, last), span(spec, first, last, backwards=True)
    assert every(forward) == expected
    assert every(backward) == expected[::-1]
    for index, slot in enumerate(expected):
        for other_index, other in enumerate(expected):
            place = forward.place_of(slot)
            assert forward.has_passed(other, place) == (other_index <= index)
            assert backward.has_passed(other, place) == (other_index >= index)
        assert not forward.has_passed(slot, None)
        assert not forward.has_passed(slot._replace(end=slot.end + timedelta(seconds=1)), forward.place_of(slot))


@pytest.mark.parametrize("backwards", [False, True])
def test_what_was_not_due_yet_is_left_out(backwards: bool) -> None:
    covering = cron("0 6 * * *", has_intervals=True)
    due = at("2026-01-03T05:59")
    found = every(span(covering, "2026-01-01", "9000-01-01", due_until=due, backwards=backwards))
    assert [slot.start for slot in found] == [at("2026-01-01T06")]
    found = every(span(covering, "2026-01-01", "9000-01-01", due_until=due + timedelta(minutes=1), backwards=backwards))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2026-07-01", "2026-06-30T22"),
        ("2026-01-01", "2025-12-31T23"),
        ("2026-03-29T02:30", "2026-03-29T01:30"),
        ("2026-07-01T00:00Z", "2026-07-01"),
    ],
)
def test_a_date_without_time_zone_is_in_that_of_the_schedule(written: str, instant: str) -> None:
    assert as_instant(datetime.fromisoformat(written), cron("0 0 * * *", timezone=BERLIN), RULES) == at(instant)


def test_what_the_installation_settles_is_settled_for_ever() -> None:
    rules = ScheduleRules(default_timezone=BERLIN, create_cron_data_intervals=True)
    open_spec = cron("0 0 * * *", has_intervals=None)
    settled = settle(open_spec, rules, None, at("2026-01-01"))
    assert (settled.timezone, settled.has_intervals) == (BERLIN, True)
    assert settle(settled, RULES, None, LATE) == settled


def test_a_delta_counts_on_from_the_run_that_it_has_made() -> None:
    settled = settle(delta(6, start_at=at("2026-01-01T02")), RULES, at("2026-01-01T03"), LATE)
    assert every(Span(settled, at("2026-01-02"), at("2026-01-02T04"), due_until=LATE))[0].run_after == at(
        "2026-01-02T03"
    )
