"""Choosing at run time: a short circuit, a branch whose ways are task groups, and a task that skips itself.

                          ┌─ full ──────────────────────┐
                          │  dump ──▶ compress          │
    is_wanted ──▶ choose ─┤                             ├──▶ verify ──▶ report
                          │  find_changes ──▶ dump      │
                          └─ incremental ───────────────┘

`is_wanted` is a short circuit: when it returns something false, everything below is skipped. `choose` is a branch: it
returns the id of a task or of a group, and what it does not follow is skipped. `verify` raises TaskSkipped when there
is nothing to verify. `report` has more than one way to be reached: none_failed.

    tickless run start branch_groups --conf '{"changed": 3}'      the branch `incremental`
    tickless run start branch_groups --conf '{"changed": 5000}'   the branch `full`
    tickless run start branch_groups                              nothing has changed: skipped at once
"""

from tickless import DAG, BashOperator, Label, TaskGroup, TaskSkipped, chain, task


@task.short_circuit
def is_wanted(params):
    """Go on only if something has changed."""
    return params["changed"] > 0


@task.branch
def choose(params):
    """From a thousand changes on, a full copy is cheaper."""
    return "full" if params["changed"] >= 1000 else "incremental"


@task(trigger_rule="none_failed_min_one_success")
def verify(params):
    """Small backups are not worth it."""
    if params["changed"] < 10:
        raise TaskSkipped(f"only {params['changed']} changes")
    return "verified"


with DAG("branch_groups", tags=["example"], description="A branch between two task groups", params={"changed": 0}):
    chosen = choose()
    is_wanted() >> chosen

    # A group puts its own id before those of its tasks: full.dump, incremental.dump …
    with TaskGroup("full", tooltip="Everything, compressed") as full:
        chain(
            BashOperator(task_id="dump", bash_command="seq {{ params.changed }} > dump; wc -l < dump"),
            BashOperator(task_id="compress", bash_command="echo compressed"),
        )
    with TaskGroup("incremental", tooltip="What has changed since the last time") as incremental:
        chain(
            BashOperator(task_id="find_changes", bash_command="echo {{ params.changed }}"),
            BashOperator(task_id="dump", bash_command="echo dumped"),
        )

    chosen >> Label("1,000 changes or more") >> full
    chosen >> Label("fewer") >> incremental
    verified = verify()
    [full, incremental] >> verified
    verified >> BashOperator(task_id="report", bash_command="echo done", trigger_rule="none_failed")
