"""Names of files under an installation's home that more than one process has to agree on."""

from __future__ import annotations

LAUNCHER_DIR = "launcher"
"""0700, the launcher's: socket, spool, lock, outcome records, scratch folders."""
SOCKET_NAME = "launcher.sock"
LOG_DIR = "logs"
OUTCOME_DIR = "outcome"
"""In LAUNCHER_DIR: outcome records, see wire/outcome.py. One file per workspace, see launcher/workspace.py."""
SCRATCH_DIR = "scratch"
"""In LAUNCHER_DIR: working folders of attempts. One per workspace; empty for each attempt."""

MAX_SOCKET_PATH_BYTES = 107
"""sizeof(sun_path) - 1. Longer paths are reached as /proc/self/fd/N/launcher.sock, with N open on the folder."""


def launcher_dir(home: str) -> str:
    """The launcher's folder."""
    return f"{home}/{LAUNCHER_DIR}"


def outcome_path(launcher_folder: str, workspace: str) -> str:
    """Where a runner leaves its outcome record."""
    return f"{launcher_folder}/{OUTCOME_DIR}/{workspace}.json"


def scratch_path(launcher_folder: str, workspace: str) -> str:
    """An attempt's working folder."""
    return f"{launcher_folder}/{SCRATCH_DIR}/{workspace}"
