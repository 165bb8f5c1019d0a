"""Limits: how many tasks may run at once, and which of them first.

    eight instances of `fetch`, at most two at once; `urgent` goes before them all; `wide` takes two places at once

Each limit is a semaphore. While the DAG runs, `tickless why limits/RUN_ID` says what holds which task back.

    tickless run start limits
    tickless pool list
"""

import time

from tickless import dag, task


@task(max_active_tis_per_dag=2, weight_rule="absolute")
def fetch(number):
    time.sleep(0.2)
    return number


@task(priority_weight=100, weight_rule="absolute")
def urgent():
    return "first of all"


@task(pool="default_pool", pool_slots=2, trigger_rule="all_done")
def wide(numbers):
    return sum(numbers)


@dag(tags=["example"], description="Pools, priorities, limits of tasks", max_active_tasks=3, max_active_runs=1)
def limits():
    urgent()
    wide(fetch.expand(number=range(8)))


limits()
