"""DAG files that change, move and go away while their runs are alive: each run keeps the code that it started with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage import Stage


def pinned(word: str, tail: str = "") -> str:
    """A DAG that waits, then says this word in Python and in bash."""
    return f"""
@task
def says(before):
    return [before, {word!r}]
with DAG("pinned"):
    gate = held("gate", "waited")
    says(gate.output) >> bash("echoes", "echo {word}"){tail}
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage({"pinned.py": pinned("old")}) as stage:
        stage.start()
        yield stage
        stage.assert_clean_log()


def version(stage: Stage, dag_id: str) -> int | None:
    dag = stage.dag(dag_id)
    return None if dag is None else dag["version"]


def wait_version(stage: Stage, dag_id: str, number: int | None) -> None:
    stage.wait(lambda: version(stage, dag_id) == number, f"version {number} of {dag_id}")


def run_version(stage: Stage, run: int) -> int:
    return int(stage.client.get(f"/runs/{run}")["version"])


def test_a_live_run_keeps_the_old_code_and_a_new_run_has_the_new(stage: Stage) -> None:
    old = stage.go("pinned")
    stage.wait_running(old, "gate")
    stage.write("pinned.py", pinned("new", ' >> bash("added")'))
    wait_version(stage, "pinned", 2)
    new = stage.go("pinned")
    stage.wait_running(new, "gate")
    for run in (old, new):
        stage.open(run, "gate")
    assert [stage.end(run) for run in (old, new)] == ["success", "success"]
    assert (run_version(stage, old), run_version(stage, new)) == (1, 2)
    assert (stage.output(old, "says"), stage.log(old, "echoes")) == (["waited", "old"], "old\n")
    assert (stage.output(new, "says"), stage.log(new, "echoes")) == (["waited", "new"], "new\n")
    assert set(stage.states(new)) - set(stage.states(old)) == {"added"}


def test_it_does_so_over_a_restart_of_everything(stage: Stage) -> None:
    run = stage.go("pinned")
    stage.wait_running(run, "gate")
    stage.write("pinned.py", pinned("newer"))
    wait_version(stage, "pinned", 3)
    stage.kill_daemon()
    stage.kill_launcher()  # and with it the zygotes that have the old code
    stage.open(run, "gate")
    stage.start()
    assert stage.end(run) == "success"
    assert (stage.output(run, "says"), stage.log(run, "echoes")) == (["waited", "new"], "new\n")


def test_saving_a_file_unchanged_makes_no_version(stage: Stage) -> None:
    before = version(stage, "pinned")
    stage.write("pinned.py", pinned("newer"))
    stage.write("marker.py", 'with DAG("marker"): bash("a")')
    stage.wait(lambda: stage.dag("marker"), "a change that came later")
    assert version(stage, "pinned") == before


def test_a_changed_helper_module_makes_a_version_of_those_who_import_it_only(stage: Stage) -> None:
    (stage.dags / "shared").mkdir()
    (stage.dags / "shared" / "__init__.py").touch()
    (stage.dags / "shared" / "words.py").write_text('WORD = "first"\n')
    stage.write(
        "imports.py",
        """
from shared.words import WORD
with DAG("imports"):
    @task
    def says():
        from shared.words import WORD as again
        return [WORD, again]
    says()
""",
    )
    wait_version(stage, "imports", 1)
    before = version(stage, "pinned")
    run, state = stage.do("imports")
    assert (state, stage.output(run, "says")) == ("success", ["first", "first"])
    (stage.dags / "shared" / "words.py").write_text('WORD = "second"\n')
    wait_version(stage, "imports", 2)
    run, state = stage.do("imports")
    assert (state, stage.output(run, "says")) == ("success", ["second", "second"])
    assert version(stage, "pinned") == before


def test_a_removed_file_takes_its_dag_along_but_not_its_live_run(stage: Stage) -> None:
    stage.write("goes.py", pinned("gone").replace('"pinned"', '"goes"'))
    wait_version(stage, "goes", 1)
    run = stage.go("goes")
    stage.wait_running(run, "gate")
    (stage.dags / "goes.py").unlink()
    stage.wait(lambda: stage.dag("goes") is None, "the end of the DAG")
    answer = stage.cli("run", "start", "goes")
    assert (answer.code, answer.error["message"]) == (3, "there is no DAG 'goes'")
    assert stage.why(run, "says")[0]["code"] == "upstream"
    stage.open(run, "gate")
    assert stage.end(run) == "success"
    assert (stage.output(run, "says"), stage.log(run, "echoes")) == (["waited", "gone"], "gone\n")


def test_it_may_go_while_no_daemon_runs(stage: Stage) -> None:
    stage.write("goes.py", pinned("went").replace('"pinned"', '"goes"'))
    wait_version(stage, "goes", 2)
    run = stage.go("goes")
    stage.wait_running(run, "gate")
    assert stage.terminate_daemon() == 0
    (stage.dags / "goes.py").unlink()
    stage.open(run, "gate")
    stage.start()
    stage.wait(lambda: stage.dag("goes") is None, "the end of the DAG")  # told when every file has been read
    assert stage.end(run) == "success"
    assert stage.log(run, "echoes") == "went\n"


def test_a_dag_that_comes_back_goes_on_counting_its_versions(stage: Stage) -> None:
    stage.write("comes_back.py", pinned("again").replace('"pinned"', '"goes"'))
    wait_version(stage, "goes", 3)
    assert [run["version"] for run in stage.client.get("/runs", dag_id="goes")["items"]] == [2, 1]


def test_a_dag_may_move_to_another_file(stage: Stage) -> None:
    (stage.dags / "folder").mkdir()
    (stage.dags / "comes_back.py").rename(stage.dags / "folder" / "moved.py")
    stage.wait(lambda: (dag := stage.dag("goes")) and dag["file"] == "folder/moved.py", "the new file")
    run = stage.go("goes")
    stage.open(run, "gate")
    assert stage.end(run) == "success"
    assert stage.log(run, "echoes") == "again\n"
    assert stage.client.get("/import-errors")["items"] == []


def test_a_folder_that_is_replaced_in_one_move_is_read_again(tmp_path: Path) -> None:
    """As git-sync does it: the folder is a link, and the link is turned."""
    with Stage({}, dags=tmp_path / "current") as stage:

        def put(name: str, word: str) -> None:
            (tmp_path / name).mkdir()
            (tmp_path / name / "turned.py").write_text(f'{stage.head}with DAG("turned"): bash("a", "echo {word}")')
            (tmp_path / "next").symlink_to(tmp_path / name)
            (tmp_path / "next").rename(tmp_path / "current")

        put("one", "first")
        stage.start()
        run, state = stage.do("turned")
        assert (state, stage.log(run, "a")) == ("success", "first\n")
        put("two", "second")
        wait_version(stage, "turned", 2)
        run, state = stage.do("turned")
        assert (state, stage.log(run, "a")) == ("success", "second\n")
        stage.assert_clean_log()


def test_a_data_file_beside_a_dag_is_part_of_the_version_that_reads_it(stage: Stage) -> None:
    data = stage.dags / "rows.json"
    data.write_text("[1]")
    stage.write(
        "reads.py",
        """
ROWS = json.load(open(os.path.join(os.path.dirname(__file__), "rows.json")))
with DAG("reads"):
    for number in ROWS:
        bash(f"row{number}")
""",
    )
    wait_version(stage, "reads", 1)
    data.write_text(json.dumps([1, 2]))
    wait_version(stage, "reads", 2)
    run, state = stage.do("reads")
    states: dict[str, Any] = stage.states(run)
    assert (state, set(states)) == ("success", {"row1", "row2"})
