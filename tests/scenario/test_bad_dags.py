"""DAG files that are wrong in every way: a clear error with file and line, and nothing else suffers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.house import eventually
from tests.support.stage import Stage

GOOD = 'with DAG("good"): bash("a", "echo good")'

# name -> (source, the text of the line that is to be named, words of the error)
BAD: dict[str, tuple[str, str | None, str]] = {
    "syntax.py": ("def f(:\n    pass\n", "def f(:", "SyntaxError"),
    "indented.py": ("if True:\nx = 1\n", "x = 1", "IndentationError"),
    "endless.py": ("while True: pass\n", None, "took longer than 8 s. Move work into tasks"),
    "exits.py": ('print("so long")\nsys.exit(3)\n', "sys.exit(3)", "calls sys.exit(3)"),
    "gone.py": ('print("last words", flush=True)\nos._exit(7)\n', None, "exit code 7"),
    "raises.py": ("def boom():\n    return 1 / 0\nboom()\n", "return 1 / 0", "ZeroDivisionError"),
    "imports.py": ("import no_such_module\n", "import no_such_module", "no_such_module"),
    "cycle.py": (
        'with DAG("cycle"):\n    a = bash("a")\n    b = bash("b")\n    a >> b >> a  # around\n',
        None,
        "cycle",
    ),
    "twice_task.py": (
        'with DAG("tt"):\n    EmptyOperator(task_id="a")\n    EmptyOperator(task_id="a")  # again\n',
        "# again",
        "two tasks with the id 'a'",
    ),
    "twice_dag.py": ('DAG("td")\nDAG("td")  # again\n', "# again", "defined twice"),
    "unknown.py": (
        'with DAG("u"):\n    EmptyOperator(task_id="a", retrys=3)\n',
        "retrys",
        "Did you mean 'retries'?",
    ),
    "unknown_dag.py": ('DAG("ud", max_activ_runs=3)\n', "max_activ_runs", "Did you mean 'max_active_runs'?"),
    "not_json.py": (
        'def f(x): pass\nwith DAG("nj"):\n    PythonOperator(task_id="f", python_callable=f, retries=object())\n',
        "object()",
        "must be a whole number",
    ),
    "bad_id.py": ('with DAG("b"):\n    EmptyOperator(task_id="no spaces")\n', '"no spaces"', "no spaces"),
    "nul.py": ('with DAG("n"):\n    BashOperator(task_id="a", bash_command="echo \\0")\n', "echo", "NUL"),
    "killed.py": ("os.kill(os.getpid(), signal.SIGKILL)\n", None, "SIGKILL"),
    "deep.py": ("def f(): f()\nf()\n", "def f(): f()", "RecursionError"),
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage({"good.py": GOOD} | {name: source for name, (source, _, _) in BAD.items()}, parse_seconds=8) as stage:
        stage.start()
        eventually(lambda: stage.error_of("endless.py"), "the end of endless.py")  # the start does not wait for it
        yield stage
        stage.assert_clean_log()


def test_a_daemon_is_ready_though_a_file_hangs() -> None:
    with Stage({"good.py": GOOD, "a_hanging.py": "time.sleep(600)\n"}, parse_seconds=300) as stage:
        stage.start()
        assert stage.do("good")[1] == "success"
        assert stage.error_of("a_hanging.py") is None


def test_every_bad_file_is_shown_with_file_line_and_reason(stage: Stage) -> None:
    answer = stage.cli("dag", "errors")
    found = {error["file"]: error for error in answer.json}
    assert found.keys() == BAD.keys()
    for name, (_, text, words) in BAD.items():
        assert words in found[name]["error"], found[name]
        assert str(stage.home) not in found[name]["error"], "the user knows his folder, not our copy of it"
        if text is not None:
            assert found[name]["line"] == stage.line_of(name, text), found[name]
    text = stage.cli("dag", "errors", is_json=False).out
    for name in BAD:
        line = f":{found[name]['line']}" if found[name]["line"] else ""
        assert f"{name}{line}: {found[name]['error']}" in text


def test_the_traceback_has_the_users_lines_and_none_of_ours(stage: Stage) -> None:
    error = stage.error_of("raises.py")
    assert error is not None
    assert "return 1 / 0" in error["traceback"]
    assert "tickless/authoring" not in error["traceback"]
    assert "| ZeroDivisionError" in stage.cli("dag", "errors", "--traceback", is_json=False).out


def test_what_a_dying_import_printed_is_kept(stage: Stage) -> None:
    error = stage.error_of("gone.py")
    assert error is not None
    assert "last words" in error["traceback"]


def test_a_good_file_beside_them_runs(stage: Stage) -> None:
    assert stage.do("good")[1] == "success"
    assert [dag["dag_id"] for dag in stage.cli("dag", "list").json] == ["good"]
    assert stage.cli("status").json["import_errors"] == len(BAD)


def test_files_that_are_removed_take_their_errors_along(stage: Stage) -> None:
    for name in BAD:
        (stage.dags / name).unlink()
    stage.wait(lambda: not stage.client.get("/import-errors")["items"], "no errors")
    assert stage.cli("dag", "errors").json == []


def test_imports_that_leave_threads_or_connections_behind_still_run(stage: Stage) -> None:
    stage.write(
        "thread.py",
        """
import threading
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
with DAG("thread"): held("a") >> held("b")
""",
    )
    stage.write(
        "connects.py",
        """
import socket
SERVER = socket.create_server(("127.0.0.1", 0))
CLIENT = socket.create_connection(SERVER.getsockname())
with DAG("connects"):
    PythonOperator(task_id="a", python_callable=lambda: len(os.listdir("/proc/self/fd")))
""",
    )
    stage.wait(lambda: stage.dag("thread") and stage.dag("connects"), "both DAGs")
    run = stage.go("thread")
    stage.open(run, "a", "b")
    assert stage.end(run) == "success"
    assert stage.do("connects")[1] == "success"
    warned = [event["warning"] for event in stage.events("dag.import_warned")]
    assert any("thread" in warning for warning in warned), warned
    assert any("connects to 127.0.0.1" in warning for warning in warned), warned
    for name in ("thread.py", "connects.py"):
        (stage.dags / name).unlink()
    stage.wait(lambda: not stage.dag("thread") and not stage.dag("connects"), "their end")


def test_a_file_that_breaks_keeps_its_last_good_version_until_it_is_mended(stage: Stage) -> None:
    stage.write("turns.py", 'with DAG("turns"): bash("a", "echo first")')
    first = stage.wait(lambda: stage.dag("turns"), "the DAG")
    stage.write("turns.py", 'with DAG("turns"): bash("a", "echo second"')
    error = stage.wait(lambda: stage.error_of("turns.py"), "the error")
    assert error["line"] == stage.line_of("turns.py", "echo second")
    broken = stage.dag("turns")
    assert broken is not None
    assert broken["version"] == first["version"]
    assert "SyntaxError" in broken["import_error"]
    run, state = stage.do("turns")
    assert (state, stage.log(run, "a")) == ("success", "first\n")
    assert "import error" in stage.cli("dag", "list", is_json=False).out
    stage.write("turns.py", 'with DAG("turns"): bash("a", "echo third")')
    stage.wait(lambda: stage.error_of("turns.py") is None, "no error")
    mended = stage.dag("turns")
    assert mended is not None
    assert (mended["version"], mended["import_error"]) == (first["version"] + 1, None)
    run, state = stage.do("turns")
    assert (state, stage.log(run, "a")) == ("success", "third\n")


def test_a_last_good_version_survives_a_restart_of_the_daemon(stage: Stage) -> None:
    stage.write("lasting.py", 'with DAG("lasting"): bash("a", "echo well")')
    stage.wait(lambda: stage.dag("lasting"), "the DAG")
    stage.write("lasting.py", "with DAG(")
    stage.wait(lambda: stage.error_of("lasting.py"), "the error")
    assert stage.terminate_daemon() == 0
    stage.start()
    assert stage.error_of("lasting.py") is not None
    run, state = stage.do("lasting")
    assert (state, stage.log(run, "a")) == ("success", "well\n")
    (stage.dags / "lasting.py").unlink()
    stage.wait(lambda: not stage.dag("lasting") and not stage.error_of("lasting.py"), "its end")


def test_a_second_file_with_the_same_dag_id_is_refused_and_names_the_first(stage: Stage) -> None:
    stage.write("z_rival.py", 'with DAG("good"): bash("a", "echo bad")')
    error = stage.wait(lambda: stage.error_of("z_rival.py"), "the error")
    assert "'good' is defined in good.py" in error["error"]
    run, _ = stage.do("good")
    assert stage.log(run, "a") == "good\n"
    (stage.dags / "z_rival.py").unlink()
    stage.wait(lambda: stage.error_of("z_rival.py") is None, "no error")


def test_a_dag_whose_task_is_mistaken_about_its_return_value_names_the_line(stage: Stage) -> None:
    stage.write(
        "loops.py",
        """
@task
def numbers(): return [1]
with DAG("loops"):
    for number in numbers(): print(number)  # here
""",
    )
    error = stage.wait(lambda: stage.error_of("loops.py"), "the error")
    assert error["line"] == stage.line_of("loops.py", "# here")
    assert "only exists once the task has run" in error["error"]
    assert "Do it inside a @task function" in error["error"]
