"""Sabotages of the API's door: what it lets in, and what it says of itself."""

from __future__ import annotations

from tests.planted.runner import Sabotage

NONSENSE = "tests/integration/test_api.py::test_what_makes_no_sense_is_said_where"

SABOTAGES = [
    Sabotage(
        name="unknown_query_parameter_ignored",
        file="tickless/api/context.py",
        old="        if name not in known:\n",
        new="        if name not in known and not known:\n",
        tests=(NONSENSE,),
    ),
    Sabotage(
        name="false_taken_for_the_number_0",
        file="tickless/api/shape.py",
        old='extra="forbid", strict=True',
        new='extra="forbid"',
        tests=(NONSENSE,),
    ),
    Sabotage(
        name="number_taken_for_a_moment",
        file="tickless/api/shape.py",
        old="    if not isinstance(value, str) or value",
        new="    if isinstance(value, str) and value",
        tests=(NONSENSE,),
    ),
    Sabotage(
        name="parameter_left_unexplained",
        file="tickless/api/document.py",
        old='PARAMETERS.get(parameter["name"], "")',
        new='""',
        tests=(
            "tests/docs/test_api_reference.py::test_an_operation_says_what_it_does_to_whom_and_what_its_parameters_mean",
        ),
    ),
    Sabotage(
        name="removed_executor_forgotten_with_what_it_holds",
        file="tickless/daemon/scheduler.py",
        old="            if name not in self._executors and self._stand_in is not None:\n",
        new="            if name in self._executors and self._stand_in is not None:\n",
        tests=("tests/scenario/test_retired_executor.py",),
    ),
    Sabotage(
        name="progress_written_where_no_terminal_is",
        file="tickless/cli/progress.py",
        old="    return sys.stderr.isatty() and",
        new="    return",
        tests=("tests/integration/test_api_cli.py::test_no_terminal_no_progress",),
    ),
]
