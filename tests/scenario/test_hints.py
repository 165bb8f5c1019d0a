"""What a newcomer gets wrong, and what is said: the mistake, and the way out. Each row is one mistake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stage import Stage

FILES = {
    "d.py": """
with DAG("etl"):
    bash("extract") >> bash("transform") >> held("load")
""",
}

MEANT = "hint: Did you mean"
NO_DAG = ("there is no DAG 'elt'", f"{MEANT} 'etl'?")
NO_TASK = ("no task", "extrct", f"{MEANT} 'extract'?")
NO_RUN = ("there is no run 99", "`tickless run list`")
NO_DAEMON = ("no tickless daemon listens on /nonexistent/api.sock", "tickless dev", "--home")
A_MOMENT = ("is no moment; write it as 2026-11-22T00:00:00Z",)

ROWS: list[tuple[str, int, tuple[str, ...]]] = [
    # a word of the command line itself
    ("rn list", 2, ("No such command 'rn'. Did you mean 'run'?", "tickless --help")),
    ("dgas list", 2, ("Did you mean 'dags'?",)),
    ("run lst", 2, ("Did you mean 'list'?", "tickless run --help")),
    ("run start etl --comf {}", 2, ("--conf", "tickless run start --help")),
    ("dag list -o yaml", 2, ("json", "table", "tickless dag list --help")),
    ("task mark sucess 1 extract", 2, ("'success', 'failed'", "tickless task mark --help")),
    ("run start", 2, ("Missing argument", "tickless run start --help")),
    # a name
    ("run start elt", 3, NO_DAG),
    ("run list elt", 3, NO_DAG),
    ("run clear elt --yes", 3, NO_DAG),
    ("dag show elt", 3, NO_DAG),
    ("dag graph elt", 3, NO_DAG),
    ("dag next elt", 3, NO_DAG),
    ("dag pause elt", 3, NO_DAG),
    ("dag test elt", 3, NO_DAG),
    ("dag delete elt --yes", 3, NO_DAG),
    ("task logs 1 extrct", 3, NO_TASK),
    ("task clear 1 extrct --yes", 3, NO_TASK),
    ("task mark success 1 extrct --yes", 3, NO_TASK),
    ("task test etl extrct", 3, NO_TASK),
    ("why 1 extrct", 3, NO_TASK),
    ("run show 99", 3, NO_RUN),
    ("run cancel 99", 3, NO_RUN),
    ("task list 99", 3, NO_RUN),
    ("task clear 99 --yes", 3, NO_RUN),
    ("why 99", 3, NO_RUN),
    ("run show etl/nope", 3, ("there is no run etl/nope", "`tickless run list etl`")),
    ("run show etl", 2, ("'etl' is not a run", "DAG/RUN_ID", "tickless run list")),
    ("task logs 1 load --try 7", 3, ("no such attempt", "`tickless task list 1`")),
    ("task logs 1 transform[3]", 3, ("no task transform[3]", "`tickless task list 1`")),
    ("variable get dya", 3, (f"{MEANT} 'day'?", "tickless variable list")),
    ("variable delete dya", 3, (f"{MEANT} 'day'?",)),
    ("connection get dbb", 3, (f"{MEANT} 'db'?",)),
    ("dag test nofile.py", 3, ("there is no file", "Give a DAG file")),
    # a value
    ("run start etl --conf {broken", 2, ("--conf is not JSON", "Write it as")),
    ("run start etl --conf [1]", 2, ("--conf must be a JSON object", "Write it as")),
    ("run start etl --logical-date tomorrow", 2, A_MOMENT),
    ("run start etl --logical-date 2026-11-22T00:00:00", 2, ("logical_date: has no time zone",)),
    ("run clear etl --since yesterday --yes", 2, A_MOMENT),
    ("audit list --since 5", 2, ("no moment",)),
    ("connection add c --conn-uri nonsense", 2, ("TYPE://LOGIN:PASSWORD@HOST",)),
    # the wrong place, or nobody there
    ("dag list --home /nonexistent", 6, NO_DAEMON),
    ("run start etl --home /nonexistent", 6, NO_DAEMON),
    ("status --home /nonexistent", 3, NO_DAEMON),
    ("db url --home /nonexistent", 3, ("`tickless dev` starts it",)),
    ("daemon --config /nonexistent.toml", 78, ("/nonexistent.toml does not exist", "--config")),
    # not now
    ("run start etl --run-id taken", 5, ("has a run 'taken' already", "choose another")),
    ("task clear 1", 2, ("nobody can be asked", "--yes")),
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(FILES) as stage:
        stage.start()
        stage.client.put("/variables/day", {"value": "1"})
        stage.client.put("/connections/db", {"uri": "http://host/"})
        run = stage.client.post("/dags/etl/runs", {"run_id": "taken"})["run"]
        assert run == 1
        stage.wait_running(run, "load")
        yield stage


@pytest.mark.parametrize(("line", "code", "says"), ROWS, ids=[row[0] for row in ROWS])
def test_a_mistake_is_named_with_a_way_out(stage: Stage, line: str, code: int, says: tuple[str, ...]) -> None:
    words, _, home = line.partition(" --home ")
    answer = stage.cli(*words.split(), is_json=False, home=Path(home) if home else None)
    assert (answer.code, answer.out) == (code, ""), answer
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err
    for text in says:
        assert text in answer.err
