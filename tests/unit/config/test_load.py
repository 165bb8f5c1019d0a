"""Sources, their order, and errors that say where."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickless.config.load import load
from tickless.config.schema import Settings
from tickless.errors import ConfigError
from tickless.model.limit import Routing


def load_text(tmp_path: Path, text: str, **environ: str) -> Settings:
    (tmp_path / "tickless.toml").write_text(text)
    return load(tmp_path, environ=environ)


def errors_of(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text, **environ)
    return caught.value.message.replace(f"{tmp_path}/", "").splitlines()


def test_without_a_file_the_defaults_are_those_of_the_docs(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={})
    assert settings.routing() == Routing(executors={"local": 32}, queues={"default": "local"})
    assert settings.socket_path(tmp_path) == tmp_path / "api.sock"
    assert settings.dag_folders(tmp_path) == [tmp_path / "dags"]
    assert settings.database.url is None


def test_flag_comes_before_environment_before_file(tmp_path: Path) -> None:
    (tmp_path / "tickless.toml").write_text("[limits]\nparallelism = 1\ndag_concurrency = 2\nmax_lost_attempts = 0\n")
    environ = {"TICKLESS_LIMITS__PARALLELISM": "10", "TICKLESS_LIMITS__DAG_CONCURRENCY": "20"}
    limits = load(tmp_path, environ=environ, overrides={"limits.parallelism": 100}).limits()
    assert (limits.parallelism, limits.dag_concurrency, limits.max_lost_attempts) == (100, 20, 0)


@pytest.mark.parametrize("name", ["dag_concurrency", "max_active_tasks", "max_active_tasks_per_dag"])
def test_aliases_mean_the_same_key(tmp_path: Path, name: str) -> None:
    assert load_text(tmp_path, f"[limits]\n{name} = 5").limits().dag_concurrency == 5
    environ = {f"TICKLESS_LIMITS__{name.upper()}": "6"}
    assert load_text(tmp_path, "[limits]\nmax_active_tasks = 5", **environ).limits().dag_concurrency == 6


def test_variables_of_every_type(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        environ={
            "TICKLESS_TASKS__KILL_GRACE_SECONDS": "2.5",
            "TICKLESS_LIMITS__MAX_ACTIVE_TASKS_PER_DAG_TOTAL": "none",
            "TICKLESS_DAGS__FOLDERS": "/a:/b c",
            "TICKLESS_LOG__LEVEL": "debug",
            "TICKLESS_EXECUTORS__ONE__KIND": "sequential",
            "TICKLESS_QUEUES__SLOW": "one",
            "TICKLESS_DATABASE__URL": "postgresql://u@h/123",
            "TICKLESS_HOME": "/not/a/key",
            "TICKLESS_FAILPOINTS": "x",
        },
    )
    assert settings.tasks.kill_grace_seconds == 2.5
    assert settings.limits().max_active_tasks_per_dag_total is None
    assert settings.dags.folders == ["/a", "/b c"]
    assert settings.log.level == "debug"
    assert settings.routing() == Routing(executors={"local": 32, "one": 1}, queues={"default": "local", "slow": "one"})
    assert settings.database.url == "postgresql://u@h/123"


def test_local_slots_follow_parallelism_unless_they_are_set(tmp_path: Path) -> None:
    text = "[limits]\nparallelism = 5\n[executors.big]\nslots = 9"
    assert load_text(tmp_path, text).routing().executors == {"local": 5, "big": 9}


def test_all_errors_come_at_once_with_their_places(tmp_path: Path) -> None:
    text = """\
[limits]
paralellism = 3
dag_concurrency = "many"
pool_ageing_seconds = -1

[executors.seq]
kind = "sequential"
slots = 3

[queues]
slow = "sqe"

[lmits]
x = 1
[log]
level = "loud"
"""
    found = errors_of(tmp_path, text, TICKLESS_TASKS__KILL_GRACE_SECONDS="soon", TICKLESS_LOGS__LEVEL="info")
    assert found == [
        "tickless.toml:2: unknown key limits.paralellism; did you mean parallelism?",
        "tickless.toml:3: limits.dag_concurrency is 'many', but should be a valid integer",
        "tickless.toml:4: limits.pool_ageing_seconds is -1, but should be greater than or equal to 0",
        "tickless.toml:8: executors.seq.slots is 3, but a sequential executor has exactly one",
        "tickless.toml:11: queues.slow names the unknown executor 'sqe'; did you mean seq?",
        "tickless.toml:13: unknown section lmits; did you mean limits?",
        "tickless.toml:16: log.level is 'loud', but should be 'debug', 'info', 'warning' or 'error'",
        "TICKLESS_LOGS__LEVEL: unknown section logs; did you mean log?",
        "TICKLESS_TASKS__KILL_GRACE_SECONDS: tasks.kill_grace_seconds is 'soon', but should be a valid number",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[limits]\nparallelism = 'x", "tickless.toml:2: Expected"),
        ("limits = 3", "tickless.toml:1: limits is 3, but should be a valid dictionary"),
        ("[limits]\nparallelism = true", "tickless.toml:2: limits.parallelism is True"),
        ("[limits]\nparallelism = 1.5", "tickless.toml:2: limits.parallelism is 1.5"),
        ("[tasks]\nkill_grace_seconds = nan", "tickless.toml:2: tasks.kill_grace_seconds is nan"),
        ("[executors]\nlocal = 3", "tickless.toml:2: executors.local is 3"),
        ("executors = 3", "tickless.toml:1: executors is 3"),
        ("[executors.'Not OK']\nslots = 1", "tickless.toml:1: executors.Not OK"),
        ("[executors.local]\nslotss = 1", "tickless.toml:2: unknown key executors.local.slotss; did you mean slots?"),
        ("[queues]\ndefault = 1", "tickless.toml:2: queues.default is 1"),
        ("[dags]\nfolders = 'one'", "tickless.toml:2: dags.folders is 'one'"),
        (
            "[limits]\nmax_active_tasks = 1\ndag_concurrency = 2",
            "tickless.toml:3: dag_concurrency and its alias are both set, here and at tickless.toml:2; keep one",
        ),
    ],
)
def test_one_error(tmp_path: Path, text: str, error: str) -> None:
    found = errors_of(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(error)


def test_the_url_may_be_in_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://u:hush@h/d\n")
    settings = load_text(tmp_path, f"[database]\nurl_file = '{tmp_path}/dsn'")
    assert settings.database.url == "postgresql://u:hush@h/d"
    assert "hush" not in repr(settings)
    (tmp_path / "dsn").write_text("hush")
    assert "hush" not in str(errors_of(tmp_path, f"[database]\nurl_file = '{tmp_path}/dsn'"))
    assert "hush" not in str(errors_of(tmp_path, "[database]\nurl = 'mysql://u:hush@h'"))


def test_url_and_url_file_exclude_each_other(tmp_path: Path) -> None:
    text = "[database]\nurl = 'postgresql://h/d'\nurl_file = '/x'"
    assert "keep one" in errors_of(tmp_path, text)[0]
    assert errors_of(tmp_path, "[database]\nurl_file = '/nonexistent'")[0].startswith("tickless.toml:2: cannot read")


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.toml does not exist"):
        load(tmp_path, option=str(tmp_path / "nope.toml"), environ={})
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path, environ={"TICKLESS_CONFIG": str(tmp_path)})
    (tmp_path / "latin.toml").write_bytes(b"x = '\xe9'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path, option=str(tmp_path / "latin.toml"), environ={})


def test_schedules_know_their_time_zone(tmp_path: Path) -> None:
    text = '[schedules]\ndefault_timezone = "Europe/Berlin"\ncreate_cron_data_intervals = true\n'
    rules = load_text(tmp_path, text).schedule_rules()
    assert (rules.default_timezone, rules.create_cron_data_intervals, rules.dags_are_paused_at_creation) == (
        "Europe/Berlin",
        True,
        False,
    )
    [error] = errors_of(tmp_path, '[schedules]\ndefault_timezone = "Berlin"\n')
    assert error.startswith("tickless.toml:2") and "there is no time zone 'Berlin'" in error
