"""What an import has left running: things that a fork would lose, double or hang on."""

from __future__ import annotations

import _thread
import os
import threading


def leftovers() -> list[str]:
    """Sentences about threads, child processes and sockets of this process; empty when a fork of it is harmless."""
    found = []
    if count := _thread._count():
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        found.append(f"it leaves {_plural(count, 'thread')} running: {', '.join(names) or 'unnamed'}")
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        found.append("it leaves child processes behind")
    except ChildProcessError:
        pass  # none
    if count := sum(_is_socket(name) for name in os.listdir("/proc/self/fd")):
        found.append(f"it leaves {_plural(count, 'socket')} open")
    return found


def _is_socket(name: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    except OSError:  # the descriptor of the listing itself
        return False


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
