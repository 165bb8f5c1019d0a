"""Sabotages of the launcher: what it remembers, in which order it writes and acts, whom it obeys."""

from __future__ import annotations

from tests.planted.runner import Sabotage

SERVICE = "tickless/launcher/service.py"
SERVER = "tickless/launcher/server.py"
SWEEP = "tickless/launcher/sweep.py"
CONTRACT = "tests/contract/test_executor.py::"
CRASH = "tests/scenario/test_launcher_crash.py::"

_KNOWN = "            if order.attempt_id in contents.attempts or order.attempt_id in contents.acked:\n"

SABOTAGES = [
    Sabotage(
        name="known_order_runs_again",
        file=SERVICE,
        old=_KNOWN,
        new="            if order.attempt_id in contents.acked:\n",
        tests=(CONTRACT + "test_the_same_order_twice_runs_once",),
    ),
    Sabotage(
        name="acked_ids_not_remembered",
        file=SERVICE,
        old=_KNOWN,
        new="            if order.attempt_id in contents.attempts:\n",
        tests=(CRASH + "test_acked_attempts_are_remembered_by_the_next_launcher",),
    ),
    Sabotage(
        name="gate_opened_before_the_start_record",
        file=SERVICE,
        old="        self.spool.append(StartedRecord(",
        new="        attempt.open_gate(GATE_OPEN)\n        time.sleep(0.2)\n        self.spool.append(StartedRecord(",
        tests=(CRASH + "test_kill_of_the_launcher_at[launcher.at_gate-lost-bash]",),
    ),
    Sabotage(
        name="lost_end_reported_as_success",
        file=SERVICE,
        old="            self._end(attempt, Lost(attempt_id=attempt.id, at=now(), why=why))\n",
        new="            report = Finished(attempt_id=attempt.id, at=now(), state=AttemptState.SUCCESS,"
        " reason=EndReason.EXITED)\n"
        "            self._end(attempt, report)\n",
        tests=(CRASH + "test_a_new_launcher_kills_what_is_left_before_it_says_lost",),
    ),
    Sabotage(
        name="lower_epoch_not_refused",
        file=SERVER,
        old="        elif hello.epoch < seen:\n",
        new="        elif False:\n",
        tests=(CONTRACT + "test_a_higher_epoch_shuts_out_the_lower",),
    ),
    Sabotage(
        name="rival_attempts_side_by_side",
        file=SERVICE,
        old="        if attempt.phase is Phase.WAITING and rivals[0] is attempt:\n",
        new="        if attempt.phase is Phase.WAITING:\n",
        tests=(CRASH + "test_a_next_attempt_waits_until_the_former_of_its_task_is_dead",),
    ),
    Sabotage(
        name="survivors_not_killed_before_lost",
        file=SWEEP,
        old="        found = processes.survivors({a.id: (a.pid, a.ticks) for a in self._hunted.values()})\n",
        new="        found: dict[int, set[int]] = {a: set() for a in self._hunted}\n",
        tests=(CRASH + "test_a_new_launcher_kills_what_is_left_before_it_says_lost",),
    ),
    Sabotage(
        name="leftovers_of_a_task_not_swept",
        file=SWEEP,
        old="            if owner in self._sweeping:\n",
        new="            if owner is None:\n",
        tests=(CRASH + "test_whatever_a_task_leaves_behind_is_gone_when_its_end_is_reported",),
    ),
]
