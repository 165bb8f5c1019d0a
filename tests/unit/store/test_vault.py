"""Sealing, its key file, and what becomes of those who tamper with either."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tickless.errors import UserError
from tickless.store.vault import CannotOpen, Vault


@pytest.mark.parametrize("text", ["", "secret", "ä 😀\n\0", "x" * 100_000, "\0variable/other"])
def test_what_was_sealed_opens_as_it_was(tmp_path: Path, text: str) -> None:
    sealed = Vault(tmp_path).seal(text, "variable/k")
    assert Vault(tmp_path).open(sealed, "variable/k") == text, "also in another process"
    assert len(text) < 3 or text not in sealed
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600


def test_the_same_text_is_never_sealed_alike(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    assert vault.seal("a", "p") != vault.seal("a", "p")


def test_a_sealed_text_opens_in_its_own_place_only(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    sealed = vault.seal("a", "connection/one/password")
    with pytest.raises(CannotOpen, match="sealed for connection/one/password"):
        vault.open(sealed, "connection/two/password")


def test_a_changed_text_does_not_open(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    sealed = vault.seal("a" * 40, "p")
    middle = len(sealed) // 2
    changed = sealed[:middle] + ("A" if sealed[middle] != "A" else "B") + sealed[middle + 1 :]
    with pytest.raises(CannotOpen, match="changed by somebody"):
        vault.open(changed, "p")
    with pytest.raises(CannotOpen, match="not sealed in a way"):
        vault.open("plain", "p")


def test_after_a_rotation_old_texts_open_until_their_key_is_dropped(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    old = vault.seal("a", "p")
    vault.rotate()
    new = vault.seal("a", "p")
    assert [Vault(tmp_path).open(sealed, "p") for sealed in (old, new)] == ["a", "a"]
    assert vault.drop_old_keys() == 1
    again = Vault(tmp_path)
    assert again.open(new, "p") == "a"
    with pytest.raises(CannotOpen, match=r"which is not in .*secret\.key"):
        again.open(old, "p")
    assert vault.drop_old_keys() == 0


def test_a_broken_key_file_is_named_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("nonsense\n")
    with pytest.raises(UserError, match=r"secret\.key:1"):
        Vault(tmp_path).seal("a", "p")
    assert (tmp_path / "secret.key").read_text() == "nonsense\n"


def test_a_key_file_that_was_left_half_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "secret.key.new").write_text("half")
    vault = Vault(tmp_path)
    assert vault.open(vault.seal("a", "p"), "p") == "a"
    assert os.listdir(tmp_path) == ["secret.key"]
