"""`schedule=` and its dates: what comes out as a spec, what is refused, and that it survives JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from tickless import (
    DAG,
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    DeltaDataIntervalTimetable,
    DeltaTriggerTimetable,
    EmptyOperator,
    MultipleCronTriggerTimetable,
)
from tickless.authoring import registry
from tickless.authoring.place import DagError
from tickless.model.dag import DagSpec
from tickless.model.schedule import ScheduleKind, ScheduleSpec

NAIVE = datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001  # DAG files do that
BERLIN = ZoneInfo("Europe/Berlin")
EAST, WEST = timezone(timedelta(hours=5.5)), timezone(-timedelta(hours=3.5))
CRON, DELTA = ScheduleKind.CRON, ScheduleKind.DELTA


def schedule_of(**args: Any) -> ScheduleSpec | None:
    """As the daemon gets it: through JSON."""
    registry.reset()
    with DAG("x", **args) as made:
        EmptyOperator(task_id="t")
    spec = made.to_spec()
    assert msgspec.json.decode(msgspec.json.encode(spec), type=DagSpec) == spec
    return spec.schedule


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("@daily", {"kind": CRON, "crons": ("0 0 * * *",), "has_intervals": None}),
        ("5 4 * * SUN", {"kind": CRON, "crons": ("5 4 * * SUN",), "has_intervals": None}),
        ("* * * * * */5", {"kind": CRON, "crons": ("* * * * * */5",), "has_intervals": None}),
        ("@once", {"kind": ScheduleKind.ONCE}),
        ("@continuous", {"kind": ScheduleKind.CONTINUOUS}),
        (timedelta(hours=6), {"kind": DELTA, "text": "every 6:00:00", "every_seconds": 21600.0, "has_intervals": None}),
        (
            CronTriggerTimetable("@hourly", timezone="Asia/Tokyo", interval=timedelta(hours=1), run_immediately=True),
            {
                "kind": CRON, "crons": ("0 * * * *",), "timezone": "Asia/Tokyo", "interval_seconds": 3600.0,
                "first_within_seconds": None,
            },
        ),
        (
            CronTriggerTimetable("@hourly", timezone=BERLIN, run_immediately=timedelta(minutes=5)),
            {"kind": CRON, "crons": ("0 * * * *",), "timezone": "Europe/Berlin", "first_within_seconds": 300.0},
        ),
        (
            MultipleCronTriggerTimetable("0 6 * * *", "@weekly", run_immediately=None),
            {
                "kind": CRON, "text": "0 6 * * *, @weekly", "crons": ("0 6 * * *", "0 0 * * 0"),
                "first_within_seconds": -1,
            },
        ),
        (
            CronDataIntervalTimetable("@daily", "UTC"),
            {"kind": CRON, "crons": ("0 0 * * *",), "timezone": "UTC", "has_intervals": True},
        ),
        (DeltaTriggerTimetable(timedelta(hours=1)), {"kind": DELTA, "text": "every 1:00:00", "every_seconds": 3600.0}),
        (
            DeltaDataIntervalTimetable(timedelta(hours=1)),
            {"kind": DELTA, "text": "every 1:00:00", "every_seconds": 3600.0, "has_intervals": True},
        ),
    ],
)  # fmt: skip
def test_a_schedule_as_data(schedule: object, expected: dict[str, Any]) -> None:
    text = expected.pop("text", None) or (schedule if isinstance(schedule, str) else str(schedule))
    assert schedule_of(schedule=schedule) == ScheduleSpec(text=text, **expected)


@pytest.mark.parametrize(
    ("start", "zone", "kept"),
    [
        (NAIVE, None, NAIVE),
        (NAIVE.replace(tzinfo=UTC), "UTC", NAIVE.replace(tzinfo=UTC)),
        (NAIVE.replace(tzinfo=ZoneInfo("UTC")), "UTC", NAIVE.replace(tzinfo=UTC)),
        (datetime(2026, 7, 1, tzinfo=BERLIN), "Europe/Berlin", datetime(2026, 6, 30, 22, tzinfo=UTC)),
        (datetime(2026, 7, 1, tzinfo=EAST), "+05:30", datetime(2026, 6, 30, 18, 30, tzinfo=UTC)),
        (datetime(2026, 7, 1, tzinfo=WEST), "-03:30", datetime(2026, 7, 1, 3, 30, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_the_start_date_gives_the_time_zone(start: datetime, zone: str | None, kept: datetime) -> None:
    spec = schedule_of(schedule="@daily", start_date=start)
    assert spec is not None
    assert (spec.timezone, spec.start_at) == (zone, kept)


def test_a_timetable_may_have_a_zone_of_its_own() -> None:
    start = datetime(2026, 7, 1, tzinfo=BERLIN)
    spec = schedule_of(schedule=CronTriggerTimetable("@daily", timezone="Asia/Tokyo"), start_date=start)
    assert spec is not None and spec.timezone == "Asia/Tokyo" and spec.start_at == start
    spec = schedule_of(schedule=CronTriggerTimetable("@daily"), start_date=start)
    assert spec is not None and spec.timezone == "Europe/Berlin"


def test_dates_may_stand_in_default_args() -> None:
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    spec = schedule_of(schedule="@daily", default_args={"start_date": start, "end_date": end}, catchup=True)
    assert spec is not None
    assert (spec.start_at, spec.end_at, spec.catchup) == (start, end, True)


def test_what_else_a_dag_says_of_its_runs() -> None:
    with DAG("x", schedule="@continuous", is_paused_upon_creation=True, max_consecutive_failed_dag_runs=3) as made:
        EmptyOperator(task_id="t")
    spec = made.to_spec()
    assert (spec.max_active_runs, spec.is_paused_upon_creation, spec.max_consecutive_failed_dag_runs) == (1, True, 3)
    assert schedule_of(schedule=None, start_date=NAIVE, catchup=True) is None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"schedule": "@dayly"}, "schedule of DAG 'x' is given '@dayly', which is no preset. Did you mean '@daily'?"),
        ({"schedule": "@never"}, "There are: @hourly, @daily"),
        ({"schedule": "0 25 * * *"}, "schedule of DAG 'x': the cron expression '0 25 * * *' has '25' as its hour. Use"),
        ({"schedule": "* * *"}, "has 3 fields. Write five"),
        ({"schedule": "0 0 30 2 *"}, "'0 0 30 2 *' is never due"),
        ({"schedule": ["@daily", "@weekly"]}, "write MultipleCronTriggerTimetable("),
        ({"schedule": 5}, "is 5, which is no schedule of this release. Use None"),
        ({"schedule": CronTriggerTimetable}, "Write CronTriggerTimetable(...), with its arguments."),
        ({"schedule": timedelta(0)}, "must be between"),
        ({"schedule": timedelta(days=5000)}, "must be between"),
        ({"schedule": "@continuous", "max_active_runs": 2}, "max_active_runs=2, but it can only be 1"),
        ({"start_date": date(2026, 1, 1)}, "a date without a time"),
        ({"start_date": "2026-01-01"}, "a str, but must be a datetime"),
        (
            {"start_date": datetime(2026, 2, 1, tzinfo=UTC), "end_date": datetime(2026, 1, 1, tzinfo=UTC)},
            "start_date 2026-02-01 00:00:00+00:00 is after end_date 2026-01-01",
        ),
        ({"is_paused_upon_creation": "yes"}, "must be True or False"),
        ({"max_consecutive_failed_dag_runs": -1}, "must be at least 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(args: dict[str, Any], words: str) -> None:
    with pytest.raises(DagError) as caught:
        DAG("x", **args)
    assert words in str(caught.value)
    assert str(caught.value).startswith(__file__)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CronTriggerTimetable("61 * * * *"), "CronTriggerTimetable: the cron expression '61 * * * *'"),
        (lambda: CronTriggerTimetable("@daily", timezone="Berlin"), "there is no time zone 'Berlin'"),
        (lambda: CronTriggerTimetable("@daily", timezone=7), "must be the name of a time zone"),  # type: ignore[arg-type]  # on purpose
        (lambda: MultipleCronTriggerTimetable(), "no cron expression"),
        (lambda: DeltaTriggerTimetable(60), "must be a timedelta"),  # type: ignore[arg-type]  # on purpose
        (lambda: DeltaTriggerTimetable(timedelta(hours=1), interval=timedelta(hours=-1)), "must be between"),
    ],
)
def test_what_is_wrong_with_a_timetable_is_named(make: Any, words: str) -> None:
    with pytest.raises(DagError) as caught:
        make()
    assert words in str(caught.value)
    assert str(caught.value).startswith(__file__)
