"""The private Postgres: what tickless runs on when it is given no database.

It is an ordinary server (the same code path as production) that only this home can reach: no TCP, one unix socket in
a 0700 folder, peer authentication. We supervise it without pg_ctl, whose time limit a long crash recovery exceeds.

**It outlives us.** The server is started in a session of its own with its output in a file, so a killed daemon leaves
it running; the next `start()` finds it through postmaster.pid and *adopts* it. What a crash leaves behind (a stale
postmaster.pid, its pid taken by somebody else, orphaned backends) is cleared before a new server starts.

**Who may stop it.** Everyone who has started or adopted the server holds a shared lock (use.lock); `stop()` needs it
exclusively. So the last one out can stop the server, and nobody takes it away from another. Stopping is SIGINT: open
transactions are rolled back and everything is written. Never SIGKILL.

**One at a time.** start.lock is held during start and stop.

**All or nothing.** initdb works in data.partial, which becomes data by rename: a crash half-way leaves no data
directory, and the next start begins afresh.

Where all this lies: `place`. How a server is recognised: `postmaster`. Which programs run: `binaries`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import anyio

from tickless.errors import Unavailable, UserError
from tickless.store.binaries import Binaries, find_binaries, make_reachable
from tickless.store.connect import DRIVER_ERRORS, connect, map_error
from tickless.store.home import make_home
from tickless.store.place import PORT, SHARED_ROOT, Place, find_base, log_path, make_place, make_shared_folder
from tickless.store.postmaster import (
    PidFile,
    exists,
    first_pid,
    is_postmaster,
    processes_in,
    read_pid_file,
    wait_for_end,
)

ROLE = DATABASE = "tickless"

# How long a live server may stay silent. One that says it is recovering may take as long as it needs.
_PATIENCE_SECONDS = 60.0

# Orphans of a killed server end by themselves, a busy one at the end of its statement.
_ORPHAN_PATIENCE_SECONDS = 30.0

# Nothing here trades durability: fsync, full_page_writes and synchronous_commit keep their defaults (on).
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "max_connections": "40",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    # Compiling costs more than our short queries; parallel workers need /dev/shm, which containers keep small.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    # There is never a standby: less WAL, and no launcher that wakes every 3 minutes.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "wal_compression": "on",
    "min_wal_size": "32MB",
    # Idle means idle, for the processes of the server, too.
    # The checkpointer wakes once per timeout. Under load max_wal_size (1 GB) is what bounds the recovery time.
    "checkpoint_timeout": "30min",
    # Asleep, these two wake every 50 and every 25 times their delay. No synchronous commit waits for either.
    "bgwriter_delay": "2s",
    "bgwriter_lru_maxpages": "1000",
    "wal_writer_delay": "2s",
    # Each time, a worker per database is started. Between, updates in place (HOT) clean up after themselves.
    "autovacuum_naptime": "5min",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What `start()` found and did."""

    pid: int
    version: str
    is_created: bool  # the data directory is new
    is_adopted: bool  # the server was already running


class EmbeddedPostgres:
    """The private Postgres of one home.

        server = EmbeddedPostgres(home)
        await server.start()
        connection = await connect(server.dsn, application_name="tickless")
        ...
        await server.stop()    # or leave(): it goes on running, for the next start to adopt

    `settings` are server settings on top of ours. They, like new defaults of a newer tickless, reach an adopted
    server only when it is next started. `shared_root` is where root puts what the server's user cannot reach at home.
    """

    def __init__(
        self, home: Path, *, settings: Mapping[str, str] | None = None, shared_root: Path = SHARED_ROOT
    ) -> None:
        self._home = home.absolute()
        self._settings = dict(settings or {})
        self._shared_root = shared_root
        self._child: subprocess.Popen[bytes] | None = None  # the server, when it is we who started it
        self._use_lock: int | None = None

    @property
    def log_path(self) -> Path:
        """The file with the server's own messages."""
        return log_path(self._home)

    @property
    def data(self) -> Path:
        """The data directory, whether or not it exists yet."""
        return find_base(self._home) / "data"

    @property
    def dsn(self) -> str:
        """How to connect as the superuser `tickless`, for asyncpg and psql. `Unavailable` when nothing is running."""
        return self._dsn(DATABASE)

    def is_running(self) -> bool:
        """Whether the main process lives; it may still be recovering, or be shutting down."""
        return self.server_pid() is not None

    def server_pid(self) -> int | None:
        """The server's main process, whoever started it."""
        # poll() also reaps a dead child, whose zombie would look alive to a new server.
        if self._child is not None and self._child.poll() is None:
            return self._child.pid
        running = self._running()
        return running.pid if running else None

    async def start(self) -> Started:
        """Make sure that the server runs and answers; create the data directory and the database at first use.

        Starting twice is fine, and starting again is how to recover from a crash of the server. Cancelled, it leaves
        behind what it has started; `stop()` ends it.
        """
        make_home(self._home)
        place = make_place(self._home, self._shared_root)
        async with _locked(place):
            self._hold(place)
            is_created = False
            is_adopted = self.is_running() and await self._is_ready()
            if not is_adopted:
                await self._clear_leftovers(place)
                is_created = await self._launch(place)
            version = await self._make_database()
            pid = self.server_pid()
        if pid is None:
            raise Unavailable("the private Postgres ended right after its start", hint=f"Its log: {self.log_path}")
        return Started(pid=pid, version=version, is_created=is_created, is_adopted=is_adopted)

    async def stop(self, *, timeout: float = 60.0) -> bool:
        """Shut the server down and wait for its end. False: another process uses it, so it stays.

        Stopping a stopped server is fine. `Unavailable` when it still runs after `timeout` seconds; it goes on
        shutting down.
        """
        base = find_base(self._home)
        if not base.is_dir():
            return True
        place = make_place(self._home, self._shared_root)
        async with _locked(place):
            try:
                if not self._holds_alone(place):
                    return False
                pid = self.server_pid()
                if pid is not None:
                    await self._end(pid, timeout)
                return True
            finally:
                self.leave()

    def leave(self) -> None:
        """Stop using the server without stopping it."""
        if self._use_lock is not None:
            os.close(self._use_lock)
            self._use_lock = None

    # Running

    def _running(self) -> PidFile | None:
        try:
            pid_file = read_pid_file(self.data)
        except PermissionError as refused:
            raise UserError(
                f"the private Postgres of {self._home} belongs to another user", hint="Run tickless as that user."
            ) from refused
        return pid_file if pid_file is not None and is_postmaster(pid_file.pid, self.data) else None

    def _dsn(self, database: str) -> str:
        running = self._running()
        if running is None or running.sockets is None:
            raise Unavailable(f"the private Postgres of {self._home} is not running", hint="Start it: tickless dev")
        return f"postgresql://{ROLE}@/{database}?host={quote(running.sockets, safe='/')}&port={running.port}"

    async def _is_ready(self) -> bool:
        """Wait until the server answers (True) or has ended (False)."""
        with anyio.move_on_after(_PATIENCE_SECONDS) as patience:
            while self.is_running():
                try:
                    connection = await connect(self._dsn("postgres"), application_name="tickless start")
                except Unavailable as away:
                    if getattr(away.__cause__, "sqlstate", None) == "57P03":  # it says that it is recovering
                        patience.deadline = anyio.current_time() + _PATIENCE_SECONDS
                    await anyio.sleep(0.01)
                else:
                    connection.terminate()  # a farewell can fail: the server may be going again
                    return True
            return False
        raise Unavailable(
            f"the private Postgres (process {self.server_pid()}) runs but has not answered for {_PATIENCE_SECONDS:g} s",
            hint=f"Its log: {self.log_path}",
        )

    async def _make_database(self) -> str:
        connection = await connect(self._dsn("postgres"), application_name="tickless start")
        try:
            if not await connection.fetchval("select exists (select from pg_database where datname = $1)", DATABASE):
                await connection.execute(f"create database {DATABASE}")
            return str(await connection.fetchval("show server_version"))
        except DRIVER_ERRORS as error:
            raise (map_error(error) or error) from error  # it ends again already
        finally:
            connection.terminate()

    # Starting

    async def _clear_leftovers(self, place: Place) -> None:
        """Let the remains of a killed server end, and remove lock files that would keep a new one from starting."""
        data = place.data
        with anyio.move_on_after(_ORPHAN_PATIENCE_SECONDS):
            while orphans := processes_in(data):
                await wait_for_end(orphans[0])
        if orphans := processes_in(data):
            raise Unavailable(
                f"processes of a crashed server still work in {data}: {', '.join(map(str, orphans))}",
                hint="They end with the statement they are in; or end them: kill " + " ".join(map(str, orphans)),
            )
        # With a free pid the server removes them itself, and frees the shared memory that the first one names. It does
        # not when the pid is a stranger's now, or its own dead server's that nobody has reaped yet.
        for stale in (data / "postmaster.pid", place.sockets / f".s.PGSQL.{PORT}.lock"):
            pid = first_pid(stale)
            if pid is not None and exists(pid):
                stale.unlink()

    async def _launch(self, place: Place) -> bool:
        """Start the server, True when that took making the data directory."""
        made_by = _made_by(place.data)
        binaries = find_binaries(made_by, place.data)
        if place.user is not None:
            binaries = make_reachable(binaries, place.user, lambda: make_shared_folder(place, "runtime"))
        if made_by is None:
            await _initialise(place, binaries)
        place.write_access_files()
        log = place.open_log()
        try:
            log_start = os.fstat(log).st_size
            self._child = _spawn(place, binaries, self._settings, log)
        finally:
            os.close(log)
        child = self._child
        if not await self._is_ready():
            raise Unavailable(
                f"the private Postgres ended at once (exit status {child.wait()}): {_tail(self.log_path, log_start)}",
                hint=f"Its log: {self.log_path}",
            )
        return made_by is None

    # Stopping

    def _hold(self, place: Place) -> None:
        if self._use_lock is None:
            self._use_lock = place.open("use.lock", os.O_RDWR)
        # Nobody can hold it exclusively now: that takes start.lock, which we have.
        fcntl.flock(self._use_lock, fcntl.LOCK_SH)

    def _holds_alone(self, place: Place) -> bool:
        if self._use_lock is None:
            self._use_lock = place.open("use.lock", os.O_RDWR)
        try:
            fcntl.flock(self._use_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def _end(self, pid: int, timeout: float) -> None:
        with anyio.move_on_after(timeout):
            try:
                os.kill(pid, signal.SIGINT)
            except ProcessLookupError:
                return
            await wait_for_end(pid)
            if self._child is not None and self._child.pid == pid:
                self._child.wait()
            return
        raise Unavailable(
            f"the private Postgres (process {pid}) has not ended within {timeout:g} s; it goes on shutting down",
            hint=f"Its log: {self.log_path}",
        )


def settings_for(major: int, place: Place, extra: Mapping[str, str]) -> dict[str, str]:
    """The server's settings; they go on its command line, so that nothing is left behind in the data directory."""
    settings = _SETTINGS | {
        "unix_socket_directories": str(place.sockets),
        "hba_file": str(place.base / "pg_hba.conf"),
        "ident_file": str(place.base / "pg_ident.conf"),
    }
    if major >= 18:
        settings["io_method"] = "sync"  # saves three processes that read ahead for larger databases
    return settings | dict(extra)


def _spawn(place: Place, binaries: Binaries, extra: Mapping[str, str], log: int) -> subprocess.Popen[bytes]:
    settings = settings_for(binaries.major, place, extra)
    arguments = [f"-c{name}={value}" for name, value in settings.items()]
    user = place.user
    try:
        return subprocess.Popen(
            [binaries.program("postgres"), "-D", place.data, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(),
            umask=0o077,
            start_new_session=True,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as refused:
        raise UserError(f"cannot run {binaries.program('postgres')}: {refused.strerror or refused}") from refused


async def _initialise(place: Place, binaries: Binaries) -> None:
    partial = place.base / "data.partial"
    if partial.exists():
        shutil.rmtree(partial)
    place.make_partial_data()
    command = [
        *(str(binaries.program("initdb")), "-D", str(partial), "-U", ROLE, "-E", "UTF8", "--locale=C"),
        *("--auth-local=peer", "--auth-host=reject", "--data-checksums", "--no-instructions"),
    ]
    if binaries.major >= 17:
        # Sorted like C, but knows letters beyond ASCII; needs no locale of the system.
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    user = place.user
    try:
        made = await anyio.run_process(
            command,
            check=False,
            cwd="/",
            env=_environment(),
            umask=0o077,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as refused:
        raise UserError(f"cannot run {binaries.program('initdb')}: {refused.strerror or refused}") from refused
    if made.returncode != 0:
        said = made.stderr.decode(errors="replace").strip()
        raise UserError(f"initdb could not make {place.data}: {said}", hint=f"Its programs: {binaries}")
    partial.rename(place.data)
    _sync_folder(place.base)


def _made_by(data: Path) -> int | None:
    """The major version that made the data directory, None when there is none."""
    try:
        return int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        pass
    except ValueError as broken:
        raise UserError(f"{data / 'PG_VERSION'} holds no version number", hint="Restore it from a backup.") from broken
    if data.exists():
        raise UserError(f"{data} is there but holds no database", hint=f"Put it aside: mv {data} {data}.old")
    return None


def _environment() -> dict[str, str]:
    # Nothing of ours: PG* variables and locales would reach the server, and our secrets its /proc/PID/environ.
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return " / ".join(lines[-5:]) or "it said nothing"


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@asynccontextmanager
async def _locked(place: Place) -> AsyncIterator[None]:
    """Hold start.lock; waits while another process starts or stops the server."""
    fd = place.open("start.lock", os.O_RDWR)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A blocking flock would take a thread that cannot be cancelled. This loop ends within a start.
                await anyio.sleep(0.05)
        yield
    finally:
        os.close(fd)
