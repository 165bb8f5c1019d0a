from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launcher import eventually, is_alive
from tickless.launcher.processes import children, has_exited, read_stat, survivors
from tickless.launcher.workspace import Workspaces
from tickless.wire.mark import mark_of


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def marked(attempt_id: int, code: str) -> subprocess.Popen[bytes]:
    source = f"import subprocess, sys, time\nfrom tickless.wire.mark import set_mark\nset_mark(0, {attempt_id})\n{code}"
    return subprocess.Popen([sys.executable, "-c", source], start_new_session=True, stdout=subprocess.PIPE)


def test_stat_is_read_past_any_name(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"], start_new_session=True) as process:
        stat = read_stat(process.pid)
        process.kill()
    assert stat is not None
    assert (stat.pid, stat.ppid, stat.session, stat.group) == (process.pid, os.getpid(), process.pid, process.pid)
    assert stat.ticks > 0
    assert read_stat(process.pid) is None


def test_a_zombie_is_dead_and_a_child_until_it_is_reaped(sleeper: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(sleeper.pid)
    assert not has_exited(pidfd)
    sleeper.kill()
    eventually(lambda: has_exited(pidfd))
    stat = read_stat(sleeper.pid)
    assert stat is not None
    assert stat.is_dead
    assert sleeper.pid in children()
    os.close(pidfd)


def test_a_mark_goes_through_fork_and_exec_into_other_sessions() -> None:
    attempt_id = (5 << 40) + 1
    code = (
        "child = subprocess.Popen(['setsid', 'sh', '-c', 'sleep 1000 & echo $!; wait'], stdout=subprocess.PIPE)\n"
        "print(child.pid, int(child.stdout.readline()), flush=True)\ntime.sleep(1000)\n"
    )
    leader = marked(attempt_id, code)
    assert leader.stdout is not None
    shell, grandchild = map(int, leader.stdout.readline().split())
    assert {mark_of(pid) for pid in (leader.pid, shell, grandchild)} == {attempt_id}
    leader.kill()
    leader.wait()
    leader.stdout.close()
    found = survivors({attempt_id: (leader.pid, 1), attempt_id + 1: (leader.pid, 1)})
    assert found[attempt_id] == {shell, grandchild}
    for pid in found[attempt_id]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_alive(grandchild))
    assert mark_of(os.getpid()) is None


def test_a_pid_that_now_belongs_to_another_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    stat = read_stat(sleeper.pid)
    assert stat is not None
    assert survivors({1: (sleeper.pid, stat.ticks)}) == {1: {sleeper.pid}}
    assert survivors({1: (sleeper.pid, stat.ticks - 1)}) == {1: set()}


class NoSpawner:
    def remove_folder(self, path: str) -> int:
        subprocess.run(["rm", "-rf", path], check=True)
        return 0


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    for name in ("scratch", "outcome"):
        (tmp_path / name).mkdir()
    return Workspaces(str(tmp_path), NoSpawner(), lambda *_a, **_k: None)  # type: ignore[arg-type]  # the one method it uses


def test_a_workspace_comes_back_only_when_it_is_as_new(workspaces: Workspaces, tmp_path: Path) -> None:
    first = workspaces.take()
    workspaces.give_back(first)
    assert workspaces.take() == first
    (tmp_path / "scratch" / first / "left").touch()
    workspaces.give_back(first)
    second = workspaces.take()
    assert second != first
    assert not (tmp_path / "scratch" / first).exists()
    (tmp_path / "scratch" / second).chmod(0o777)
    workspaces.give_back(second)
    third = workspaces.take()
    assert third not in {first, second}
    (tmp_path / "scratch" / third).rmdir()
    (tmp_path / "scratch" / third).symlink_to("/")
    workspaces.give_back(third)
    assert workspaces.take() not in {first, second, third}
    assert os.path.isdir("/")


def test_what_former_launchers_left_is_removed_except_of_the_unfinished(workspaces: Workspaces, tmp_path: Path) -> None:
    for name in ("old-1", "old-2"):
        (tmp_path / "scratch" / name / "deep").mkdir(parents=True)
        (tmp_path / "outcome" / f"{name}.json").touch()
    mine = workspaces.take()
    workspaces.remove_all_but({"old-2"})
    assert sorted(os.listdir(tmp_path / "scratch")) == sorted([mine, "old-2"])
    assert os.listdir(tmp_path / "outcome") == ["old-2.json"]
