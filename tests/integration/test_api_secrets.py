"""Variables and connections over the API and by the command line: what is shown, what is hidden, there and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.backend import Served, served
from tickless.cli.client import Client
from tickless.errors import NotFound, Refused, UserError

Tickless = Callable[..., "subprocess.CompletedProcess[str]"]
URI = "postgres://me:s3cret-p%40ss@db:5432/main?__extra__=%7B%22token%22%3A+%22t0ken%22%2C+%22n%22%3A+1%7D"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as it:
        yield it


@pytest.fixture
def client(daemon: Served) -> Client:
    return Client(daemon.socket)


@pytest.fixture
def tickless(daemon: Served, tmp_path: Path) -> Tickless:
    rest = {name: value for name, value in os.environ.items() if not name.startswith("TICKLESS_")}

    def run(*words: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tickless", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={**rest, "TICKLESS_HOME": str(tmp_path)},
            check=False,
        )
        assert done.returncode == code, done
        return done

    return run


def test_variables_over_the_api(client: Client) -> None:
    client.put("/variables/a%2Fb", {"value": "1", "description": "said once"})
    client.put("/variables/a%2Fb", {"value": "2"})
    client.put("/variables/db_password", {"value": "hunter2"})
    shown = client.get("/variables")["items"]
    assert [(each["key"], each["value"], each["description"]) for each in shown] == [
        ("a/b", "2", "said once"),
        ("db_password", "***", None),
    ]
    assert client.get("/variables/db_password")["value"] == "***"
    assert client.get("/secrets/variables/db_password")["value"] == "hunter2"
    assert [each["value"] for each in client.get("/secrets/variables")["items"]] == ["2", "hunter2"]
    first = client.get("/variables", limit=1)
    assert client.get("/variables", limit=1, after=first["next"])["items"][0]["key"] == "db_password"
    client.call("DELETE", "/variables/a%2Fb")
    for method, body in (("GET", None), ("DELETE", None)):
        with pytest.raises(NotFound, match="no variable 'a/b'"):
            client.call(method, "/variables/a%2Fb", body=body)


def test_connections_over_the_api(client: Client) -> None:
    made = client.post("/connections", {"conn_id": "db", "uri": URI, "description": "d"})
    assert made["password"] == "***"
    assert made["extra"] == {"token": "***", "n": 1}
    assert (made["schema"], made["port"], made["description"]) == ("main", 5432, "d")
    with pytest.raises(Refused, match="already"):
        client.post("/connections", {"conn_id": "db", "conn_type": "http"})
    opened = client.get("/secrets/connections/db")
    assert opened["password"] == "s3cret-p@ss"
    assert opened["extra"] == {"token": "t0ken", "n": 1}
    client.put("/connections/db", {"conn_type": "http", "host": "h"})
    assert client.get("/secrets/connections/db")["password"] is None
    client.call("DELETE", "/connections/db")
    with pytest.raises(NotFound):
        client.get("/connections/db")


@pytest.mark.parametrize(
    ("path", "body", "complaint"),
    [
        ("/variables/k", {"value": "a\0"}, "NUL"),
        ("/variables/k%07", {"value": "a"}, "cannot be the name"),
        ("/variables/k", {"value": 1}, "value: "),
        ("/connections/c", {"host": "h"}, "says no conn_type"),
        ("/connections/c", {"conn_type": "x", "port": 70000}, "not one of 0 to 65535"),
        ("/connections/c", {"conn_type": "x", "extra": "[1]"}, "not a JSON object"),
        ("/connections/c", {"uri": "x://h", "host": "h"}, "has a uri and host"),
    ],
)
def test_what_is_wrong_is_told(client: Client, path: str, body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        client.put(path, body)


def test_a_rotation_leaves_every_secret_and_one_new_key(client: Client, tmp_path: Path) -> None:
    client.put("/variables/k", {"value": "v"})
    client.post("/connections", {"conn_id": "db", "uri": URI})
    before = (tmp_path / "secret.key").read_text()
    assert client.post("/secrets/rotate") == {"sealed": 2}
    after = (tmp_path / "secret.key").read_text()
    assert len(after.split()) == 1
    assert after != before
    assert client.get("/secrets/variables/k")["value"] == "v"
    assert client.get("/secrets/connections/db")["password"] == "s3cret-p@ss"


def test_variables_by_command_line(tickless: Tickless, tmp_path: Path) -> None:
    tickless("variable", "set", "bucket", "s3://x", "--description", "where")
    tickless("variables", "set", "api_key", "-", stdin="hunter2\n")
    assert tickless("variable", "get", "api_key").stdout == "hunter2\n"
    assert tickless("variable", "get", "no", "-d", "default").stdout == "default\n"
    assert "no variable" in tickless("variable", "get", "no", code=3).stderr
    listed = tickless("variable", "list").stdout
    assert "s3://x" in listed
    assert "hunter2" not in listed
    assert "hunter2" in tickless("variable", "list", "--show-secrets").stdout
    file = tmp_path / "variables.json"
    tickless("variable", "export", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()) == {"api_key": "hunter2", "bucket": {"value": "s3://x", "description": "where"}}
    tickless("variable", "delete", "bucket")
    file.write_text(json.dumps({"bucket": "new", "api_key": "other", "list": [1]}))
    done = tickless("variable", "import", str(file), "--existing", "skip", "-o", "json")
    assert json.loads(done.stdout) == {"set": 2, "skipped": 1}
    assert "there already" in tickless("variable", "import", str(file), "--existing", "fail", code=2).stderr
    values = json.loads(tickless("variable", "export", "-").stdout)
    assert values == {"api_key": "hunter2", "bucket": "new", "list": "[1]"}
    file.write_text("{\n nonsense")
    assert f"{file}:2: this is not JSON" in tickless("variable", "import", str(file), code=2).stderr


def test_connections_by_command_line(tickless: Tickless, tmp_path: Path) -> None:
    tickless("connection", "add", "db", "--conn-uri", URI)
    tickless(
        "connection", "add", "web", "--conn-type", "http", "--conn-host", "h", "--conn-password", "-", stdin="pw12345"
    )
    tickless("connection", "add", "js", "--conn-json", '{"conn_type": "x", "extra": {"a": 1}}')
    assert "needs one of" in tickless("connection", "add", "none", code=2).stderr
    assert "already" in tickless("connection", "add", "db", "--conn-type", "x", code=5).stderr
    for words in (("list",), ("get", "db"), ("get", "db", "-o", "json")):
        shown = tickless("connection", *words).stdout
        assert "db" in shown
        assert "s3cret" not in shown
    assert "s3cret-p%40ss" in tickless("connection", "get", "db", "--show-secrets").stdout
    file = tmp_path / "connections.json"
    tickless("connection", "export", str(file))
    assert json.loads(file.read_text())["web"] == {"conn_type": "http", "host": "h", "password": "pw12345"}
    for conn_id in ("db", "web", "js"):
        tickless("connection", "delete", conn_id)
    assert json.loads(tickless("connection", "import", str(file), "-o", "json").stdout) == {"set": 3, "skipped": 0}
    assert json.loads(tickless("connection", "import", str(file), "-o", "json").stdout) == {"set": 0, "skipped": 3}
    tickless("connection", "export", str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_text() == file.read_text()
    assert "3 variables and connections are sealed" in tickless("secret", "rotate").stderr
