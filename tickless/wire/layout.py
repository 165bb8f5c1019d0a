"""Names of files under an installation's home that more than one process has to agree on."""

from __future__ import annotations

LAUNCHER_DIR = "launcher"
"""0700, the launcher's: socket, spool, lock, outcome records, scratch folders."""
SOCKET_NAME = "launcher.sock"
LOG_DIR = "logs"
OUTCOME_DIR = "outcome"
"""In LAUNCHER_DIR: one outcome record per attempt, see wire/outcome.py."""
SCRATCH_DIR = "scratch"
"""In LAUNCHER_DIR: one working folder per attempt, removed at its end."""

MAX_SOCKET_PATH_BYTES = 107
"""sizeof(sun_path) - 1. Longer paths are reached as /proc/self/fd/N/launcher.sock, with N open on the folder."""


def launcher_dir(home: str) -> str:
    """The launcher's folder."""
    return f"{home}/{LAUNCHER_DIR}"


def outcome_path(launcher_folder: str, attempt_id: int) -> str:
    """Where the runner of this attempt leaves its outcome record."""
    return f"{launcher_folder}/{OUTCOME_DIR}/{attempt_id}.json"


def scratch_path(launcher_folder: str, attempt_id: int) -> str:
    """The attempt's own working folder."""
    return f"{launcher_folder}/{SCRATCH_DIR}/{attempt_id}"
