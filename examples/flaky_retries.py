"""Retries: a command that fails twice and then succeeds, as a service that is just starting would.

    fetch (fails, fails, succeeds) ──▶ report

A failed task with `retries` left goes to `up_for_retry` and is started again `retry_delay` seconds later (default:
300). The delay is one timer in the daemon, no slot is held meanwhile. The number of the try is in the environment as
$TICKLESS_TRY_NUMBER; this example counts for itself instead, in a file in a folder of this run, to show that the
tries are separate processes that only share what they write down.

    tickless run start flaky_retries
    tickless task list flaky_retries/RUN_ID
"""

import os
import tempfile
from pathlib import Path

from tickless import DAG, BashOperator, task

# The command goes to bash as it stands; everything about the run is in TICKLESS_ variables.
FETCH = """
folder="${TMPDIR:-/tmp}/tickless-examples-$(id -u)/$TICKLESS_DAG_ID/$TICKLESS_RUN_ID"
mkdir -p "$folder"
echo "try $TICKLESS_TRY_NUMBER" >> "$folder/tries"
tries=$(wc -l < "$folder/tries")
if [ "$tries" -lt 3 ]; then
    echo "the service is not up yet (attempt $tries)" >&2
    exit 1
fi
echo "the service answered at attempt $tries"
"""


@task
def report():
    """What the tries have left behind."""
    base = Path(tempfile.gettempdir()) / f"tickless-examples-{os.getuid()}"
    tries = base / os.environ["TICKLESS_DAG_ID"] / os.environ["TICKLESS_RUN_ID"] / "tries"
    return {"tries": tries.read_text().splitlines()}


with DAG("flaky_retries", tags=["example"], description="A command that succeeds at its third try"):
    fetch = BashOperator(task_id="fetch", bash_command=FETCH, retries=3, retry_delay=1)
    fetch >> report()
