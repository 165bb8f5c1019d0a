"""`tickless db` and `tickless stop --all` on a real private Postgres, with no daemon about."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tickless.store.embedded import EmbeddedPostgres


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    anyio.run(EmbeddedPostgres(tmp_path).stop)


def tickless(home: Path, *words: str, code: int = 0) -> str:
    rest = {name: value for name, value in os.environ.items() if not name.startswith(("TICKLESS_", "PG"))}
    done = subprocess.run(
        [sys.executable, "-m", "tickless", "--home", str(home), *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=rest,
        check=False,
    )
    assert done.returncode == code, done
    return done.stdout


def test_db_commands_start_the_server_when_they_need_it_and_leave_it_as_it_was(home: Path) -> None:
    server = EmbeddedPostgres(home)
    tickless(home, "db", "migrate")
    tickless(home, "db", "migrate")
    assert not server.is_running()
    tickless(home, "db", "url", code=3)
    assert tickless(home, "db", "shell", "--", "-Atc", "select count(*) from dag_run") == "0\n"
    assert not server.is_running()

    anyio.run(server.start)
    server.leave()
    url = tickless(home, "db", "url").strip()
    assert url == EmbeddedPostgres(home).dsn
    assert tickless(home, "db", "shell", "--", "-Atc", "show search_path") == "tickless,public\n"
    assert tickless(home, "db", "shell", "--", "-Atc", "select 1/0", code=1) == ""
    assert server.is_running()
    tickless(home, "stop", code=3)
    assert "the private Postgres" in tickless(home, "stop", "--all", "-o", "json")
    assert not server.is_running()
