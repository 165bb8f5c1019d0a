"""The arguments that every task takes, and the checks that turn what was written into what a TaskSpec holds.

Airflow's names and defaults. An argument of Airflow that this release does not have is accepted when its value asks
for nothing (`run_as_user=None`), and refused by name otherwise: nothing that was asked for is silently dropped.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from tickless.authoring.param import Param
from tickless.authoring.place import DagError
from tickless.model.state import TriggerRule

if TYPE_CHECKING:
    from tickless.authoring.dag import DAG
    from tickless.authoring.group import TaskGroup

_OLD_RULES: Mapping[str, TriggerRule] = {
    "dummy": TriggerRule.ALWAYS,
    "none_failed_or_skipped": TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
}
WEIGHT_RULES = ("downstream", "upstream", "absolute")
_LONGEST_SECONDS = 10 * 365 * 86400.0
"""Longer delays are typing errors, and would not fit into the arithmetic of instants."""


class TaskArguments(TypedDict, total=False):
    """What `@task(...)`, `.override(...)`, every operator and `default_args` take."""

    retries: int
    """Further tries after a failure; default 0."""
    retry_delay: float | timedelta
    """Seconds or a timedelta; default 300 s."""
    retry_exponential_backoff: bool | float
    """What the delay is multiplied with after each further try, True = 2; a jitter of up to as much again is added."""
    max_retry_delay: float | timedelta | None
    """The longest that a growing delay may become; never more than a day."""
    execution_timeout: float | timedelta | None
    trigger_rule: TriggerRule | str
    """Airflow 2's names `dummy` and `none_failed_or_skipped` mean `always` and `none_failed_min_one_success`."""
    pool: str
    pool_slots: int
    max_active_tis_per_dag: int | None
    """Instances of this task at once, over all runs of the DAG; default: no limit."""
    max_active_tis_per_dagrun: int | None
    """Instances of this task at once in one run (of a mapped task); default: no limit."""
    depends_on_past: bool
    """Start only when the same task of the previous run was successful or skipped; default: False."""
    wait_for_downstream: bool
    """The same, and the tasks directly below it in the previous run too; implies depends_on_past."""
    ignore_first_depends_on_past: bool
    """Do not wait where the previous run has no such task; default: True."""
    priority_weight: int
    weight_rule: str
    """downstream (default: own weight + that of all tasks below) | upstream | absolute."""
    queue: str
    do_xcom_push: bool
    multiple_outputs: bool
    """The task returns a dict, and each of its items is also handed on by itself."""
    params: Mapping[str, Any] | None
    """Over those of the DAG."""
    doc_md: str | None
    task_group: TaskGroup | None
    """The group that the task belongs to; default: the one whose `with` block we are in."""
    dag: DAG
    """The DAG that the task belongs to; default: the one whose `with` block or `@dag` function we are in."""


def text(name: str, value: object) -> str:
    """A string that can cross JSON and be stored in Postgres."""
    if not isinstance(value, str):
        raise DagError(f"{name} is {_show(value)}, but must be a string")
    if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise DagError(f"{name} holds a character that cannot be stored (NUL or half of a surrogate pair)")
    return value


def optional_text(name: str, value: object) -> str | None:
    return None if value is None else text(name, value)


def document(name: str, value: object) -> str | None:
    """A text for people, without the indentation of the source code around it."""
    return None if value is None else inspect.cleandoc(text(name, value))


def whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DagError(f"{name} is {_show(value)}, but must be a whole number")
    return value


def optional_whole(name: str, value: object) -> int | None:
    return None if value is None else whole(name, value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise DagError(f"{name} is {_show(value)}, but must be True or False")
    return value


def seconds(name: str, value: object) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DagError(f"{name} is {_show(value)}, but must be a number of seconds or a timedelta")
    if abs(value) > _LONGEST_SECONDS:
        raise DagError(f"{name} is {value:g} s, more than ten years")
    return float(value)


def optional_seconds(name: str, value: object) -> float | None:
    return None if value is None else seconds(name, value)


def trigger_rule(name: str, value: object) -> TriggerRule:
    if isinstance(value, str):
        value = _OLD_RULES.get(value, value)
    return TriggerRule(one_of(name, value, [rule.value for rule in TriggerRule]))


def backoff(name: str, value: object) -> float:
    """A multiplier; True is 2, False and 0 mean that the delay does not grow."""
    if isinstance(value, bool):
        return 2.0 if value else 0.0
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise DagError(f"{name} is {_show(value)}, but must be True, False or a multiplier")
    return float(value)


def weight_rule(name: str, value: object) -> str:
    return one_of(name, value, WEIGHT_RULES)


def one_of(name: str, value: object, allowed: Collection[str]) -> str:
    """A word from a list; the error offers the nearest one."""
    if not isinstance(value, str) or value not in allowed:
        hint = _nearest(str(value), allowed) or f"Use one of: {', '.join(allowed)}."
        raise DagError(f"{name} is {_show(value)}, which does not exist.", hint=hint)
    return str(value)


def param_values(name: str, value: object) -> dict[str, Any]:
    """Params as a task may have them: names with values, or with a `Param` whose default counts."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise DagError(f"{name} is {_show(value)}, but must be a dict with strings as keys")
    return {key: item.value if isinstance(item, Param) else item for key, item in value.items()}


_CHECKS: Mapping[str, tuple[str, Callable[[str, object], Any]]] = {
    "retries": ("retries", whole),
    "retry_delay": ("retry_delay_seconds", seconds),
    "retry_exponential_backoff": ("retry_exponential_backoff", backoff),
    "max_retry_delay": ("max_retry_delay_seconds", optional_seconds),
    "execution_timeout": ("execution_timeout_seconds", optional_seconds),
    "trigger_rule": ("trigger_rule", trigger_rule),
    "pool": ("pool", text),
    "pool_slots": ("pool_slots", whole),
    "max_active_tis_per_dag": ("max_active_tis_per_dag", optional_whole),
    "max_active_tis_per_dagrun": ("max_active_tis_per_dagrun", optional_whole),
    "depends_on_past": ("depends_on_past", flag),
    "wait_for_downstream": ("wait_for_downstream", flag),
    "ignore_first_depends_on_past": ("ignore_first_depends_on_past", flag),
    "priority_weight": ("priority_weight", whole),
    "weight_rule": ("weight_rule", weight_rule),
    "queue": ("queue", text),
    "do_xcom_push": ("do_xcom_push", flag),
    "multiple_outputs": ("multiple_outputs", flag),
    "params": ("params", param_values),
    "doc_md": ("doc", document),
}
"""Argument -> its field in the TaskSpec (weight_rule, multiple_outputs and params aside) and its check."""

TASK_FIELDS: Mapping[str, str] = {name: field for name, (field, _) in _CHECKS.items()}

ABSENT_TASK_ARGUMENTS: Mapping[str, object] = {
    "wait_for_past_depends_before_skipping": False,
    "retry_policy": None, "start_date": None, "end_date": None, "sla": None,
    "email": None, "email_on_failure": False, "email_on_retry": False, "run_as_user": None, "resources": None,
    "on_execute_callback": None, "on_failure_callback": None, "on_success_callback": None,
    "on_retry_callback": None, "on_skipped_callback": None, "pre_execute": None, "post_execute": None,
    "map_index_template": None,
    "executor": None, "executor_config": None, "inlets": None, "outlets": None,
    "output_processor": None, "show_return_value_in_logs": True,
    "allow_nested_operators": True, "render_template_as_native_obj": None,
}  # fmt: skip
ABSENT_DAG_ARGUMENTS: Mapping[str, object] = {
    "deadline": None,
    "owner_links": None, "access_control": None, "on_success_callback": None, "on_failure_callback": None,
    "auto_register": True,
    "sla_miss_callback": None,
}  # fmt: skip
"""Airflow's arguments that this release does not have, with the value that asks for nothing."""

IGNORED = frozenset(
    {"owner", "task_display_name", "dag_display_name", "doc", "doc_json", "doc_yaml", "doc_rst", "logger_name"}
)
"""Airflow's labels: they change nothing about what runs or when."""


def check_task_arguments(what: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Task arguments as written -> fields of a TaskSpec, plus `weight_rule`. `dag` is the caller's to take out."""
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name == "email" and not given.get("email_on_failure", True) and not given.get("email_on_retry", True):
            continue  # nobody is to be written to
        if name in _CHECKS:
            field, check = _CHECKS[name]
            fields[field] = check(f"{name} of {what}", value)
        else:
            refuse_unknown(what, name, value, _CHECKS, ABSENT_TASK_ARGUMENTS)
    return fields


def refuse_unknown(what: str, name: str, value: object, known: Collection[str], absent: Mapping[str, object]) -> None:
    """Raise for an argument that we do not have, unless it is one of Airflow's and asks for nothing."""
    if name in IGNORED:
        return
    if name in absent:
        if value is None or value == absent[name] or (not value and not absent[name]):
            return
        raise DagError(
            f"{what} is given {name}={value!r}, which this release of tickless does not support.",
            hint="Remove the argument, or wait for a later release.",
        )
    raise DagError(
        f"{what} has no argument {name!r}.",
        hint=_nearest(name, [*known]) or f"It takes: {', '.join(sorted(known))}.",
    )


def _nearest(word: str, allowed: Collection[str]) -> str | None:
    near = difflib.get_close_matches(word, allowed, n=1)
    return f"Did you mean {near[0]!r}?" if near else None


def _show(value: object) -> str:
    shown = repr(value)
    return f"{shown if len(shown) <= 80 else shown[:77] + '...'} ({type(value).__name__})"
