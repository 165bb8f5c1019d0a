"""Asking the daemon while a task runs: a variable, a connection, and a run of another DAG.

    count ──┐
            ├──▶ hand_over ···▶ a run of told_by_another
    look ───┘

Try it twice, and between the two runs tell it where the warehouse is:

    tickless run start ask_the_daemon
    tickless connection add warehouse --conn-uri postgres://etl:secret@db.example:5432/sales
    tickless run start ask_the_daemon
"""

from tickless import BashOperator, Connection, Variable, dag, task, trigger_dag
from tickless.exceptions import AirflowNotFoundException


@task
def count():
    """A variable that each run of this task adds to; `tickless variable get ask_the_daemon_runs` prints it."""
    runs = int(Variable.get("ask_the_daemon_runs", default="0")) + 1
    Variable.set("ask_the_daemon_runs", str(runs), description="how often count has run")
    return runs


@task
def look():
    """A connection, by whoever has one; its password is never printed with it."""
    try:
        warehouse = Connection.get("warehouse")
    except AirflowNotFoundException:
        return "nowhere yet"
    return f"{warehouse.host}:{warehouse.port}/{warehouse.schema}"


@task
def hand_over(runs, place):
    """A run of another DAG: one, whatever becomes of the daemon meanwhile."""
    return trigger_dag("told_by_another", {"runs": runs, "place": place}).run_id


@dag(tags=["example"], description="Variables, connections, runs of other DAGs", max_active_runs=1)
def ask_the_daemon():
    hand_over(count(), look())


@dag(tags=["example"], description="What ask_the_daemon starts")
def told_by_another():
    BashOperator(task_id="tell", bash_command='echo "$TICKLESS_CONF"')


ask_the_daemon()
told_by_another()
