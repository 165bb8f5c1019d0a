"""Each exit code of the command line, from the real one, on a real daemon or on none."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.house import ROOT
from tests.support.stage import Stage
from tickless.cli import problem

FILES = {
    "d.py": """
with DAG("good"):
    bash("a")
with DAG("bad"):
    bash("a", "exit 1")
with DAG("waits"):
    held("a")
""",
}
ROWS = [
    (0, ["dag", "list"]),
    (0, ["run", "start", "good", "--wait"]),
    (1, ["run", "start", "bad", "--wait"]),
    (2, ["run", "show", "gibberish"]),
    (2, ["run", "shwo", "1"]),
    (2, ["pool", "set", "p", "-1"]),
    (3, ["run", "show", "1000000"]),
    (3, ["dag", "show", "nope"]),
    (3, ["status", "--home", "/nonexistent"]),
    (5, ["run", "start", "good", "--run-id", "taken"]),
    (6, ["dag", "list", "--home", "/nonexistent"]),
    (78, ["daemon", "--config", "/nonexistent.toml"]),
    (124, ["run", "start", "waits", "--timeout", "0.1"]),
]
BY_HAND = {4, 130}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES) as stage:
        stage.start()
        assert stage.cli("run", "start", "good", "--run-id", "taken").code == 0
        yield stage


@pytest.mark.parametrize(("code", "words"), ROWS)
def test_a_command_ends_with_its_code_and_its_error_on_stderr_alone(stage: Stage, code: int, words: list[str]) -> None:
    extra = () if "--home" in words else ("--home", str(stage.home))
    answer = _run(stage, *words, *extra)
    assert answer.returncode == code, answer
    if code not in (0, 1, 124):
        assert answer.stdout == ""
        assert answer.stderr.startswith("error: ")
        told = _run(stage, *words, *extra, "-o", "json")
        assert (told.returncode, told.stdout) == (code, "")
        assert json.loads(told.stderr)["error"].keys() >= {"code", "message"}


def test_another_users_daemon_is_4(stage: Stage) -> None:
    socket = stage.home / "api.sock"
    socket.chmod(0)
    try:
        answer = _run(stage, "dag", "list", "--home", str(stage.home), is_weak=True)
    finally:
        socket.chmod(0o600)
    assert (answer.returncode, answer.stdout) == (4, "")
    assert "you may not open" in answer.stderr
    assert "hint: " in answer.stderr


def test_ctrl_c_is_130_and_the_run_goes_on(stage: Stage) -> None:
    with stage.cli_process("run", "start", "waits", "--wait", is_json=False) as cli:
        assert cli.stdout is not None
        run = int(cli.stdout.readline())
        stage.wait_running(run, "a")
        cli.send_signal(signal.SIGINT)
        _, err = cli.communicate(timeout=60)
    assert cli.returncode == 130
    assert f"run {run} goes on" in err
    assert stage.client.get(f"/runs/{run}")["state"] == "running"


def test_every_code_there_is_has_a_row() -> None:
    codes = {value for name, value in vars(problem).items() if name.isupper() and isinstance(value, int)}
    assert codes == {code for code, _ in ROWS} | BY_HAND


def _run(stage: Stage, *words: str, is_weak: bool = False) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKLESS_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "tickless", *words],
        env=clean | {"PYTHONPATH": str(ROOT)},
        cwd=stage.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=_be_weak if is_weak else None,
    )


def _be_weak() -> None:
    """Also root may now open only what the modes of files allow: the capabilities are gone after the exec."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; refused to others, who have none of them
