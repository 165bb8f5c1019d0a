"""`tickless dag test`: a DAG file is run once, with nothing but the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import ROOT, eventually

FILES = {
    "good.py": """
import os
from tickless import DAG, BashOperator, get_current_context, task
with DAG("good", schedule="@daily") as dag:
    @task
    def first():
        print("conf", get_current_context()["dag_run"].conf)
        return {"n": 41}
    @task(retries=2, retry_delay=3600)
    def second(value):
        ti = get_current_context()["ti"]
        print("try", os.environ["TICKLESS_TRY_NUMBER"])
        if os.environ["TICKLESS_TRY_NUMBER"] == "1":
            raise ValueError("not yet")
        assert ti.xcom_pull(task_ids="first") == value
        return value["n"] + 1
    second(first()) >> BashOperator(task_id="third", bash_command="echo third", queue="far_away", pool="unknown")
""",
    "bad.py": """
from tickless import DAG, BashOperator, Variable, task
with DAG("fails"):
    BashOperator(task_id="breaks", bash_command="exit 3") >> BashOperator(task_id="never", bash_command=":")
with DAG("asks"):
    @task
    def reads():
        print(Variable.get("here"), Variable.get("nowhere", "the default"))
        Variable.get("nowhere")
    reads()
with DAG("waits"):
    BashOperator(task_id="sleeps", bash_command="echo $$ > pid; echo here; sleep 3600", cwd=".")
""",
    "mapped.py": """
from tickless import DAG, task
with DAG("mapped"):
    @task
    def many():
        return [1, 2]
    @task
    def each(n):
        print(n)
    each.expand(n=many())
""",
    "broken.py": "from tickless import DAG\nDAG(1 +)\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name, source in FILES.items():
        (tmp_path / name).write_text(source)
    yield tmp_path
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "tmp") == sorted(FILES), "nothing is left"


def start(folder: Path, *words: str, noun: str = "dag", **env: str) -> subprocess.Popen[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKLESS_")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tickless", noun, "test", *words],
        env=clean | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")} | env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *words: str, noun: str = "dag", **env: str) -> tuple[int, str, str]:
    with start(folder, *words, noun=noun, **env) as process:
        out, err = process.communicate(timeout=60)
    assert list((folder / "tmp").iterdir()) == [], "its home is gone"
    return process.returncode, out, err


def test_a_dag_runs_task_after_task_and_its_output_is_the_output(folder: Path) -> None:
    code, out, err = run(folder, "good.py", "--conf", '{"day": 1}')
    assert code == 0, err
    lines = [line for line in out.splitlines() if line.startswith(("conf", "try", "third"))]
    assert lines == ["conf {'day': 1}", "try 1", "try 2", "third"]
    assert "--- second, try 2" in err
    assert err.splitlines()[-1] == "good: success (3 success)"


def test_with_json_the_task_instances_are_the_answer(folder: Path) -> None:
    code, out, err = run(folder, "bad.py", "fails", "-o", "json")
    assert code == 1
    states = {row["task_id"]: row["state"] for row in json.loads(out)}
    assert states == {"breaks": "failed", "never": "upstream_failed"}
    assert err.splitlines()[-1] == "fails: failed (1 failed, 1 upstream_failed)"


def test_what_only_a_database_knows_is_said_to_be_missing(folder: Path) -> None:
    code, out, err = run(folder, "bad.py", "asks", TICKLESS_VAR_HERE="from the environment")
    assert code == 1
    assert "from the environment the default" in out
    assert "has no database" in err


def test_a_broken_file_is_told_as_the_daemon_tells_it(folder: Path) -> None:
    code, out, err = run(folder, "broken.py")
    assert (code, out) == (2, "")
    assert "broken.py:2: SyntaxError" in err


def test_one_task_is_run_alone_with_what_those_above_are_to_have_returned(folder: Path) -> None:
    code, out, err = run(folder, "good.py", "second", "--input", 'first={"n": 1}', noun="tasks")
    assert code == 0, err
    assert out.splitlines()[-1] == "try 2"
    assert "first" not in out
    assert err.splitlines()[-1] == "good: success (1 success)"
    assert "third" in run(folder, "good.py", "third", noun="task")[1]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["good.py", "secnd"], 3, "hint: Did you mean 'second'?"),
        (["good.py", "second", "--input", "frist=1"], 3, "hint: Did you mean 'first'?"),
        (["good.py", "second", "--input", "first"], 2, "is not TASK=JSON"),
        (["bad.py", "breaks"], 2, "--dag DAG TASK"),
        (["bad.py", "breaks", "--dag", "fails"], 1, "breaks, try 1"),
        (["bad.py", "breaks", "--dag", "fail"], 3, "hint: Did you mean 'fails'?"),
        (["nowhere.py", "x"], 3, "there is no file"),
        (["good", "x"], 3, "no daemon runs that could know a DAG of this name"),
        (["mapped.py", "each"], 5, "mapped over what 'many' returns"),
    ],
)
def test_one_task_is_named_with_care(folder: Path, words: list[str], code: int, says: str) -> None:
    found, _, err = run(folder, *words, "--home", str(folder / "nowhere"), noun="task")
    assert (found, says in err) == (code, True), err


def test_several_dags_must_be_told_apart(folder: Path) -> None:
    code, _, err = run(folder, "bad.py")
    assert (code, "bad.py has 3 DAGs: fails, asks, waits" in err) == (2, True)
    code, _, err = run(folder, "bad.py", "nope")
    assert (code, "bad.py has no DAG 'nope'" in err) == (3, True)


def test_ctrl_c_ends_the_task_too(folder: Path) -> None:
    with start(folder, "bad.py", "waits") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        (pid_file,) = (folder / "tmp").rglob("pid")
        pid = int(pid_file.read_text())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert list((folder / "tmp").iterdir()) == []
