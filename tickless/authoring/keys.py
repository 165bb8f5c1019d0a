"""What a running task finds: the keys of its context and the attributes of its `ti`, each with its meaning.

The page docs/reference/template-keys.md is made from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping

CONTEXT: Mapping[str, str] = {
    "conf": "the conf of the run: a dict (Airflow's own `conf`, its configuration, is not there)",
    "conn": "connections: `{{ conn.warehouse.host }}`, `{{ conn.get('warehouse') }}`",
    "dag": "the DAG, with `dag_id`, `tags`, `schedule`, `start_date`, `params`, `task_ids`, `task_dict` …",
    "dag_run": "the run, with `run_id`, `run_type`, `conf`, `state`, `logical_date`, `start_date`, `queued_at`, "
    "`run_after`, `data_interval_start`, `data_interval_end`",
    "data_interval_end": "the end of the time that the run is about",
    "data_interval_start": "its beginning",
    "ds": "the logical date as `2026-11-22`",
    "ds_nodash": "`20261122`",
    "inlets": "always empty: this release has no assets",
    "logical_date": "the instant that the run is for; without one, when it was asked for",
    "macros": "see below",
    "outlets": "always empty",
    "params": "the params of the DAG, over them those of the task, over them the run's conf",
    "prev_data_interval_end_success": "the end of the data interval of the latest successful run before this one; None "
    "without one",
    "prev_data_interval_start_success": "its beginning",
    "prev_end_date_success": "when that run ended",
    "prev_start_date_success": "when that run started",
    "run_id": "the name of the run within its DAG",
    "task": "the task, with its arguments: `task_id`, `retries`, `queue`, `pool`, `trigger_rule` …, "
    "`upstream_task_ids`, `downstream_task_ids`",
    "task_instance": "the same as `ti`",
    "task_instance_key_str": "`dag__task__20261122`",
    "templates_dict": "the rendered `templates_dict` of a PythonOperator",
    "test_mode": "False",
    "ti": "the task instance; see below",
    "try_number": "1, then one more for each retry",
    "ts": "the logical date as `2026-11-22T13:14:15+00:00`",
    "ts_nodash": "`20261122T131415`",
    "ts_nodash_with_tz": "`20261122T131415+0000`",
    "var": "variables: `{{ var.value.bucket }}`, `{{ var.json.settings.retries }}`, `{{ var.value.get('a', 'b') }}`",
}

TASK_INSTANCE: Mapping[str, str] = {
    "dag": "its DAG",
    "dag_id": "",
    "dag_run": "its run",
    "end_date": "None: it runs",
    "get_previous_dagrun": "`(state=None)`: the run before by logical date, in that state; None without one",
    "get_template_context": "the context",
    "hostname": "of the host on which it runs",
    "key": "a tuple: `dag_id`, `task_id`, `run_id`, `try_number`, `map_index`",
    "log": "a logger whose lines go to the log of the task, as those of any logger do",
    "map_index": "of a mapped task; else -1",
    "max_tries": "how many tries may follow the first: `retries`",
    "operator": "as it is written in the DAG file: `BashOperator`, `@task`",
    "pool": "",
    "priority_weight": "its own",
    "queue": "",
    "run_id": "",
    "start_date": "when this try began",
    "state": "running",
    "task": "its task",
    "task_id": "",
    "try_number": "",
    "xcom_pull": "`(task_ids, key, default, map_indexes, dag_id, run_id)`: what tasks have handed on",
    "xcom_push": "`(key, value)`: hand on a value",
}

ELSEWHERE: Mapping[str, str] = {
    "execution_date": "it is logical_date now",
    "next_execution_date": "it is data_interval_end now",
    "prev_execution_date": "it is data_interval_start now",
    "prev_execution_date_success": "use prev_data_interval_start_success",
    "next_ds": "use data_interval_end | ds",
    "next_ds_nodash": "use data_interval_end | ds_nodash",
    "prev_ds": "use data_interval_start | ds",
    "prev_ds_nodash": "use data_interval_start | ds_nodash",
    "yesterday_ds": "use macros.ds_add(ds, -1)",
    "yesterday_ds_nodash": "use macros.ds_add(ds, -1) | replace('-', '')",
    "tomorrow_ds": "use macros.ds_add(ds, 1)",
    "tomorrow_ds_nodash": "use macros.ds_add(ds, 1) | replace('-', '')",
    "inlet_events": "this release has no assets",
    "outlet_events": "this release has no assets",
    "triggering_asset_events": "this release has no assets",
    "partition_key": "this release has no assets",
    "exception": "this release has no callbacks",
    "reason": "this release has no callbacks",
    "task_reschedule_count": "this release has no sensors that are rescheduled",
    "map_index_template": "use ti.map_index",
    "expanded_ti_count": "use ti.map_index",
}
"""Keys of Airflow's context, of this time and of old, that are not in ours, and the way out."""
