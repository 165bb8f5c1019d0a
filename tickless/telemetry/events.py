"""The registry of log events: every name, with its level, keys, doc and its sentence for people.

Add an event here, then run `python -m tickless.telemetry.reference`, which writes docs/log-events.md. A test greps
the code base for names that are not here; under test a logger refuses them, and unknown keys too.

In a sentence `{key}` is replaced; a part in [brackets] is left out when one of its keys is missing, None or 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One event. `name` is noun.past_participle; `keys` are all the keys that it may carry."""

    name: str
    level: Level
    keys: tuple[str, ...]
    doc: str
    human: str


def _spec(level: Level, name: str, keys: str, human: str, doc: str) -> EventSpec:
    return EventSpec(name=name, level=level, keys=tuple(keys.split()), doc=doc, human=human)


_RUN = "dag_id run_id run"
_ATTEMPT = f"{_RUN} task_id map_index try_number attempt_id"

_SPECS = (
    # backfills
    _spec(
        "info", "backfill.created", "backfill dag_id", "backfill {backfill} of {dag_id} begins", "A backfill was made."
    ),
    _spec(
        "info", "backfill.paused", "backfill dag_id", "backfill {backfill} of {dag_id} is paused", "It makes no runs."
    ),
    _spec("info", "backfill.unpaused", "backfill dag_id", "backfill {backfill} of {dag_id} goes on", "It goes on."),
    _spec(
        "info",
        "backfill.cancelled",
        "backfill dag_id made passed",
        "backfill {backfill} of {dag_id} is cancelled[; runs: {made}]",
        "It makes no more runs; those that run go on.",
    ),
    _spec(
        "info",
        "backfill.completed",
        "backfill dag_id made passed",
        "backfill {backfill} of {dag_id} is completed[; runs: {made}][; slots passed over: {passed}]",
        "No slot of it is left, and its last run has ended.",
    ),
    # the daemon
    _spec(
        "info",
        "daemon.started",
        "pid version home mode",
        "tickless[ {version}] is ready[ (pid {pid}, home {home})]",
        "Leadership is known, the sockets are bound, work is taken.",
    ),
    _spec(
        "info",
        "daemon.stopping",
        "why running",
        "stopping[ ({why})][; tasks running: {running}]",
        "Nothing is admitted any more; what is decided gets committed.",
    ),
    _spec(
        "warning",
        "daemon.left_running",
        "running home",
        "{running} tasks go on; a new start takes them over, `tickless stop --all --home {home}` ends them",
        "The launcher and the embedded Postgres stay, because tasks are running.",
    ),
    _spec("info", "daemon.stopped", "seconds", "stopped[ after {seconds:.1f} s]", "The last line of a daemon."),
    _spec("info", "signal.received", "signal", "got {signal}", "A signal for the daemon arrived."),
    _spec("info", "clock.jumped", "", "the clock was set", "What is due is looked at again."),
    _spec("info", "api.started", "socket", "API on {socket}", "The HTTP API takes connections."),
    _spec(
        "warning",
        "request.failed",
        "method path error traceback",
        "{method} {path} failed: {error}[\n{traceback}]",
        "An API request raised something that is not a TicklessError: a bug of ours.",
    ),
    _spec(
        "warning",
        "request.unanswered",
        "attempt_id kind error",
        "attempt {attempt_id} asked for {kind} and was told of an error: {error}",
        "A running task's request raised something that is not its own fault: a lost key file, or a bug of ours.",
    ),
    _spec(
        "warning",
        "library.warned",
        "logger message traceback",
        "{logger}: {message}[\n{traceback}]",
        "A library logged a warning or an error through Python's logging.",
    ),
    # leadership and state
    _spec("info", "leader.acquired", "", "this daemon leads", "It decides from now on."),
    _spec("info", "leader.waiting", "holder", "standby[: {holder} is the leader]", "Another daemon has the lock."),
    _spec(
        "info",
        "state.rebuilt",
        "why epoch runs instances attempts seconds",
        "state rebuilt from rows: {runs} live runs, {attempts} live attempts[ ({why})]",
        "RAM was thrown away (or never filled) and read from Postgres.",
    ),
    _spec(
        "error",
        "event.quarantined",
        "entry kind run attempt_id error",
        "internal error, event {kind} is set aside as entry {entry}[, run {run} is frozen]: {error}",
        "An event raised inside the engine; traceback and dump are in the table, the rest goes on.",
    ),
    _spec(
        "warning",
        "flush.conflicted",
        "why rows",
        "the database is not what we believed[: {why}]",
        "A guard or the epoch did not hold; the batch was rolled back, a rebuild follows.",
    ),
    _spec(
        "error",
        "flush.refused",
        "sqlstate error attempt_id rows",
        "Postgres refuses data (SQLSTATE {sqlstate}): {error}",
        "The batch is bisected down to the event that cannot be stored.",
    ),
    _spec(
        "error",
        "audit.found",
        "difference",
        "the audit found a difference: {difference}",
        "The database and memory differ: a bug, or somebody's UPDATE. A rebuild follows.",
    ),
    # database and launcher
    _spec(
        "info",
        "database.started",
        "folder version pid seconds",
        "Postgres[ {version}] started in {folder}[ ({seconds:.1f} s)]",
        "The embedded Postgres was started.",
    ),
    _spec(
        "info",
        "database.adopted",
        "folder version pid",
        "Postgres[ {version}] in {folder} was running already",
        "The embedded Postgres of an earlier daemon is used on.",
    ),
    _spec("warning", "database.lost", "error", "Postgres is away: {error}", "Decisions wait until it is back."),
    _spec("info", "database.recovered", "seconds", "Postgres is back[ after {seconds:.1f} s]", "Connected again."),
    _spec("debug", "executor.attached", "executor", "executor {executor} attached", "It said what it knows."),
    _spec(
        "warning",
        "executor.retired",
        "executor",
        "executor {executor} is not in the configuration any more",
        "What it holds is let end; nothing new is sent to it.",
    ),
    _spec(
        "warning",
        "executor.lost",
        "executor error",
        "executor {executor} is away[: {error}]",
        "Orders wait until it is back; running tasks go on.",
    ),
    # DAGs
    _spec(
        "info",
        "dag.parsed",
        "dag_id version tasks file seconds",
        "DAG {dag_id}: version {version}, {tasks} tasks[ ({file})]",
        "A new version of a DAG is current.",
    ),
    _spec(
        "warning",
        "dag.import_failed",
        "file line error traceback",
        "DAG file {file}[, line {line}]: {error}",
        "A DAG file could not be read; its last good version stays current.",
    ),
    _spec(
        "warning",
        "dag.import_warned",
        "file warning",
        "DAG file {file}: {warning}",
        "A DAG file was read, but something in it will surprise.",
    ),
    _spec("info", "dag.vanished", "dag_id", "DAG {dag_id} is in no file any more", "No new runs; live ones go on."),
    # schedules
    _spec(
        "info", "dag.paused", "dag_id why", "DAG {dag_id} is paused: {why}", "No run of it starts, no task is sent off."
    ),
    _spec("info", "dag.unpaused", "dag_id why", "DAG {dag_id} goes on: {why}", "The DAG is not paused any more."),
    _spec(
        "info",
        "schedule.skipped",
        "dag_id first before",
        "DAG {dag_id}: what was due from {first} on is skipped",
        "Without catchup only the latest slot gets a run: those from `first` until before `before` get none.",
    ),
    # runs and attempts
    _spec(
        "info",
        "run.created",
        f"{_RUN} run_type",
        "run {run} ({dag_id}/{run_id}) created",
        "The run is committed.",
    ),
    _spec(
        "debug", "run.started", _RUN, "run {run} ({dag_id}/{run_id}) started", "The run got a place under its limit."
    ),
    _spec(
        "warning",
        "run.refused",
        "dag_id error",
        "no run of {dag_id} was started: {error}",
        "A run that was to start with the daemon (`dev --start`).",
    ),
    _spec(
        "info",
        "run.finished",
        f"{_RUN} state seconds",
        "run {run} ({dag_id}/{run_id}): {state}[ after {seconds:.2f} s]",
        "Every task of the run is finished.",
    ),
    _spec(
        "warning",
        "attempt.lost",
        f"{_ATTEMPT} why executor host",
        "  {dag_id}.{task_id} (run {run}): attempt lost[: {why}]",
        "Its process is certainly gone and its result unknown; it is run again up to max_lost_attempts.",
    ),
    _spec(
        "info",
        "attempt.finished",
        f"{_ATTEMPT} state reason exit_code signal queued_seconds run_seconds executor queue pool pid host error",
        "  {dag_id}.{task_id}: {state}[ in {run_seconds:.2f} s] (run {run}, try {try_number}[, exit code {exit_code}]"
        "[, signal {signal}])[: {error}]",
        "THE line of a finished attempt: everything about it, once. `error` is the first line of the error.",
    ),
)

EVENTS: dict[str, EventSpec] = {spec.name: spec for spec in _SPECS}
