"""Making processes by posix_spawn (which is vfork: the launcher's own memory is never copied).

A command runs without any Python: /bin/sh waits at the gate, enters the working folder and becomes bash. A Python
task whose DAG file cannot be forked from a zygote gets a fresh interpreter. Both are their own session and group.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tickless.model.order import Order
from tickless.wire.environment import command_environment, zygote_environment
from tickless.wire.layout import scratch_path
from tickless.wire.mark import set_mark

# $1 = working folder, $2 = command. No byte at the gate: nobody will ever know of us, so nothing may run.
_WRAPPER = 'read -r _ <&3 || exit 125; exec 3<&-; cd -- "$1" || exit 126; exec /bin/bash -c "$2"'
_DEFAULT_SIGNALS = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
"""Python ignores the first two and the launcher handles the others; both would be inherited through exec."""
_MAX_ENV_BYTES = 128 * 1024 - 1  # MAX_ARG_STRLEN of Linux
GATE_OPEN = b"\n"
"""What is written to a gate; a line, because /bin/sh reads it with `read`."""


class CannotSpawn(Exception):
    """The process cannot be made; the message is for the person who reads the task's log."""


@dataclass(slots=True)
class Spawner:
    """What stays the same for all processes of one launcher."""

    folder: str
    """The launcher's folder."""
    base_env: Mapping[str, str]
    null: int
    """/dev/null, open for reading."""
    open_files: tuple[int, int]
    """RLIMIT_NOFILE as it was before the launcher raised its own."""

    def command(self, order: Order, workspace: str, log: int, gate: int) -> int:
        """The pid of a bash task that waits at its gate."""
        scratch = scratch_path(self.folder, workspace)
        cwd = os.path.join(order.bundle, order.cwd) if order.cwd else scratch
        if order.cwd and not os.path.isdir(cwd):
            raise CannotSpawn(f"cwd {cwd!r} is not a folder")
        env = command_environment(order, scratch, self.base_env)
        command = order.command or ""
        for name, value in [("the command", command), *env.items()]:
            if len(name) + len(value.encode("utf-8", "surrogateescape")) > _MAX_ENV_BYTES:
                raise CannotSpawn(
                    f"{name} is longer than the 128 KiB that Linux gives to one argument or variable; "
                    "pass large data through a file, or read it in a @task"
                )
        argv = ["sh", "-c", _WRAPPER, "sh", cwd, command]
        pid = self._spawn("/bin/sh", argv, env, ((self.null, 0), (log, 1), (log, 2), (gate, 3)))
        set_mark(pid, order.attempt_id)
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, self.open_files)
        except OSError:
            pass  # it runs with a higher limit than usual
        return pid

    def fresh_python(self, workspace: str, log: int, gate: int, payload: int) -> int:
        """The pid of a new interpreter that will import the DAG file and run one order, read from `payload`."""
        argv = [*_python(), "tickless.runner.fresh", self.folder, workspace]
        return self._python(argv, ((self.null, 0), (log, 1), (log, 2), (gate, 3), (payload, 4)))

    def base_zygote(self, control: int) -> int:
        """The pid of a new base zygote; its output goes where the launcher's goes."""
        argv = [*_python(), "tickless.runner.zygote", self.folder, *map(str, self.open_files)]
        return self._python(argv, ((self.null, 0), (control, 3)))

    def remove_folder(self, path: str) -> int:
        """The pid of an rm: a large folder must not hold the launcher up."""
        return self._spawn("/bin/rm", ["rm", "-rf", "--", path], self.base_env, ((self.null, 0),))

    def _python(self, argv: list[str], descriptors: Sequence[tuple[int, int]]) -> int:
        return self._spawn(sys.executable, argv, zygote_environment(os.environ), descriptors)

    def _spawn(self, path: str, argv: list[str], env: Mapping[str, str], fds: Sequence[tuple[int, int]]) -> int:
        # A source that lies in the range of the targets would be overwritten before its turn.
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in fds]
        if any(source <= 4 for source, _ in fds):
            raise CannotSpawn("internal error: a low descriptor would be overwritten")
        try:
            return os.posix_spawn(
                path, argv, env, file_actions=actions, setsid=True, setsigmask=[], setsigdef=_DEFAULT_SIGNALS
            )
        except (OSError, ValueError) as error:
            raise CannotSpawn(f"cannot start {path}: {error}") from error


def _python() -> list[str]:
    """-P: the working folder is not on sys.path; -X utf8: text is UTF-8 whatever LANG says."""
    return [sys.executable, "-P", "-X", "utf8", "-m"]
