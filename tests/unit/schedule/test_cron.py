"""Cron expressions: the language, month ends and leap days, and what clocks do in spring and autumn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tickless.errors import UserError
from tickless.schedule.cron import PRESETS, Cron
from tickless.schedule.zone import zone

BERLIN = "Europe/Berlin"  # 2026: 29 March 02:00 -> 03:00, 25 October 03:00 -> 02:00
NEW_YORK = "America/New_York"  # 2026: 8 March 02:00 -> 03:00, 1 November 02:00 -> 01:00
LORD_HOWE = "Australia/Lord_Howe"  # by half an hour: 2026: 5 April 02:00 -> 01:30, 4 October 02:00 -> 02:30
APIA = "Pacific/Apia"  # had no 30 December 2011


def at(text: str) -> datetime:
    """`2026-01-31 12:00`, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(cron: str, tz: str, start: str, count: int) -> list[str]:
    """The next due times after the start, in UTC."""
    reader, now, found = Cron(cron, zone(tz)), at(start), []
    for _ in range(count):
        tick = reader.first_after(now)
        assert tick is not None
        found.append(f"{tick:%Y-%m-%d %H:%M:%S}".removesuffix(":00"))
        now = tick
    return found


LANGUAGE = [
    # cron, after, due times (all in UTC)
    ("*/15 * * * *", "2026-01-01 00:00", ["2026-01-01 00:15", "2026-01-01 00:30", "2026-01-01 00:45"]),
    ("0 9 * * MON-FRI", "2026-01-02 09:00", ["2026-01-05 09:00", "2026-01-06 09:00"]),
    ("0 0 * * fri-mon", "2026-01-01 00:00", ["2026-01-02 00:00", "2026-01-03 00:00", "2026-01-04 00:00"]),
    ("0 0 1 nov-feb *", "2026-01-15 00:00", ["2026-02-01 00:00", "2026-11-01 00:00", "2026-12-01 00:00"]),
    ("0 0 * * 7", "2026-01-01 00:00", ["2026-01-04 00:00", "2026-01-11 00:00"]),
    ("0 0 ? * 1", "2026-01-01 00:00", ["2026-01-05 00:00"]),
    ("5,35 8-18/5 * * *", "2026-01-01 08:10", ["2026-01-01 08:35", "2026-01-01 13:05", "2026-01-01 13:35"]),
    # the seconds come last
    ("* * * * * */20", "2026-01-01 00:00", ["2026-01-01 00:00:20", "2026-01-01 00:00:40", "2026-01-01 00:01"]),
    ("30 6 * * * 15", "2026-01-01 00:00", ["2026-01-01 06:30:15", "2026-01-02 06:30:15"]),
    # day of month or day of week, when both are restricted
    ("0 0 13 * 5", "2026-02-01 00:00", ["2026-02-06 00:00", "2026-02-13 00:00", "2026-02-20 00:00"]),
    ("0 0 */10 * 1", "2026-01-01 00:00", ["2026-01-05 00:00", "2026-01-11 00:00", "2026-01-12 00:00"]),
    # month ends
    ("0 0 31 * *", "2026-01-31 00:00", ["2026-03-31 00:00", "2026-05-31 00:00", "2026-07-31 00:00"]),
    ("0 0 30 * *", "2026-01-30 00:00", ["2026-03-30 00:00", "2026-04-30 00:00"]),
    ("0 0 L * *", "2026-01-31 00:00", ["2026-02-28 00:00", "2026-03-31 00:00", "2026-04-30 00:00"]),
    ("0 0 L 2 *", "2027-01-01 00:00", ["2027-02-28 00:00", "2028-02-29 00:00", "2029-02-28 00:00"]),
    ("0 0 29 2 *", "2026-01-01 00:00", ["2028-02-29 00:00", "2032-02-29 00:00"]),
    ("0 0 29 2 *", "2096-02-29 00:00", ["2104-02-29 00:00"]),  # 2100 is no leap year
    ("0 0 * * 5L", "2026-01-01 00:00", ["2026-01-30 00:00", "2026-02-27 00:00"]),
    ("0 0 * * L5", "2026-01-01 00:00", ["2026-01-30 00:00", "2026-02-27 00:00"]),
    ("0 0 * * 2#2", "2026-01-01 00:00", ["2026-01-13 00:00", "2026-02-10 00:00"]),
    (PRESETS["@hourly"], "2026-12-31 23:00", ["2027-01-01 00:00", "2027-01-01 01:00"]),
    (PRESETS["@daily"], "2026-02-28 00:00", ["2026-03-01 00:00"]),
    (PRESETS["@weekly"], "2026-01-01 00:00", ["2026-01-04 00:00"]),
    (PRESETS["@monthly"], "2026-01-01 00:00", ["2026-02-01 00:00", "2026-03-01 00:00"]),
    (PRESETS["@quarterly"], "2026-01-01 00:00", ["2026-04-01 00:00", "2026-07-01 00:00", "2026-10-01 00:00"]),
    (PRESETS["@yearly"], "2026-01-01 00:00", ["2027-01-01 00:00"]),
]


@pytest.mark.parametrize(("cron", "after", "due"), LANGUAGE)
def test_an_expression_is_due(cron: str, after: str, due: list[str]) -> None:
    assert ticks(cron, "UTC", after, len(due)) == due


CLOCKS = [
    # cron, zone, after, due times (all in UTC)
    # a daily time keeps to the wall clock: 24 h, then 23 h
    ("0 9 * * *", BERLIN, "2026-03-27 12:00", ["2026-03-28 08:00", "2026-03-29 07:00", "2026-03-30 07:00"]),
    ("0 9 * * *", BERLIN, "2026-10-24 00:00", ["2026-10-24 07:00", "2026-10-25 08:00"]),
    # a time that is skipped moves forward by the gap, once; 03:30 of that day is the same moment
    ("30 2 * * *", BERLIN, "2026-03-28 00:00", ["2026-03-28 01:30", "2026-03-29 01:30", "2026-03-30 00:30"]),
    ("30 2,3 * * *", BERLIN, "2026-03-29 00:00", ["2026-03-29 01:30", "2026-03-30 00:30"]),
    ("30 2 * * *", NEW_YORK, "2026-03-08 00:00", ["2026-03-08 07:30", "2026-03-09 06:30"]),
    # a time that is shown twice is due the second time, once
    ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 01:30", "2026-10-26 01:30"]),
    ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", ["2026-11-01 06:30", "2026-11-02 06:30"]),
    ("30 2 * * *", BERLIN, "2026-10-25 00:45", ["2026-10-25 01:30"]),  # also asked during the first time
    ("0 2-4 * * *", BERLIN, "2026-10-25 00:00", ["2026-10-25 01:00", "2026-10-25 02:00", "2026-10-25 03:00"]),
    # with every hour in it, it is real time: no hour is left out, and none is doubled
    ("0 * * * *", BERLIN, "2026-03-28 23:30", ["2026-03-29 00:00", "2026-03-29 01:00", "2026-03-29 02:00"]),
    ("0 * * * *", BERLIN, "2026-10-24 23:30", ["2026-10-25 00:00", "2026-10-25 01:00", "2026-10-25 02:00"]),
    ("*/30 * * * *", NEW_YORK, "2026-11-01 05:00", ["2026-11-01 05:30", "2026-11-01 06:00", "2026-11-01 06:30"]),
    ("* * * * * */30", NEW_YORK, "2026-11-01 05:59:30", ["2026-11-01 06:00", "2026-11-01 06:00:30"]),
    # half an hour
    ("10 2 * * *", LORD_HOWE, "2026-10-03 00:00", ["2026-10-03 15:40", "2026-10-04 15:10"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-04 00:00", ["2026-04-04 15:15", "2026-04-05 15:15"]),
    ("*/30 * * * *", LORD_HOWE, "2026-04-04 14:30", ["2026-04-04 15:00", "2026-04-04 15:30", "2026-04-04 16:00"]),
    # a day that never was moves to the next one, which is due anyway
    ("0 12 * * *", APIA, "2011-12-28 23:00", ["2011-12-29 22:00", "2011-12-30 22:00"]),
    # zones without summer time, with odd offsets, and plain offsets
    ("0 9 * * *", "Asia/Kolkata", "2026-01-01 00:00", ["2026-01-01 03:30", "2026-01-02 03:30"]),
    ("0 0 1 * *", "Asia/Tokyo", "2026-01-01 00:00", ["2026-01-31 15:00", "2026-02-28 15:00"]),
    ("0 0 * * *", "+02:00", "2026-01-01 00:00", ["2026-01-01 22:00"]),
    ("0 0 * * *", "-03:30", "2026-01-01 00:00", ["2026-01-01 03:30"]),
]


@pytest.mark.parametrize(("cron", "tz", "after", "due"), CLOCKS)
def test_an_expression_is_due_where_clocks_are_set(cron: str, tz: str, after: str, due: list[str]) -> None:
    assert ticks(cron, tz, after, len(due)) == due


@pytest.mark.parametrize("tz", [BERLIN, NEW_YORK, LORD_HOWE, "UTC"])
@pytest.mark.parametrize(
    "cron", ["*/15 * * * *", "7 * * * *", "15,45 1-3 * * *", "30 2 * * *", "*/20 0,2,12 * * *", "0 0 1,25,L * *"]
)
def test_looking_back_finds_what_looking_forward_found(cron: str, tz: str) -> None:
    """Around every change of the year: no due time is left out, doubled or out of order, in either direction."""
    reader = Cron(cron, zone(tz))
    for day in ("2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"):
        start, end = at(day) - timedelta(hours=30), at(day) + timedelta(hours=30)
        forward, tick = [], reader.first_after(start)
        while tick is not None and tick <= end:
            forward.append(tick)
            tick = reader.first_after(tick)
        assert forward == sorted(set(forward))
        backward, tick = [], reader.last_until(end)
        while tick is not None and tick > start:
            backward.append(tick)
            tick = reader.last_until(tick - timedelta(microseconds=1))
        assert backward[::-1] == forward
        moment = start
        while moment <= end:  # and from any moment in between
            later = [each for each in forward if each > moment]
            if later:
                assert reader.first_after(moment) == later[0]
            earlier = [each for each in forward if each <= moment]
            if earlier:
                assert reader.last_until(moment) == earlier[-1]
            moment += timedelta(minutes=7, seconds=1)


def test_looking_back_from_a_fraction_of_a_second() -> None:
    reader = Cron("* * * * * *", zone("UTC"))
    now = at("2026-01-01 00:00") + timedelta(seconds=5.25)
    assert reader.last_until(now) == at("2026-01-01 00:00:05")
    assert reader.first_after(now) == at("2026-01-01 00:00:06")
    assert reader.last_until(at("2026-01-01 00:00:05")) == at("2026-01-01 00:00:05")


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("* * *", "has 3 fields"),
        ("* * * * * * 2030", "has 7 fields"),
        ("61 * * * *", "'61' as its minute"),
        ("0 25 * * *", "'25' as its hour"),
        ("0 0 0 * *", "'0' as its day of month"),
        ("0 0 * 13 *", "'13' as its month"),
        ("0 0 * * 8", "'8' as its day of week"),
        ("* * * * * 60", "'60' as its second"),
        ("*/0 * * * *", "as its minute"),
        ("0 0 * * x", "'X' as its day of week"),
        ("noon * * * *", "'NOON' as its minute"),
        ("0 0 30 2 *", "is never due"),
        ("0 0 31 4,6 *", "is never due"),
    ],
)
def test_a_bad_expression_is_named(cron: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Cron(cron, UTC)
