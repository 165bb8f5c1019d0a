"""Clear and mark through the real command line, with whole daemons, killed in the middle."""

from __future__ import annotations

import pytest

from tests.support.stage import Stage
from tickless.errors import Unavailable

WIDE = 700
WIDE_DAG = f"""
with DAG("wide"):
    last = bash("last")
    for n in range({WIDE}):
        EmptyOperator(task_id=f"t{{n}}") >> last
"""


def test_a_failed_task_is_cleared_with_its_downstream_and_the_audit_says_who() -> None:
    with Stage({"d.py": 'with DAG("d"): bash("a", f"test -e {GATES}/flag") >> bash("b")'}) as stage:
        stage.start()
        run, state = stage.do("d")
        assert state == "failed"
        dry = stage.cli("task", "clear", run, "a", "--downstream", "--dry-run").json
        assert (dry["tasks"], [each["task_id"] for each in dry["first"]]) == (2, ["a", "b"])
        assert stage.states(run) == {"a": "failed", "b": "upstream_failed"}
        unsure = stage.cli("task", "clear", run)
        assert (unsure.code, "--yes" in unsure.error["hint"]) == (2, True)
        stage.open_gate("flag")
        assert stage.cli("task", "clear", run, "a", "--downstream", "--yes").json["tasks"] == 2
        assert stage.end(run) == "success"
        assert {name: task["try_number"] for name, task in stage.tasks(run).items()} == {"a": 2, "b": 1}
        (event,) = stage.cli("audit", "list", "--run", run, "--action", "clear").json
        assert (event["action"], event["run"], event["detail"]["tasks"]) == ("clear", run, 2)
        assert event["actor"].startswith("unix:")
        unknown = stage.cli("task", "clear", run, "nope", "--yes")
        assert unknown.code != 0 and "has no task 'nope'" in unknown.error["message"]
        assert stage.query("select tickless.clear_task($1, 'b')", run)
        stage.wait(lambda: stage.task(run, "b")["try_number"] == 2, "what SQL asked for")
        assert stage.end(run) == "success"
        by_filter = stage.cli("run", "clear", "d", "a", "--state", "success", "--yes")
        assert by_filter.json["runs"] == 1, by_filter.err
        stage.wait(lambda: stage.task(run, "a")["try_number"] == 3, "what the filter asked for")
        stage.assert_clean_log()


def test_a_running_task_is_stopped_and_then_run_again_or_taken_for_done() -> None:
    with Stage({"d.py": 'with DAG("d"): held("a") >> held("b")'}) as stage:
        stage.start()
        run = stage.go("d")
        stage.wait_running(run, "a")
        stage.cli("task", "clear", run, "a", "--yes")
        stage.wait(lambda: stage.task(run, "a")["try_number"] == 2, "its second try")
        stage.wait_state(run, "a", "running")
        assert [each["reason"] for each in stage.attempts(run, "a")] == [None, "cleared"]
        stage.cli("task", "mark", "success", run, "a", "--yes")
        stage.wait_state(run, "b", "running")
        assert stage.task(run, "a")["state"] == "success"
        stage.cli("run", "cancel", run)
        assert stage.end(run) == "failed"
        assert [each["action"] for each in stage.cli("audit", "list").json] == ["cancel", "mark", "clear", "start"]
        stage.assert_clean_log()


def test_a_daemon_killed_in_the_middle_of_a_wide_clear_goes_on_where_it_was() -> None:
    with Stage({"wide.py": WIDE_DAG}) as stage:
        stage.start()
        run, _ = stage.do("wide")
        stage.kill_daemon()
        points = stage.arm(daemon__after_slice="kill@2")
        stage.start(points)
        with pytest.raises(Unavailable):
            stage.client.post(f"/runs/{run}/clear", {})
        stage.wait_killed()
        points.assert_all_fired()
        stage.start()
        stage.wait(lambda: stage.client.get("/events", action="clear")["items"], "the end of the clear")
        assert stage.end(run) == "success"
        (event,) = stage.client.get("/events", action="clear")["items"]
        assert event["detail"]["tasks"] == WIDE + 1, "each task once"
        assert len(stage.attempts(run, "last")) == 2
        assert set(stage.states(run).values()) == {"success"}
        stage.assert_clean_log()


BRANCH = """
@task.branch
def pick():
    return "a"

with DAG("branch"):
    first = pick()
    first >> bash("a") >> bash("end", trigger_rule="all_done")
    first >> bash("b", trigger_rule="all_done") >> bash("deep", trigger_rule="all_done")
"""


def test_what_a_branch_did_not_follow_is_skipped_again_unless_the_branch_is_cleared_too() -> None:
    with Stage({"branch.py": BRANCH}) as stage:
        stage.start()
        run, state = stage.do("branch")
        assert (state, stage.states(run)["b"]) == ("success", "skipped")
        before = len(stage.events("run.finished"))
        assert stage.cli("task", "clear", run, "b", "--downstream", "--yes").code == 0
        stage.wait(lambda: len(stage.events("run.finished")) > before, "the end of the run")
        assert stage.states(run) == {
            "pick": "success",
            "a": "success",
            "end": "success",
            "b": "skipped",
            "deep": "success",
        }
        assert stage.attempts(run, "b") == []
        assert stage.cli("task", "mark", "success", run, "b", "--yes").code == 0
        stage.wait_state(run, "b", "success")
        assert stage.cli("task", "clear", run, "b", "--yes").code == 0
        assert stage.wait_state(run, "b", "skipped")["reason"] == "pick chose not to follow it"
        stage.assert_clean_log()
