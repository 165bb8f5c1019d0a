"""Fan-out: one task per file, all at once, and one task that puts their results together.

    measure_harbour ──┐
    measure_orchard ──┤
    measure_signal  ──┼──▶ combine
    measure_workshop ─┘

The DAG is made by ordinary Python: a loop over the files of a folder. Put another text into examples/data/texts, and
within a second the DAG has one task more. How many tasks run at once is limited for the whole installation
(`parallelism`), for one run (`max_active_tasks`, below) and by pools.

    tickless run start fan_out_files

The result is in /tmp/tickless-examples-UID/fan_out_files/RUN_ID/summary.json.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from tickless import dag, task

TEXTS = Path(__file__).parent / "data" / "texts"


@task
def measure(name):
    """Count the words of one file, and take its checksum."""
    content = (TEXTS / name).read_bytes()
    words = len(content.decode().split())
    print(f"{name}: {words} words")
    return {"file": name, "words": words, "sha256": hashlib.sha256(content).hexdigest()}


@task
def combine(measured):
    """Sum up. `measured` is a list of what the tasks before returned."""
    summary = {
        "files": len(measured),
        "words": sum(one["words"] for one in measured),
        "longest": max(measured, key=lambda one: one["words"])["file"],
        "checksums": {one["file"]: one["sha256"] for one in measured},
    }
    base = Path(tempfile.gettempdir()) / f"tickless-examples-{os.getuid()}"
    folder = base / os.environ["TICKLESS_DAG_ID"] / os.environ["TICKLESS_RUN_ID"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))
    return summary


@dag(tags=["example"], description="One task per text file, then a summary", max_active_tasks=4)
def fan_out_files():
    # .override() gives each call an id of its own; without it they would be measure, measure__1, measure__2 …
    combine([measure.override(task_id=f"measure_{path.stem}")(path.name) for path in sorted(TEXTS.glob("*.txt"))])


fan_out_files()
