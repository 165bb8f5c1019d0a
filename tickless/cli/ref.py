"""How runs and tasks are named on the command line."""

from __future__ import annotations

import re

from tickless.cli.client import Client, path_of
from tickless.errors import NotFound, UserError
from tickless.model.id import UNMAPPED

LATEST = "@latest"
_HINT = "Give its number, DAG/RUN_ID or DAG@latest; `tickless run list` shows runs."
_MAPPED = re.compile(r"(.+)\[(\d+)\]")


def run_number(client: Client, text: str) -> int:
    """The run's number, from itself, from DAG/RUN_ID, or from DAG@latest."""
    if text.isdecimal() and text.isascii():
        return int(text)
    if text.endswith(LATEST) and "/" not in text:
        return _latest(client, text.removesuffix(LATEST))
    dag_id, slash, run_id = text.partition("/")
    if not slash or not dag_id or not run_id:
        raise UserError(f"{text!r} is not a run", hint=_HINT)
    return int(client.get(path_of("dags", dag_id, "runs", run_id))["run"])


def _latest(client: Client, dag_id: str) -> int:
    """The number of the newest run of a DAG, in whichever state."""
    client.get(path_of("dags", dag_id))  # one that is not known is told from one without runs
    found = client.get("/runs", dag_id=dag_id, limit=1)["items"]
    if not found:
        raise NotFound(f"DAG {dag_id!r} has no run", hint=f"`tickless run start {dag_id}` starts one.")
    return int(found[0]["run"])


def task_and_index(text: str) -> tuple[str, int]:
    """`transform` or `transform[3]`."""
    found = _MAPPED.fullmatch(text)
    return (found[1], int(found[2])) if found else (text, UNMAPPED)
