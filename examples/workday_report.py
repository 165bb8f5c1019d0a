"""A schedule: at 06:30 in Berlin from Monday to Friday, with the day before as its data interval.

    tickless dag next workday_report
    tickless dag pause workday_report
    tickless run start workday_report

Nothing is due when you start it, unless it happens to be 06:30. A run by hand has no slot: its interval is empty.
The report goes to /tmp/tickless-examples-UID/workday_report/RUN_ID/report.txt.
"""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from tickless import CronTriggerTimetable, dag, task


@dag(
    schedule=CronTriggerTimetable("30 6 * * MON-FRI", timezone="Europe/Berlin", interval=timedelta(days=1)),
    max_consecutive_failed_dag_runs=3,  # then it is paused, and somebody should look
)
def workday_report():
    @task
    def write(data_interval_start=None, data_interval_end=None):
        folder = Path(tempfile.gettempdir()) / f"tickless-examples-{os.getuid()}"
        folder = folder / os.environ["TICKLESS_DAG_ID"] / os.environ["TICKLESS_RUN_ID"]
        folder.mkdir(parents=True, exist_ok=True)
        report = folder / "report.txt"
        report.write_text(f"from {data_interval_start} to {data_interval_end}\n")
        return str(report)

    write()


workday_report()
