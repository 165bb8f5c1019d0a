"""The examples, run by `tickless dev examples` as the README says, to their states and real outputs."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.support.house import ROOT
from tests.support.stage import Stage

EXAMPLES = ROOT / "examples"
STARTED = (
    "ask_the_daemon",
    "told_by_another",
    "etl_csv",
    "fan_out_files",
    "branch_bash",
    "branch_groups",
    "flaky_retries",
    "limits",
    "look_back",
    "looked_for",
    "mapped_words",
    "outputs_by_key",
    "running_total",
    "structure",
    "templates",
    "workday_report",
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A daemon on the examples as they are, with a folder of its own for what they write."""
    with Stage(dags=EXAMPLES) as stage, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("results")))
        stage.start()
        yield stage
        stage.assert_clean_log()


def results(stage: Stage, run: int) -> Path:
    """Where a run of an example writes."""
    found = stage.client.get(f"/runs/{run}")
    base = Path(os.environ["TMPDIR"]) / f"tickless-examples-{os.getuid()}"
    return base / str(found["dag_id"]) / str(found["run_id"])


def test_all_are_there_and_none_has_an_error_or_a_warning(stage: Stage) -> None:
    assert {dag["dag_id"] for dag in stage.client.get("/dags")["items"]} == set(STARTED)
    assert stage.client.get("/import-errors")["items"] == []
    assert stage.events("dag.import_warned") == []


def test_etl_writes_a_database_and_a_report(stage: Stage) -> None:
    answer = stage.cli("run", "start", "etl_csv", "--wait")
    assert answer.code == 0, answer.err
    run = answer.json["run"]
    assert stage.states(run) == dict.fromkeys(("extract", "transform", "load"), "success")
    report = json.loads((results(stage, run) / "report.json").read_text())
    assert sum(region["orders"] for region in report["regions"].values()) == 57
    connection = sqlite3.connect(results(stage, run) / "sales.db")
    stored = {region: (orders, cents) for region, orders, cents in connection.execute("select * from sales")}
    connection.close()
    assert stored == {name: (one["orders"], one["cents"]) for name, one in report["regions"].items()}
    assert stage.output(run, "load") == str(results(stage, run) / "report.json")
    assert "60 rows in sales.csv" in stage.log(run, "extract")


def test_fan_out_has_a_task_per_file_and_sums_them_up(stage: Stage) -> None:
    run, state = stage.do("fan_out_files")
    assert state == "success"
    texts = sorted((EXAMPLES / "data" / "texts").glob("*.txt"))
    assert stage.states(run) == dict.fromkeys([*(f"measure_{text.stem}" for text in texts), "combine"], "success")
    summary = json.loads((results(stage, run) / "summary.json").read_text())
    assert summary["files"] == len(texts)
    assert summary["words"] == sum(len(text.read_text().split()) for text in texts)
    assert stage.output(run, "combine") == summary


@pytest.mark.parametrize(
    ("conf", "taken", "left"),
    [({}, ["small"], ["large", "compress"]), ({"size": "large"}, ["large", "compress"], ["small"])],
)
def test_branches_take_the_way_that_the_conf_says(
    stage: Stage, conf: dict[str, str], taken: list[str], left: list[str]
) -> None:
    run, state = stage.do("branch_bash", conf)
    assert state == "success"
    assert stage.states(run) == dict.fromkeys(["measure", *taken, "publish", "clean_up"], "success") | dict.fromkeys(
        left, "skipped"
    )
    [name] = [path.name for path in results(stage, run).glob("numbers*")]
    assert name == ("numbers.gz" if conf else "numbers")
    if conf:
        assert len(gzip.decompress((results(stage, run) / name).read_bytes()).split()) == 100000
    assert not (results(stage, run) / "size").exists()


def test_flaky_succeeds_at_its_third_try(stage: Stage) -> None:
    run, state = stage.do("flaky_retries")
    assert state == "success"
    assert [attempt["state"] for attempt in stage.attempts(run, "fetch")] == ["success", "failed", "failed"]
    assert stage.output(run, "report") == {"tries": ["try 1", "try 2", "try 3"]}
    assert "the service answered at attempt 3" in stage.log(run, "fetch")


@pytest.mark.parametrize(
    ("changed", "taken", "left"),
    [
        (0, [], ["choose", "full.dump", "full.compress", "incremental.find_changes", "incremental.dump", "verify"]),
        (3, ["choose", "incremental.find_changes", "incremental.dump"], ["full.dump", "full.compress", "verify"]),
        (5000, ["choose", "full.dump", "full.compress", "verify"], ["incremental.find_changes", "incremental.dump"]),
    ],
)
def test_a_branch_takes_one_of_two_groups(stage: Stage, changed: int, taken: list[str], left: list[str]) -> None:
    run, state = stage.do("branch_groups", {"changed": changed})
    assert state == "success"
    expected = {"is_wanted": "success"} | dict.fromkeys(taken, "success") | dict.fromkeys(left, "skipped")
    assert stage.states(run) == expected | {"report": "success" if taken else "skipped"}
    if changed == 3:
        assert "only 3 changes" in stage.log(run, "verify")


def test_templates_are_filled_in_from_params_and_files(stage: Stage) -> None:
    run, state = stage.do("templates", {"days": 30, "regions": ["north", "o'west"]})
    assert state == "success", {task_id: task["attempt"]["error"] for task_id, task in stage.tasks(run).items()}
    statement = stage.output(run, "render")
    assert 'from shop."sales"\n' in statement
    assert "  and region in ('north', 'o''west')\ngroup by" in statement
    assert stage.log(run, "check").split() == ["1", str(stage.output(run, "render", "lines")), "lines"]
    day = statement.split("and '")[1][:10]
    assert stage.log(run, "announce") == f"{len(statement)} characters of SQL for {day}, by announce\n"
    answer = stage.cli("run", "start", "templates", "--conf", '{"days": "many"}')
    assert (answer.code, "days: 'many' is not of type 'integer'" in answer.error["message"]) == (2, True)


def test_values_travel_by_key(stage: Stage) -> None:
    run, state = stage.do("outputs_by_key")
    assert state == "success"
    assert stage.output(run, "warn") == "roof: 31.5 degrees"
    assert stage.output(run, "archive") == {"count": 3, "note": "taken by hand", "hottest": "roof"}


def test_ask_the_daemon_counts_finds_a_connection_and_starts_a_run(stage: Stage) -> None:
    first, _ = stage.do("ask_the_daemon")
    stage.cli("connection", "add", "warehouse", "--conn-uri", "postgres://etl:secret@db.example:5432/sales")
    second, _ = stage.do("ask_the_daemon")
    told = []
    for run in (first, second):
        assert set(stage.states(run).values()) == {"success"}, stage.log(run, "count")
        run_id = stage.output(run, "hand_over")
        [row] = stage.query("select conf from dag_run where dag_id = 'told_by_another' and run_id = $1", run_id)
        told.append(json.loads(row["conf"]))
    assert told == [{"runs": 1, "place": "nowhere yet"}, {"runs": 2, "place": "db.example:5432/sales"}]
    assert stage.cli("variable", "get", "ask_the_daemon_runs").json["value"] == "2"


def test_the_report_of_workdays_is_due_in_the_morning_and_can_be_asked_for(stage: Stage) -> None:
    found = stage.cli("dag", "next", "workday_report", "-n", "5").json
    due = [datetime.fromisoformat(slot["run_after"]).astimezone(ZoneInfo("Europe/Berlin")) for slot in found]
    assert {(each.hour, each.minute) for each in due} == {(6, 30)}
    assert [each.weekday() for each in sorted(due, key=lambda each: each.weekday())] == [0, 1, 2, 3, 4]
    run, state = stage.do("workday_report")
    assert state == "success"
    assert (results(stage, run) / "report.txt").read_text().startswith("from ")


def test_mapped_words_has_an_instance_for_each_text_and_none_without(stage: Stage) -> None:
    run, state = stage.do("mapped_words")
    texts = sorted((EXAMPLES / "data" / "texts").glob("*.txt"))
    words = {text.name: len(text.read_text().split()) for text in texts}
    assert (state, stage.output(run, "totals")) == ("success", words)
    assert instances(stage, run) == [
        *((f"count[{n}]", "success") for n in range(len(texts))), *((f"greet[{n}]", "success") for n in range(4)),
        ("list_texts", "success"), ("totals", "success"),
    ]  # fmt: skip
    said = stage.query("select value from xcom where dag_run_key = $1 and task_id = 'greet' order by map_index", run)
    assert [json.loads(row["value"]) for row in said] == [
        "hello harbour", "hello orchard", "goodbye harbour", "goodbye orchard",
    ]  # fmt: skip
    run, state = stage.do("mapped_words", {"pattern": "nothing"})
    assert (state, stage.output(run, "totals")) == ("success", {})
    assert ("count", "skipped") in instances(stage, run)


def test_structure_goes_from_group_to_group(stage: Stage) -> None:
    run, state = stage.do("structure")
    assert (state, stage.output(run, "join")) == ("success", {"orders": 3, "clients": 2})
    assert stage.output(run, "publish") == ["sorted by day", "sorted by name"]
    assert {"source.orders.read", "source.clients.check", "tidy_up.files"} <= set(stage.states(run))
    nodes = {node["task_id"]: node for node in stage.cli("dag", "graph", "structure").json["nodes"]}
    assert len(nodes) == 10


def test_limits_hold_and_the_urgent_task_is_first(stage: Stage) -> None:
    run, state = stage.do("limits")
    assert (state, stage.output(run, "wide")) == ("success", 28)
    rows = stage.query(
        "select task_id, queued_at, ended_at from task_attempt where dag_run_key = $1 order by attempt_id", run
    )
    assert rows[0]["task_id"] == "urgent"
    fetches = [row for row in rows if row["task_id"].startswith("fetch")]
    for row in fetches:
        at_once = [other for other in fetches if other["queued_at"] <= row["queued_at"] < other["ended_at"]]
        assert len(at_once) <= 2


def test_look_back_finds_the_run_before_and_waits_for_another(stage: Stage) -> None:
    first, second = stage.do("look_back"), stage.do("look_back")
    assert [first[1], second[1]] == ["success", "success"]
    assert stage.output(first[0], "since") == "ever"
    assert stage.output(second[0], "since").endswith(" seconds ago")
    assert stage.log(first[0], "tell").endswith("has ended, the first\n")
    ended = stage.query("select ended_at from dag_run where key = $1", first[0])[0]["ended_at"]
    assert stage.log(second[0], "tell").endswith(f"has ended, {ended}\n")
    [row] = stage.query("select key from dag_run where run_id = $1", stage.output(second[0], "load"))
    assert "loading what is new since: " in stage.log(row["key"], "load")


def instances(stage: Stage, run: int) -> list[tuple[str, str]]:
    """(task, state) of all instances."""
    return [
        (task["task_id"] + ("" if task["map_index"] < 0 else f"[{task['map_index']}]"), task["state"])
        for task in stage.client.get(f"/runs/{run}/tasks")["items"]
    ]
