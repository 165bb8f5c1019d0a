"""Sabotages of what DAG files mean, which random DAGs must bring to light."""

from __future__ import annotations

from tests.planted.runner import Sabotage

RANDOM = ("tests/scenario/test_random_dags.py::test_random_dags_end_as_the_oracle_says",)

SABOTAGES = [
    Sabotage(
        name="what_a_chosen_task_leads_to_is_skipped",
        file="tickless/authoring/branch.py",
        old="                todo += below.get(task_id, ())\n",
        new="",
        tests=RANDOM,
    ),
]
