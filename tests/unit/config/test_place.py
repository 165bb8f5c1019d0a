"""Where things are."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tickless.config.load import load
from tickless.config.place import api_socket, home_folder, socket_address


def test_home_is_the_flag_then_the_variable_then_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert home_folder("/flag", {"TICKLESS_HOME": "/variable"}) == Path("/flag")
    assert home_folder(None, {"TICKLESS_HOME": "/variable"}) == Path("/variable")
    assert home_folder(None, {}) == Path("/home/ada/.tickless")
    assert home_folder("~/x", {}) == Path("/home/ada/x")
    assert home_folder("x", {}).is_absolute()


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("", {}),
        ("[api]\nsocket = 'run/s'", {}),
        ("[api]\nsocket = '/run/s'", {}),
        ("[api]\nsocket = '/run/s'", {"TICKLESS_API__SOCKET": "other"}),
    ],
)
def test_a_client_finds_the_socket_where_the_daemon_puts_it(tmp_path: Path, text: str, environ: dict[str, str]) -> None:
    (tmp_path / "tickless.toml").write_text(text)
    assert api_socket(tmp_path, None, environ) == load(tmp_path, environ=environ).socket_path(tmp_path)


@pytest.mark.parametrize("text", ["api = 3", "[api]\nsocket = 3", "[["])
def test_a_client_leaves_complaints_about_the_file_to_the_daemon(tmp_path: Path, text: str) -> None:
    (tmp_path / "tickless.toml").write_text(text)
    assert api_socket(tmp_path, None, {}) == tmp_path / "api.sock"


def test_a_socket_with_a_long_path_is_reached_through_its_folder(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 200) / "s"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with socket_address(path) as address:
            listener.bind(address)
        listener.listen()
        assert path.is_socket()
        with socket_address(path) as address:
            client.connect(address)
