"""Sabotages of what DAG files mean, which random DAGs must bring to light."""

from __future__ import annotations

from tests.planted.runner import Sabotage

RANDOM = ("tests/scenario/test_random_dags.py::test_random_dags_end_as_the_oracle_says",)

SABOTAGES = [
    Sabotage(
        name="short_circuit_leaves_the_rest_to_trigger_rules",
        file="tickless/authoring/branch.py",
        old="                instance.skip_below = True\n",
        new="                instance.follow = ()\n",
        tests=RANDOM,
    ),
]
