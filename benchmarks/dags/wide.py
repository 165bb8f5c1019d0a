"""The DAG of the `map` benchmark: its instances are made, and wait for a pool without slots."""

from __future__ import annotations

from tickless import DAG, task


@task(pool="closed")
def never(number: int) -> None:
    """Nobody runs it."""


with DAG("map_100k"):
    never.expand(number=range(100_000))
