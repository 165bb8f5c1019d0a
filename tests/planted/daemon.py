"""Sabotages of the daemon's shell: the order of decide, commit, do, and what is done with an unknown outcome."""

from __future__ import annotations

from tests.planted.runner import Sabotage

TERM = "tickless/daemon/term.py"
SCHEDULER = "tickless/daemon/scheduler.py"
MAIN = "tickless/daemon/main.py"
OUTAGE = "tests/scenario/test_outage_postgres.py::"
CRASH = "tests/scenario/test_crash_daemon.py::"
BELOW = "tests/scenario/test_crash_launcher.py::"

SABOTAGES = [
    Sabotage(
        name="effect_before_commit",
        file=TERM,
        old='            failpoint.hit("daemon.before_flush")\n',
        new='            failpoint.hit("daemon.before_flush")\n            self._release(entries)\n',
        tests=(OUTAGE + "test_nothing_starts_before_its_commit",),
    ),
    Sabotage(
        name="ack_before_commit",
        file=TERM,
        old="                self._reporter[attempt_id] = executor\n",
        new="                self._reporter[attempt_id] = executor\n"
        "                self._executors[executor].ack([attempt_id])\n",
        tests=(OUTAGE + "test_a_result_is_kept_until_its_commit",),
    ),
    Sabotage(
        name="uncommitted_ends_forgotten_at_attach",
        file=TERM,
        old="        live |= dict.fromkeys(self._unended, AttemptState.RUNNING)\n",
        new="",
        tests=(OUTAGE + "test_a_result_is_kept_until_its_commit[launcher]",),
    ),
    Sabotage(
        name="unknown_outcome_taken_for_committed",
        file=TERM,
        old='                raise Ended from None\n            failpoint.hit("daemon.after_flush")\n',
        new="                raise Ended from None\n            except Unavailable:\n                pass\n"
        '            failpoint.hit("daemon.after_flush")\n',
        tests=(OUTAGE + "test_backends_terminated_over_and_over_under_load_lose_nothing",),
    ),
    Sabotage(
        name="private_postgres_only_looked_after_by_rebuilds",
        file=MAIN,
        old="                tasks.start_soon(self._database.keep)\n",
        new="",
        tests=(OUTAGE + "test_a_postgres_that_goes_while_the_lead_is_taken_back_is_started_again",),
    ),
    Sabotage(
        name="queued_attempts_not_sent_again",
        file=TERM,
        old="            if attempt.state is AttemptState.QUEUED\n        )\n        executor.stop(",
        new="            if False\n        )\n        executor.stop(",
        tests=(BELOW + "test_a_kill_below_the_daemon_is_made_good_by_it[launcher.before_accept-kill@3]",),
    ),
    Sabotage(
        name="lost_launcher_not_restarted",
        file=SCHEDULER,
        old="            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)\n"
        "            if self._prepare is not None:\n                await self._prepare()\n",
        new="            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)\n",
        tests=(BELOW + "test_a_killed_launcher_takes_its_tasks_with_it_and_they_run_again",),
    ),
    Sabotage(
        name="daemon_ends_its_tasks_when_told_to_stop",
        file=MAIN,
        old="        await scheduler.stop()\n        if self._stop_kind is StopKind.KILL_TASKS:\n",
        new="        await scheduler.stop()\n        if True:\n",
        tests=(CRASH + "test_nothing_is_admitted_after_sigterm_and_what_runs_goes_on",),
    ),
]
