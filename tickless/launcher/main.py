"""`python -m tickless.launcher --home DIR`: one process per home that starts, stops and reaps the tasks of this host.

It outlives the daemon. SIGTERM or SIGINT stops the running attempts (TERM, grace, KILL), notes their ends and exits;
kill -9 leaves everything to the next launcher. With --detach it returns as soon as the launcher serves, or fails
with the reason on stderr.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import signal
import socket
import sys
from typing import NoReturn

from tickless.launcher import processes
from tickless.launcher.loop import Loop, now
from tickless.launcher.recovery import recover
from tickless.launcher.server import Server
from tickless.launcher.service import Launcher, Place
from tickless.launcher.spawn import Spawner
from tickless.launcher.spool import Spool
from tickless.wire.environment import base_environment
from tickless.wire.layout import (
    LOG_DIR,
    MAX_SOCKET_PATH_BYTES,
    OUTCOME_DIR,
    SCRATCH_DIR,
    SOCKET_NAME,
    launcher_dir,
)

EXIT_TAKEN = 75  # EX_TEMPFAIL: another launcher holds the home
_SPOOL = "spool.jsonl"
_LOCK = "lock"
_LOG = "launcher.log"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Taken(Exception):
    """Another launcher serves this home; the message names its pid."""


def main() -> None:
    """Parse the command line and serve."""
    options = argparse.ArgumentParser(prog="python -m tickless.launcher", description=__doc__)
    options.add_argument("--home", required=True, help="the installation's folder")
    options.add_argument("--detach", action="store_true", help="serve in the background, in a session of its own")
    given = options.parse_args()
    home = os.path.abspath(given.home)
    _tidy_descriptors()
    ready = _detach(home) if given.detach else -1
    os.chdir("/")
    try:
        serve(home, ready)
    except Taken as error:
        _fail(ready, str(error), EXIT_TAKEN)
    except OSError as error:
        _fail(ready, f"the launcher cannot start in {home}: {error}", 1)


def serve(home: str, ready: int = -1) -> None:
    """Serve this home until told to stop. A byte goes to the descriptor `ready` when the socket is there."""
    folder = launcher_dir(home)
    _make_folders(home, folder)
    _lock = _take_lock(folder)
    processes.become_subreaper()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    spawner = Spawner(folder=folder, base_env=base_environment(os.environ), null=null, open_files=_raise_open_files())
    loop = Loop(log)
    place = Place(
        folder=folder,
        host=socket.gethostname(),
        boot_id=processes.boot_id(),
        log_root=os.open(f"{home}/{LOG_DIR}", _FOLDER),
    )
    launcher = Launcher(loop, Spool(f"{folder}/{_SPOOL}", log=log), spawner, place, log)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    loop.on_signal(signal.SIGCHLD, launcher.child_exited)
    loop.on_signal(signal.SIGTERM, launcher.stop_all)
    loop.on_signal(signal.SIGINT, launcher.stop_all)
    recover(launcher, log)
    launcher.zygotes.start_base()
    launcher.settle()
    Server(loop, _listen(folder), launcher, log)
    log("launcher.started", pid=os.getpid(), home=home, boot_id=place.boot_id)
    _tell_ready(ready)

    def after_round() -> None:
        launcher.settle()
        if launcher.is_stopping and not launcher.alive():
            loop.stop()

    loop.run(after_round)
    log("launcher.stopped", pid=os.getpid())
    os.unlink(f"{folder}/{SOCKET_NAME}")


def log(event: str, **keys: object) -> None:
    """One line of JSON on stderr, which is the launcher's log file or the journal."""
    line = json.dumps({"at": now().isoformat(), "event": event, **keys}, default=str)
    try:
        os.write(2, line.encode() + b"\n")
    except OSError:
        pass  # a full disk must not stop the launcher


def _tidy_descriptors() -> None:
    """Close what was inherited, and hold 0 to 4, so that nothing opened later lies where a child's are to be put."""
    os.closerange(3, 1 << 20)
    null = os.open("/dev/null", os.O_RDWR)
    for target in range(5):
        try:
            os.fstat(target)
        except OSError:
            os.dup2(null, target, inheritable=target < 3)
    if null > 4:
        os.close(null)


def _make_folders(home: str, folder: str) -> None:
    for path in (home, f"{home}/{LOG_DIR}", folder, f"{folder}/{OUTCOME_DIR}", f"{folder}/{SCRATCH_DIR}"):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass


def _take_lock(folder: str) -> int:
    """The lock is held by the descriptor, so it goes with the process however that ends; never close it."""
    fd = os.open(f"{folder}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise Taken(f"a launcher (pid {holder or 'unknown'}) already serves {os.path.dirname(folder)}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _raise_open_files() -> tuple[int, int]:
    """Use all descriptors that we may; the old limits, for our children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


def _listen(folder: str) -> socket.socket:
    path = f"{folder}/{SOCKET_NAME}"
    try:
        os.unlink(path)  # a dead launcher's: we hold the lock
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        listener.bind(path)
    else:
        fd = os.open(folder, _FOLDER)
        listener.bind(f"/proc/self/fd/{fd}/{SOCKET_NAME}")
        os.close(fd)
    os.chmod(path, 0o600)
    listener.listen(16)
    return listener


def _detach(home: str) -> int:
    """Go on in a grandchild with a session of its own; the write end of the pipe on which our parent waits for it."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(writer)
        told = b""
        while data := os.read(reader, 4096):
            told += data
        if told.startswith(b"\0"):
            os._exit(0)
        message = told.decode("utf-8", "replace") or f"the launcher died at its start; see {launcher_dir(home)}/{_LOG}"
        code, _, text = message.partition("\n")
        os.write(2, f"tickless: {text or message}\n".encode())
        os._exit(int(code) if code.isdigit() else 1)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.close(reader)
    _make_folders(home, launcher_dir(home))
    path = f"{launcher_dir(home)}/{_LOG}"
    log_file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log_file, 1)
    os.dup2(log_file, 2)
    os.close(null)
    os.close(log_file)
    return writer


def _tell_ready(ready: int) -> None:
    if ready >= 0:
        os.write(ready, b"\0")
        os.close(ready)
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", "\0" + path[1:] if path.startswith("@") else path)


def _fail(ready: int, message: str, code: int) -> NoReturn:
    if ready >= 0:
        os.write(ready, f"{code}\n{message}".encode())
    else:
        sys.stderr.write(f"tickless: {message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
