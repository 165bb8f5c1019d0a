"""Every way in which a task can end: its state, its reason in words, and its log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import is_alive
from tests.support.stage import Stage

FILES = {
    "ends.py": '''
def python(task_id, **args):
    return lambda call: PythonOperator(task_id=task_id, python_callable=call, **args)

with DAG("ends", max_active_tasks=32):
    bash("exit_7", "echo before; exit 7")
    bash("sigkill", "kill -KILL $$")
    bash("segv", "ulimit -c 0; kill -SEGV $$")
    bash("skips", "exit 99")
    bash("skips_at_3", "exit 3", skip_on_exit_code=3)
    bash("no_skip", "exit 99", skip_on_exit_code=None)
    bash("bad_cwd", "true", cwd="/nowhere/at/all")
    bash("not_found", "no_such_program_anywhere")
    bash("binary_line", r"printf 'a\\xff'")
    bash("long_line", "head -c 70000 /dev/zero | tr '\\\\0' x; echo")
    bash("long_line_unpushed", "head -c 70000 /dev/zero | tr '\\\\0' x; echo", do_xcom_push=False)
    bash("unterminated", "echo 'open")

    @python("raises")
    def raises():
        print("working on it")
        {}["missing"]

    @python("exits_5")
    def exits_5():
        sys.exit(5)

    @python("exits_text")
    def exits_text():
        sys.exit("no more paper")

    @python("exits_0")
    def exits_0():
        sys.exit(0)

    @python("os_exit")
    def os_exit():
        os._exit(0)

    @python("kills_itself")
    def kills_itself():
        os.kill(os.getpid(), signal.SIGKILL)

    @python("a_set")
    def a_set():
        return {"rows": [1, {2, 3}]}

    @python("nan")
    def nan():
        return [1.0, float("nan")]

    @python("number_key")
    def number_key():
        return {1: "one"}

    @python("too_large")
    def too_large():
        return "x" * 70000

    @python("too_large_unpushed", do_xcom_push=False)
    def too_large_unpushed():
        return "x" * 70000

    @python("nul")
    def nul():
        return {"text": "a\\0b"}

    @python("surrogate")
    def surrogate():
        return ["\\ud800"]

with DAG("slow"):
    # The timeouts leave a busy machine the time to set the traps. Neither it nor its grandchildren listen to TERM.
    bash("deaf", """
trap '' TERM
(trap '' TERM; setsid bash -c 'trap "" TERM; echo $BASHPID >> PIDS; while :; do sleep 0.05; done' &
 echo $BASHPID >> PIDS; while :; do sleep 0.05; done) &
echo $$ >> PIDS
while :; do sleep 0.05; done
""".replace("PIDS", NOTES + ".pids"), execution_timeout=3)
    @python("polite", execution_timeout=0.5)
    def polite():
        try:
            time.sleep(3600)
        finally:
            print("tidied up")
    def on_term(*_):
        print("got TERM", flush=True)
        sys.exit(0)

    @python("listens", execution_timeout=3)
    def listens():
        signal.signal(signal.SIGTERM, on_term)
        time.sleep(3600)

with DAG("cancelled"):
    held("python") >> bash("after")
    bash("bash", "echo running; while :; do sleep 0.05; done")
    bash("first") >> bash("waits", pool="empty")

with DAG("chatty"):
    bash("floods", "for i in $(seq 20000); do echo line $i of a flood; done; echo enough")
    bash("live", f"echo one; while [ ! -e {GATES}/two ]; do sleep 0.02; done; echo two; "
                 f"while [ ! -e {GATES}/three ]; do sleep 0.02; done; echo three")
    bash("silent", ":")
    @python("both")
    def both():
        print("to stdout")
        print("to stderr", file=sys.stderr)
        import logging
        logging.getLogger("mine").info("to the logger")
        subprocess.run(["echo", "from a child"])
''',
}

# task_id -> (state, reason, exit code, signal, words of the error or None)
ENDS: dict[str, tuple[str, str, int | None, int | None, str | None]] = {
    "exit_7": ("failed", "exited", 7, None, None),
    "sigkill": ("failed", "signaled", None, 9, None),
    "segv": ("failed", "signaled", None, 11, None),
    "skips": ("skipped", "exited", 99, None, None),
    "skips_at_3": ("skipped", "exited", 3, None, None),
    "no_skip": ("failed", "exited", 99, None, None),
    "bad_cwd": ("failed", "not_started", None, None, "/nowhere/at/all"),
    "not_found": ("failed", "exited", 127, None, None),
    "binary_line": ("success", "exited", 0, None, None),
    "long_line": (
        "failed",
        "output_refused",
        0,
        None,
        "too long for a return value. Set do_xcom_push=False",
    ),
    "long_line_unpushed": ("success", "exited", 0, None, None),
    "unterminated": ("failed", "exited", 2, None, None),
    "raises": ("failed", "raised", 1, None, "KeyError: 'missing'"),
    "exits_5": ("failed", "exited", 5, None, "sys.exit(5)"),
    "exits_text": ("failed", "exited", 1, None, "no more paper"),
    "exits_0": ("success", "exited", 0, None, None),
    "os_exit": ("failed", "exited", 0, None, "without recording an outcome"),
    "kills_itself": ("failed", "signaled", None, 9, None),
    "a_set": ("failed", "output_refused", 1, None, "return value of 'a_set' is not JSON: set at .rows[1]"),
    "nan": ("failed", "output_refused", 1, None, "nan at [1]"),
    "number_key": ("failed", "output_refused", 1, None, "the key 1 is an int, not a string"),
    "too_large": ("failed", "output_refused", 1, None, "70,002 bytes as JSON; the limit is 65,536"),
    "too_large_unpushed": ("success", "exited", 0, None, None),
    "nul": ("failed", "output_refused", 1, None, "a NUL character at .text"),
    "surrogate": ("failed", "output_refused", 1, None, "half of a surrogate pair at [0]"),
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log()


@pytest.fixture(scope="module")
def ended(stage: Stage) -> int:
    """A run of `ends`."""
    run, state = stage.do("ends")
    assert state == "failed"
    return run


@pytest.mark.parametrize("task_id", ENDS)
def test_an_end_has_its_state_reason_and_error(stage: Stage, ended: int, task_id: str) -> None:
    task = stage.task(ended, task_id)
    attempt = task["attempt"]
    state, reason, exit_code, signal_number, words = ENDS[task_id]
    assert (task["state"], task["reason"]) == (state, reason), attempt
    assert (attempt["exit_code"], attempt["signal"]) == (exit_code, signal_number), attempt
    if words is None:
        assert attempt["error"] is None
    else:
        assert words in attempt["error"]
        assert words in stage.log(ended, task_id) or task_id in ("os_exit", "bad_cwd", "long_line", "exits_5")


def test_every_task_of_the_run_was_judged(stage: Stage, ended: int) -> None:
    assert stage.states(ended).keys() == ENDS.keys()


def test_one_canonical_line_per_attempt(stage: Stage, ended: int) -> None:
    lines = [event for event in stage.events("attempt.finished") if event["run"] == ended]
    assert sorted(line["task_id"] for line in lines) == sorted(ENDS)
    by_task = {line["task_id"]: line for line in lines}
    assert by_task["raises"]["error"] == "KeyError: 'missing'", "one line of the traceback"


def test_a_traceback_shows_the_users_code_only(stage: Stage, ended: int) -> None:
    error = stage.task(ended, "raises")["attempt"]["error"]
    assert error.startswith("Traceback (most recent call last):")
    assert '{}["missing"]' in error
    assert "tickless/runner" not in error
    assert stage.log(ended, "raises") == f"working on it\n{error.rstrip()}\n"


def test_a_timeout_ends_the_whole_group_also_those_who_ignore_term(stage: Stage) -> None:
    run, state = stage.do("slow")
    assert state == "failed"
    tasks = stage.tasks(run)
    assert {task_id: (task["state"], task["reason"]) for task_id, task in tasks.items()} == dict.fromkeys(
        ("deaf", "polite", "listens"), ("failed", "timeout")
    )
    pids = [int(pid) for pid in Path(f"{stage.notes_file}.pids").read_text().split()]
    assert len(pids) == 3
    assert tasks["deaf"]["attempt"]["pid"] in pids
    stage.wait(lambda: not [pid for pid in pids if is_alive(pid)], "the end of all three")
    assert tasks["deaf"]["attempt"]["signal"] == 9
    assert "got TERM" in stage.log(run, "listens")


def test_a_cancelled_run_stops_what_runs_and_skips_the_rest(stage: Stage) -> None:
    run = stage.go("cancelled")
    for task_id in ("python", "bash"):
        stage.wait_state(run, task_id, "running")
    stage.wait_state(run, "waits", "scheduled")
    pids = [stage.task(run, task_id)["attempt"]["pid"] for task_id in ("python", "bash")]
    stage.client.post(f"/runs/{run}/cancel")
    assert stage.end(run) == "failed"
    assert {task_id: (task["state"], task["reason"]) for task_id, task in stage.tasks(run).items()} == {
        "python": ("failed", "stopped"),
        "bash": ("failed", "stopped"),
        "after": ("skipped", "the run was cancelled"),
        "first": ("success", "exited"),
        "waits": ("skipped", "the run was cancelled"),
    }
    assert [pid for pid in pids if is_alive(pid)] == []


def test_logs_hold_everything_that_was_written(stage: Stage) -> None:
    run = stage.go("chatty")
    stage.wait_state(run, "floods", "success")
    answer = stage.cli("task", "logs", run, "floods", is_json=False)
    assert answer.out.splitlines() == [*(f"line {i} of a flood" for i in range(1, 20001)), "enough"]
    stage.wait_state(run, "silent", "success")
    assert stage.cli("task", "logs", run, "silent", is_json=False).out == ""
    stage.wait_state(run, "both", "success")
    both = stage.log(run, "both").splitlines()
    assert sorted(line.split()[-1] for line in both) == ["child", "logger", "stderr", "stdout"]
    with stage.cli_process("task", "logs", run, "live", "-f", is_json=False) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "one\n"
        stage.open_gate("two")
        assert follower.stdout.readline() == "two\n"
        assert follower.poll() is None
        stage.open_gate("three")
        assert follower.stdout.read() == "three\n"
        assert follower.wait(60) == 0
    assert stage.end(run) == "success"


def test_why_says_how_a_task_ended(stage: Stage, ended: int) -> None:
    [reason] = stage.why(ended, "raises")
    assert reason["message"] == "The task is over: it ended as failed (raised)."
    rows: list[dict[str, Any]] = stage.cli("task", "list", ended, "--state", "skipped").json
    assert [row["task_id"] for row in rows] == ["skips", "skips_at_3"]
    assert json.dumps(rows)
