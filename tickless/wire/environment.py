"""The environment that a task sees. One place, because a launcher (bash) and a runner (Python) both make it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tickless.failpoint import ENV, ENV_LOG
from tickless.model.order import Order

_PASSED = {
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV",
    "PYTHONPATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}  # fmt: skip
_PASSED_PREFIXES = ("LC_", "XDG_", "TICKLESS_VAR_", "TICKLESS_CONN_", "AIRFLOW_VAR_", "AIRFLOW_CONN_")
"""The last four are variables and connections that tasks are meant to find before those of the database."""
_DEFAULTS = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

PASS_ENV = "TICKLESS_PASS_ENV"
"""Names of further variables of the launcher's own environment that tasks get, separated by commas."""


def base_environment(own: Mapping[str, str]) -> dict[str, str]:
    """What every task starts from: the harmless part of the launcher's environment, and what was put there for it."""
    asked = {name.strip() for name in own.get(PASS_ENV, "").split(",")}
    env = dict(_DEFAULTS)
    for name, value in own.items():
        if name in _PASSED or name in asked or name.startswith(_PASSED_PREFIXES):
            env[name] = value
    return env


def zygote_environment(own: Mapping[str, str]) -> dict[str, str]:
    """The base environment, and the failpoints that a test has armed; tasks do not see the latter."""
    return base_environment(own) | {name: own[name] for name in (ENV, ENV_LOG) if name in own}


def attempt_environment(order: Order, scratch: str) -> dict[str, str]:
    """The variables that say which attempt this is, over the task's own `env`."""
    env = dict(order.env or {})
    env["TICKLESS_DAG_ID"] = order.dag_id
    env["TICKLESS_RUN_ID"] = order.run_id
    env["TICKLESS_TASK_ID"] = order.task_id
    env["TICKLESS_MAP_INDEX"] = str(order.map_index)
    env["TICKLESS_TRY_NUMBER"] = str(order.try_number)
    env["TICKLESS_ATTEMPT_ID"] = str(order.attempt_id)
    env["TICKLESS_CONF"] = order.conf
    env["TICKLESS_BUNDLE"] = order.bundle
    env["TICKLESS_SCRATCH"] = scratch
    if order.logical_date is not None:
        env["TICKLESS_LOGICAL_DATE"] = order.logical_date
    return env


def command_environment(order: Order, scratch: str, base: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a bash task. As in Airflow, an `env` replaces the base unless `append_env`."""
    env = attempt_environment(order, scratch)
    parts = (f"{json.dumps(task_id)}:{value}" for task_id, value in (order.inputs or {}).items())
    env["TICKLESS_INPUTS"] = "{" + ",".join(parts) + "}"
    return env if order.env is not None and not order.append_env else {**base, **env}
