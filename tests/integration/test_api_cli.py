"""The CLI as a process, against the real server with a fake backend: streams, exit codes, retries."""

from __future__ import annotations

import json
import os
import pty
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.backend import START, Served, served
from tests.support.builders import cron
from tickless.core.explain import Reason
from tickless.model.id import RunKey
from tickless.model.row import AttemptRow
from tickless.model.state import AttemptState, RunState
from tickless.store.reader import ImportErrorInfo

TICKLESS = [sys.executable, "-m", "tickless"]
Tickless = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as it:
        yield it


def environment(home: Path) -> dict[str, str]:
    rest = {name: value for name, value in os.environ.items() if not name.startswith("TICKLESS_")}
    return {**rest, "TICKLESS_HOME": str(home)}


@pytest.fixture
def tickless(tmp_path: Path) -> Tickless:
    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*TICKLESS, *words], capture_output=True, text=True, timeout=60, env=environment(tmp_path), check=False
        )
        assert done.returncode == code, done
        return done

    return run


def spawn(home: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TICKLESS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(home)
    )


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_run_start_prints_the_number_alone_on_stdout(daemon: Served, tickless: Tickless) -> None:
    done = tickless("run", "start", "etl")
    assert done.stdout == "1\n"
    assert "etl/manual__1" in done.stderr


def test_run_start_as_json(daemon: Served, tickless: Tickless) -> None:
    started = json.loads(tickless("run", "start", "etl", "--run-id", "mine", "--conf", '{"a": 1}', "-o", "json").stdout)
    assert (started["run"], started["dag_id"], started["run_id"]) == (1, "etl", "mine")
    assert daemon.backend.reader.run_rows[1].conf == '{"a": 1}'


def test_options_go_before_and_after_the_command_and_nouns_may_be_plural(
    daemon: Served, tickless: Tickless, tmp_path: Path
) -> None:
    outputs = {
        tickless("-o", "json", "--home", str(tmp_path), "dag", "list").stdout,
        tickless("dags", "-o", "json", "list").stdout,
        tickless("dags", "list", "--home", str(tmp_path), "-o", "json").stdout,
    }
    (only,) = outputs
    assert [dag["dag_id"] for dag in json.loads(only)] == ["etl", "fan"]


def test_home_on_the_line_comes_before_the_environment(daemon: Served, tickless: Tickless, tmp_path: Path) -> None:
    tickless("--home", str(tmp_path / "other"), "dag", "list", code=6)
    tickless("dag", "list", "--home", str(tmp_path / "other"), code=6)


def test_empty_lists_are_empty_json_and_exit_0(daemon: Served, tickless: Tickless) -> None:
    assert json.loads(tickless("run", "list", "-o", "json").stdout) == []
    assert json.loads(tickless("dag", "errors", "-o", "json").stdout) == []
    assert tickless("dag", "errors").stdout == ""


def test_status_is_0_when_ready_3_when_nothing_runs_and_6_when_not_ready(daemon: Served, tickless: Tickless) -> None:
    assert json.loads(tickless("status", "-o", "json").stdout)["is_ready"] is True
    daemon.backend.is_ready = False
    assert "recovering (not ready)" in tickless("status", code=6).stdout
    daemon.stop()
    done = tickless("status", "-o", "json", code=3)
    assert done.stdout == ""
    assert json.loads(done.stderr)["error"]["code"] == "not_running"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run", "start", "nope"], 3),
        (["run", "show", "99"], 3),
        (["run", "show", "etl/nope"], 3),
        (["run", "show", "gibberish"], 2),
        (["run", "start", "etl", "--run-id", "taken"], 5),
        (["run", "start", "etl", "--conf", "{broken"], 2),
        (["run", "start", "etl", "--conf", "[1]"], 2),
        (["run", "start"], 2),
        (["frobnicate"], 2),
        (["run", "list", "--state", "sleeping"], 2),
        (["why", "1", "nope"], 3),
        (["pool", "set", "p", "many"], 2),
        (["--config", "/nonexistent.toml", "daemon"], 78),
    ],
)
def test_exit_codes_and_errors_with_json(daemon: Served, tickless: Tickless, words: list[str], code: int) -> None:
    tickless("run", "start", "etl", "--run-id", "taken")
    done = tickless("-o", "json", *words, code=code)
    assert done.stdout == ""
    assert json.loads(done.stderr)["error"]["message"]
    assert "Traceback" not in tickless(*words, code=code).stderr


@pytest.mark.parametrize("words", [[], ["run"], ["pools"]])
def test_a_noun_alone_is_answered_with_its_help_on_stderr(tickless: Tickless, words: list[str]) -> None:
    done = tickless(*words, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: tickless")


def test_run_list_show_and_cancel(daemon: Served, tickless: Tickless) -> None:
    tickless("run", "start", "etl", "--run-id", "one")
    tickless("run", "start", "fan", "--run-id", "two")
    assert [line.split()[:4] for line in tickless("run", "list").stdout.splitlines()[1:]] == [
        ["2", "fan", "two", "running"],
        ["1", "etl", "one", "running"],
    ]
    assert [run["run_id"] for run in json.loads(tickless("runs", "list", "etl", "-o", "json").stdout)] == ["one"]
    assert json.loads(tickless("run", "list", "--state", "failed", "-o", "json").stdout) == []
    assert "1 scheduled" in tickless("run", "show", "etl/one").stdout
    tickless("run", "cancel", "etl/one")
    user = pwd.getpwuid(os.getuid()).pw_name
    assert f" by unix:{user}" in tickless("run", "show", "etl/one").stdout
    assert json.loads(tickless("run", "show", "1", "-o", "json").stdout)["is_cancelled"] is True
    daemon.do(lambda: daemon.backend.end_run(2))  # type: ignore[arg-type]  # the number of the run
    tickless("run", "cancel", "2", code=5)


def test_wait_says_what_happens_and_exits_by_the_result(daemon: Served, tmp_path: Path) -> None:
    for state, code in ((RunState.SUCCESS, 0), (RunState.FAILED, 1)):
        cli = spawn(tmp_path, "run", "start", "etl", "--wait", "-o", "json")
        eventually(daemon.has_watchers)
        backend = daemon.backend
        key = list(backend.reader.instance_rows)[-1]
        daemon.do(lambda: backend.begin_attempt(key))  # noqa: B023  # called at once
        daemon.do(lambda: backend.end_attempt(key, AttemptState.FAILED, "boom"))  # noqa: B023  # called at once
        daemon.do(lambda: backend.end_run(key.run, state))  # noqa: B023  # called at once
        stdout, stderr = cli.communicate(timeout=30)
        assert cli.returncode == code
        assert json.loads(stdout)["state"] == state
        assert "work: failed after 2.00 s: boom" in stderr


def test_a_terminal_shows_how_far_a_run_is_and_stdout_is_none_of_it(daemon: Served, tmp_path: Path) -> None:
    terminal, stderr = pty.openpty()
    env = environment(tmp_path) | {"TERM": "xterm", "COLUMNS": "100"}
    words = ["run", "start", "etl", "--wait"]
    with subprocess.Popen([*TICKLESS, *words], stdout=subprocess.PIPE, stderr=stderr, text=True, env=env) as cli:
        os.close(stderr)
        seen = until(terminal, b"run 1: 0 of 1 tasks done, ")
        backend = daemon.backend
        key = next(iter(backend.reader.instance_rows))
        daemon.do(lambda: backend.begin_attempt(key))
        daemon.do(lambda: backend.end_attempt(key, AttemptState.SUCCESS))
        seen += until(terminal, b"run 1: 1 of 1 tasks done, ")
        daemon.do(lambda: backend.end_run(key.run))
        seen += until(terminal, None)
        assert cli.stdout is not None
        assert cli.stdout.read() == "1\n"
    lines = [line.rpartition(b"\r\x1b[K")[2] for line in seen.replace(b"\r\n", b"\n").split(b"\n")]
    assert [line.split(b" after")[0] for line in lines] == [
        b"run 1 started: etl/manual__1",
        b"  work: success",
        b"run 1 (etl/manual__1): success",
        b"",
    ], "what stays on the screen"


def until(terminal: int, text: bytes | None) -> bytes:
    """What comes on a terminal until this text; None = until nobody has it open any more."""
    seen = b""
    while text is None or text not in seen:
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            break
    return seen


def test_no_terminal_no_progress(daemon: Served, tmp_path: Path) -> None:
    cli = spawn(tmp_path, "run", "start", "etl", "--wait")
    eventually(daemon.has_watchers)
    daemon.do(lambda: daemon.backend.end_run(RunKey(1)))
    _, stderr = cli.communicate(timeout=30)
    assert "\r" not in stderr
    assert "tasks done" not in stderr


def test_wait_survives_a_restart_of_the_daemon_and_says_so(daemon: Served, tmp_path: Path) -> None:
    cli = spawn(tmp_path, "run", "start", "etl", "--wait")
    eventually(daemon.has_watchers)
    daemon.stop()
    daemon.backend.end_run(next(iter(daemon.backend.reader.run_rows)))  # type: ignore[arg-type]  # the number of the run
    daemon.start()
    stdout, stderr = cli.communicate(timeout=30)
    assert (cli.returncode, stdout) == (0, "1\n")
    assert "trying again" in stderr
    assert "connected again" in stderr


def test_ctrl_c_while_waiting_is_130_and_the_run_goes_on(daemon: Served, tmp_path: Path) -> None:
    cli = spawn(tmp_path, "run", "start", "etl", "--wait")
    eventually(daemon.has_watchers)
    cli.send_signal(signal.SIGINT)
    _, stderr = cli.communicate(timeout=30)
    assert cli.returncode == 130
    assert "run 1 goes on" in stderr
    assert daemon.backend.reader.run_rows[1].cancel_requested_at is None


def test_an_unanswered_start_is_sent_again_and_starts_one_run(daemon: Served, tmp_path: Path) -> None:
    daemon.backend.is_away = True
    cli = spawn(tmp_path, "run", "start", "etl", "-o", "json")
    time.sleep(1)
    daemon.backend.is_away = False
    stdout, stderr = cli.communicate(timeout=30)
    assert cli.returncode == 0, stderr
    assert json.loads(stdout)["run"] == 1
    assert len(daemon.backend.reader.run_rows) == 1
    assert len(daemon.backend.keys) == 1


def test_without_a_daemon_nothing_is_waited_for(tickless: Tickless) -> None:
    before = time.monotonic()
    done = tickless("run", "start", "etl", code=6)
    assert time.monotonic() - before < 5
    assert "tickless dev" in done.stderr


def begin_with_log(daemon: Served, text: bytes) -> tuple[AttemptRow, Path]:
    backend = daemon.backend
    attempt = daemon.do(lambda: backend.begin_attempt(next(iter(backend.reader.instance_rows))))
    path = backend.home / "logs" / attempt.log_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return attempt, path


def test_logs_are_followed_across_a_restart_without_a_byte_doubled_or_lost(
    daemon: Served, tickless: Tickless, tmp_path: Path
) -> None:
    tickless("run", "start", "etl")
    attempt, path = begin_with_log(daemon, b"one\n")
    cli = spawn(tmp_path, "task", "logs", "-f", "1", "work")
    assert cli.stdout is not None
    assert cli.stdout.readline() == "one\n"
    daemon.stop()
    with path.open("ab") as log:
        log.write(b"two\n")
    daemon.start()
    assert cli.stdout.readline() == "two\n"
    with path.open("ab") as log:
        log.write(b"three")
    daemon.do(lambda: daemon.backend.end_attempt(attempt.key))
    rest, _ = cli.communicate(timeout=30)
    assert (cli.returncode, rest) == (0, "three")
    assert tickless("task", "logs", "etl/manual__1", "work").stdout == "one\ntwo\nthree"


def test_output_to_a_reader_that_left_is_no_traceback(daemon: Served, tickless: Tickless, tmp_path: Path) -> None:
    tickless("run", "start", "etl")
    attempt, _ = begin_with_log(daemon, b"x" * 5_000_000)
    daemon.do(lambda: daemon.backend.end_attempt(attempt.key))
    cli = spawn(tmp_path, "task", "logs", "1", "work")
    assert cli.stdout is not None
    assert cli.stderr is not None
    cli.stdout.close()
    assert cli.stderr.read() == ""
    assert cli.wait(30) == 1
    cli.stderr.close()


def test_task_list_and_why(daemon: Served, tickless: Tickless) -> None:
    tickless("run", "start", "etl")
    assert tickless("task", "list", "1").stdout.splitlines()[1].split()[:2] == ["work", "scheduled"]
    daemon.backend.reasons = [
        Reason(code="pool", message="1 of 1 slots …", hint="`tickless pool set p 2`", task_id="work", used=1, limit=1)
    ]
    assert tickless("why", "1").stdout == "work: 1 of 1 slots …\n  `tickless pool set p 2`\n"
    assert tickless("why", "etl/manual__1", "work").stdout.startswith("1 of 1 slots")
    assert json.loads(tickless("why", "1", "-o", "json").stdout)[0]["limit"] == 1


def test_pools_are_listed_and_set(daemon: Served, tickless: Tickless) -> None:
    tickless("pool", "set", "gpu", "3")
    assert tickless("pools", "list").stdout.splitlines()[-1].split() == ["gpu", "3", "0", "0", "3"]


def test_dag_errors_name_file_and_line_and_cannot_move_the_cursor(daemon: Served, tickless: Tickless) -> None:
    daemon.backend.reader.problems = [
        ImportErrorInfo(
            folder="/dags",
            file="bad.py",
            error="SyntaxError: \x1b[2Jinvalid",
            traceback="Traceback …",
            line=3,
            at=START + timedelta(seconds=1),
        )
    ]
    shown = tickless("dag", "errors", "--traceback").stdout
    assert "bad.py:3: SyntaxError: ·[2Jinvalid" in shown
    assert "| Traceback" in shown
    assert "\x1b" not in shown


def test_db_url_is_that_of_the_daemon(daemon: Served, tickless: Tickless) -> None:
    assert tickless("db", "url").stdout == "postgresql://tickless:secret@127.0.0.1:1/tickless\n"


def test_db_url_without_a_server_says_how_to_start_one(tickless: Tickless) -> None:
    assert "tickless dev" in tickless("db", "url", code=3).stderr


def test_stop_without_a_daemon_is_3_and_stop_all_is_0(tickless: Tickless) -> None:
    tickless("stop", code=3)
    assert json.loads(tickless("stop", "--all", "-o", "json").stdout) == {"pid": None, "ended": []}


def test_stop_waits_for_the_end_of_the_process(tmp_path: Path) -> None:
    script = (
        "import sys, threading, time; from pathlib import Path; from tests.support.backend import *\n"
        "it = Served(FakeBackend(Path(sys.argv[1])), Path(sys.argv[1]) / 'api.sock'); it.start()\n"
        "print('up', flush=True)\n"
        "while not it.backend.stopped: time.sleep(0.01)\n"
        "time.sleep(0.5); it.stop()\n"
    )
    fake = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert fake.stdout is not None
    assert fake.stdout.readline() == "up\n"
    reaper = threading.Thread(target=fake.wait)  # pidfds see the exit of a zombie too; do not leave one
    reaper.start()
    stopped = subprocess.run([*TICKLESS, "stop"], env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert fake.poll() == 0
    assert f"pid {fake.pid}" in stopped.stderr
    reaper.join()
    fake.stdout.close()


def test_a_daemon_that_does_not_answer_is_sent_a_signal(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tickless.store.home import HomeLock\n"
        "lock = HomeLock(Path(sys.argv[1]), folder=Path('.')); lock.acquire(); print('up', flush=True); time.sleep(60)"
    )
    mute = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert mute.stdout is not None
    assert mute.stdout.readline() == "up\n"
    subprocess.run([*TICKLESS, "stop"], env=environment(tmp_path), capture_output=True, check=True)
    assert mute.wait(10) == -signal.SIGTERM
    mute.stdout.close()


def test_a_dag_is_shown_with_its_schedule_and_paused(daemon: Served, tickless: Tickless) -> None:
    daemon.backend.reader.schedules["etl"] = cron("0 6 * * *")
    headings, line = tickless("dag", "list").stdout.splitlines()[:2]
    assert "SCHEDULE" in headings and "NEXT RUN" in headings and "0 6 * * *" in line
    assert len(tickless("dag", "next", "etl", "-n", "3").stdout.splitlines()) == 4
    assert [*json.loads(tickless("dag", "next", "etl", "-n", "1", "-o", "json").stdout)[0]] == [
        "run_after",
        "data_interval_start",
        "data_interval_end",
    ]
    done = tickless("dag", "pause", "etl")
    assert (done.stdout, done.stderr) == ("", "DAG etl is paused\n")
    assert " paused " in tickless("dag", "list").stdout
    shown = tickless("dag", "show", "etl").stdout
    assert "0 6 * * *" in shown and shown.endswith("DAG 'etl' is paused.\n")
    assert "is not paused, its next run is due" in tickless("dag", "unpause", "etl").stderr
    tickless("dag", "pause", "nothing", code=3)
