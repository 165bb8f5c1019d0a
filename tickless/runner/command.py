"""From a runner to the command of a bash task, in place: the same process, the same group, and no Python left.

Its end is then that of any bash task: the launcher judges it by its exit status, and no outcome is written.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

from tickless.authoring.bash import Command
from tickless.model.order import Order
from tickless.wire.environment import command_environment

_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

_MOST_INPUT_BYTES = 64 * 1024
"""Larger inputs are for templates only: one variable could not hold them."""


def become(order: Order, command: Command, scratch: str) -> str:
    """Does not return, unless it fails: then with the reason, for the person who reads the task's log."""
    inputs = order.inputs if sum(map(len, (order.inputs or {}).values())) < _MOST_INPUT_BYTES else None
    rendered = replace(order, env=command.env, append_env=command.append_env, inputs=inputs)
    env = command_environment(rendered, scratch, os.environ)
    try:
        os.chdir(os.path.join(order.bundle, command.cwd) if command.cwd else scratch)
    except OSError as error:
        return f"cwd {command.cwd!r} cannot be entered: {error.strerror}"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve("/bin/bash", ["/bin/bash", "-c", command.text], env)
    except (OSError, ValueError) as error:
        return (
            f"bash cannot be started: {error}. Linux gives 128 KiB to one argument or variable; pass large data "
            "through a file"
        )
