from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.failpoints import Failpoints
from tickless.failpoint import NAMES, hit

ROOT = Path(__file__).parents[2]


def run(points: Failpoints, code: str) -> int:
    command = [sys.executable, "-c", f"from tickless.failpoint import hit\n{code}"]
    return subprocess.run(command, env={**points.env, "PYTHONPATH": str(ROOT)}, check=False, timeout=20).returncode


def test_unarmed_it_does_nothing() -> None:
    hit("launcher.at_gate")


def test_it_fires_once_over_all_processes(tmp_path: Path) -> None:
    points = Failpoints(tmp_path, launcher__at_gate="kill")
    code = "hit('launcher.before_fork'); hit('launcher.at_gate')"
    assert [run(points, code) for _ in range(3)] == [-9, 0, 0]
    points.assert_all_fired()


def test_it_fires_at_the_nth_hit_over_all_processes(tmp_path: Path) -> None:
    points = Failpoints(tmp_path, launcher__at_gate="raise@3")
    assert [run(points, "hit('launcher.at_gate')") for _ in range(4)] == [0, 0, 1, 0]


def test_it_may_fire_each_time(tmp_path: Path) -> None:
    points = Failpoints(tmp_path, launcher__at_gate="raise@*")
    assert [run(points, "hit('launcher.at_gate')") for _ in range(2)] == [1, 1]
    assert points.fired() == ["launcher.at_gate"] * 2


def test_a_missed_failpoint_fails_the_test(tmp_path: Path) -> None:
    points = Failpoints(tmp_path, launcher__at_gate="kill")
    run(points, "hit('launcher.before_fork')")
    with pytest.raises(AssertionError, match="never reached"):
        points.assert_all_fired()


@pytest.mark.parametrize("text", ["nowhere=kill", "launcher.at_gate=explode", "launcher.at_gate"])
def test_nonsense_is_refused(tmp_path: Path, text: str) -> None:
    points = Failpoints(tmp_path)
    points.env["TICKLESS_FAILPOINTS"] = text
    assert run(points, "") == 1


def test_every_point_in_the_code_is_registered() -> None:
    sources = [path for path in (ROOT / "tickless").rglob("*.py") if path.name != "failpoint.py"]
    used = {name for path in sources for name in re.findall(r"failpoint\.hit\(\"([^\"]+)\"\)", path.read_text())}
    assert used <= NAMES
    assert {name for name in NAMES if name.split(".")[0] in {"launcher", "zygote", "runner"}} <= used
