"""Brings backfills the rows that the engine does not have: the runs that stand in the way of their next slots.

A backfill that can make runs is dealt with slice by slice; whether one can is asked of the engine, so nothing is kept
here, and a daemon that was killed goes on where the last commit was. All backfills have a slice in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from tickless import failpoint
from tickless.core.backfills import name_of
from tickless.core.commands import CreateBackfill, FillSlots
from tickless.core.record import Backfill
from tickless.core.revision import RowsBehind
from tickless.daemon.term import Term
from tickless.model.backfill import SlotPlan, SlotRun
from tickless.model.schedule import Slot
from tickless.store.base import Store

SLICE = 200
"""Slots per commit."""


class BackfillDesk:
    """`serve` runs for the length of a term."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty = asyncio.Event()

    def look(self) -> None:
        """A backfill can make runs."""
        self._dirty.set()

    async def serve(self, term: Term) -> None:
        """Until the term ends."""
        while True:
            self._dirty.clear()  # before the look: what comes meanwhile is remembered
            wanting = term.engine.backfills.wanting()
            for backfill in wanting:
                await self._advance(term, backfill)
            if wanting:
                failpoint.hit("daemon.after_backfill_slice")
            else:
                await self._dirty.wait()

    async def preview(self, term: Term, command: CreateBackfill, after: datetime | None, limit: int) -> list[SlotPlan]:
        """The slots behind a place, and what would become of them now."""
        backfills = term.engine.backfills
        backfill = backfills.preview(command, term.now())
        backfill.place = after
        slots = backfills.next_slots(backfill, limit)
        latest = {run.logical_date: run for run in await self._taken(backfill, slots)}
        plans = []
        for slot in slots:
            run = latest.get(slot.start)
            may_run = run is None or backfills.may_run_again(backfill, run.key, run.state)
            plans.append(SlotPlan(slot=slot, place=backfill.span.place_of(slot), run=run, is_run=may_run))
        return plans

    async def _advance(self, term: Term, backfill: Backfill) -> None:
        """One slice of one backfill."""
        place = backfill.place
        slots = term.engine.backfills.next_slots(backfill, SLICE)
        last_run = term.engine.last_run
        await term.drain()  # so that every run up to that one is in the rows
        taken = await self._taken(backfill, slots)
        try:
            term.offer(
                FillSlots(
                    backfill=backfill.row.key, place=place, slots=tuple(slots), taken=tuple(taken), last_run=last_run
                )
            )
        except RowsBehind:
            pass  # it is asked again whether it can make runs
        await term.drain()

    async def _taken(self, backfill: Backfill, slots: Sequence[Slot]) -> list[SlotRun]:
        names = [name_of(slot) for slot in slots]
        return await self._store.slot_runs(backfill.row.dag_id, [slot.start for slot in slots], names)
