"""An executor is taken out of the configuration while it holds tasks: they go on, and can be ended."""

from __future__ import annotations

from tests.support.stage import Stage

FILES = {
    "held.py": """
with DAG("held"):
    held("kept", queue="side") >> bash("after")
    held("cleared", queue="side")
    held("marked", queue="side")
""",
}
QUEUES = '[queues]\nside = "side"\n'
CONFIG = f"[executors.side]\nkind = 'local'\nslots = 4\n[executors.local]\nslots = 4\n{QUEUES}"


def test_what_a_removed_executor_holds_goes_on_and_can_be_cleared_and_marked() -> None:
    with Stage(FILES, config=CONFIG) as stage:
        stage.start()
        run = stage.go("held")
        stage.wait_running(run, "kept", "cleared", "marked")
        before = stage.task(run, "kept")["attempt"]["pid"]
        assert stage.terminate_daemon() == 0
        file = stage.home / "tickless.toml"
        file.write_text(
            file.read_text()
            .replace("[executors.side]\nkind = 'local'\nslots = 4\n", "")
            .replace(QUEUES, QUEUES.replace('"side"', '"local"'))
        )
        stage.start()
        assert [event["executor"] for event in stage.events("executor.retired")] == ["side"]

        [reason] = stage.why(run, "cleared")
        assert reason["code"] == "retired_executor"
        assert f"`tickless task clear {run} cleared`" in reason["hint"]
        assert stage.cli("task", "clear", run, "cleared", "--yes").code == 0
        stage.wait(lambda: len(stage.attempts(run, "cleared")) == 2, "a second attempt")
        assert [each["executor"] for each in stage.attempts(run, "cleared")] == ["local", "side"]
        assert stage.cli("task", "mark", "success", run, "marked", "--yes").code == 0
        stage.wait_state(run, "marked", "success")

        assert stage.task(run, "kept")["attempt"]["pid"] == before
        stage.open(run, "kept", "cleared")
        assert stage.end(run) == "success"
        assert [(each["executor"], each["state"]) for each in stage.attempts(run, "kept")] == [("side", "success")]
        stage.assert_clean_log()
