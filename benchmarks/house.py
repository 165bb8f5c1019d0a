"""A whole tickless of its own for one benchmark run: home, DAG folder, daemon process, API client, what it costs."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

DAGS = Path(__file__).parent / "dags"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=300)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(300)
        self.sock.connect(self._path)


class House:
    """Use as a context manager; everything that it started is stopped at the end, by pid."""

    def __init__(self, config: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tickless-bench-"))
        self.home = self._folder / "home"
        self.out = self._folder / "out.txt"
        self.home.mkdir()
        dags = self._folder / "dags"
        shutil.copytree(DAGS, dags, ignore=shutil.ignore_patterns("__pycache__"))
        (dags / "out.path").write_text(str(self.out))
        (self.home / "tickless.toml").write_text(f'[dags]\nfolders = ["{dags}"]\n{config}')
        self._log = (self._folder / "daemon.log").open("wb")
        self._daemon: subprocess.Popen[bytes] | None = None
        self._api: _UnixConnection | None = None

    def __enter__(self) -> House:
        self._daemon = subprocess.Popen(
            [sys.executable, "-m", "tickless", "daemon", "--home", str(self.home)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                if len(self.get("/api/v1/dags?limit=100")["items"]) >= 5:
                    return self
            except (OSError, http.client.HTTPException, KeyError):
                self._api = None
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                sys.stderr.write((self._folder / "daemon.log").read_text())
                raise SystemExit("the daemon did not become ready")
            time.sleep(0.1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.command("stop", "--all", check=False)
        if self._daemon is not None:
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                self._daemon.send_signal(signal.SIGKILL)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def daemon_pid(self) -> int:
        assert self._daemon is not None
        return self._daemon.pid

    def command(self, *words: str, check: bool = True) -> str:
        """Run a tickless command on this house."""
        line = [sys.executable, "-m", "tickless", *words, "--home", str(self.home)]
        return subprocess.run(line, check=check, capture_output=True, text=True).stdout

    def get(self, path: str) -> Any:
        """GET from the API on a connection that is kept open."""
        return json.loads(self._request("GET", path, None))

    def start_run(self, dag_id: str) -> int:
        """Start a run by API; returns its number."""
        return int(json.loads(self._request("POST", f"/api/v1/dags/{dag_id}/runs", {}))["run"])

    def wait(self, run: int) -> None:
        """Return when the run is over; it must have succeeded."""
        last = self._request("GET", f"/api/v1/runs/{run}/wait", None).splitlines()[-1]
        state = json.loads(last)["run"]["state"]
        if state != "success":
            raise SystemExit(f"run {run} ended as {state}")

    def noted(self) -> list[tuple[str, str, int, int]]:
        """(run_id, task_id, start, end) as the tasks noted them, in nanoseconds."""
        lines = self.out.read_text().splitlines() if self.out.exists() else []
        return [(run, task, int(start), int(end)) for run, task, start, end in (line.split() for line in lines)]

    def _request(self, method: str, path: str, body: object) -> str:
        if self._api is None:
            self._api = _UnixConnection(self.home / "api.sock")
        data = None if body is None else json.dumps(body)
        self._api.request(method, path, data, {"Content-Type": "application/json"})
        response = self._api.getresponse()
        content = response.read()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {response.status} {content.decode()}")
        return content.decode()

    def processes(self) -> list[int]:
        """The daemon, its launcher and the launcher's zygotes; not Postgres."""
        roots = [self.daemon_pid]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"tickless.launcher" in words and str(self.home).encode() in words:
                    roots.append(int(entry.name))
        found = []
        while roots:
            pid = roots.pop()
            found.append(pid)
            try:
                roots.extend(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                continue
        return [pid for pid in found if b"postgres" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def voluntary_switches(pid: int) -> int:
    """Voluntary context switches of all threads so far: how often the process woke up."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for line in (thread / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def pss_mib(pid: int) -> float:
    """Proportional set size: shared pages count by share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
