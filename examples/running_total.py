"""A task that builds on the day before: it starts only when the same task of the previous run has succeeded.

    count ──▶ add_up        add_up of one day ──▶ add_up of the next

`depends_on_past` holds `add_up` back while the one of the previous day is not `success` or `skipped`, also while it
has failed: no day is left out of the total. `count` needs no other day and runs at once.

    psql "$(tickless db url)" -c "select tickless.trigger_dag('running_total', logical_date => '2026-11-01')"
    tickless why RUN add_up
    tickless task mark success RUN add_up

A run that `tickless run start` makes has no logical date, so it has no day before. The total is kept in
/tmp/tickless-examples-UID/running_total/total.txt.
"""

import os
import tempfile
from pathlib import Path

from tickless import dag, task


@dag(schedule="@daily", tags=["example"])
def running_total():
    @task
    def count(ds=None):
        return int(ds[-2:])  # of the day; something that takes its time elsewhere

    @task(depends_on_past=True)
    def add_up(number):
        folder = Path(tempfile.gettempdir()) / f"tickless-examples-{os.getuid()}" / os.environ["TICKLESS_DAG_ID"]
        folder.mkdir(parents=True, exist_ok=True)
        total = folder / "total.txt"
        so_far = int(total.read_text()) if total.exists() else 0
        total.write_text(f"{so_far + number}\n")
        return so_far + number

    add_up(count())


running_total()
