"""The schema: every key with its type, unit, default, doc and reload class. The only place that knows a key.

`config/tickless.toml` and docs/config.md are written from it (`python -m tickless.config.reference`), and the tests
fail when they are not. Code that wants a setting takes `Settings`, made by `config.load`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from tickless.config.place import SOCKET_NAME
from tickless.errors import UserError
from tickless.model.limit import Limits, Routing
from tickless.model.schedule import ScheduleRules
from tickless.schedule.zone import zone


class Reload(StrEnum):
    """When a changed value takes effect."""

    LIVE = "live"  # at a reload, on everything from then on
    RESTART = "restart"  # when the daemon is started again


def _key(
    default: Any,
    *,
    doc: str,
    reload: Reload,
    unit: str | None = None,
    aliases: tuple[str, ...] = (),
    is_secret: bool = False,
    **constraints: Any,
) -> Any:
    """One key. Its type is the annotation; `aliases` are other names that are understood."""
    about: dict[str, Any] = {"reload": reload, "unit": unit, "aliases": aliases, "is_secret": is_secret}
    return Field(default, description=doc, json_schema_extra=about, repr=not is_secret, **constraints)


class _Section(BaseModel):
    # Strict: TOML has types, so "32" for a number is a mistake to be named, not to be mended.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class LimitsSection(_Section):
    """How much may run at once. Each limit is a semaphore; a task starts when it gets a place in all of them."""

    parallelism: int = _key(
        32, ge=1, unit="task instances", reload=Reload.LIVE, doc="Queued and running at once, whole installation."
    )
    dag_concurrency: int = _key(
        16,
        ge=1,
        unit="task instances",
        reload=Reload.LIVE,
        aliases=("max_active_tasks", "max_active_tasks_per_dag"),
        doc="Queued and running at once in one dag run; a DAG's own max_active_tasks comes first.",
    )
    max_active_tasks_per_dag_total: int | None = _key(
        None,
        ge=1,
        unit="task instances",
        reload=Reload.LIVE,
        doc="Queued and running at once in one DAG, over all its runs; none = no such limit.",
    )
    max_active_runs_per_dag: int = _key(
        16,
        ge=1,
        unit="dag runs",
        reload=Reload.LIVE,
        doc="Running runs of one DAG, more wait as queued; a DAG's own max_active_runs comes first.",
    )
    max_consecutive_failed_dag_runs_per_dag: int = _key(
        0,
        ge=0,
        unit="dag runs",
        reload=Reload.LIVE,
        doc="A DAG is paused when this many of its runs have failed in a row, 0 = never; a DAG's own"
        " max_consecutive_failed_dag_runs comes first.",
    )
    max_map_length: int = _key(
        1024,
        ge=1,
        unit="task instances",
        reload=Reload.LIVE,
        doc="Instances of one mapped task in one run; a task that would have more fails.",
    )
    pool_ageing_seconds: float = _key(
        60.0,
        ge=0,
        unit="seconds",
        reload=Reload.LIVE,
        doc="After this wait the task at the head of a pool reserves it, so that a wide task is not passed for ever.",
    )
    max_lost_attempts: int = _key(
        3,
        ge=0,
        unit="attempts",
        reload=Reload.LIVE,
        doc="Lost attempts of one try (host or launcher gone) that are run again without spending a retry.",
    )


class DatabaseSection(_Section):
    """Where Postgres is. With no url a private one is started, in HOME."""

    url: str | None = _key(
        None,
        pattern=r"^postgres(ql)?://",
        reload=Reload.RESTART,
        is_secret=True,
        doc="postgresql://user:password@host:port/name of a server, version 14 or later; none = a private Postgres.",
    )
    url_file: str | None = _key(
        None,
        reload=Reload.RESTART,
        doc="A file that holds the url, so that the password stands in no config file and no environment.",
    )


class DagsSection(_Section):
    """Where DAG files are, and how they are read."""

    folders: list[str] = _key(
        ["dags"], reload=Reload.RESTART, doc="Folders with DAG files; a relative one is relative to HOME."
    )
    parse_timeout_seconds: float = _key(
        30.0, gt=0, unit="seconds", reload=Reload.LIVE, doc="Time that importing one DAG file may take."
    )
    parse_processes: int = _key(
        2, ge=1, unit="processes", reload=Reload.RESTART, doc="DAG files that are imported at once."
    )


class SchedulesSection(_Section):
    """What a DAG file may leave open about when its runs are due."""

    default_timezone: str = _key(
        "UTC",
        reload=Reload.RESTART,
        doc="Time zone of schedules and dates that name none, such as Europe/Berlin.",
    )
    create_cron_data_intervals: bool = _key(
        False,
        reload=Reload.RESTART,
        doc="true = a run of a cron schedule covers the time between two slots and is due at the second (Airflow 2);"
        " false = it is due at its slot (Airflow 3).",
    )
    create_delta_data_intervals: bool = _key(
        False, reload=Reload.RESTART, doc="The same for a schedule that is a timedelta."
    )
    dags_are_paused_at_creation: bool = _key(
        False,
        reload=Reload.RESTART,
        doc="Whether a DAG that was not known before begins paused; its own is_paused_upon_creation comes first.",
    )

    @field_validator("default_timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            zone(value)
        except UserError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None
        return value


class LogSection(_Section):
    """The daemon's own log, on stderr. Logs of tasks are files under HOME/logs."""

    level: Literal["debug", "info", "warning", "error"] = _key(
        "info", reload=Reload.LIVE, doc="Events below this level are dropped."
    )
    format: Literal["auto", "human", "json"] = _key(
        "auto", reload=Reload.RESTART, doc="human = lines for people, json = one object per line; auto = by terminal."
    )


class ExecutorSection(_Section):
    """One executor, [executors.NAME]. `local` is there even if it is not written."""

    kind: Literal["local", "sequential"] = _key(
        "local", reload=Reload.RESTART, doc="local = a pool of processes; sequential = one at a time, in order."
    )
    slots: int | None = _key(
        None,
        ge=1,
        unit="task instances",
        reload=Reload.LIVE,
        doc="Attempts at once; none = limits.parallelism (local), 1 (sequential).",
    )


class TasksSection(_Section):
    """What holds for every task."""

    kill_grace_seconds: float = _key(
        10.0, ge=0, unit="seconds", reload=Reload.LIVE, doc="Time between TERM and KILL when a task is stopped."
    )
    max_output_bytes: int = _key(
        65536, ge=2, unit="bytes", reload=Reload.LIVE, doc="Largest return value of a task (XCom), as JSON."
    )


class ApiSection(_Section):
    """The HTTP API, on a unix socket that only the daemon's own user may open."""

    socket: str = _key(
        SOCKET_NAME, min_length=1, reload=Reload.RESTART, doc="The socket's path; a relative one is relative to HOME."
    )


class DaemonSection(_Section):
    """The daemon's own health."""

    listener_probe_seconds: float = _key(
        30.0,
        ge=1,
        unit="seconds",
        reload=Reload.LIVE,
        doc="How often the LISTEN connection is tried with a round trip; a dead one gives no sign of its own.",
    )
    audit_interval_seconds: float = _key(
        300.0,
        ge=0,
        unit="seconds",
        reload=Reload.LIVE,
        doc="How often the database is compared with memory, which must find nothing; 0 = never.",
    )


_ExecutorName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
_QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{1,250}$")]


class Settings(_Section):
    """A valid configuration. Frozen: a reload makes another one."""

    limits_section: LimitsSection = Field(default_factory=LimitsSection, alias="limits")
    database: DatabaseSection = Field(default_factory=DatabaseSection)
    dags: DagsSection = Field(default_factory=DagsSection)
    schedules: SchedulesSection = Field(default_factory=SchedulesSection)
    log: LogSection = Field(default_factory=LogSection)
    executors: dict[_ExecutorName, ExecutorSection] = Field(default_factory=lambda: {"local": ExecutorSection()})
    queues: dict[_QueueName, str] = Field(
        default_factory=lambda: {"default": "local"},
        description='Queue = "executor": who serves the tasks that ask for a queue. `default` is there anyway.',
        json_schema_extra={"reload": Reload.LIVE},
    )
    tasks: TasksSection = Field(default_factory=TasksSection)
    api: ApiSection = Field(default_factory=ApiSection)
    daemon: DaemonSection = Field(default_factory=DaemonSection)

    def limits(self) -> Limits:
        """The limits as the engine takes them."""
        return Limits(**self.limits_section.model_dump())

    def schedule_rules(self) -> ScheduleRules:
        """What DAG files leave open, as the engine takes it."""
        return ScheduleRules(**self.schedules.model_dump())

    def slots(self, executor: str) -> int:
        """Attempts at once of an executor."""
        section = self.executors[executor]
        if section.kind == "sequential":
            return 1
        return section.slots if section.slots is not None else self.limits_section.parallelism

    def routing(self) -> Routing:
        """Executors with their slots, and which of them serves each queue."""
        return Routing(executors={name: self.slots(name) for name in self.executors}, queues=dict(self.queues))

    def dag_folders(self, home: Path) -> list[Path]:
        """The DAG folders, absolute."""
        return [home / Path(folder).expanduser() for folder in self.dags.folders]

    def socket_path(self, home: Path) -> Path:
        """The API socket, absolute."""
        return home / Path(self.api.socket).expanduser()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """What is declared of one key, for generated pages and for tests."""

    section: str
    """limits, database … or `executors.NAME`."""
    name: str
    type: str
    default: object
    doc: str
    reload: Reload
    unit: str | None
    aliases: tuple[str, ...]
    is_secret: bool


def sections() -> dict[str, type[BaseModel]]:
    """TOML section -> its model, in the order of the schema. `executors` stands for [executors.NAME]."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[field.alias or name] = field.annotation
        elif name == "executors":
            found[name] = ExecutorSection
    return found


def keys() -> Iterator[KeyInfo]:
    """Every declared key, in the order of the schema (queues are free names: not in it)."""
    for section, model in sections().items():
        for name, field in model.model_fields.items():
            about = field.json_schema_extra
            assert isinstance(about, dict), f"{section}.{name} was not made by _key"
            yield KeyInfo(
                section="executors.NAME" if section == "executors" else section,
                name=name,
                type=_type_name(field.annotation),
                default=field.get_default(call_default_factory=True),
                doc=field.description or "",
                **about,  # type: ignore[arg-type]  # what _key put there
            )


def _type_name(annotation: Any) -> str:
    """The type in words: `integer or none`, `one of debug, info`."""
    words = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "none"}
    if annotation in words:
        return words[annotation]
    parts: tuple[Any, ...] = getattr(annotation, "__args__", ())
    if getattr(annotation, "__origin__", None) is Literal:
        return "one of " + ", ".join(parts)
    if getattr(annotation, "__origin__", None) is list:
        return f"list of {_type_name(parts[0])}s"
    return " or ".join(_type_name(part) for part in parts)
