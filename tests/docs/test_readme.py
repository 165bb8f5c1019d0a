"""What the README shows as output is what comes out."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import anyio
import pytest

from tests.support.backend import served
from tests.support.playbook import Playbook
from tickless.cli.main import run
from tickless.config.load import load
from tickless.core.explain import explain_task
from tickless.daemon.parse import parse_file
from tickless.model.id import RunKey

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def shown_after(command: str) -> str:
    """The lines between this command and the next one, or the end of the block."""
    found = re.search(rf"^\$ {re.escape(command)}\n(.*?)(?=^\$ |^```)", README, re.MULTILINE | re.DOTALL)
    assert found is not None, command
    return found[1]


def test_the_answer_of_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The engine's own reason, through the API and the command line."""
    tasks = {key: {"pool": "gpu"} for key in ("first", "second", "train")}
    book = Playbook("first, second, train", pools={"gpu": 2}, tasks=tasks)
    book.start().expect("launch first", "launch second")
    with served(tmp_path) as daemon:
        daemon.backend.reasons = explain_task(book.engine, book.instance("train"), book.clock.now())
        for number in range(7):
            assert run(["--home", str(tmp_path), "run", "start", "etl", "--run-id", f"r{number}"]) == 0
        daemon.do(lambda: daemon.backend.add_task(RunKey(7), "train"))
        capsys.readouterr()
        assert run(["--home", str(tmp_path), "why", "7", "train"]) == 0
    assert capsys.readouterr().out == shown_after("tickless why 7 train")


def block(kind: str) -> str:
    """The one block of this kind."""
    [found] = re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(found)


def test_its_dag_is_one(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(block("python"))
    result = anyio.run(partial(parse_file, tmp_path, "hello.py", timeout_seconds=30))
    assert (result.problem, result.warnings) == (None, ())
    [dag] = result.dags
    assert [(task.task_id, task.upstream) for task in dag.spec.tasks] == [("download", ()), ("check", ("download",))]


def test_its_configuration_is_one(tmp_path: Path) -> None:
    (tmp_path / "tickless.toml").write_text(block("toml"))
    settings = load(tmp_path, environ={})
    assert settings.routing().queues["slow"] == "debug"
    assert load(tmp_path, environ={"TICKLESS_LIMITS__PARALLELISM": "64"}).limits().parallelism == 64
