"""A whole tickless as a user meets it: DAG files, the real command line, the API, and the database to compare with.

Tasks wait at gates that the test opens, and note when they begin and end, so nothing here depends on time:

    with Stage({"d.py": 'with DAG("d"): held("a") >> held("b")'}) as stage:
        stage.start()
        run = stage.go("d")
        stage.wait_running(run, "a")
        stage.open(run, "a")
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.support.house import NEVER_LOGGED, PATIENCE_SECONDS, ROOT, House, eventually
from tickless.errors import Refused

T = TypeVar("T")

HEAD = """
import json, os, signal, subprocess, sys, time
from tickless import DAG, BashOperator, EmptyOperator, PythonOperator, TriggerRule, chain, dag, task
NOTES, GATES = {notes!r}, {gates!r}
def note(text):
    with open(NOTES, "a") as stream:
        stream.write(f"{{text}} {{os.environ['TICKLESS_RUN_ID']}} {{os.environ['TICKLESS_TASK_ID']}}\\n")
def wait_at(gate):
    while not os.path.exists(f"{{GATES}}/{{gate}}"):
        time.sleep(0.01)
def held(task_id, value=None, **args):
    def call():
        note("S")
        wait_at(os.environ["TICKLESS_RUN_ID"] + "." + task_id)
        note("E")
        return value
    return PythonOperator(task_id=task_id, python_callable=call, **args)
def bash(task_id, command=":", **args):
    return BashOperator(task_id=task_id, bash_command=command, **args)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command line answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which must be one JSON document and nothing else."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error object that -o json puts on stderr."""
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


class Stage(House):
    """See the module's docstring. `start` returns when every DAG file has been read."""

    def __init__(
        self,
        files: Mapping[str, str] | None = None,
        *,
        limits: Mapping[str, int] | None = None,
        config: str = "",
        dags: Path | None = None,
        parse_seconds: float = 30.0,
        is_dev: bool = False,
    ) -> None:
        """`config` is more TOML, sections and all; `dags` another folder than the stage's own."""
        super().__init__({}, {}, is_dev=is_dev)
        self.notes_file = self.folder / "notes"
        self._gates = self.folder / "gates"
        self._gates.mkdir()
        self._names: dict[int, str] = {}
        self.head = HEAD.format(notes=str(self.notes_file), gates=str(self._gates))
        for name, source in (files or {}).items():
            self.write(name, source)
        numbers = "".join(f"{name} = {value}\n" for name, value in (limits or {}).items())
        (self.home / "tickless.toml").write_text(
            f'[dags]\nfolders = ["{dags or self.dags}"]\nparse_timeout_seconds = {parse_seconds}\n[limits]\n{numbers}'
            '[daemon]\naudit_interval_seconds = 0.5\n[log]\nformat = "json"\n[tasks]\nkill_grace_seconds = 0.5\n'
            f"{config}"
        )

    # ---- DAG files ------------------------------------------------------------------------------------------------

    def write(self, name: str, source: str, *, has_head: bool = True) -> None:
        """Write a DAG file, as an editor does: all at once."""
        path = self.dags / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.new")
        hidden.write_text((self.head if has_head else "") + source)
        hidden.rename(path)

    def line_of(self, name: str, text: str) -> int:
        """The number of the line of a DAG file that holds this text."""
        lines = (self.dags / name).read_text().splitlines()
        [number] = [number for number, line in enumerate(lines, 1) if text in line]
        return number

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """A DAG, as the API shows it."""
        return next((dag for dag in self.client.get("/dags", limit=500)["items"] if dag["dag_id"] == dag_id), None)

    # ---- the daemon -----------------------------------------------------------------------------------------------

    def wait_ready(self) -> None:
        """Return when every DAG file has been read."""

        def ready() -> bool:
            if not self.is_up:
                raise AssertionError(f"the daemon ended: {self.daemon.returncode}")
            return any(event["pid"] == self.daemon.pid for event in self.events("daemon.started"))

        self.wait(ready, "a daemon that is ready")

    def wait(self, probe: Callable[[], T | None], what: str, seconds: float = PATIENCE_SECONDS) -> T:
        """Poll until it is something true; a deadline instead of a sleep."""
        with self._telling():
            return eventually(probe, what, seconds)

    def assert_clean_log(self, *, but: Sequence[str] = ()) -> None:
        """Nothing that only a bug logs; no traceback."""
        bad = [event for event in self.events() if event["event"] in NEVER_LOGGED - set(but)]
        assert bad == []
        stray = [line for line in self._log.read_text().splitlines() if not line.startswith("{")]
        assert stray == [], "\n".join(stray)

    def rest(self) -> None:
        """Cancel what a failed test has left, so that the next one finds an empty house."""
        for run in self.client.get("/runs", limit=500)["items"]:
            if not run["is_finished"]:
                try:
                    self.client.post(f"/runs/{run['run']}/cancel")
                except Refused:
                    continue  # it ended meanwhile
                self.end(run["run"])

    # ---- asking ---------------------------------------------------------------------------------------------------

    def cli(self, *words: object, is_json: bool = True, home: Path | None = None, **env: str) -> Answer:
        """Run the command line to its end."""
        with self.cli_process(*words, is_json=is_json, home=home, **env) as process:
            out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return Answer(process.returncode, out, err)

    def cli_process(
        self, *words: object, is_json: bool = True, home: Path | None = None, **env: str
    ) -> subprocess.Popen[str]:
        """Start the command line."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKLESS_")}
        clean.pop("INVOCATION_ID", None)
        line = [*map(str, words), "--home", str(home or self.home), *(["-o", "json"] if is_json else [])]
        if "--" in line[: len(words)]:  # what follows it is not ours
            line = [*line[len(words) :], *line[: len(words)]]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "tickless", *line],
            env=clean | {"PYTHONPATH": str(ROOT), "TICKLESS_STRICT_EVENTS": "1"} | env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def go(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> int:
        """Start a run; its number."""
        return int(self.client.post(f"/dags/{dag_id}/runs", {"conf": dict(conf or {})})["run"])

    def end(self, run: int) -> str:
        """Wait for the end of a run; its state."""
        with self._telling():
            *_, last = self.client.lines(f"/runs/{run}/wait", timeout_seconds=PATIENCE_SECONDS)
            assert last["run"]["is_finished"], f"run {run} goes on: {self.why(run)}"
        return str(last["run"]["state"])

    def do(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Start a run and wait for its end: its number and state."""
        run = self.go(dag_id, conf)
        return run, self.end(run)

    def task(self, run: int, task_id: str) -> dict[str, Any]:
        """A task instance, with its latest attempt, as the API shows it."""
        found: dict[str, Any] = self.client.get(f"/runs/{run}/tasks/{task_id}")
        return found

    def tasks(self, run: int) -> dict[str, dict[str, Any]]:
        """All task instances of a run."""
        return {task["task_id"]: task for task in self.client.get(f"/runs/{run}/tasks")["items"]}

    def states(self, run: int) -> dict[str, str]:
        """task_id -> state, for all of a run."""
        return {task_id: task["state"] for task_id, task in self.tasks(run).items()}

    def attempts(self, run: int, task_id: str) -> list[dict[str, Any]]:  # type: ignore[override]  # of one task here
        """The attempts of a task, newest first."""
        found: list[dict[str, Any]] = self.client.get(f"/runs/{run}/tasks/{task_id}/attempts")["items"]
        return found

    def why(self, run: int, task_id: str | None = None) -> list[dict[str, Any]]:
        """The reasons that `tickless why` gives."""
        path = f"/runs/{run}/why" if task_id is None else f"/runs/{run}/tasks/{task_id}/why"
        found: list[dict[str, Any]] = self.client.get(path)["items"]
        return found

    def log(self, run: int, task_id: str) -> str:
        """What the latest attempt of a task wrote."""
        return b"".join(self.client.stream(f"/runs/{run}/tasks/{task_id}/logs")).decode()

    def output(self, run: int, task_id: str, key: str = "return_value") -> Any:
        """A value that a task has handed on, as stored; None when there is none."""
        statement = "select value from xcom where dag_run_key = $1 and task_id = $2 and key = $3"
        found = self.query(statement, run, task_id, key)
        return json.loads(found[0]["value"]) if found else None

    def error_of(self, name: str) -> dict[str, Any] | None:
        """The import error of a DAG file."""
        return next((error for error in self.client.get("/import-errors")["items"] if error["file"] == name), None)

    # ---- gates and notes ------------------------------------------------------------------------------------------

    def open(self, run: int, *task_ids: str) -> None:
        """Let held tasks of a run end."""
        for task_id in task_ids:
            self.open_gate(f"{self._name(run)}.{task_id}")

    def open_gate(self, name: str) -> None:
        """Open a gate that tasks wait at by `wait_at(name)`."""
        (self._gates / name).touch()

    def notes(self, run: int) -> list[tuple[str, str]]:
        """(S or E, task_id) of held tasks of a run, in the order of what happened."""
        name = self._name(run)
        return [(kind, task_id) for kind, run_id, task_id in self._lines() if run_id == name]

    def begun(self, run: int) -> list[str]:
        """Held tasks of a run that have begun, in order."""
        return [task_id for kind, task_id in self.notes(run) if kind == "S"]

    def running(self, run: int) -> set[str]:
        """Held tasks of a run that run now, by their own word."""
        ended = [task_id for kind, task_id in self.notes(run) if kind == "E"]
        return {task_id for task_id in self.begun(run) if task_id not in ended}

    def most_at_once(self, *runs: int) -> int:
        """The most held tasks of these runs that were alive at one moment, by their own word."""
        names = {self._name(run) for run in runs}
        now = most = 0
        for kind, run_id, _ in self._lines():
            if run_id in names:
                now += 1 if kind == "S" else -1
                most = max(most, now)
        return most

    def wait_running(self, run: int, *task_ids: str) -> None:
        """Return when these tasks of a run, and no others, run by their own word and in the database."""

        def running() -> bool:
            states = self.states(run)
            return self.running(run) == set(task_ids) == {t for t, state in states.items() if state == "running"}

        self.wait(running, f"{task_ids} of run {run} running")

    def wait_state(self, run: int, task_id: str, state: str) -> dict[str, Any]:
        """Return when a task is in this state."""
        return self.wait(
            lambda: found if (found := self.task(run, task_id))["state"] == state else None, f"{task_id} {state}"
        )

    def _lines(self) -> list[tuple[str, str, str]]:
        lines = self.notes_file.read_text().splitlines() if self.notes_file.exists() else []
        return [(kind, run_id, task_id) for kind, run_id, task_id in map(str.split, lines)]

    def _name(self, run: int) -> str:
        if run not in self._names:
            self._names[run] = str(self.client.get(f"/runs/{run}")["run_id"])
        return self._names[run]
