"""Sabotages of mapped tasks, in the engine and between the daemon and the DAG file."""

from __future__ import annotations

from tests.planted.runner import Sabotage

WRITTEN = "tests/unit/authoring/test_mapping.py::"
WHOLE = "tests/scenario/test_mapping.py::"
MAPPING = "tickless/authoring/mapping.py"
ENGINE = "tests/unit/core/test_mapping.py::"
RUNS = "tickless/core/runs.py"

SABOTAGES = [
    Sabotage(
        name="forgotten_expand_is_let_pass",
        file="tickless/authoring/dag.py",
        old="                partial.check()\n",
        new="                pass\n",
        tests=(WRITTEN + "test_what_cannot_be_meant_is_refused_with_its_line",),
    ),
    Sabotage(
        name="an_argument_is_taken_from_partial_and_from_the_element",
        file=MAPPING,
        old="    if both := sorted(base.keys() & value.keys()):\n",
        new="    if both := None:\n",
        tests=(WRITTEN + "test_an_element_that_does_not_fit_fails_its_instance",),
    ),
    Sabotage(
        name="an_unknown_key_of_an_element_is_dropped_in_silence",
        file=MAPPING,
        old="        if wrong := sorted(value.keys() - set(self.allowed)):\n",
        new="        if wrong := None:\n",
        tests=(WRITTEN + "test_an_element_that_does_not_fit_fails_its_instance",),
    ),
    Sabotage(
        name="only_the_first_page_of_values_is_read",
        file="tickless/authoring/lazy.py",
        old="        self._after = page[-1].map_index if page else None\n",
        new="        self._after = None\n",
        tests=(WRITTEN + "test_below_a_mapped_task_its_values_are_read_as_they_are_used",),
    ),
    Sabotage(
        name="items_of_a_dict_come_without_their_keys",
        file="tickless/daemon/orders.py",
        old="                if elements.keys is not None:\n",
        new="                if elements.keys == []:\n",
        tests=(WHOLE + "test_what_the_instances_get_and_what_is_read_below[items-values3]",),
    ),
    Sabotage(
        name="a_page_of_values_can_be_empty_before_the_end",
        file="tickless/store/memory.py",
        old="                if page and (most_bytes < 0",
        new="                if (most_bytes < 0",
        tests=("tests/contract/test_settings.py::test_values_of_a_mapped_task_are_read_page_by_page",),
    ),
    Sabotage(
        name="the_length_of_a_cleared_list_still_counts",
        file=RUNS,
        old="            self.set_length(instance, UNKNOWN_LENGTH)\n",
        new="            pass\n",
        tests=(ENGINE + "test_what_is_cleared_with_its_source_is_expanded_anew[True-None-launched4-found4-False]",),
    ),
    Sabotage(
        name="a_longer_list_gives_no_more_instances",
        file=RUNS,
        old="            self._grow(run, task, extent.count)\n",
        new="",
        tests=(ENGINE + "test_what_is_cleared_with_its_source_is_expanded_anew[True-5-launched2-found2-False]",),
    ),
    Sabotage(
        name="instances_that_wait_again_are_forgotten_at_a_restart",
        file="tickless/core/restore.py",
        old="                instance.run.wait(instance)\n",
        new="                pass\n",
        tests=(ENGINE + "test_what_is_cleared_with_its_source_is_expanded_anew[True-3-launched0-found0-True]",),
    ),
    Sabotage(
        name="a_cleared_expansion_goes_on_as_if_nothing_had_happened",
        file="tickless/core/revision.py",
        old="            self._runs.stop_expansion(instance)\n",
        new="            pass\n",
        tests=(ENGINE + "test_an_expansion_that_is_cleared_in_the_middle_is_judged_anew",),
    ),
    Sabotage(
        name="a_selector_means_all_instances",
        file="tickless/daemon/choice.py",
        old="            return [Phase(TaskVerb.CLEAR, chosen, states, single)]\n",
        new="            return [Phase(TaskVerb.CLEAR, chosen, states)]\n",
        tests=(WHOLE + "test_single_instances_are_cleared_and_marked",),
    ),
    Sabotage(
        name="large_work_runs_far_ahead_of_its_commits",
        file="tickless/daemon/term.py",
        old="        if self.backlog_rows > MAX_ROWS_AHEAD:\n",
        new="        if self.backlog_rows > MAX_BACKLOG_ROWS:\n",
        tests=("tests/integration/test_term.py::test_large_work_lets_others_commit_before_it",),
    ),
]
