"""The examples parse without a warning, and their tasks, called by hand, do what their docstrings say."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tickless.authoring import registry
from tickless.authoring.loader import load_dag_file
from tickless.clock import SystemClock
from tickless.daemon.bundle import Bundle, BundleStore
from tickless.daemon.parse import parse_file
from tickless.model.dag import DagSpec

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = (
    "ask_the_daemon.py",
    "branch_bash.py",
    "branch_groups.py",
    "etl_csv.py",
    "fan_out_files.py",
    "flaky_retries.py",
    "limits.py",
    "look_back.py",
    "mapped_words.py",
    "outputs_by_key.py",
    "running_total.py",
    "structure.py",
    "templates.py",
    "workday_report.py",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """As the daemon runs them: from a read-only copy."""
    return BundleStore(tmp_path_factory.mktemp("home"), SystemClock()).snapshot(EXAMPLES)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Sets up the environment of a run of the DAG; returns where its results go."""
    registry.reset()
    path, modules = list(sys.path), set(sys.modules)

    def start(dag_id: str) -> Path:
        monkeypatch.setattr(tempfile, "tempdir", None)
        for name, value in {"TMPDIR": str(tmp_path), "TICKLESS_DAG_ID": dag_id, "TICKLESS_RUN_ID": "r1"}.items():
            monkeypatch.setenv(name, value)
        return tmp_path / f"tickless-examples-{os.getuid()}" / dag_id / "r1"

    yield start
    registry.reset()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("tickless_dag_"):
            del sys.modules[name]


def load(bundle: Bundle, dag_id: str) -> tuple[DagSpec, dict[str, Any]]:
    load_dag_file(str(bundle.path), f"{dag_id}.py")
    [spec] = registry.collect()
    assert spec.dag_id == dag_id
    return spec, dict(registry.callables(dag_id))


def run_bash(spec: DagSpec, task_id: str, **env: str) -> int:
    [command] = [task.command for task in spec.tasks if task.task_id == task_id]
    assert command is not None
    return subprocess.run(["/bin/bash", "-c", command], env={**os.environ, **env}, check=False).returncode


def through_json(value: Any) -> Any:
    """As values travel between tasks."""
    return json.loads(json.dumps(value))


def test_every_example_parses_without_a_warning(bundle: Bundle) -> None:
    assert tuple(name for name in bundle.files if "/" not in name and name.endswith(".py")) == FILES

    async def run() -> None:
        for file in FILES:
            result = await parse_file(bundle.path, file, timeout_seconds=30)
            assert result.problem is None
            assert result.warnings == ()
            assert result.dags[0].spec.dag_id == file.removesuffix(".py")

    anyio.run(run)


def test_their_data_is_in_their_closure(bundle: Bundle) -> None:
    async def run() -> None:
        for file in ("etl_csv.py", "fan_out_files.py"):
            assert "data/" in (await parse_file(bundle.path, file, timeout_seconds=30)).closure

    anyio.run(run)


def test_etl_sums_up_what_is_in_the_csv(bundle: Bundle, results: Callable[[str], Path]) -> None:
    folder = results("etl_csv")
    _, call = load(bundle, "etl_csv")
    rows = through_json(call["extract"]({}))
    summary = through_json(call["transform"]({"extract": rows}))
    assert summary["rejected"] == ["1013", "1037", "1052"]
    assert sum(total["orders"] for total in summary["regions"].values()) == len(rows) - 3 == 57
    for _ in range(2):  # a retry does no harm
        assert call["load"]({"transform": summary}) == str(folder / "report.json")
    assert json.loads((folder / "report.json").read_text()) == summary
    connection = sqlite3.connect(folder / "sales.db")
    stored = {region: cents for region, _, cents in connection.execute("SELECT * FROM sales")}
    connection.close()
    cents = [line.split(",")[4] for line in (EXAMPLES / "data" / "sales.csv").read_text().splitlines()[1:]]
    assert sum(stored.values()) == sum(round(float(text) * 100) for text in cents if text not in {"", "n/a"})


def test_fan_out_counts_each_file(bundle: Bundle, results: Callable[[str], Path]) -> None:
    folder = results("fan_out_files")
    spec, call = load(bundle, "fan_out_files")
    texts = sorted((EXAMPLES / "data" / "texts").glob("*.txt"))
    parts = [f"measure_{text.stem}" for text in texts]
    assert [task.task_id for task in spec.tasks] == [*parts, "combine"]
    summary = call["combine"](through_json({part: call[part]({}) for part in parts}))
    assert summary["words"] == sum(len(text.read_text().split()) for text in texts)
    expected = subprocess.run(["sha256sum", *texts], check=True, capture_output=True, text=True).stdout.splitlines()
    assert list(summary["checksums"].values()) == [line.split()[0] for line in expected]
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_running_total_builds_on_the_day_before(bundle: Bundle, results: Callable[[str], Path]) -> None:
    results("running_total")
    spec, call = load(bundle, "running_total")
    assert {task.task_id: task.depends_on_past for task in spec.tasks} == {"count": False, "add_up": True}
    assert [call["add_up"]({"count": day}) for day in (1, 2, 3)] == [1, 3, 6]


def test_flaky_succeeds_at_the_third_try(bundle: Bundle, results: Callable[[str], Path]) -> None:
    results("flaky_retries")
    spec, call = load(bundle, "flaky_retries")
    fetch = spec.tasks[0]
    assert (fetch.task_id, fetch.retries, fetch.retry_delay_seconds) == ("fetch", 3, 1.0)
    assert [run_bash(spec, "fetch", TICKLESS_TRY_NUMBER=str(n)) for n in (1, 2, 3)] == [1, 1, 0]
    assert call["report"]({}) == {"tries": ["try 1", "try 2", "try 3"]}


@pytest.mark.parametrize(
    ("conf", "codes", "published"),
    [("{}", {"small": 0, "large": 99}, "numbers"), ('{"size": "large"}', {"small": 99, "large": 0}, "numbers.gz")],
)
def test_branches_skip_by_exit_code(
    bundle: Bundle, results: Callable[[str], Path], conf: str, codes: dict[str, int], published: str
) -> None:
    folder = results("branch_bash")
    spec, _ = load(bundle, "branch_bash")
    assert {task.task_id: set(task.upstream) for task in spec.tasks} == {
        "measure": set(),
        "small": {"measure"},
        "large": {"measure"},
        "compress": {"large"},
        "publish": {"small", "compress"},
        "clean_up": {"publish"},
    }
    assert run_bash(spec, "measure", TICKLESS_CONF=conf) == 0
    assert {task_id: run_bash(spec, task_id) for task_id in codes} == codes
    if codes["large"] == 0:
        assert run_bash(spec, "compress") == 0
    assert run_bash(spec, "publish") == 0
    assert (folder / "published").read_text().split() == [str(folder / published)]
    assert run_bash(spec, "clean_up") == 0
    assert sorted(os.listdir(folder)) == [published, "published"]
    shutil.rmtree(folder)
