"""What `why` says while there is no engine to ask."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from tickless.daemon.backend import DaemonBackend, Health
from tickless.errors import Unavailable
from tickless.model.id import UNMAPPED, RunKey


class _NoTerm:
    @property
    def engine(self) -> Any:
        raise Unavailable("the scheduler is reading its state from Postgres", hint="Try again in a moment.")


@pytest.mark.parametrize(
    ("is_leader", "code", "says", "hint"),
    [
        (True, "recovering", "reading its state from Postgres", "Try again in a moment."),
        (False, "standby", "another one on the same database leads", "Ask that one"),
    ],
)
def test_why_says_that_nothing_is_decided_here(
    tmp_path: Path, is_leader: bool, code: str, says: str, hint: str
) -> None:
    health = Health(mode="daemon", version="1", home=tmp_path, started_at=datetime.now(UTC), is_leader=is_leader)
    nothing = cast(Any, SimpleNamespace())
    backend = DaemonBackend(
        scheduler=cast(Any, _NoTerm()),
        reader=nothing,
        logs=nothing,
        secrets=nothing,
        watch=nothing,
        health=health,
        clock=nothing,
        schedule_rules=nothing,
        stop=lambda kind: None,
    )
    for [reason] in (backend.explain_schedule("etl"), anyio.run(backend.explain, RunKey(1), None, UNMAPPED)):
        assert (reason.code, says in reason.message, hint in (reason.hint or "")) == (code, True, True)
