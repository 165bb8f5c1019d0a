"""Looking back and waiting: what happened since the last run that succeeded, and a run of another DAG until it ends.

    since ──▶ load (a run of looked_for, waited for) ──▶ tell

The task `load` is told of the end of the other run in the moment in which that is committed. It asks nobody meanwhile.

    tickless run start look_back --wait
    tickless run start look_back --wait
"""

from tickless import BashOperator, TriggerDagRunOperator, dag, task


@task
def since(prev_start_date_success, logical_date):
    """A parameter with the name of a key of the context is filled; the daemon is asked for what lies in the past."""
    if prev_start_date_success is None:
        return "ever"
    return f"{(logical_date - prev_start_date_success).total_seconds():.0f} seconds ago"


@dag(tags=["example"], description="The run before, and waiting for a run")
def look_back():
    load = TriggerDagRunOperator(
        task_id="load", trigger_dag_id="looked_for", conf={"since": since()}, wait_for_completion=True
    )
    tell = BashOperator(
        task_id="tell",
        bash_command="echo run {{ ti.xcom_pull('load') }} has ended, {{ prev_end_date_success or 'the first' }}",
    )
    load >> tell


@dag(tags=["example"], description="What look_back waits for")
def looked_for():
    BashOperator(
        task_id="load", bash_command="echo loading what is new since: {{ params.since }}", params={"since": ""}
    )


look_back()
looked_for()
