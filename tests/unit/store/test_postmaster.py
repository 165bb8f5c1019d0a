"""Recognising a server from outside."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tickless.store.postmaster import PidFile, exists, is_postmaster, processes_in, read_pid_file


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (None, None),
        ("", None),
        ("garbage\n", None),
        ("17\n", PidFile(pid=17, port=None, sockets=None)),
        ("17\n/data\n1700000000\n5433\n\n", PidFile(pid=17, port=5433, sockets=None)),
        ("17\n/data\n1700000000\n5433\n/run/x\n\n", PidFile(pid=17, port=5433, sockets="/run/x")),
    ],
)
def test_a_pid_file_is_read_as_far_as_it_is_written(tmp_path: Path, content: str | None, read: PidFile | None) -> None:
    if content is not None:
        (tmp_path / "postmaster.pid").write_text(content)
    assert read_pid_file(tmp_path) == read


def test_only_a_live_postgres_of_the_same_data_directory_counts(tmp_path: Path) -> None:
    server = subprocess.Popen(
        ["postgres", "-c", "read x", "-D", str(tmp_path)], executable="/bin/sh", stdin=subprocess.PIPE, cwd=tmp_path
    )
    try:
        # Popen returns when the old image is gone; the arguments of the new one come a moment later.
        deadline = time.monotonic() + 30
        while not is_postmaster(server.pid, tmp_path) and time.monotonic() < deadline:
            pass
        assert is_postmaster(server.pid, tmp_path)
        assert not is_postmaster(server.pid, tmp_path / "other")
        assert not is_postmaster(os.getpid(), tmp_path)
        assert processes_in(tmp_path) == [server.pid]
    finally:
        server.kill()
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    # A zombie: its parent has not looked yet.
    assert exists(server.pid)
    assert not is_postmaster(server.pid, tmp_path)
    assert processes_in(tmp_path) == []
    server.communicate()
    assert not exists(server.pid)
