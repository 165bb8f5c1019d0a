"""The log: what a line looks like, what is refused, what is never raised."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tickless.errors import InvariantBroken
from tickless.telemetry.human import sentence
from tickless.telemetry.log import Format, configure, get_log, set_level


class Lines:
    """A pipe that the log writes to."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def take(self) -> str:
        try:
            return os.read(self.reader, 1 << 16).decode()
        except BlockingIOError:
            return ""


@pytest.fixture
def lines() -> Iterator[Lines]:
    pipe = Lines()
    yield pipe
    configure()
    for fd in (pipe.reader, pipe.writer):
        try:
            os.close(fd)
        except OSError:
            pass  # a test closed it


def set_up(lines: Lines, form: Format = "json", **rest: Any) -> None:
    configure(format=form, fd=lines.writer, is_strict=True, **rest)


def test_a_json_line_has_time_level_event_and_the_keys_that_have_values(lines: Lines) -> None:
    set_up(lines)
    get_log(dag_id="etl").bind(run=7).info("run.finished", run_id="x", state="success", seconds=None)
    line = json.loads(lines.take())
    assert list(line) == ["at", "level", "event", "dag_id", "run", "run_id", "state"]
    assert line["at"].endswith("Z")
    assert (line["level"], line["event"], line["run"]) == ("info", "run.finished", 7)


def test_levels_are_filtered_and_changed_for_loggers_that_exist(lines: Lines) -> None:
    set_up(lines, level="warning")
    log = get_log()
    log.info("signal.received", signal="SIGHUP")
    assert lines.take() == ""
    set_level("debug")
    log.debug("run.started", dag_id="a")
    assert "run.started" in lines.take()


def test_an_unregistered_name_a_wrong_level_and_an_unknown_key_are_refused_under_test(lines: Lines) -> None:
    set_up(lines)
    log = get_log()
    with pytest.raises(InvariantBroken, match="not in"):
        log.info("task.exploded")
    with pytest.raises(InvariantBroken, match="registered as info"):
        log.warning("run.finished")
    with pytest.raises(InvariantBroken, match="no key colour"):
        log.info("run.finished", colour="red")


def test_human_lines_are_sentences_without_what_is_unknown(lines: Lines) -> None:
    set_up(lines, "human")
    keys = {"dag_id": "etl", "task_id": "load", "run": 3, "try_number": 2, "state": "failed", "run_seconds": 1.5}
    get_log().info("attempt.finished", **keys, exit_code=3, error="boom\x1b[2J")
    assert lines.take()[9:] == "  etl.load: failed in 1.50 s (run 3, try 2, exit code 3): boom·[2J\n"
    get_log().warning("executor.lost", executor="local")
    assert lines.take()[9:] == "warning: executor local is away\n"


def test_a_sentence_never_raises() -> None:
    assert sentence("run.finished", {"run": None, "seconds": "soon", "state": 1, "dag_id": "x"})
    assert sentence("no.such", {"a": 1}) == "no.such a=1"


def test_values_that_are_not_json_are_written_as_text(lines: Lines) -> None:
    set_up(lines)
    get_log().warning("executor.lost", error=OSError("gone"))
    assert json.loads(lines.take())["error"] == "gone"


def test_what_libraries_log_comes_through(lines: Lines) -> None:
    set_up(lines)
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("asyncio").exception("task %s", "died")
    line = json.loads(lines.take())
    assert (line["event"], line["logger"], line["message"]) == ("library.warned", "asyncio", "task died")
    assert "ValueError: inner" in line["traceback"]


def test_a_log_that_nobody_reads_any_more_raises_nothing(lines: Lines) -> None:
    set_up(lines)
    os.close(lines.reader)
    get_log().info("signal.received", signal="SIGTERM")
