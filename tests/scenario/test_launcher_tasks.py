"""What user code finds itself in, and what becomes of code that misbehaves: on a real launcher, one for all tests."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.launcher import LauncherProcess, Orders, dag_source, is_alive, soon
from tests.support.recorder import Recorder
from tickless.errors import Unavailable
from tickless.executors.launcher_client import LauncherClient, ensure_launcher
from tickless.executors.local import LocalExecutor
from tickless.model.dag import TaskKind
from tickless.model.id import AttemptId, Epoch
from tickless.model.order import Order, StopOrder
from tickless.model.report import Finished
from tickless.model.state import AttemptState, EndReason
from tickless.wire.environment import PASS_ENV

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LauncherProcess]:
    process = LauncherProcess(tmp_path_factory.mktemp("launcher") / "home")
    process.start({"SECRET_TOKEN": "x", "ASKED_FOR": "y", PASS_ENV: "ASKED_FOR", "TZ": "Europe/Vienna"})
    yield process
    process.terminate()


_next_epoch = iter(range(1, 100_000))


class Shop:
    """One test's executor and orders."""

    def __init__(self, launcher: LauncherProcess, folder: Path) -> None:
        self.launcher = launcher
        self.home = launcher.home
        self.epoch = Epoch(next(_next_epoch))
        self.folder = folder
        self.orders = Orders(folder, epoch=self.epoch)
        self.client = LauncherClient(launcher.home)
        self.executor = LocalExecutor("local", self.client, slots=8)
        self.sink = Recorder()

    def dag(self, tasks: str, before: str = "", name: str = "dag.py") -> None:
        self.orders.dag_file(dag_source(self.orders, tasks, before), name)

    async def run(self, order: Order) -> Finished:
        """Its end, acked."""
        self.executor.submit([order])
        end = await self.sink.finished(order.attempt_id)
        self.executor.ack([AttemptId(order.attempt_id)])
        return end

    def python(self, task_id: str = "t", **fields: Any) -> Order:
        return self.orders.python(task_id, **{"version": f"v{self.epoch}", **fields})

    def log(self, order: Order) -> str:
        return (self.home / "logs" / order.log_path).read_text()


@pytest.fixture
async def shop(launcher: LauncherProcess, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(launcher, tmp_path)
    await shop.executor.connect(shop.epoch, {}, shop.sink)
    yield shop
    shop.executor.disconnect()


# Commands


@pytest.mark.parametrize(
    ("command", "fields", "expected"),
    [
        ("true", {}, ("success", "exited", 0, None)),
        ("exit 7", {}, ("failed", "exited", 7, None)),
        ("exit 99", {"skip_on_exit_code": 99}, ("skipped", "exited", 99, None)),
        ("exit 99", {}, ("failed", "exited", 99, None)),
        ("kill -SEGV $$", {}, ("failed", "signaled", None, 11)),
        ("kill -KILL $$", {}, ("failed", "signaled", None, 9)),
        ("echo 123456789", {"max_output_bytes": 5}, ("failed", "output_refused", 0, None)),
        ("exit 1", {"cwd": "/no/such/folder"}, ("failed", "not_started", None, None)),
        ("x" * 200_000, {}, ("failed", "not_started", None, None)),
        (":", {"log_path": "../../escape"}, ("failed", "not_started", None, None)),
    ],
)
async def test_end_of_a_command(shop: Shop, command: str, fields: dict[str, Any], expected: object) -> None:
    end = await shop.run(shop.orders.order(TaskKind.BASH, command=command, **fields))
    assert (end.state, end.reason, end.exit_code, end.signal) == expected


@pytest.mark.parametrize(
    ("printed", "fields", "output"),
    [
        ("echo one; echo two; echo", {}, '"two"'),
        ("printf 'a\\tb\"c'", {}, '"a\\tb\\"c"'),
        ("printf 'x\\0y\\377z'", {}, '"x\ufffdy\ufffdz"'),
        ("echo to stderr >&2", {}, '"to stderr"'),
        ("echo hidden", {"do_xcom_push": False}, None),
        ("seq 30000", {}, '"30000"'),
    ],
)
async def test_the_last_line_is_the_output(
    shop: Shop, printed: str, fields: dict[str, Any], output: str | None
) -> None:
    assert (await shop.run(shop.orders.order(TaskKind.BASH, command=printed, **fields))).output == output


async def test_the_environment_of_a_command(shop: Shop) -> None:
    order = shop.orders.order(TaskKind.BASH, command="env -0; pwd", conf='{"k":1}', inputs={"up": '{"a":"ü"}'})
    await shop.run(order)
    *pairs, cwd = shop.log(order).split("\0")
    env = dict(pair.split("=", 1) for pair in pairs)
    assert env["TICKLESS_DAG_ID"] == "d"
    assert env["TICKLESS_ATTEMPT_ID"] == str(order.attempt_id)
    assert env["TICKLESS_CONF"] == '{"k":1}'
    assert json.loads(env["TICKLESS_INPUTS"]) == {"up": {"a": "ü"}}
    assert env["PATH"]
    assert env["TZ"] == "Europe/Vienna"
    assert env["ASKED_FOR"] == "y"
    assert "SECRET_TOKEN" not in env
    assert cwd.strip() == env["TICKLESS_SCRATCH"]
    assert os.stat(cwd.strip()).st_mode & 0o777 == 0o700


@pytest.mark.parametrize("append", [True, False])
async def test_env_replaces_the_base_unless_appended(shop: Shop, append: bool) -> None:
    order = shop.orders.order(TaskKind.BASH, command="echo $MINE-${TZ:-none}", env={"MINE": "1"}, append_env=append)
    assert (await shop.run(order)).output == ('"1-Europe/Vienna"' if append else '"1-none"')


async def test_a_command_inherits_no_descriptors_and_no_ignored_signals(shop: Shop) -> None:
    order = shop.orders.order(TaskKind.BASH, command="grep SigIgn /proc/self/status; exec ls /proc/self/fd")
    await shop.run(order)
    _, ignored, *fds = shop.log(order).split()
    assert fds == ["0", "1", "2", "3"], "its stdin, stdout and stderr, and the folder that ls reads"
    glibc = 0x180000000  # posix_spawn ignores its two internal signals, 32 and 33
    assert int(ignored, 16) & ~glibc == 0


async def test_scratch_is_empty_for_each_attempt_and_removed_when_used(shop: Shop) -> None:
    for _ in range(3):
        end = await shop.run(shop.orders.order(TaskKind.BASH, command="ls -A | wc -l; mkdir -p a/b; touch a/c; ls -A"))
        assert end.output == '"a"'
    logs = [shop.log(shop.orders.order(TaskKind.BASH, command="", log_path=p)).split() for p in _logs(shop)]
    assert logs == [["0", "a"]] * 3
    scratch = shop.home / "launcher" / "scratch"
    await soon(lambda: all(not os.listdir(scratch / name) for name in os.listdir(scratch)), "removed scratch")


def _logs(shop: Shop) -> list[str]:
    root = shop.home / "logs"
    mine = range(shop.epoch << 40, (shop.epoch + 1) << 40)
    return [str(p.relative_to(root)) for p in root.rglob("*.log") if int(p.stem) in mine]


# Python tasks

MANNERS = """
@task
def fds():
    return sorted(int(n) for n in os.listdir("/proc/self/fd"))
@task
def session():
    return [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid(), os.getcwd() == os.environ["TICKLESS_SCRATCH"]]
@task
def seed():
    import random
    return random.random()
@task
def signals():
    import signal
    return [signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL]
@task
def env():
    return {k: v for k, v in os.environ.items()}
@task
def logs():
    import logging
    print("printed")
    logging.info("logged")
    print("err", file=sys.stderr)
    os.write(1, b"raw\\n")
@task
def bad_value():
    import datetime
    return {"rows": [1, 2, 3, {"day": datetime.date(2026, 1, 1)}]}
@task
def nan():
    return [float("nan")]
@task
def int_key():
    return {"a": {1: 2}}
@task
def big():
    return "x" * 5000
@task
def nul():
    return {"a b": "x\\0y"}
@task
def raises():
    try:
        {}["inner"]
    except KeyError as e:
        raise RuntimeError("outer \\0") from e
@task
def exit0():
    sys.exit()
@task
def exit3():
    sys.exit(3)
@task
def exit_text():
    sys.exit("gave up")
@task
def hard_exit():
    os._exit(0)
@task
def killed():
    import signal
    os.kill(os.getpid(), signal.SIGBUS)
@task
def thread():
    import threading
    def late():
        time.sleep(0.05)
        print("late")
    threading.Thread(target=late).start()
    return 1
@task
def closes_everything():
    os.closerange(3, 100)
    return "still"
@task
def ignores_term():
    import signal
    signal.signal(signal.SIGTERM, lambda *_: None)
    note()
    while True:
        time.sleep(0.01)
@task
def echo(x=None):
    return x
for f in list(locals().values()):
    f()
"""


async def test_a_python_task_is_a_process_of_its_own(shop: Shop) -> None:
    shop.dag(MANNERS)

    async def value(task_id: str) -> Any:
        end = await shop.run(shop.python(task_id))
        assert end.state is AttemptState.SUCCESS, end
        return json.loads(end.output or "null")

    fds = await value("fds")
    assert fds[:3] == [0, 1, 2]
    assert len(fds) == 6, f"stdin, stdout, stderr, the channel, the outcome file and the listing itself, but: {fds}"
    assert await value("session") == [True, True, True]
    assert await value("seed") != await value("seed")
    assert await value("signals") == [True, True]
    env = await value("env")
    assert env["TICKLESS_TASK_ID"] == "env"
    assert "SECRET_TOKEN" not in env
    assert not [name for name in env if "FAILPOINT" in name]
    assert await value("thread") == 1
    assert await value("closes_everything") == "still"


async def test_everything_a_task_prints_is_in_its_log(shop: Shop) -> None:
    shop.dag(MANNERS)
    order = shop.python("logs")
    assert (await shop.run(order)).output is None
    log = shop.log(order)
    assert [word for word in ("printed", "INFO root: logged", "err", "raw") if word not in log] == []
    assert os.stat(shop.home / "logs" / order.log_path).st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("task_id", "state", "reason", "code", "said"),
    [
        ("bad_value", "failed", "output_refused", 1, "return value of 'bad_value' is not JSON: date at .rows[3].day"),
        ("nan", "failed", "output_refused", 1, "nan at [0]"),
        ("int_key", "failed", "output_refused", 1, "the key 1 is an int, not a string at .a"),
        ("big", "failed", "output_refused", 1, "5,002 bytes as JSON; the limit is 1,024"),
        ("nul", "failed", "output_refused", 1, "a NUL character at ['a b']"),
        ("raises", "failed", "raised", 1, "RuntimeError: outer \N{SYMBOL FOR NULL}"),
        ("exit0", "success", "exited", 0, None),
        ("exit3", "failed", "exited", 3, "sys.exit(3)"),
        ("exit_text", "failed", "exited", 1, "gave up"),
        ("hard_exit", "failed", "exited", 0, "without recording an outcome"),
        ("killed", "failed", "signaled", None, None),
        ("no_such_task", "failed", "not_started", 1, "no_such_task"),
    ],
)
async def test_end_of_a_python_task(
    shop: Shop, task_id: str, state: str, reason: str, code: int | None, said: str | None
) -> None:
    shop.dag(MANNERS)
    order = shop.python(task_id)
    end = await shop.run(order)
    assert (end.state, end.reason, end.exit_code) == (state, reason, code)
    if said is None:
        assert end.error is None
    else:
        assert said in (end.error or "")
    if task_id == "raises":
        assert "KeyError: 'inner'" in (end.error or "")
        assert "/tickless/" not in (end.error or ""), "our own frames are nobody's business"
        assert "RuntimeError: outer" in shop.log(order)


async def test_large_inputs_reach_the_task(shop: Shop) -> None:
    shop.dag("""
@task
def up(): return 1
@task
def t(x): return len(x)
t(up())
""")
    order = shop.python("t", inputs={"up": json.dumps("x" * 3_000_000)})
    assert (await shop.run(order)).output == "3000000"


async def test_an_order_that_no_message_can_hold_ends_as_not_started(shop: Shop) -> None:
    large = shop.orders.order(TaskKind.BASH, command=":", inputs={"up": json.dumps('"' * 9_000_000)})
    small = shop.orders.order(TaskKind.BASH, command=":")
    shop.executor.submit([small, large])
    end = await shop.sink.finished(large.attempt_id)
    assert end.reason is EndReason.NOT_STARTED
    assert "bytes" in (end.error or "")
    assert (await shop.sink.finished(small.attempt_id)).state is AttemptState.SUCCESS


async def test_a_stopped_python_task_is_killed_after_its_grace(shop: Shop) -> None:
    shop.dag(MANNERS)
    order = shop.python("ignores_term", kill_grace_seconds=0.2)
    shop.executor.submit([order])
    await soon(shop.orders.ran)
    shop.executor.stop([StopOrder(attempt_id=order.attempt_id, reason=EndReason.TIMEOUT)])
    end = await shop.sink.finished(order.attempt_id)
    assert (end.state, end.reason, end.signal) == ("failed", "timeout", signal.SIGKILL)
    shop.executor.ack([AttemptId(order.attempt_id)])


# DAG files that misbehave


async def test_a_broken_dag_file_ends_its_attempts_with_the_traceback(shop: Shop) -> None:
    shop.orders.dag_file("import os\n\nraise ValueError('broken here')\n")
    order = shop.python()
    end = await shop.run(order)
    assert (end.state, end.reason) == ("failed", "not_started")
    assert 'dag.py", line 3' in (end.error or "")
    assert "ValueError: broken here" in shop.log(order)
    shop.dag("@task\ndef t(): return 'mended'\nt()")
    assert (await shop.run(shop.python())).output == '"mended"'


@pytest.mark.parametrize(
    ("leaves", "said"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n", "thread"),
        ("import socket\nKEPT = socket.socketpair()\n", "socket"),
        ("import subprocess\nKEPT = subprocess.Popen(['sleep', '1000'])\n", "child"),
    ],
)
async def test_a_dag_file_that_cannot_be_forked_gets_a_fresh_process_per_task(
    shop: Shop, leaves: str, said: str
) -> None:
    shop.dag(
        "@task\ndef t():\n    note()\n    import threading\n    return [threading.active_count(), os.getppid()]\nt()",
        leaves,
    )
    for _ in range(2):
        order = shop.python(inputs={"pad": json.dumps("x" * 100_000)})
        end = await shop.run(order)
        assert end.state is AttemptState.SUCCESS, (end, shop.log(order))
        assert json.loads(end.output or "")[1] == shop.launcher.pid
    told = [line for line in shop.launcher.stderr().splitlines() if "zygote.unfit" in line and f"v{shop.epoch}" in line]
    assert len(told) == 1
    assert said in told[0]
    assert len(shop.orders.ran()) == 2
    broken = shop.python("no_such_task")
    assert (await shop.run(broken)).reason is EndReason.NOT_STARTED


async def test_a_dag_file_that_exits_or_dies_on_import(shop: Shop) -> None:
    shop.orders.dag_file("import sys\nsys.exit(4)\n", "leaves.py")
    end = await shop.run(shop.python(file="leaves.py"))
    assert (end.reason, "SystemExit: 4" in (end.error or "")) == ("not_started", True)
    shop.orders.dag_file("import os\nos.abort()\n", "dies.py")
    order = shop.python(file="dies.py")
    end = await shop.run(order)
    assert (end.reason, "died 2 times" in (end.error or "")) == ("not_started", True)
    assert "died 2 times" in shop.log(order)


async def test_more_versions_than_zygotes_may_live(shop: Shop) -> None:
    shop.dag(MANNERS)
    for n in range(12):
        assert (await shop.run(shop.python("exit0", version=f"many-{n}"))).state is AttemptState.SUCCESS
    await soon(lambda: _dag_zygotes(shop.launcher.pid) <= 8, "at most eight DAG zygotes")


def _dag_zygotes(launcher: int) -> int:
    bases = [pid for pid in _children(launcher) if b"runner.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return sum(len(_children(pid)) for pid in bases)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# The launcher as a neighbour


async def test_a_planted_link_leads_no_log_out_of_its_folder(shop: Shop, tmp_path: Path) -> None:
    (shop.home / "logs" / f"link{shop.epoch}").symlink_to(tmp_path)
    order = shop.orders.order(TaskKind.BASH, command=":", log_path=f"link{shop.epoch}/out.log")
    end = await shop.run(order)
    assert end.reason is EndReason.NOT_STARTED
    assert not (tmp_path / "out.log").exists()


async def test_an_idle_launcher_sleeps(shop: Shop) -> None:
    await shop.run(shop.orders.order(TaskKind.BASH, command=":"))

    def switches() -> int:
        status = Path(f"/proc/{shop.launcher.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)

    await soon(lambda: is_alive(shop.launcher.pid))
    shop.executor.disconnect()
    await anyio.sleep(0.1)
    before = switches()
    await anyio.sleep(1.0)  # not for luck: this is the time over which nothing may happen
    assert switches() - before <= 1


async def test_a_second_launcher_on_the_same_home_is_refused(shop: Shop) -> None:
    done = await anyio.run_process(
        [sys.executable, "-P", "-m", "tickless.launcher", "--home", str(shop.home)], check=False
    )
    assert done.returncode == 75
    assert f"pid {shop.launcher.pid}" in done.stderr.decode()
    await ensure_launcher(shop.home)  # one answers: nothing to do


async def test_ensure_launcher_starts_one_that_outlives_us(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / ("long" * 20)  # its socket's path is longer than a socket's path may be
    home.mkdir(parents=True)
    await ensure_launcher(home)
    client = LauncherClient(home)
    executor, sink = LocalExecutor("local", client, slots=1), Recorder()
    await executor.connect(Epoch(1), {}, sink)
    order = Orders(tmp_path).order(TaskKind.BASH, command="sleep 1000")
    executor.submit([order])
    started = await sink.started(order.attempt_id)
    pid = client.pid
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)
    assert await client.shut_down(kill=False) == 1, "it stays while a task runs"
    assert await client.shut_down(kill=True) == 0
    await soon(lambda: not is_alive(pid) and not is_alive(started.pid))
    assert (home / "launcher" / "launcher.log").read_text().count("launcher.stopped") == 1


async def test_ensure_launcher_says_why_it_cannot(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "launcher").write_text("in the way")
    with pytest.raises(Unavailable) as caught:
        await ensure_launcher(home)
    assert "launcher" in caught.value.message


# What a task says of its own end

VERDICTS = """
from tickless import TaskFailed, TaskSkipped, AirflowSkipException
@task
def skips():
    raise TaskSkipped("nothing to do today")
@task
def skips_as_in_airflow():
    raise AirflowSkipException
@task
def gives_up():
    raise TaskFailed("the contract has ended")
@task.branch
def picks():
    return "skips"
@task.branch
def picks_badly():
    return "skipz"
@task.short_circuit
def stops():
    return []
@task
def _nothing(): pass
picks() >> [skips(), gives_up()]
skips_as_in_airflow(), picks_badly(), stops()
"""


@pytest.mark.parametrize(
    ("task_id", "expected", "words"),
    [
        ("skips", ("skipped", "exited", True, None, False), "skipped: nothing to do today"),
        ("skips_as_in_airflow", ("skipped", "exited", True, None, False), "skipped"),
        ("gives_up", ("failed", "raised", False, None, False), "TaskFailed: the contract has ended"),
        ("picks", ("success", "exited", True, ("skips",), False), ""),
        ("picks_badly", ("failed", "raised", True, None, False), "chose 'skipz', which DAG 'd' does not have. Did you"),
        ("stops", ("success", "exited", True, None, True), ""),
    ],
)
async def test_what_a_task_says_of_its_end_arrives(shop: Shop, task_id: str, expected: object, words: str) -> None:
    shop.dag(VERDICTS)
    order = shop.python(task_id)
    end = await shop.run(order)
    assert (end.state, end.reason, end.may_retry, end.follow, end.skip_below) == expected
    assert words in shop.log(order)


# Commands that a DAG file makes

MADE = """
@task.bash
def works(text="x"):
    print("in Python", os.getpid())
    first = 'echo "in bash $$ $TICKLESS_TASK_ID $OWN"; pwd; grep SigIgn /proc/self/status'
    return first + "; ls /proc/self/fd | xargs; echo last"
@task.bash
def fails():
    return "exit 7"
@task.bash
def skips():
    return "exit 99"
@task.bash
def is_killed():
    return "kill -KILL $$"
@task.bash
def raises():
    raise ValueError("no command today")
@task.bash
def says_nothing():
    return ""
@task.bash(cwd="no/such/folder")
def is_nowhere():
    return "true"
@task.bash
def is_long():
    return "x" * 200_000
works(), fails(), skips(), is_killed(), raises(), says_nothing(), is_nowhere(), is_long()
"""


def _made(shop: Shop, task_id: str, **fields: Any) -> Order:
    fields = {"skip_on_exit_code": 99, "version": f"v{shop.epoch}", **fields}
    return shop.orders.order(TaskKind.BASH, task_id=task_id, needs_runner=True, **fields)


LEAVES_A_THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"


@pytest.mark.parametrize("before", ["", LEAVES_A_THREAD])
async def test_a_command_made_in_a_runner_takes_over_its_process(shop: Shop, before: str) -> None:
    shop.dag(MADE, before)
    order = _made(shop, "works", env={"OWN": "of the task"}, append_env=True)
    end = await shop.run(order)
    assert (end.state, end.reason, end.exit_code, end.output) == ("success", "exited", 0, '"last"')
    first, second, cwd, ignored, fds, _ = shop.log(order).splitlines()
    assert first.split() == ["in", "Python", str(end.pid)]
    assert second == f"in bash {end.pid} works of the task"
    assert cwd.endswith(f"/scratch/{Path(cwd).name}")
    assert int(ignored.split()[1], 16) & ~0x180000000 == 0
    assert fds == "0 1 2 3"


@pytest.mark.parametrize(
    ("task_id", "expected", "words"),
    [
        ("fails", ("failed", "exited", 7, None), ""),
        ("skips", ("skipped", "exited", 99, None), ""),
        ("is_killed", ("failed", "signaled", None, 9), ""),
        ("raises", ("failed", "raised", 1, None), "ValueError: no command today"),
        ("says_nothing", ("failed", "raised", 1, None), "returned '', but must return a command"),
        ("is_nowhere", ("failed", "not_started", 1, None), "cwd 'no/such/folder' cannot be entered"),
        ("is_long", ("failed", "not_started", 1, None), "Linux gives 128 KiB to one argument"),
    ],
)
async def test_end_of_a_command_made_in_a_runner(shop: Shop, task_id: str, expected: object, words: str) -> None:
    shop.dag(MADE)
    order = _made(shop, task_id, do_xcom_push=False)
    end = await shop.run(order)
    assert (end.state, end.reason, end.exit_code, end.signal) == expected
    assert words in shop.log(order)
    assert words in (end.error or "")


async def test_a_command_made_in_a_runner_is_stopped_like_any_other(shop: Shop) -> None:
    shop.dag('@task.bash\ndef sleeps():\n    return "echo up; exec sleep 1000"\nsleeps()')
    order = _made(shop, "sleeps")
    shop.executor.submit([order])
    await soon(lambda: (shop.home / "logs" / order.log_path).exists() and "up" in shop.log(order), "a sleeping command")
    shop.executor.stop([StopOrder(attempt_id=order.attempt_id, reason="stopped")])
    end = await shop.sink.finished(order.attempt_id)
    shop.executor.ack([AttemptId(order.attempt_id)])
    assert (end.state, end.reason, end.signal) == ("failed", "stopped", 15)


# What a task pushes

PUSHES = """
@task
def pushes(ti):
    ti.xcom_push("k", {"a": "ü"})
    ti.xcom_push("k", [1])
    return "r"
@task
def fails(ti):
    ti.xcom_push("k", 1)
    raise ValueError
@task
def skips(ti):
    ti.xcom_push("k", 1)
    from tickless import TaskSkipped
    raise TaskSkipped
@task
def pushes_no_json(ti):
    ti.xcom_push("k", object())
@task
def pushes_too_much(ti):
    ti.xcom_push("k", "x" * 2000)
@task(multiple_outputs=True)
def many():
    return {"a": 1, "b": None}
@task(multiple_outputs=True)
def not_many():
    return [1]
@task(multiple_outputs=True)
def odd_keys():
    return {1: 2}
@task(multiple_outputs=True)
def nothing():
    return None
@task(multiple_outputs=True, do_xcom_push=False)
def silent():
    return {"a": 1}
pushes(), fails(), skips(), pushes_no_json(), pushes_too_much(), many(), not_many(), odd_keys(), nothing(), silent()
"""


@pytest.mark.parametrize(
    ("task_id", "state", "xcoms", "output", "words"),
    [
        ("pushes", "success", {"k": "[1]"}, '"r"', ""),
        ("fails", "failed", {"k": "1"}, None, "ValueError"),
        ("skips", "skipped", {"k": "1"}, None, ""),
        ("pushes_no_json", "failed", {}, None, "XCom 'k' of 'pushes_no_json' is not JSON: object"),
        ("pushes_too_much", "failed", {}, None, "XCom 'k' of 'pushes_too_much' is 2,002 bytes as JSON; the limit is"),
        ("many", "success", {"a": "1", "b": "null"}, '{"a":1,"b":null}', ""),
        ("not_many", "failed", {}, None, "must return a dict with strings as keys, and not list: [1]"),
        ("odd_keys", "failed", {}, None, "must return a dict with strings as keys"),
        ("nothing", "success", {}, None, ""),
        ("silent", "success", {}, None, ""),
    ],
)
async def test_what_a_task_pushes_comes_with_its_end(
    shop: Shop, task_id: str, state: str, xcoms: object, output: str | None, words: str
) -> None:
    shop.dag(PUSHES)
    end = await shop.run(shop.python(task_id, do_xcom_push=task_id != "silent"))
    assert (end.state, end.xcoms, end.output) == (state, xcoms, output)
    assert words in (end.error or "")
