"""Folders of the private Postgres: socket addresses, ownership, reach."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tickless.errors import UserError
from tickless.store import run_user
from tickless.store.place import fits_a_socket, make_private
from tickless.store.run_user import RunUser, can_reach, choose_run_user, user_names_for_peer

STRANGER = RunUser(name="stranger", uid=54321, gid=54322)


@pytest.mark.parametrize(
    ("folder", "fits"),
    [
        ("/run", True),
        ("/" + "d" * 92, True),  # 107 bytes with the socket's name
        ("/" + "d" * 93, False),
        ("/home/a,b/run", False),  # separates folders in the setting, and hosts in a DSN
        ("/home/a b/run", False),
        ("/home/josé/run", False),
        ("/home/a:b/run", False),
    ],
)
def test_a_socket_folder_is_short_and_plain(folder: str, fits: bool) -> None:
    assert fits_a_socket(Path(folder)) is fits


def test_a_private_folder_is_made_once_and_kept(tmp_path: Path) -> None:
    old_umask = os.umask(0)
    try:
        for _ in range(2):
            made = make_private(tmp_path / "run", None)
    finally:
        os.umask(old_umask)
    assert made.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("prepared", ["open folder", "link", "file"])
def test_a_folder_that_somebody_prepared_is_refused(tmp_path: Path, prepared: str) -> None:
    folder = tmp_path / "run"
    if prepared == "open folder":
        folder.mkdir()
        folder.chmod(0o770)
    elif prepared == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.write_text("")
    with pytest.raises(UserError, match="not a private folder of ours"):
        make_private(folder, None)


def test_a_user_reaches_what_every_folder_above_lets_through(tmp_path: Path) -> None:
    # pytest's own folders are closed; what counts is below.
    above = [folder for folder in tmp_path.parents if not can_reach(folder, STRANGER)]
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    status = folder.stat()
    owner = RunUser(name="owner", uid=status.st_uid, gid=status.st_gid)
    assert can_reach(folder, owner)
    folder.parent.chmod(0o600)
    assert not can_reach(folder, owner)
    folder.parent.chmod(0o700)
    folder.chmod(0o500)
    assert can_reach(folder, owner, need=os.R_OK | os.X_OK)
    assert not can_reach(folder, owner, need=os.W_OK)
    if above:
        assert not can_reach(folder, STRANGER)


def test_an_ordinary_user_stays_itself_and_keeps_off_others_data(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: nobody.pw_uid)
    assert choose_run_user(None) is None
    assert choose_run_user(nobody.pw_uid) is None
    with pytest.raises(UserError, match="belongs to user root, and tickless runs as nobody"):
        choose_run_user(0)


def test_root_drops_to_the_owner_of_the_data_or_a_known_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    daemon = pwd.getpwnam("daemon")
    assert choose_run_user(daemon.pw_uid) == RunUser(name="daemon", uid=daemon.pw_uid, gid=daemon.pw_gid)
    chosen = choose_run_user(None)
    assert chosen is not None
    assert chosen.name in ("tickless", "postgres", "nobody")
    monkeypatch.setattr(run_user, "_PREFERRED", ("no-such-user",))
    with pytest.raises(UserError, match="Postgres refuses to run as root") as refused:
        choose_run_user(None)
    assert "useradd" in str(refused.value.hint)


def test_a_user_id_without_a_passwd_entry_is_sent_to_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 123456)
    with pytest.raises(UserError, match="user id 123456 has no entry") as refused:
        choose_run_user(None)
    assert "TICKLESS_DATABASE_URL" in str(refused.value.hint)


def test_nobody_is_never_taken_for_the_superuser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert user_names_for_peer(RunUser(name="nobody", uid=65534, gid=65534)) == ("root",)
    assert user_names_for_peer(RunUser(name="alice", uid=1000, gid=1000)) == ("alice", "root")
