"""Templates and params: commands, files and arguments that are filled in when the task runs.

    render ──▶ check ──▶ announce

What a run can be started with is said by `params`, each with a default and, if you like, a JSON schema. A conf that
does not fit starts no run; the answer says why:

    tickless run start templates
    tickless run start templates --conf '{"days": 30, "regions": ["north", "west"]}'
    tickless run start templates --conf '{"days": "many"}'

Templates are Jinja, with Airflow's names: ds, ts, run_id, params, ti, macros, var, conn … A string of a templated
argument that ends in .sql or .sh names a file, which is looked for beside the DAG file. Names that nobody defined
fail the task. A Bash task without any template is started without a Python in between.
"""

from tickless import DAG, BashOperator, Param, PythonOperator, task


def keep(templates_dict, ti):
    """Functions ask for what they need of the context by the names of their parameters."""
    statement = templates_dict["statement"]
    ti.xcom_push(key="lines", value=len(statement.splitlines()))
    print(statement)
    return statement


@task.bash
def announce(statement, ds):
    """A @task.bash function returns its command, which may be a template, too."""
    return f"echo '{len(statement)} characters of SQL for {ds}, by {{{{ task.task_id }}}}'"


with DAG(
    "templates",
    tags=["example"],
    description="Params, templates and template files",
    params={
        "table": "sales",
        "days": Param(7, type="integer", minimum=1, description="How many days back"),
        "regions": Param([], type="array", items={"type": "string"}),
    },
    user_defined_macros={"table": lambda name: f'shop."{name}"'},
    user_defined_filters={"quoted": lambda text: "'" + text.replace("'", "''") + "'"},
):
    render = PythonOperator(
        task_id="render",
        python_callable=keep,
        templates_dict={"statement": "sql/totals.sql"},
        templates_exts=[".sql"],
    )
    check = BashOperator(
        task_id="check",
        bash_command='grep -c {{ params.table }} <<< "$STATEMENT"; '
        "echo {{ ti.xcom_pull(task_ids='render', key='lines') }} lines",
        env={"STATEMENT": render.output},
        append_env=True,
    )
    check >> announce(render.output)
