"""Real children parse real files: whatever a DAG file does, one result comes back and nothing stays behind."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from textwrap import dedent

import anyio
import pytest

from tickless.daemon.parse import parse_file
from tickless.model.dag import TaskKind
from tickless.model.parse import ParseProblem, ParseResult

GOOD = """
    from tickless import dag, task

    @task
    def add(x, y=1):
        return x + y

    @dag(tags=["maths"])
    def sums():
        add(add(1), 2)

    sums()
"""


def write(bundle: Path, **files: str) -> None:
    """`a__b="…"` writes a/b.py."""
    for name, content in files.items():
        path = bundle / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(content))


def parse(bundle: Path, file: str = "flow.py", timeout_seconds: float = 20.0) -> ParseResult:
    async def run() -> ParseResult:
        return await parse_file(bundle, file, timeout_seconds=timeout_seconds)

    return anyio.run(run)


def problem_of(bundle: Path, content: str, timeout_seconds: float = 20.0) -> ParseProblem:
    write(bundle, flow=content)
    result = parse(bundle, timeout_seconds=timeout_seconds)
    assert result.problem is not None
    assert result.dags == ()
    return result.problem


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} is still there")


def test_a_good_file_gives_its_dags_without_noise(tmp_path: Path) -> None:
    write(tmp_path, flow=GOOD)
    result = parse(tmp_path)
    assert result.problem is None
    assert result.warnings == ()
    assert result.closure == ("flow.py",)
    [parsed] = result.dags
    assert parsed.spec.dag_id == "sums"
    assert [(t.task_id, t.kind, t.inputs) for t in parsed.spec.tasks] == [
        ("add", TaskKind.PYTHON, ()),
        ("add__1", TaskKind.PYTHON, ("add",)),
    ]
    assert os.listdir(tmp_path) == ["flow.py"]  # no bytecode


def test_a_file_without_a_dag_is_quietly_nothing(tmp_path: Path) -> None:
    write(tmp_path, flow="x = 1")
    assert parse(tmp_path) == ParseResult(file="flow.py", closure=("flow.py",))


def test_the_hash_does_not_depend_on_where_the_bundle_lies(tmp_path: Path) -> None:
    hashes = set()
    for name in ("one", "two"):
        write(tmp_path / name, flow=GOOD)
        hashes.add(parse(tmp_path / name).dags[0].hash)
    assert len(hashes) == 1


def test_only_the_closure_changes_the_hash(tmp_path: Path) -> None:
    write(tmp_path, flow="import used\n" + dedent(GOOD), used="", unused="")
    before = parse(tmp_path)
    assert before.closure == ("flow.py", "used.py")
    write(tmp_path, unused="x = 1")
    assert parse(tmp_path).dags[0].hash == before.dags[0].hash
    write(tmp_path, used="x = 1")
    assert parse(tmp_path).dags[0].hash != before.dags[0].hash


def test_the_closure_follows_late_imports_data_files_and_scripts(tmp_path: Path) -> None:
    write(
        tmp_path,
        flow="""
            import json
            from pathlib import Path
            from lib import early
            from tickless import dag, task, BashOperator

            SETTINGS = json.loads((Path(__file__).parent / "settings.json").read_text())

            @task
            def work():
                import late
                return (Path(__file__).parent / "data" / "in.csv").read_text()

            @dag
            def flow():
                work() >> BashOperator(task_id="b", bash_command="python scripts/job.py --fast && cat *.sql")
            flow()
        """,
        lib__early="from . import deep",
        lib__deep="",
        lib__other="",
        late="import later_still",
        later_still="",
        scripts__job="",
        unrelated="",
    )
    (tmp_path / "lib" / "__init__.py").touch()
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.csv").write_text("1")
    (tmp_path / "a.sql").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert parse(tmp_path).closure == (
        *("a.sql", "data/", "flow.py", "late.py", "later_still.py", "lib/__init__.py", "lib/deep.py", "lib/early.py"),
        *("scripts/", "settings.json"),
    )


def test_a_folder_listed_by_a_factory_is_in_the_closure(tmp_path: Path) -> None:
    write(
        tmp_path,
        flow="""
            import os
            from tickless import DAG
            for name in sorted(os.listdir(os.path.dirname(__file__) + "/con" + "fig")):
                DAG(name)
        """,
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "north").touch()
    result = parse(tmp_path)
    assert result.closure == ("config/", "flow.py")
    assert [d.spec.dag_id for d in result.dags] == ["north"]
    assert result.warnings == ("DAG 'north' has no tasks",)


def test_a_dag_belongs_to_the_file_whose_import_made_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        flow="import helper\nhelper.make('mine')",
        helper="""
            from tickless import DAG, EmptyOperator
            def make(dag_id):
                with DAG(dag_id):
                    EmptyOperator(task_id="t")
            make("theirs")
        """,
    )
    assert [d.spec.dag_id for d in parse(tmp_path).dags] == ["mine"]
    assert [d.spec.dag_id for d in parse(tmp_path, "helper.py").dags] == ["theirs"]


def test_bundle_modules_neither_shadow_the_standard_library_nor_are_shadowed(tmp_path: Path) -> None:
    write(
        tmp_path,
        sub__flow="import json, pytest, beside\nassert json.loads('1') == 1 and pytest.mine and beside.x",
        json="raise RuntimeError('shadowed')",
        pytest="mine = True",
        sub__beside="x = 1",
    )
    assert parse(tmp_path, "sub/flow.py").problem is None


def test_syntax_error_names_line_and_shows_the_code(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, "x = 1\ndef broken(:\n    pass\n")
    assert (problem.file, problem.line) == ("flow.py", 2)
    assert "SyntaxError" in problem.message
    assert "def broken(:" in (problem.traceback or "")


def test_a_traceback_holds_only_the_users_frames_and_paths_relative_to_the_bundle(tmp_path: Path) -> None:
    write(tmp_path, helper="def boom():\n    raise ValueError('no\\x00 good')\n")
    problem = problem_of(tmp_path, "import helper\nhelper.boom()\n")
    assert problem.message == "ValueError: no\ufffd good"
    assert (problem.file, problem.line) == ("helper.py", 2)
    trace = problem.traceback or ""
    assert trace.count('  File "') == 2
    assert 'File "flow.py", line 2' in trace
    assert str(tmp_path) not in trace


def test_an_error_in_a_helper_keeps_the_helper_in_the_closure(tmp_path: Path) -> None:
    write(tmp_path, flow="import helper", helper="1/0")
    assert parse(tmp_path).closure == ("flow.py", "helper.py")


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("from tickless import DAG\n\nDAG('a', retires=3)", 3, ["no argument 'retires'"]),
        ("from tickless import task\n@task(retires=3)\ndef f(): ...", 2, ["'retires'", "Did you mean 'retries'?"]),
        ("from tickless import DAG\nDAG('a', schedule='@dayly')", 2, ["'@dayly'", "mean '@daily'"]),
        ("from tickless import DAG\nDAG('a')\nDAG('a')", 3, ["defined twice", "flow.py:2"]),
        (
            "from tickless import DAG, BashOperator\nwith DAG('a'):\n BashOperator(task_id='t', bash_command='x',"
            "\n  env={'N': 1})",
            3,
            ["env['N'] of task 't' is 1 (int)", "must be a string"],
        ),
        (
            "from tickless import DAG, EmptyOperator as E\nwith DAG('a'):\n x, y, z = E(task_id='x'), E(task_id='y'), "
            "E(task_id='z')\n x >> y >> z >> x",
            2,
            ["cycle: "],
        ),
        ("from tickless import EmptyOperator as E\nE(task_id='x')", 2, ["outside of any DAG"]),
        ("import sys\nsys.exit(3)", 2, ["sys.exit(3)"]),
        ("import nowhere", 1, ["No module named 'nowhere'"]),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_a_users_mistake_is_named_with_its_line(tmp_path: Path, content: str, line: int, words: list[str]) -> None:
    problem = problem_of(tmp_path, content)
    assert (problem.file, problem.line) == ("flow.py", line)
    for word in words:
        assert word in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        ("from airflow.sdk import DAG", "Import from `tickless` instead"),
        ("import airflow", "Import from `tickless` instead"),
        ("import package_that_nobody_has", "If it is a package, install it for "),
        ("import airflow_helpers", "a file of yours must lie in the DAG folder"),
    ],
)
def test_an_import_of_what_is_not_there_is_told_the_way_out(tmp_path: Path, line: str, way_out: str) -> None:
    assert way_out in (problem_of(tmp_path, line).hint or "")


def test_an_endless_import_ends_at_the_limit_with_everything_it_started(tmp_path: Path) -> None:
    start = time.monotonic()
    problem = problem_of(
        tmp_path,
        f"""
        import subprocess, time
        child = subprocess.Popen(["sleep", "600"])
        open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
        print("about to hang", flush=True)
        while True: time.sleep(1)
        """,
        timeout_seconds=1.0,
    )
    assert time.monotonic() - start < 10
    assert "longer than 1 s" in problem.message
    assert "parse_timeout_seconds" in (problem.hint or "")
    assert problem.output == "about to hang\n"
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_cancelling_a_parse_kills_its_child(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    write(tmp_path, flow=f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: parse_file(tmp_path, "flow.py", timeout_seconds=60))
            with anyio.fail_after(20):
                while not (pid_file.exists() and pid_file.read_text()):  # noqa: ASYNC110 - another process writes it
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    anyio.run(run)
    wait_until_gone(int(pid_file.read_text()))


def test_os_exit_and_signals_are_told_apart(tmp_path: Path) -> None:
    assert "exit code 7" in problem_of(tmp_path, "import os\nos._exit(7)").message
    assert "SIGSEGV" in problem_of(tmp_path, "import os\nos.kill(os.getpid(), 11)").message


def test_what_the_import_leaves_behind_is_a_warning_and_does_not_hold_the_parse(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        write(
            tmp_path,
            flow=f"""
                import atexit, socket, subprocess, threading, time
                from tickless import DAG, EmptyOperator
                threading.Thread(target=time.sleep, args=(600,), name="poller").start()
                connection = socket.create_connection(("127.0.0.1", {port}))
                child = subprocess.Popen(["sleep", "600"])
                open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
                atexit.register(time.sleep, 600)
                print("hello")
                with DAG("a"):
                    EmptyOperator(task_id="t")
            """,
        )
        result = parse(tmp_path)
    assert result.problem is None
    assert len(result.dags) == 1
    text = "\n".join(result.warnings)
    for words in ("1 thread running: poller", "child processes", "1 socket open", f"127.0.0.1:{port}", "prints"):
        assert words in text
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_an_uncalled_factory_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path, flow="from tickless import dag\n\n@dag\ndef forgotten():\n    pass\n")
    [warning] = parse(tmp_path).warnings
    assert "line 3" in warning
    assert "forgotten()" in warning


def test_huge_output_is_bounded_and_the_result_arrives(tmp_path: Path) -> None:
    write(tmp_path, flow=dedent(GOOD) + "import sys\nfor _ in range(400): print('x' * 100_000)\n")
    result = parse(tmp_path)
    assert len(result.dags) == 1
    assert sum(map(len, result.warnings)) < 1000
    problem = problem_of(tmp_path, "for _ in range(100): print('x' * 100_000)\n1/0")
    assert len(problem.output or "") < 20_000
    assert "more bytes" in (problem.output or "")


def test_a_large_result_passes_through_the_pipe(tmp_path: Path) -> None:
    write(
        tmp_path,
        flow="""
            from tickless import DAG, BashOperator
            with DAG("wide"):
                for n in range(1000):
                    BashOperator(task_id=f"t{n}", bash_command="x" * 500)
        """,
    )
    assert len(parse(tmp_path).dags[0].spec.tasks) == 1000


def test_forged_results_are_not_believed(tmp_path: Path) -> None:
    for forged in (
        'b"[1, 2"',
        'b\'{"file": "flow.py", "dags": [{"spec": {"dag_id": "../x", "tasks": []}, "hash": ""}]}\'',
    ):
        content = f"import os, sys\nos.write(int(sys.argv[sys.argv.index('--result-fd') + 1]), {forged})\nos._exit(0)"
        assert "exit code 0" in problem_of(tmp_path, content).message


def test_a_dag_file_sees_the_environment_of_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICKLESS_DATABASE__URL", "REGION", "SECRET"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("TICKLESS_PASS_ENV", "REGION")
    write(
        tmp_path,
        flow="""
            import os
            assert "PATH" in os.environ and "REGION" in os.environ
            assert not {"TICKLESS_DATABASE__URL", "SECRET"} & set(os.environ)
        """,
    )
    assert parse(tmp_path).problem is None


TEMPLATED = """
    from tickless import DAG, BashOperator

    with DAG("reports"):
        BashOperator(task_id="report", bash_command="scripts/report.sh")
"""


def test_template_files_and_what_they_include_belong_to_the_version(tmp_path: Path) -> None:
    write(tmp_path, flow=TEMPLATED)
    for name, content in {
        "scripts/report.sh": "{% include 'shared/head.txt' %}\necho {{ ds }}\n",
        "shared/head.txt": "echo head",
        "shared/unused.txt": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    first = parse(tmp_path)
    assert first.problem is None
    assert first.closure == ("flow.py", "scripts/", "shared/head.txt")
    (tmp_path / "shared" / "head.txt").write_text("echo another head")
    assert parse(tmp_path).dags[0].hash != first.dags[0].hash


def test_a_wrong_template_is_a_problem_of_the_line_of_its_task(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, TEMPLATED.replace("scripts/report.sh", "docker ps --format '{{.ID}}'"))
    assert (problem.file, problem.line) == ("flow.py", 5)
    assert problem.message.startswith("a field of task 'report' is not a template that Jinja can read")
    assert "{% raw %}" in (problem.hint or "")
    problem = problem_of(tmp_path, TEMPLATED)
    assert (problem.file, problem.line) == ("flow.py", 5)
    assert "names the template 'scripts/report.sh', which is not there" in problem.message


def test_a_wrong_param_and_a_lost_dependency_are_problems_of_their_lines(tmp_path: Path) -> None:
    problem = problem_of(
        tmp_path, "from tickless import DAG, Param\n\nDAG('x', params={'n': Param('a', type='integer')})\n"
    )
    assert (problem.line, "'a' is not of type 'integer'" in problem.message) == (3, True)
    source = "from tickless import *\nwith DAG('x'):\n    a = EmptyOperator(task_id='a')\n    a >> TaskGroup('g')\n"
    problem = problem_of(tmp_path, source)
    assert (problem.line, "while it has no task" in problem.message) == (4, True)
