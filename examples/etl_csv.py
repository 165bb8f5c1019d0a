"""ETL: read a CSV file, clean and sum it up, write a SQLite database and a JSON report.

Three tasks in a row. Each is a Python function under @task; calling one does not run it but adds it to the DAG, and
passing its result to the next one makes that wait for it. Results travel between tasks as JSON, each task runs in a
process of its own.

    extract ──▶ transform ──▶ load

Try it:

    tickless dev examples
    tickless run start etl_csv

The results are in /tmp/tickless-examples-UID/etl_csv/RUN_ID/: sales.db and report.json.
"""

import csv
import json
import os
import sqlite3
import tempfile
from collections import defaultdict
from pathlib import Path

from tickless import dag, task

# DAG files run from a snapshot of their folder, so files that lie beside them are found from __file__.
SALES = Path(__file__).parent / "data" / "sales.csv"


def output_folder() -> Path:
    """A folder for this run. Every task is told its run by the environment."""
    base = Path(tempfile.gettempdir()) / f"tickless-examples-{os.getuid()}"
    folder = base / os.environ["TICKLESS_DAG_ID"] / os.environ["TICKLESS_RUN_ID"]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@task
def extract():
    """Read the rows as they are."""
    with SALES.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    print(f"{len(rows)} rows in {SALES.name}")
    return rows


@task
def transform(rows):
    """Drop rows without a usable amount; sum up by region."""
    totals = defaultdict(lambda: {"orders": 0, "cents": 0})
    rejected = []
    for row in rows:
        try:
            cents = round(float(row["amount"]) * 100)
        except ValueError:
            rejected.append(row["order_id"])
            continue
        totals[row["region"]]["orders"] += 1
        totals[row["region"]]["cents"] += cents
    print(f"rejected: {rejected}")
    return {"regions": dict(sorted(totals.items())), "rejected": rejected}


@task(retries=2, retry_delay=5)
def load(summary):
    """Write everything. A second try begins afresh, so trying again does no harm."""
    folder = output_folder()
    database = folder / "sales.db"
    database.unlink(missing_ok=True)
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("CREATE TABLE sales (region TEXT PRIMARY KEY, orders INTEGER, cents INTEGER)")
        connection.executemany(
            "INSERT INTO sales VALUES (?, ?, ?)",
            [(region, total["orders"], total["cents"]) for region, total in summary["regions"].items()],
        )
    connection.close()
    report = folder / "report.json"
    report.write_text(json.dumps(summary, indent=2))
    print(f"wrote {database} and {report}")
    return str(report)


@dag(tags=["example"], description="CSV to SQLite and a JSON report")
def etl_csv():
    load(transform(extract()))


etl_csv()
