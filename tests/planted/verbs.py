"""Sabotages of what people do after the fact: delete, note, mark whole runs."""

from __future__ import annotations

from tests.planted.runner import Sabotage

DELETION = "tickless/core/deletion.py"
DESK = "tickless/daemon/deletion.py"
LOGS = "tickless/logs/files.py"
REVISE = "tickless/store/migrations/r_revise.sql"
UNIT = "tests/unit/core/test_deletion.py::"
CONTRACT = "tests/contract/test_revised.py::"
WHOLE = "tests/scenario/test_deletion.py::"

MARKED = "tests/unit/core/test_run_mark.py::"
STOPPING = "tickless/core/stopping.py"

CHOICE = "tests/unit/core/test_choice.py::"

FOREIGN = "tests/scenario/test_foreign.py::"

SQL = "tests/docs/test_sql.py::"

SABOTAGES = [
    Sabotage(
        name="finished_run_counted_as_cancelled",
        file="tickless/daemon/runmark.py",
        old="        return state not in FINISHED_RUN_STATES if self.state is None else state is not self.state\n",
        new="        return state is not self.state\n",
        tests=("tests/scenario/test_notes.py::test_runs_are_cancelled_by_filter_and_finished_ones_left_alone",),
    ),
    Sabotage(
        name="function_that_anybody_may_call",
        file="tickless/store/migrations/r_request.sql",
        old="    tickless.cancel_run(bigint),\n",
        new="",
        tests=(SQL + "test_the_page_names_every_function_that_the_public_may_not_call_and_somebody_may",),
    ),
    Sabotage(
        name="request_written_with_the_rights_of_its_caller",
        file="tickless/store/migrations/r_request.sql",
        old=") returns bigint\n"
        "language sql security definer set search_path = pg_catalog, pg_temp as $$\n"
        "    insert into tickless.trigger_request",
        new=") returns bigint\n"
        "language sql set search_path = pg_catalog, pg_temp as $$\n    insert into tickless.trigger_request",
        tests=(SQL + "test_a_role_may_do_what_it_was_granted_and_nothing_else",),
    ),
    Sabotage(
        name="request_that_somebody_holds_is_dealt_with",
        file="tickless/daemon/scheduler.py",
        old="            triggers = [each for each in asked if not each.is_locked]\n",
        new="            triggers = list(asked)\n",
        tests=(FOREIGN + "test_rows_of_requests_that_somebody_has_locked_wait_for_him_and_nobody_else_does",),
    ),
    Sabotage(
        name="lock_that_is_given_back_noticed_by_nobody",
        file="tickless/daemon/revisiondesk.py",
        old='                with anyio.move_on_after(LOCKED_LOOK_SECONDS if has_locked else float("inf")):\n',
        new='                with anyio.move_on_after(float("inf")):\n',
        tests=(FOREIGN + "test_rows_of_requests_that_somebody_has_locked_wait_for_him_and_nobody_else_does",),
    ),
    Sabotage(
        name="cleared_task_runs_against_the_choice_of_its_branch",
        file="tickless/core/revision.py",
        old="                if branch is None:\n",
        new="                if branch is None or branch:\n",
        tests=(
            CHOICE + "test_a_skipped_task_that_was_declared_done_is_skipped_again_with_what_is_below",
            CHOICE + "test_a_short_circuit_skips_again_all_that_it_skipped",
        ),
    ),
    Sabotage(
        name="last_choice_of_a_branch_that_chooses_anew_applied",
        file="tickless/core/revision.py",
        old="    return (each for each in command.choices if (each.task_id, each.map_index) not in cleared)\n",
        new="    return (each for each in command.choices if cleared)\n",
        tests=(CHOICE + "test_with_the_branch_it_is_for_the_branch_to_choose_anew",),
    ),
    Sabotage(
        name="run_declared_done_judged_by_its_tasks",
        file="tickless/core/runs.py",
        old="        if run.is_marked_success:\n            return False\n",
        new="",
        tests=(
            MARKED + "test_a_success_in_spite_of_a_failure_stays_one_when_it_is_read_back",
            MARKED + "test_a_queued_run_ends_without_a_task[success]",
        ),
    ),
    Sabotage(
        name="task_of_a_marked_run_merely_stopped",
        file=STOPPING,
        old="                if wish is not None:\n",
        new="                if wish is None and run.cancel_reason:\n",
        tests=(MARKED + "test_a_run_declared_done_stops_what_runs_and_succeeds_with_its_last_process",),
    ),
    Sabotage(
        name="note_about_a_run_that_has_gone",
        file=REVISE,
        old="        join tickless.dag_run d on d.key = r.run\n        where r.text is not null\n",
        new="        where r.text is not null\n",
        tests=(CONTRACT + "test_there_is_no_note_of_a_run_that_is_not_there[postgres]",),
    ),
    Sabotage(
        name="run_deleted_under_its_process",
        file=DELETION,
        old="            if attempt.row.run == key:\n",
        new="            if attempt.row.run == -key:\n",
        tests=(UNIT + "test_a_run_with_a_process_left_is_refused",),
    ),
    Sabotage(
        name="run_deleted_that_another_looks_back_at",
        file=DELETION,
        old="            if other.row.previous_run == key:\n",
        new="            if other.row.previous_run == -key:\n",
        tests=(UNIT + "test_a_run_that_an_unfinished_one_looks_back_at_is_refused",),
    ),
    Sabotage(
        name="number_of_a_deleted_run_given_again",
        file=REVISE,
        old="        update tickless.shard s set last_run = last_key where",
        new="        update tickless.shard s set last_run = 0 where",
        tests=(
            CONTRACT + "test_the_number_of_a_deleted_run_or_version_is_never_given_again[postgres]",
            WHOLE + "test_a_finished_run_goes_with_its_rows_and_logs_and_its_number_is_never_given_again",
        ),
    ),
    Sabotage(
        name="unfinished_run_deleted",
        file=REVISE,
        old="            where d.key = r.run and d.state in ('success', 'failed')\n",
        new="            where d.key = r.run\n",
        tests=(CONTRACT + "test_only_a_finished_run_can_be_deleted_and_nothing_else_of_the_flush_is_done[postgres-3]",),
    ),
    Sabotage(
        name="remains_forgotten_after_a_kill",
        file=DESK,
        old="            if cursor.remains:\n",
        new="            if cursor.remains and cursor.runs != 1:\n",
        tests=(WHOLE + "test_a_filter_deletes_what_is_finished_and_a_daemon_killed_in_the_middle_goes_on",),
    ),
    Sabotage(
        name="rows_deleted_before_their_logs",
        file=DESK,
        old="            if self._logs is not None:\n",
        new="            if self._logs is None:\n",
        tests=(WHOLE + "test_a_filter_deletes_what_is_finished_and_a_daemon_killed_in_the_middle_goes_on",),
    ),
    Sabotage(
        name="deleted_dag_not_told_again",
        file=DESK,
        old="                self.when_dag_deleted()\n",
        new="",
        tests=(WHOLE + "test_a_dag_goes_when_its_file_is_gone_and_begins_anew_when_forced",),
    ),
    Sabotage(
        name="log_deleted_through_a_link",
        file=LOGS,
        old="inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)",
        new="inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)",
        tests=(
            "tests/unit/logs/test_files.py::test_logs_are_deleted_with_the_folder_of_their_run_and_nothing_outside_ever",
        ),
    ),
    Sabotage(
        name="value_of_the_new_try_dropped_with_the_old_one",
        file="tickless/store/queries/lead.sql",
        old="    tickless.note_requests_v1($17, $18, $19),\n"
        "    tickless.flush_v3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)\n",
        new="    tickless.flush_v3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16),\n"
        "    tickless.note_requests_v1($17, $18, $19)\n",
        tests=(CONTRACT + "test_what_a_cleared_task_handed_on_goes_and_what_follows_stays[postgres]",),
    ),
]
