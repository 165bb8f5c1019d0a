"""Sabotages of requests of running tasks, from the user's code to the database."""

from __future__ import annotations

from tests.planted.runner import Sabotage

DESK = "tickless/daemon/requests.py"
CHANNELS = "tickless/launcher/channels.py"
CLIENT = "tickless/runner/client.py"
AT_DESK = "tests/integration/test_request_desk.py::"
AT_CHANNEL = "tests/scenario/test_channels.py::"
WHOLE = "tests/scenario/test_task_requests.py::"
AUDITED = "tests/scenario/test_audit.py::test_every_route_that_changes_something_writes_its_line_of_the_audit"
LINE = "test_the_audit_has_a_line_of_what_was_changed_and_of_nothing_else"

SABOTAGES = [
    Sabotage(
        name="request_answered_before_its_commit",
        file=DESK,
        old="                await self._secrets.set_variable("
        "ask.key, ask.value, ask.description, actor=actor, request=key)\n",
        new="                call = partial(self._secrets.set_variable, ask.key, ask.value, actor=actor, request=key)\n"
        "                assert self._tasks is not None\n"
        "                self._tasks.start_soon(call)\n",
        tests=(AT_DESK + "test_nothing_is_answered_before_its_commit[ask0]",),
    ),
    Sabotage(
        name="request_of_an_attempt_that_is_over_served",
        file=DESK,
        old="        if attempt is None or attempt.instance is None or attempt.row.executor != executor.name:\n",
        new="        if attempt is None:\n",
        tests=(
            AT_DESK + "test_only_a_live_attempt_is_served_and_only_by_its_own_executor",
            AT_DESK + "test_an_attempt_whose_run_is_over_is_not_served",
        ),
    ),
    Sabotage(
        name="triggered_run_without_an_idempotency_key",
        file=DESK,
        old='                return await self._trigger(ask, f"attempt:{attempt.id}:{request.number}", actor)\n',
        new="                return await self._trigger(ask, str(self._clock.monotonic()), actor)\n",
        tests=(WHOLE + "test_a_daemon_killed_before_its_answer_has_changed_everything_once",),
    ),
    Sabotage(
        name="repeated_change_made_again",
        file="tickless/store/migrations/r_setting.sql",
        old="        where q.attempt_id = p_attempt and q.number >= p_number;\n",
        new="        where q.attempt_id = p_attempt and q.number > p_number;\n",
        tests=(
            "tests/contract/test_settings.py::test_a_repeated_request_changes_nothing_and_is_answered_alike[postgres]",
            WHOLE + "test_a_daemon_killed_before_its_answer_has_changed_everything_once",
        ),
    ),
    Sabotage(
        name="variable_removed_without_a_line_of_the_audit",
        file="tickless/store/migrations/r_setting.sql",
        old="    if touched > 0 or json_array_length(p_rows) = 0 then\n",
        new="    if json_array_length(p_rows) = 0 then\n",
        tests=(AUDITED, "tests/contract/test_settings.py::" + LINE + "[postgres]"),
    ),
    Sabotage(
        name="audit_of_what_was_not_changed",
        file="tickless/store/memory.py",
        old="        if event is not None and (is_touched or not rows):\n",
        new="        if event is not None:\n",
        tests=("tests/contract/test_settings.py::" + LINE + "[memory]",),
    ),
    Sabotage(
        name="run_started_without_a_line_of_the_audit",
        file="tickless/core/runs.py",
        old="        if command.actor is not None:\n",
        new="        if command.actor is not None and command.request_id is not None:\n",
        tests=(AUDITED,),
    ),
    Sabotage(
        name="command_of_sql_without_a_line_of_the_audit",
        file="tickless/daemon/scheduler.py",
        old="                term.offer(command, along=event)\n",
        new="                term.offer(command)\n",
        tests=(
            "tests/scenario/test_audit.py::test_sql_tasks_and_the_daemon_itself_have_their_lines_and_filters_find_them",
        ),
    ),
    Sabotage(
        name="failed_request_not_tried_again",
        file=DESK,
        old="                except (Unavailable, Conflict):\n                    await",
        new="                except (Unavailable, Conflict):\n                    return\n                    await",
        tests=(AT_DESK + "test_what_cannot_be_committed_is_tried_again_until_it_is",),
    ),
    Sabotage(
        name="secret_left_in_the_log_of_a_task",
        file="tickless/authoring/secret.py",
        old="        write(masked(text))\n",
        new="        write(text)\n",
        tests=(
            WHOLE + "test_what_a_task_has_read_that_is_secret_is_not_in_its_log",
            "tests/unit/authoring/test_secret.py::test_only_what_goes_to_the_log_is_looked_through",
        ),
    ),
    Sabotage(
        name="secret_left_in_the_error_of_a_task",
        file="tickless/runner/execute.py",
        old="        error=clean_text(masked(error)),\n",
        new="        error=clean_text(error),\n",
        tests=(WHOLE + "test_what_a_task_has_read_that_is_secret_is_not_in_its_log",),
    ),
    Sabotage(
        name="run_before_found_by_when_it_was_made",
        file="tickless/store/queries/run.sql",
        old="order by coalesce(r.logical_date, r.queued_at) desc\n",
        new="order by r.key desc\n",
        tests=("tests/integration/test_store_reader.py::test_the_run_before_by_logical_date",),
    ),
    Sabotage(
        name="run_before_asked_for_though_nobody_looks",
        file="tickless/authoring/standin.py",
        old="        return {name: self[name] if name in own else dict.get(self, name) for name in names}\n",
        new="        return {name: self[name] for name in names}\n",
        tests=("tests/unit/authoring/test_context.py::test_what_is_given_comes_first",),
    ),
    Sabotage(
        name="waiter_not_told_of_a_rebuild",
        file=DESK,
        old="for effect in watcher.take()) or must_look:\n",
        new="for effect in watcher.take()) and not must_look:\n",
        tests=(AT_DESK + "test_a_waiter_looks_again_after_a_rebuild",),
    ),
    Sabotage(
        name="waiter_kept_after_its_attempt",
        file=DESK,
        old="            scope.cancel()\n",
        new="            pass\n",
        tests=(AT_DESK + "test_a_waiter_goes_with_its_attempt",),
    ),
    Sabotage(
        name="waiter_holds_a_place_among_those_served",
        file=DESK,
        old="                with anyio.CancelScope() as self._waiting[attempt.id]:\n",
        new="                async with self._turn:\n",
        tests=(AT_DESK + "test_who_waits_holds_up_nobody",),
    ),
    Sabotage(
        name="channel_read_between_request_and_answer",
        file=CHANNELS,
        old="        self._watch(channel, 0)\n        channel.held =",
        new="        channel.held =",
        tests=(AT_CHANNEL + "test_a_flood_is_one_request_and_holds_nobody_up",),
    ),
    Sabotage(
        name="channel_not_closed_at_the_end",
        file="tickless/launcher/service.py",
        old="        self.channels.close(attempt.id)\n",
        new="",
        tests=(AT_CHANNEL + "test_the_launcher_keeps_no_descriptor_of_an_attempt_that_has_ended",),
    ),
    Sabotage(
        name="held_requests_not_given_to_a_new_leader",
        file="tickless/launcher/server.py",
        old="        for request in launcher.channels.held():\n            self._forward(request)\n",
        new="",
        tests=(AT_CHANNEL + "test_a_request_waits_for_the_next_leader",),
    ),
    Sabotage(
        name="answer_to_another_number_passed_on",
        file=CHANNELS,
        old="        if channel is None or channel.held is None or channel.held.number != given.answer.number:\n",
        new="        if channel is None or channel.held is None:\n",
        tests=(AT_CHANNEL + "test_answers_to_other_numbers_and_other_attempts_are_dropped",),
    ),
    Sabotage(
        name="request_of_a_forked_child_sent",
        file=CLIENT,
        old="        if os.getpid() != self._pid:\n",
        new="        if self._pid == 0:\n",
        tests=(AT_CHANNEL + "test_a_forked_child_is_refused_and_its_parent_is_not",),
    ),
    Sabotage(
        name="sealed_text_opened_in_another_place",
        file="tickless/store/vault.py",
        old="        if found != place:\n",
        new="        if not found:\n",
        tests=("tests/unit/store/test_vault.py::test_a_sealed_text_opens_in_its_own_place_only",),
    ),
]
