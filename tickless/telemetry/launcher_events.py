"""The registry of what the launcher logs. It may not import telemetry, so it logs by itself; a test compares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LauncherEvent:
    """One event; `keys` are all that it may carry."""

    name: str
    keys: tuple[str, ...]
    doc: str


def _event(name: str, keys: str, doc: str) -> LauncherEvent:
    return LauncherEvent(name=name, keys=tuple(keys.split()), doc=doc)


_EVENTS = (
    # the launcher
    _event("launcher.started", "pid home boot_id", "Its socket is there, and what an earlier one left is in hand."),
    _event("launcher.stopping", "alive", "It was asked to end; so many tasks are alive and are being ended."),
    _event("launcher.stopped", "pid", "The last line of a launcher."),
    _event(
        "launcher.error",
        "traceback count attempt_id error",
        "A bug in the launcher; it goes on. With `attempt_id`: that attempt could not be carried on as it should.",
    ),
    # the daemon, seen from the launcher
    _event("leader.connected", "epoch pid", "A daemon has taken over; every other connection is closed."),
    _event("leader.refused", "epoch seen pid", "A daemon with a lower epoch than one that was seen before."),
    _event("connection.refused", "uid", "Another user than ours opened the socket."),
    _event("connection.broken", "error", "What a daemon sent could not be read or dealt with; it connects again."),
    # the spool
    _event("spool.recovered", "hunted lost to_start", "Attempts of an earlier launcher: to be killed, lost, to start."),
    _event("spool.damaged", "skipped_lines", "Lines that cannot be read, as a crash leaves them; they are skipped."),
    _event("spool.full", "error", "The disk is full: everything waits until the spool can be written."),
    # tasks
    _event("request.refused", "attempt_id error", "A task wrote something on its channel that is no request."),
    _event(
        "sweep.gave_up", "attempt_id", "Processes of an ended task are still there after every attempt to kill them."
    ),
    _event("scratch.kept", "path error", "A task's scratch folder cannot be removed."),
    # zygotes
    _event("zygote.failed", "error", "The base zygote cannot be started; tasks get fresh processes meanwhile."),
    _event("zygote.died", "pid file was_ready", "A zygote ended by itself; without `file` it was the base zygote."),
    _event("zygote.stalled", "pid file", "A zygote does not answer and is killed."),
    _event(
        "zygote.unfit",
        "file version left",
        "Importing the file leaves threads, sockets or children behind: its tasks get fresh processes.",
    ),
)

LAUNCHER_EVENTS: dict[str, LauncherEvent] = {event.name: event for event in _EVENTS}
