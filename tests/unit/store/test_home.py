"""The home's lock, within one process; across processes: integration/test_embedded.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tickless.errors import Refused
from tickless.store.home import HomeLock, make_home


def test_the_lock_is_taken_once_and_free_after_release(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    first = HomeLock(home, folder=Path("/dags"), command="tickless dev")
    second = HomeLock(home, folder=Path("/dags"), command="tickless dev")
    first.acquire()
    first.acquire()
    with pytest.raises(Refused, match=f"in use by process {os.getpid()} "):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_a_holder_that_has_not_written_its_name_yet_still_excludes(tmp_path: Path) -> None:
    with HomeLock(tmp_path, folder=Path("/dags")):
        (tmp_path / "lock").write_text("")
        with pytest.raises(Refused, match="in use by another tickless process"):
            HomeLock(tmp_path, folder=Path("/dags")).acquire()


def test_making_a_home_leaves_an_existing_one_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o750)
    make_home(home)
    assert home.stat().st_mode & 0o777 == 0o750
    make_home(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)
