"""Sabotages of the store: fencing, guards, and the statements that hold them."""

from __future__ import annotations

from tests.planted.runner import Sabotage

FLUSH = "tickless/store/migrations/r_flush.sql"
LISTENER = "tickless/store/listener.py"
POSTGRES = "tickless/store/postgres.py"
CONTRACT = "tests/contract/test_store.py::"
REAL = "tests/integration/test_store_postgres.py::"

_EPOCH_CHECK = """    perform from tickless.shard s where s.shard_id = p_shard and s.epoch = p_epoch for share;
    if not found then
        perform tickless.check_epoch_v1(p_shard, p_epoch);  -- raises, saying who leads
"""

SABOTAGES = [
    Sabotage(
        name="no_epoch_check_in_a_flush",
        file=FLUSH,
        old=_EPOCH_CHECK,
        new=_EPOCH_CHECK.replace("and s.epoch = p_epoch ", ""),
        tests=(CONTRACT + "test_nothing_is_written_in_an_epoch_that_is_over",),
    ),
    Sabotage(
        name="epoch_row_not_held_by_a_flush",
        file=FLUSH,
        old=_EPOCH_CHECK,
        new=_EPOCH_CHECK.replace(" for share", ""),
        tests=(REAL + "test_taking_the_epoch_waits_for_a_flush_in_flight",),
    ),
    Sabotage(
        name="guards_not_counted",
        file=FLUSH,
        old="    if p_found is distinct from p_expected then\n",
        new="    if false then\n",
        tests=(CONTRACT + "test_a_guard_that_does_not_hold_rolls_everything_back",),
    ),
    Sabotage(
        name="attempt_state_not_guarded",
        file=FLUSH,
        old="        where a.attempt_id = r.attempt_id and a.state = r.was;\n",
        new="        where a.attempt_id = r.attempt_id;\n",
        tests=(CONTRACT + "test_a_guard_that_does_not_hold_rolls_everything_back",),
    ),
    Sabotage(
        name="epoch_not_renewed_at_a_rebuild",
        file=FLUSH,
        old="        epoch = s.epoch + 1, owner",
        new="        epoch = greatest(s.epoch, 1), owner",
        tests=(CONTRACT + "test_each_taking_makes_a_higher_epoch_even_from_ourselves",),
    ),
    Sabotage(
        name="old_writer_kept_over_a_new_epoch",
        file=POSTGRES,
        old="                self._drop_writer()  # its outcome is unknown\n",
        new="                pass\n",
        tests=(REAL + "test_after_unavailable_there_is_no_writing_until_the_next_epoch",),
    ),
    Sabotage(
        name="listener_does_not_look_once_it_listens",
        file=LISTENER,
        old="            self._on_dirty()\n            if self.connections == 1:\n",
        new="            if self.connections == 1:\n",
        tests=(
            "tests/integration/test_store_listener.py::test_the_first_connection_marks_everything_dirty_and_each_hint_does",
        ),
    ),
]
