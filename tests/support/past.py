"""The shell's answer to `PastWanted`, from a store in memory."""

from __future__ import annotations

from tickless.core.decision import PastWanted
from tickless.core.events import PastFound
from tickless.store.memory import MemoryStore


def read_past(store: MemoryStore, wanted: PastWanted) -> PastFound:
    """As committed now."""
    found = store.previous_run_now(wanted.run, wanted.dag_id, wanted.logical_date, only_scheduled=wanted.only_scheduled)
    return PastFound(
        number=wanted.number,
        run=wanted.run,
        previous=found.key if found is not None else None,
        tallies=found.tallies if found is not None else (),
    )
