"""Structure: nested groups, one after the other, each after all, and arguments that go from the DAG to its tasks.

source.orders.{read, check}  ─┐                       ┌─▶ by_day ──┐
                              ├─▶ join (any failed:   ┤            ├──▶ publish
source.clients.{read, check} ─┘    nothing further)   └─▶ by_name ─┘

tickless dag graph structure
"""

from datetime import timedelta

from tickless import TaskFailed, TaskGroup, chain_linear, cross_downstream, dag, task


@task
def read(name):
    return {"orders": [3, 1, 2], "clients": ["Ada", "Bo"]}[name]


@task
def check(rows):
    """No further try can help: TaskFailed ends the task for good, whatever `retries` say."""
    if not rows:
        raise TaskFailed("there are no rows")
    return len(rows)


@task(retries=0)
def join(orders, clients):
    return {"orders": orders, "clients": clients}


@task.bash
def summary(by):
    """The function gives the command; the last line that it prints is the value that is handed on."""
    return f"echo sorted by {by}"


@task
def publish(ti):
    return ti.xcom_pull(["by_day", "by_name"])


@task
def tidy(what):
    print(f"tidying {what}")


@dag(
    tags=["example"],
    description="Groups, chains, default_args, override",
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1), "execution_timeout": timedelta(minutes=1)},
)
def structure():
    counts = {}
    with TaskGroup("source", tooltip="what comes in"):
        for name in ("orders", "clients"):
            with TaskGroup(name, default_args={"retries": 1}):
                counts[name] = check(read(name))
    joined = join(counts["orders"], counts["clients"])
    summaries = [summary.override(task_id=f"by_{by}")(by) for by in ("day", "name")]
    published = publish()
    chain_linear(joined, summaries, published)
    with TaskGroup("tidy_up"):
        tidied = [tidy.override(task_id=what)(what) for what in ("files", "tables")]
    cross_downstream([published], tidied)


structure()
