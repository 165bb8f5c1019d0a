"""Sabotages of the core: each is noticed by a test that says so, and most by the state machine as well."""

from __future__ import annotations

from tests.planted.runner import Sabotage

ENGINE = "tickless/core/engine.py"
ATTEMPTS = "tickless/core/attempts.py"
STOPPING = "tickless/core/stopping.py"
QUOTA = "tickless/core/quota.py"
RESTORE = "tickless/core/restore.py"
RUNS = "tickless/core/runs.py"
REVISION = "tickless/core/revision.py"
DESK = "tickless/daemon/revisiondesk.py"
REVISED = "tests/unit/core/test_revision.py::"
SCHEDULES = "tickless/core/schedules.py"
ADMISSION = "tickless/core/admission.py"
READINESS = "tickless/core/readiness.py"
RETRY = "tickless/core/retry.py"
MACHINE = "tests/property/test_engine_machine.py"
UNIT = "tests/unit/core/test_engine.py::"
LIMIT = "tests/unit/core/test_admission.py::"

TIME = "tests/unit/core/test_schedules.py::"

PAST = "tickless/core/past.py"
LOOKS_BACK = "tests/unit/core/test_past.py::"

SABOTAGES = [
    Sabotage(
        name="previous_run_that_has_failed_is_as_good_as_done",
        file=PAST,
        old="    return Blocker(key, task_id, state.value, is_over=True) if state is not None else None\n",
        new="    return None\n",
        tests=(LOOKS_BACK + "test_it_starts_after_success_and_after_skipped[True-failed-False]", MACHINE),
    ),
    Sabotage(
        name="skipped_does_not_count_as_satisfied",
        file=PAST,
        old="frozenset({TaskState.SUCCESS, TaskState.SKIPPED, TaskState.REMOVED})",
        new="frozenset({TaskState.SUCCESS})",
        tests=(LOOKS_BACK + "test_it_starts_after_success_and_after_skipped[True-skipped-True]",),
    ),
    Sabotage(
        name="nobody_is_woken_by_the_end_of_the_previous_task",
        file=RUNS,
        old="        self.tell_followers(run, instance.task.spec.task_id)\n        self._end_if",
        new="        self._end_if",
        tests=(LOOKS_BACK + "test_only_those_that_look_at_it_are_woken", MACHINE),
    ),
    Sabotage(
        name="nobody_is_woken_by_a_mark",
        file=REVISION,
        old="        self._runs.tell_followers(run, task.spec.task_id)\n",
        new="",
        tests=(LOOKS_BACK + "test_a_mark_lets_it_start[False]",),
    ),
    Sabotage(
        name="what_a_mark_made_of_a_finished_run_is_not_kept",
        file=REVISION,
        old="        self._runs.past.revised(run)\n",
        new="",
        tests=(LOOKS_BACK + "test_a_mark_lets_it_start[True]",),
    ),
    Sabotage(
        name="past_that_was_read_too_early_is_believed",
        file=PAST,
        old="        if previous in changed and previous not in self._runs:\n",
        new="        if False:\n",
        tests=(
            LOOKS_BACK + "test_an_answer_that_a_mark_has_overtaken_is_asked_for_again",
            LOOKS_BACK + "test_an_answer_that_the_end_of_the_run_has_overtaken_is_asked_for_again",
            LOOKS_BACK + "test_a_run_that_is_deleted_before_it_is_looked_at_is_not_waited_for",
        ),
    ),
    Sabotage(
        name="answer_to_an_earlier_question_is_believed",
        file=PAST,
        old="        if number != answer.number:\n",
        new="        if not number:\n",
        tests=(LOOKS_BACK + "test_an_answer_to_a_run_that_has_ended_means_nothing",),
    ),
    Sabotage(
        name="past_is_not_asked_for_again_after_a_restart",
        file=PAST,
        old="            self._ask(run)\n\n    def leave",
        new="            if run.created_upto == 0:\n                self._ask(run)\n\n    def leave",
        tests=(LOOKS_BACK + "test_until_it_is_read_it_waits", MACHINE),
    ),
    Sabotage(
        name="cleared_run_waits_for_the_place_of_one_that_waits_for_it",
        file=RUNS,
        old="(run for run in again if",
        new="(run for run in again if False and",
        tests=(LOOKS_BACK + "test_a_cleared_run_is_not_kept_out_by_one_that_waits_for_it",),
    ),
    Sabotage(
        name="counts_of_the_past_are_forgotten_at_a_restart",
        file=RESTORE,
        old="        for tally in snapshot.past_tallies:\n            tallies[tally.run].append(tally)\n",
        new="",
        tests=(MACHINE,),
    ),
    Sabotage(
        name="slot_is_not_committed_with_its_run",
        file=SCHEDULES,
        old="        dag.last = Interval(slot.start, slot.end)\n        self._write(dag)\n",
        new="        dag.last = Interval(slot.start, slot.end)\n",
        tests=(TIME + "test_once_and_continuous",),
    ),
    Sabotage(
        name="slots_are_skipped_in_silence",
        file=SCHEDULES,
        old="        if skipped is not None:\n",
        new="        if skipped == 0:\n",
        tests=(TIME + "test_after_a_jump_only_the_latest_slot_gets_a_run_and_that_is_told",),
    ),
    Sabotage(
        name="pause_is_forgotten_at_a_restart",
        file=RUNS,
        old="        slots.is_closed = self._quota.dag(row.dag_id).is_paused\n",
        new="",
        tests=(TIME + "test_while_a_dag_is_paused_nothing_of_it_starts_and_what_runs_goes_on",),
    ),
    Sabotage(
        name="catchup_does_not_stop_at_the_limit",
        file=SCHEDULES,
        old="    return dag.active_runs.used + len(dag.queued) >= dag.active_runs.limit\n",
        new="    return False\n",
        tests=(TIME + "test_catchup_makes_runs_up_to_the_limit_and_goes_on_when_one_ends",),
    ),
    Sabotage(
        name="slot_freed_at_stop",
        file=ATTEMPTS,
        old="        attempt.stop_requested_at = self._changes.now\n",
        new="        attempt.stop_requested_at = self._changes.now\n"
        "        [each.give_back(weight) for each, weight in attempt.holds]\n"
        "        self._quota.admission.freed([each for each, _ in attempt.holds])\n"
        "        attempt.holds = ()\n",
        tests=(MACHINE, UNIT + "test_a_timeout_stops_the_attempt_and_its_slots_stay_taken_until_it_ends"),
    ),
    Sabotage(
        name="started_is_never_stale",
        file=ATTEMPTS,
        old="if attempt is None or attempt.state is not AttemptState.QUEUED:",
        new="if attempt is None:",
        tests=(MACHINE, UNIT + "test_late_and_doubled_reports_are_stale_and_acknowledged"),
    ),
    Sabotage(
        name="stale_end_not_acknowledged",
        file=ATTEMPTS,
        old="        self._changes.effects.append(AckReport(attempt_id=attempt_id))\n        if attempt is None:\n",
        new="        if attempt is not None:\n"
        "            self._changes.effects.append(AckReport(attempt_id=attempt_id))\n"
        "        if attempt is None:\n",
        tests=(MACHINE, UNIT + "test_late_and_doubled_reports_are_stale_and_acknowledged"),
    ),
    Sabotage(
        name="ack_before_the_end_is_decided",
        file=ATTEMPTS,
        old="        self._changes.touch_attempt(attempt)\n        attempt.state = AttemptState.RUNNING\n",
        new="        self._changes.touch_attempt(attempt)\n        attempt.state = AttemptState.RUNNING\n"
        "        self._changes.effects.append(AckReport(attempt_id=attempt.id))\n",
        tests=(MACHINE,),
    ),
    Sabotage(
        name="lost_attempt_counts_as_success",
        file=ATTEMPTS,
        old="attempt.error = AttemptState.LOST, EndReason.LOST, report.why",
        new="attempt.error = AttemptState.SUCCESS, EndReason.LOST, report.why",
        tests=(UNIT + "test_a_lost_attempt_is_run_again_without_spending_a_try",),
    ),
    Sabotage(
        name="lost_attempts_re_run_for_ever",
        file=ATTEMPTS,
        old="instance.lost_count += is_lost",
        new="instance.lost_count += 0",
        tests=(UNIT + "test_a_lost_attempt_is_run_again_without_spending_a_try",),
    ),
    Sabotage(
        name="retry_loses_its_due_time",
        file=RESTORE,
        old="elif instance.state is TaskState.UP_FOR_RETRY and instance.due_at is not None:",
        new="elif False:",
        tests=(MACHINE, UNIT + "test_a_restart_in_each_state_goes_on_where_it_was"),
    ),
    Sabotage(
        name="one_retry_too_many",
        file=RETRY,
        old="try_number <= task.retries",
        new="try_number <= task.retries + 1",
        tests=(UNIT + "test_a_task_without_tries_left_fails_its_run",),
    ),
    Sabotage(
        name="admission_ignores_all_or_none",
        file=ADMISSION,
        old="for semaphore, weight in lane.needs if semaphore.refuses(weight, group)), None)",
        new="for semaphore, weight in lane.needs[:1] if semaphore.refuses(weight, group)), None)",
        tests=(MACHINE, LIMIT + "test_a_task_takes_all_its_slots_or_none"),
    ),
    Sabotage(
        name="pool_slots_count_as_one",
        file=QUOTA,
        old="slots = ((self.pool(task.pool), task.pool_slots),",
        new="slots = ((self.pool(task.pool), 1),",
        tests=(MACHINE, LIMIT + "test_a_pool_is_shared_and_pool_slots_weigh"),
    ),
    Sabotage(
        name="dag_concurrency_not_counted",
        file=QUOTA,
        old="            return ((run.slots, 1),)\n",
        new="            return ((run.slots, 0),)\n",
        tests=(MACHINE, LIMIT + "test_parallelism_3_and_dag_concurrency_2_let_exactly_2_of_3_run"),
    ),
    Sabotage(
        name="max_active_runs_off_by_one",
        file=RUNS,
        old="        if not turns.active_runs.refuses(1, None):\n",
        new="        if not turns.active_runs.refuses(0, None):\n",
        tests=(MACHINE, LIMIT + "test_max_active_runs_lets_runs_start_in_the_order_of_their_making"),
    ),
    Sabotage(
        name="pool_resize_wakes_nobody",
        file=QUOTA,
        old="        self.admission.freed([semaphore])\n",
        new="",
        tests=(MACHINE, LIMIT + "test_a_raised_pool_wakes_as_many_as_fit_in_priority_order"),
    ),
    Sabotage(
        name="freed_slot_wakes_nobody",
        file=ATTEMPTS,
        old="        self._quota.admission.freed(semaphore for semaphore, _ in attempt.holds)\n",
        new="",
        tests=(MACHINE, LIMIT + "test_parallelism_3_and_dag_concurrency_2_let_exactly_2_of_3_run"),
    ),
    Sabotage(
        name="aged_wide_task_overtaken_for_ever",
        file=ADMISSION,
        old="                semaphore.reserved = first\n",
        new="                return None\n",
        tests=(LIMIT + "test_narrow_tasks_overtake_a_wide_one_until_it_has_aged",),
    ),
    Sabotage(
        name="waiters_moved_one_by_one",
        file=QUOTA,
        old="lane = self.admission.lane(key, slots)",
        new="lane = self.admission.lane((run.key, *key), slots)",
        tests=(LIMIT + "test_waiters_that_need_two_full_things_are_not_carried_from_one_to_the_other",),
    ),
    Sabotage(
        name="restore_forgets_holds",
        file=RESTORE,
        old="        for semaphore, weight in holds:\n            semaphore.take(weight)\n",
        new="",
        tests=(MACHINE, LIMIT + "test_an_attempt_keeps_the_slots_of_the_executor_that_it_started_on"),
    ),
    Sabotage(
        name="restore_forgets_scheduled_waiters",
        file=RESTORE,
        old="            if instance.state is TaskState.SCHEDULED and run.frozen is None:\n"
        "                self.quota.wait_for_slots(instance)\n"
        "            elif",
        new="            if",
        tests=(MACHINE, LIMIT + "test_a_reservation_holds_again_after_a_restart"),
    ),
    Sabotage(
        name="restore_forgets_the_cut_off_making",
        file=RESTORE,
        old="        agenda.append(self.runs.create_instances(run))\n",
        new="",
        tests=(MACHINE, UNIT + "test_a_wide_dag_is_finished_after_a_restart_half_way"),
    ),
    Sabotage(
        name="restore_owes_no_launch",
        file=RESTORE,
        old="        elif row.state is AttemptState.QUEUED:\n",
        new="        elif False:\n",
        tests=(MACHINE, UNIT + "test_a_restart_in_each_state_goes_on_where_it_was"),
    ),
    Sabotage(
        name="attempt_ids_start_anew",
        file=ATTEMPTS,
        old="attempt_id = make_attempt_id(self._epoch, self._last_attempt)",
        new="attempt_id = make_attempt_id(Epoch(1), self._last_attempt)",
        tests=(MACHINE,),
    ),
    Sabotage(
        name="admits_after_sigterm",
        file=ENGINE,
        old="        if self.is_stopping:\n            return\n        for _ in range(ADMISSION_SLICE)",
        new="        for _ in range(ADMISSION_SLICE)",
        tests=(MACHINE, UNIT + "test_nothing_is_admitted_after_stop_admitting"),
    ),
    Sabotage(
        name="cancel_skips_what_still_runs",
        file=STOPPING,
        old="                else:\n                    self._attempts.stop(attempt, EndReason.STOPPED)\n",
        new="                else:\n                    pass\n",
        tests=(MACHINE, UNIT + "test_cancel_stops_what_runs_and_skips_the_rest"),
    ),
    Sabotage(
        name="one_success_runs_on_a_skip",
        file=READINESS,
        old="        case TriggerRule.ONE_SUCCESS:\n            if success:",
        new="        case TriggerRule.ONE_SUCCESS:\n            if success or skipped:",
        tests=("tests/unit/core/test_readiness.py::test_a_line_of_the_table",),
    ),
    Sabotage(
        name="choice_forgets_tasks_not_made_yet",
        file=RUNS,
        old="        while indices and run.created_upto <= max(indices):\n            next(creation)\n",
        new="        del creation\n",
        tests=("tests/unit/core/test_choice.py::test_tasks_that_are_not_made_yet_are_made_to_be_skipped",),
    ),
    Sabotage(
        name="choice_ignored_where_a_slot_is_awaited",
        file=RUNS,
        old="_WITHOUT_PROCESS = frozenset({TaskState.NONE, TaskState.SCHEDULED, TaskState.UP_FOR_RETRY})",
        new="_WITHOUT_PROCESS = frozenset({TaskState.NONE})",
        tests=("tests/unit/core/test_choice.py::test_a_task_that_is_not_followed_is_skipped_whatever_its_rule",),
    ),
    Sabotage(
        name="cleared_task_is_not_stopped",
        file=REVISION,
        old="            self._attempts.stop_to(attempt, EndReason.CLEARED)\n",
        new="",
        tests=(MACHINE, REVISED + "test_a_cleared_running_task_runs_again_only_after_its_process_has_ended"),
    ),
    Sabotage(
        name="cleared_task_still_counts_as_finished",
        file=REVISION,
        old="        run.untally(instance.task.index, row)\n        run.instances[",
        new="        run.instances[",
        tests=(MACHINE, REVISED + "test_a_cleared_task_of_a_finished_run_runs_again_and_its_downstream_with_it"),
    ),
    Sabotage(
        name="end_of_a_cleared_attempt_counts",
        file=ATTEMPTS,
        old="        if instance.state is TaskState.RESTARTING and run.cancel_requested_at is None:\n",
        new="        if False:\n",
        tests=(REVISED + "test_even_a_success_that_came_before_the_stop_is_not_taken_for_one",),
    ),
    Sabotage(
        name="rows_that_are_behind_are_believed",
        file=REVISION,
        old="            elif row.state not in FINISHED_TASK_STATES:\n",
        new="            elif False:\n",
        tests=(REVISED + "test_rows_that_are_behind_change_nothing",),
    ),
    Sabotage(
        name="cursor_not_committed_with_its_slice",
        file=DESK,
        old="                        along=tuple(along),\n",
        new="                        along=tuple(along) if is_last else (),\n",
        tests=(
            "tests/scenario/test_revision.py::test_a_daemon_killed_in_the_middle_of_a_wide_clear_goes_on_where_it_was",
        ),
    ),
    Sabotage(
        name="a_none_of_a_mapped_task_is_mapped_over",
        file=ATTEMPTS,
        old="                    instance.reason = RETURNED_NOTHING\n",
        new="                    pass\n",
        tests=("tests/unit/core/test_mapping.py::test_over_a_mapped_task_there_is_one_instance_for_each_value",),
    ),
    Sabotage(
        name="values_to_map_over_are_forgotten_at_a_restart",
        file=RESTORE,
        old=", returned=tally.returned)",
        new=")",
        tests=("tests/unit/core/test_mapping.py::test_over_a_mapped_task_there_is_one_instance_for_each_value[True]",),
    ),
    Sabotage(
        name="rows_behind_a_mark_are_believed",
        file=REVISION,
        old="get(state, 0) < count:",
        new="get(state, 0) < 0:",
        tests=(REVISED + "test_rows_that_a_mark_has_overtaken_are_refused",),
    ),
]
