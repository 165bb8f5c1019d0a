"""`python -m tickless.runner.zygote LAUNCHER_DIR SOFT HARD`: the base zygote, descriptor 3 is its control socket.

    base zygote   has imported the SDK                 forks, on request of the launcher,
    DAG zygote    has imported one version of a DAG    which forks, for each order,
    attempt       runs the task

One process more is forked ahead of the next order and stands by, so that neither the fork nor its page faults stand
between an order and its task. It knows nothing of any attempt until it is handed one.

Each is single-threaded and has no event loop, no database and no socket but its control one, so that a fork of it is
whole. A zygote ends when its control socket does; its attempts do not notice. It peeks at the exit of an attempt,
tells the launcher, and only then reaps: a zygote that dies in between leaves the exit status to the launcher, which
is the next subreaper.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` without its enums, which cost a child 60 page faults
import array
import gc
import os
import resource
import select
import signal
import socket
import sys
from typing import NoReturn

import msgspec

from tickless import failpoint
from tickless.runner.attempt import decode_order, enter, run_and_exit, wait_at_gate
from tickless.runner.client import GATE
from tickless.runner.execute import configure_logging
from tickless.runner.trace import format_user_traceback, tell
from tickless.runner.warm import rehearse, warm_up
from tickless.wire.mark import set_mark
from tickless.wire.zygote import (
    BORN,
    BROKEN,
    EXITED,
    FORKED,
    MAX_PACKET_BYTES,
    NOT_FORKED,
    READY,
    UNFIT,
    DagSource,
    Packet,
    decode_run,
    encode_packet,
)

_MOST_UNREAPED = 16
_FD_SIZE = array.array("i").itemsize
_MOST_FDS = 4
_SIGCHLD, _SIG_DFL = int(signal.SIGCHLD), int(signal.SIG_DFL)
_MAX_FD = 1 << 20
_LULL_SECONDS = 0.0007
"""With nothing to do for so long, the dead are reaped, and a process is forked that stands by for the next order. Not
at once: what has just happened, a start or an end, is on its way to others, and they need the processors more."""


def main() -> None:
    """Serve the launcher until it closes the control socket."""
    folder = sys.argv[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[3])))
    control = socket.socket(fileno=3)
    control.set_inheritable(False)
    _import_sdk()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a real stream here
    try:
        warm_up(folder)
    except OSError:
        pass  # a full disk; the tasks will say so
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # DAG zygotes are reaped by the kernel; the launcher watches them
    gc.collect()
    gc.freeze()
    while True:
        data, fds = _receive(control)
        if not data:
            os._exit(0)
        source = msgspec.json.decode(data, type=DagSource)
        pid = os.fork()
        if pid == 0:
            control.close()
            DagZygote(folder, source, socket.socket(fileno=fds[0])).run()
        os.close(fds[0])


def _import_sdk() -> None:
    """What nearly every DAG file imports, so that its zygote starts with it."""
    import tickless
    import tickless.authoring.loader
    import tickless.authoring.registry

    for name in tickless.__all__:
        getattr(tickless, name)


class DagZygote:
    """One version of one DAG, imported, to be forked for each of its attempts."""

    def __init__(self, folder: str, source: DagSource, control: socket.socket) -> None:
        self._folder = folder
        self._source = source
        self._control = control
        self._attempts: dict[int, int] = {}  # pid -> attempt id
        self._standby: tuple[int, socket.socket] | None = None  # pid, and our end of its channel

    def run(self) -> NoReturn:
        """Import, then serve until the control socket ends."""
        self._send(Packet(BORN, pid=os.getpid()))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        before = _descriptors()
        try:
            self._import()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException as error:
            self._send(Packet(BROKEN, text=format_user_traceback(error)))
            os._exit(1)
        if left := _left_behind(before):
            self._send(Packet(UNFIT, text=left))
            os._exit(0)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        configure_logging()
        gc.collect()
        gc.freeze()
        self._send(Packet(READY))
        self._serve()

    def _import(self) -> None:
        from tickless.authoring.loader import load_dag_file
        from tickless.authoring.registry import prepare

        os.chdir(self._source.bundle)
        sys.argv = [os.path.join(self._source.bundle, self._source.file)]
        load_dag_file(self._source.bundle, self._source.file)
        prepare()

    def _serve(self) -> NoReturn:
        control = self._control.fileno()
        wants_standby = True
        exits = 0
        while True:
            lull = _LULL_SECONDS if exits or (wants_standby and self._standby is None) else None
            ready, _, _ = select.select([control, self._wake_read], [], [], lull)  # poll counts in milliseconds
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                exits += 1
            if exits and (not ready or exits > _MOST_UNREAPED):
                exits = 0
                self._reap()
            elif not ready:
                wants_standby = self._make_standby()
            if control in ready:
                data, fds = _receive(self._control)
                if not data:
                    os._exit(0)
                self._start(data, fds)
                wants_standby = True

    def _make_standby(self) -> bool:
        """Fork the process of the next attempt before its order comes. False when the machine allows no more."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            return False
        else:
            if pid == 0:
                self._stand_by(theirs)
            self._standby = (pid, ours)
            return True
        finally:
            theirs.close()

    def _stand_by(self, channel: socket.socket) -> NoReturn:
        """In the child: wait for an order; its end is the zygote's end."""
        try:
            self._leave_zygote()
            fd = channel.fileno()
            os.closerange(GATE, fd)
            os.closerange(fd + 1, _MAX_FD)
            rehearse()
            data, fds = _receive(channel)
            if not data:
                os._exit(0)
            channel.detach()  # it is closed below, with all that is not the attempt's
            attempt_id, workspace, body = decode_run(data)
        except BaseException as error:
            tell(f"tickless: a process could not stand by: {error!r}")
            os._exit(70)
        self._become(attempt_id, workspace, body, fds)

    def _start(self, data: bytes, fds: list[int]) -> None:
        """Hand the order to the process that stands by, or to a new one."""
        attempt_id, workspace, body = decode_run(data)
        failpoint.hit("zygote.before_fork")
        pid = self._hand_over(data, fds)
        try:
            if pid is None:
                pid = os.fork()
        except OSError as error:
            self._send(Packet(NOT_FORKED, attempt_id, text=f"cannot fork: {error}"))
        else:
            if pid == 0:
                self._leave_zygote()
                self._become(attempt_id, workspace, body, fds)
            self._attempts[pid] = attempt_id
            self._send(Packet(FORKED, attempt_id, pid))
        for fd in fds:
            os.close(fd)

    def _hand_over(self, data: bytes, fds: list[int]) -> int | None:
        if self._standby is None:
            return None
        (pid, channel), self._standby = self._standby, None
        try:
            socket.send_fds(channel, [data], fds)
        except OSError:
            return None  # somebody has killed it; it is reaped like any child
        finally:
            channel.close()
        return pid

    def _leave_zygote(self) -> None:
        """In a child: its own session, and none of our signal handling."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        _signal.signal(_SIGCHLD, _SIG_DFL)

    def _become(self, attempt_id: int, workspace: str, data: bytes, fds: list[int]) -> NoReturn:
        """In the child: from a copy of the zygote to the process of one attempt."""
        try:
            if not data:
                data = os.pread(fds[2], os.fstat(fds[2]).st_size, 0)
            # Lifted out of the way first: the gate's own number may be 1, 2 or 3 of what it replaces.
            log, gate = fds[0], fds[1]
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.dup2(gate, GATE, inheritable=False)
            os.closerange(GATE + 1, _MAX_FD)
            set_mark(0, attempt_id)
            order = decode_order(data)
            enter(order, self._folder, workspace)
            _reseed()
            wait_at_gate()
        except BaseException as error:
            tell(f"tickless: the runner failed before the task: {error!r}")
            os._exit(70)
        run_and_exit(order, self._folder, workspace)

    def _reap(self) -> None:
        """Tell of every child that has exited."""
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if seen is None:
                return
            pid = seen.si_pid
            attempt_id = self._attempts.pop(pid, None)
            if attempt_id is not None:
                if seen.si_code == os.CLD_EXITED:
                    self._send(Packet(EXITED, attempt_id, pid, exit_code=seen.si_status))
                else:
                    self._send(Packet(EXITED, attempt_id, pid, signal=seen.si_status))
            elif self._standby is not None and pid == self._standby[0]:
                self._standby[1].close()
                self._standby = None
            os.waitpid(pid, 0)

    def _send(self, packet: Packet) -> None:
        try:
            self._control.send(encode_packet(packet))
        except OSError:
            os._exit(0)  # the launcher has gone, and with it our reason


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors; no bytes at the end of the socket."""
    try:
        data, ancillary, _, _ = control.recvmsg(
            MAX_PACKET_BYTES, socket.CMSG_SPACE(_MOST_FDS * _FD_SIZE), socket.MSG_CMSG_CLOEXEC
        )
    except OSError:
        return b"", []
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % _FD_SIZE])
    return data, list(fds)


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            pass  # the descriptor of the listing itself
    return found


def _left_behind(before: set[tuple[str, str]]) -> str:
    """What the import has left that a fork would lose, double or share; empty when it is fit to be forked."""
    found = []
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        found.append(f"{threads - 1} thread{'s' if threads > 2 else ''}")
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        found.append("child processes")
    except ChildProcessError:
        pass  # none
    opened = sorted(target for _, target in _descriptors() - before)
    if opened:
        found.append(f"open descriptors ({', '.join(opened)[:500]})")
    return " and ".join(found)


def _reseed() -> None:
    """`random` does it by itself after a fork; numpy does not."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()


if __name__ == "__main__":
    main()
