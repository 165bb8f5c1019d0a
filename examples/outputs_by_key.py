"""Handing on more than one value: multiple outputs, and pushing and pulling by key.

    measure ──┬──▶ warn
              └──▶ archive

A task that returns a dict (and says so, by its annotation or by multiple_outputs=True) hands on each item under its own
key; who takes `measured["hottest"]` is given that one only. `ti.xcom_push` hands on anything else, also by a task that
fails later. What is not passed as an argument can be pulled: then the task asks the daemon while it runs.

    tickless run start outputs_by_key
"""

from tickless import dag, get_current_context, task

READINGS = {"roof": 31.5, "cellar": 12.0, "yard": 24.25}


@task
def measure(ti) -> dict[str, object]:
    """Three values at once, and a note."""
    ti.xcom_push(key="note", value="taken by hand")
    hottest = max(READINGS, key=READINGS.get)
    return {"hottest": hottest, "degrees": READINGS[hottest], "all": READINGS}


@task
def warn(place, degrees):
    """Two of them, as arguments."""
    return f"{place}: {degrees:.1f} degrees"


@task
def archive(readings, note):
    """Arguments again, and one value that it pulls for itself."""
    ti = get_current_context()["ti"]
    return {"count": len(readings), "note": note, "hottest": ti.xcom_pull(task_ids="measure", key="hottest")}


@dag(tags=["example"], description="Values by key")
def outputs_by_key():
    measured = measure()
    warn(measured["hottest"], measured["degrees"])
    archive(measured["all"], measured["note"])


outputs_by_key()
