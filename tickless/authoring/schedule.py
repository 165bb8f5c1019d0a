"""`schedule=`, `start_date=`, `end_date=`, `catchup=`: what was written about when runs are due, as a ScheduleSpec.

`schedule` is None, a preset (`@daily`), `@once`, `@continuous`, a cron expression, a timedelta, or a timetable: one of
the classes below, with Airflow's names and arguments.

`tickless.schedule` is imported where something is to be read: a process that runs tasks of DAGs without a schedule
needs neither time zones nor the cron library.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

from tickless.authoring.arguments import flag, text
from tickless.authoring.place import DagError
from tickless.errors import UserError
from tickless.model.schedule import ScheduleKind, ScheduleRules, ScheduleSpec

_LONGEST = timedelta(days=3660)
"""Longer distances are typing errors."""
_BY_GAP = -1.0


class Timetable:
    """A schedule that says more than a string can. `fields` is what it gives to the ScheduleSpec."""

    fields: Mapping[str, Any]

    def __repr__(self) -> str:
        return str(self.fields["text"])


class MultipleCronTriggerTimetable(Timetable):
    """A run is due whenever one of the crons is; a moment at which several are is one run.

    `run_immediately` (only of a first run, without start_date): True = for the last due time that has passed, however
    long ago; a timedelta = if it passed that recently; None = within a tenth of the distance, or five minutes.
    """

    def __init__(
        self,
        *crons: str,
        timezone: str | tzinfo | None = None,
        interval: timedelta = timedelta(0),
        run_immediately: bool | timedelta | None = False,
    ) -> None:
        what = type(self).__name__
        if not crons:
            raise DagError(f"{what} is given no cron expression.")
        self.fields = {
            "kind": ScheduleKind.CRON,
            "text": ", ".join(text(f"a cron expression of {what}", cron) for cron in crons),
            "crons": tuple(_cron(what, cron) for cron in crons),
            "has_intervals": False,
            "interval_seconds": _distance(f"interval of {what}", interval, least=timedelta(0)),
            "first_within_seconds": _first_within(what, run_immediately),
            "timezone": _zone_name(f"timezone of {what}", timezone),
        }


class CronTriggerTimetable(MultipleCronTriggerTimetable):
    """A run is due at each due time of the cron; its data interval reaches `interval` back from there."""

    def __init__(
        self,
        cron: str,
        *,
        timezone: str | tzinfo | None = None,
        interval: timedelta = timedelta(0),
        run_immediately: bool | timedelta | None = False,
    ) -> None:
        super().__init__(cron, timezone=timezone, interval=interval, run_immediately=run_immediately)


class CronDataIntervalTimetable(Timetable):
    """A run covers the time between two due times of the cron and starts at the second one."""

    def __init__(self, cron: str, timezone: str | tzinfo | None = None) -> None:
        self.fields = {
            "kind": ScheduleKind.CRON,
            "text": text("the cron expression of CronDataIntervalTimetable", cron),
            "crons": (_cron("CronDataIntervalTimetable", cron),),
            "has_intervals": True,
            "timezone": _zone_name("timezone of CronDataIntervalTimetable", timezone),
        }


class DeltaTriggerTimetable(Timetable):
    """A run is due every `delta` of real time; its data interval reaches `interval` back from there."""

    def __init__(self, delta: timedelta, *, interval: timedelta = timedelta(0)) -> None:
        self.fields = {
            **_delta("DeltaTriggerTimetable", delta),
            "has_intervals": False,
            "interval_seconds": _distance("interval of DeltaTriggerTimetable", interval, least=timedelta(0)),
        }


class DeltaDataIntervalTimetable(Timetable):
    """A run covers `delta` of real time and starts at its end."""

    def __init__(self, delta: timedelta) -> None:
        self.fields = {**_delta("DeltaDataIntervalTimetable", delta), "has_intervals": True}


def read_schedule(of: str, args: Mapping[str, Any], defaults: Mapping[str, Any]) -> ScheduleSpec | None:
    """The schedule of a DAG. `defaults`: its default_args, in which Airflow's users also put the dates."""
    schedule = args.get("schedule")
    start = _moment(f"start_date of {of}", args.get("start_date") or defaults.get("start_date"))
    end = _moment(f"end_date of {of}", args.get("end_date") or defaults.get("end_date"))
    fields: dict[str, Any] = {
        "timezone": _zone_of(f"start_date of {of}", start) or _zone_of(f"end_date of {of}", end),
        "start_at": start,
        "end_at": end,
        "catchup": flag(f"catchup of {of}", args.get("catchup", False)),
    }
    own = _read(of, schedule) if schedule is not None else {"kind": ScheduleKind.ONCE, "text": ""}
    fields |= {name: value for name, value in own.items() if name != "timezone" or value is not None}
    spec = ScheduleSpec(**fields)
    if schedule is None and start is None and end is None:
        return None
    from tickless.schedule.timetable import check_schedule

    try:
        check_schedule(spec, ScheduleRules())
    except UserError as error:
        raise DagError(f"{of}: {error.message}.", hint=error.hint) from None
    if spec.kind is ScheduleKind.CONTINUOUS and schedule is not None and args.get("max_active_runs") not in (None, 1):
        raise DagError(
            f"{of} has schedule='@continuous' and max_active_runs={args['max_active_runs']!r}, but it can only be 1.",
            hint="Leave max_active_runs out: each run starts when the last one has ended.",
        )
    return spec if schedule is not None else None


def _read(of: str, schedule: object) -> dict[str, Any]:
    match schedule:
        case Timetable():
            return dict(schedule.fields)
        case timedelta():
            return {**_delta(f"schedule of {of}", schedule), "has_intervals": None}
        case "@once":
            return {"kind": ScheduleKind.ONCE, "text": "@once"}
        case "@continuous":
            return {"kind": ScheduleKind.CONTINUOUS, "text": "@continuous"}
        case str():
            text(f"schedule of {of}", schedule)
            cron = _cron(f"schedule of {of}", schedule)
            return {"kind": ScheduleKind.CRON, "text": schedule, "crons": (cron,), "has_intervals": None}
        case list() | tuple() | set():
            hint = "For several crons write MultipleCronTriggerTimetable('0 6 * * *', '0 18 * * 5')."
        case type() if issubclass(schedule, Timetable):
            hint = f"Write {schedule.__name__}(...), with its arguments."
        case _:
            hint = "Use None, a preset such as '@daily', '@once', '@continuous', a cron expression or a timedelta."
    raise DagError(f"schedule of {of} is {schedule!r}, which is no schedule of this release.", hint=hint)


def _cron(what: str, cron: str) -> str:
    """The expression, with presets resolved; the time zone does not matter for whether it can be read."""
    from tickless.schedule.cron import PRESETS, Cron
    from tickless.schedule.zone import zone

    if cron.startswith("@"):
        if cron not in PRESETS:
            names = [*PRESETS, "@once", "@continuous"]
            near = difflib.get_close_matches(cron, names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)}."
            raise DagError(f"{what} is given {cron!r}, which is no preset.", hint=hint)
        return PRESETS[cron]
    try:
        return Cron(cron, zone("UTC")).text
    except UserError as error:
        raise DagError(f"{what}: {error.message}.", hint=error.hint) from None


def _delta(what: str, delta: object) -> dict[str, Any]:
    seconds = _distance(what, delta, least=timedelta(milliseconds=100))
    return {"kind": ScheduleKind.DELTA, "text": f"every {timedelta(seconds=seconds)}", "every_seconds": seconds}


def _distance(what: str, delta: object, *, least: timedelta) -> float:
    if not isinstance(delta, timedelta):
        hint = "For months and years use a cron expression." if type(delta).__name__ == "relativedelta" else None
        raise DagError(f"{what} is {delta!r}, but must be a timedelta.", hint=hint)
    if not least <= delta <= _LONGEST:
        raise DagError(f"{what} is {delta}, but must be between {least} and {_LONGEST.days} days.")
    return delta.total_seconds()


def _first_within(what: str, value: object) -> float | None:
    match value:
        case True:
            return None
        case False:
            return 0.0
        case None:
            return _BY_GAP
        case _:
            return _distance(f"run_immediately of {what}", value, least=timedelta(0))


def _moment(what: str, value: object) -> datetime | None:
    """A datetime as given; of an aware one the zone is kept apart, so that it can be told."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        kind = "a date without a time" if isinstance(value, date) else f"a {type(value).__name__}"
        hint = "For example: datetime(2026, 1, 1, tzinfo=UTC)."
        raise DagError(f"{what} is {value!r}, {kind}, but must be a datetime.", hint=hint)
    # A plain datetime again: pendulum's and pandas' own kinds cannot cross JSON.
    return datetime.combine(value.date(), value.timetz()) if type(value) is not datetime else value


def _zone_of(what: str, moment: datetime | None) -> str | None:
    return _zone_name(f"the time zone of {what}", moment.tzinfo, moment) if moment is not None else None


def _zone_name(what: str, value: object, at: datetime | None = None) -> str | None:
    """The name under which a zone is known everywhere, or its offset when it is a fixed one."""
    if value is None:
        return None
    name = value if isinstance(value, str) else getattr(value, "key", None) or getattr(value, "zone", None)
    if not isinstance(name, str) and isinstance(value, tzinfo):
        offset = value.utcoffset(None)
        if offset is None:
            raise DagError(f"{what} is {value!r}, which has no name.", hint="Use zoneinfo.ZoneInfo('Europe/Berlin').")
        minutes = math.floor(offset.total_seconds() / 60)
        name = "UTC" if minutes == 0 else f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    if not isinstance(name, str):
        raise DagError(f"{what} is {value!r}, but must be the name of a time zone or a tzinfo.")
    from tickless.schedule.zone import zone

    try:
        zone(name)
    except UserError as error:
        raise DagError(f"{what}: {error.message}.", hint=error.hint) from None
    return name
