"""What a new launcher makes of the spool it finds; see the table in service.py."""

from __future__ import annotations

from collections.abc import Callable

from tickless.launcher.attempt import Attempt, Phase
from tickless.launcher.loop import now
from tickless.launcher.service import Launcher
from tickless.launcher.spool import AckedRecord, Kept, LostRecord
from tickless.model.report import Lost


def recover(launcher: Launcher, log: Callable[..., None]) -> None:
    """Decide for each attempt without an end: lost with its boot, to be started, or to be hunted down."""
    contents = launcher.spool.contents
    hunted: list[Attempt] = []
    counts = {"lost": 0, "to_start": 0}
    for kept in list(contents.attempts.values()):
        if kept.end is not None or kept.order is None:
            continue
        if kept.boot_id != launcher.place.boot_id:
            # Its start record may never have reached the disk, so it is lost even when the spool knows of no start.
            _lose(launcher, kept)
            counts["lost"] += 1
        elif kept.started is None and kept.is_forgotten:
            launcher.spool.append(AckedRecord([kept.attempt_id]))
        elif kept.started is None:
            launcher.adopt(Attempt(kept.order))
            counts["to_start"] += 1
        else:
            attempt = Attempt(kept.order, phase=Phase.ENDING, pid=kept.started.pid, ticks=kept.ticks)
            attempt.workspace = kept.workspace
            attempt.started, attempt.is_recovered, attempt.is_forgotten = kept.started, True, kept.is_forgotten
            launcher.adopt(attempt)
            hunted.append(attempt)
    if contents.attempts:
        log("spool.recovered", hunted=len(hunted), **counts)
    launcher.workspaces.remove_all_but({attempt.workspace for attempt in hunted})
    launcher.hunt(hunted)


def _lose(launcher: Launcher, kept: Kept) -> None:
    if kept.is_forgotten:
        launcher.spool.append(AckedRecord([kept.attempt_id]))
        return
    why = "the host was restarted"
    launcher.spool.append(LostRecord(Lost(attempt_id=kept.attempt_id, at=now(), why=why), kept.executor))
