"""How runs and tasks are named on the command line."""

from __future__ import annotations

import re

from tickless.cli.client import Client, path_of
from tickless.errors import UserError
from tickless.model.id import UNMAPPED

_MAPPED = re.compile(r"(.+)\[(\d+)\]")


def run_number(client: Client, text: str) -> int:
    """The run's number, from itself or from DAG/RUN_ID."""
    if text.isdecimal() and text.isascii():
        return int(text)
    dag_id, slash, run_id = text.partition("/")
    if not slash or not dag_id or not run_id:
        raise UserError(f"{text!r} is not a run", hint="Give its number or DAG/RUN_ID; `tickless run list` shows both.")
    return int(client.get(path_of("dags", dag_id, "runs", run_id))["run"])


def task_and_index(text: str) -> tuple[str, int]:
    """`transform` or `transform[3]`."""
    found = _MAPPED.fullmatch(text)
    return (found[1], int(found[2])) if found else (text, UNMAPPED)
