"""Writes docs/reference/template-keys.md and arguments.md. After a change: python -m tickless.authoring.reference"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tickless.authoring import macros
from tickless.authoring.arguments import (
    ABSENT_DAG_ARGUMENTS,
    ABSENT_TASK_ARGUMENTS,
    IGNORED,
    TASK_FIELDS,
    TaskArguments,
)
from tickless.authoring.dag import DagArguments
from tickless.authoring.keys import CONTEXT, ELSEWHERE, TASK_INSTANCE
from tickless.model.dag import TaskSpec

_FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
_MADE = "Made from tickless/authoring/ by `python -m tickless.authoring.reference`; a test keeps it current."

DAG_DEFAULTS: Mapping[str, object] = {
    "description": None, "schedule": None, "start_date": None, "end_date": None, "catchup": False,
    "is_paused_upon_creation": "as configured", "max_consecutive_failed_dag_runs": "as configured", "tags": (),
    "max_active_tasks": "`dag_concurrency`", "max_active_runs": "`max_active_runs_per_dag`", "dagrun_timeout": None,
    "fail_fast": False, "default_args": {}, "doc_md": "the docstring of the `@dag` function", "params": {},
    "template_searchpath": None, "template_undefined": "`jinja2.StrictUndefined`", "user_defined_macros": {},
    "user_defined_filters": {}, "jinja_environment_kwargs": {}, "render_template_as_native_obj": False,
}  # fmt: skip
"""What a DAG has that does not say otherwise; text is shown as it is."""
TASK_DEFAULTS: Mapping[str, object] = {
    **{name: TaskSpec.__dataclass_fields__[field].default for name, field in TASK_FIELDS.items() if field not in
       ("weight_rule", "params", "multiple_outputs", "doc")},
    "weight_rule": "downstream",
    "params": {},
    "multiple_outputs": "False; of `@task` True if the function is annotated to return a dict",
    "doc_md": "None; of `@task` the docstring",
    "task_group": "the one whose `with` block it is in",
    "dag": "the one whose `with` block or function it is in",
}  # fmt: skip


def pages() -> dict[Path, str]:
    """Each page with its text."""
    return {
        _FOLDER / "template-keys.md": "\n".join(_keys()) + "\n",
        _FOLDER / "arguments.md": "\n".join(_arguments()) + "\n",
    }


def _keys() -> Iterator[str]:
    yield from ("# What a running task finds", "", _MADE, "")
    yield from (
        "The same names are there in templates (`{{ ds }}`), as parameters of functions (`def load(rows, ds)`), with",
        "`**context`, and in `get_current_context()`. Instants are `datetime` with a time zone, not pendulum.",
        "",
        "The `prev_…` keys are asked of the daemon when they are looked at, once. As in Airflow, `**context` holds",
        "stand-ins for them, which behave like the value but are not `None` themselves: take `is None` of a parameter",
        "or of `get_current_context()[…]`. The run before is that with the next lower logical date; a run without one",
        "counts from when it was asked for.",
        "",
        "| key | is |",
        "|---|---|",
    )
    yield from (f"| `{name}` | {meaning} |" for name, meaning in sorted(CONTEXT.items()))
    yield from ("", "## `ti`", "", "| attribute | is |", "|---|---|")
    yield from (f"| `{name}` | {meaning} |" for name, meaning in sorted(TASK_INSTANCE.items()))
    yield from ("", "## `macros`", "", "| name | is |", "|---|---|")
    for name in sorted(macros.__all__):
        function = getattr(macros, name)
        is_ours = inspect.isfunction(function)
        names = ", ".join(inspect.signature(function).parameters) if is_ours else ""
        about = inspect.getdoc(function) if is_ours else "the standard library's"
        yield f"| `{name}{f'({names})' if is_ours else ''}` | {about} |"
    yield from (
        "| `random()` | a number from 0 up to 1 |",
        "| `uuid` | the standard library's |",
        "| `dateutil`, `yaml` | if they are installed where the task runs |",
        "",
        "`ds`, `ds_nodash`, `ts`, `ts_nodash`, `ts_nodash_with_tz` are filters, too: `{{ data_interval_end | ds }}`.",
        "`macros.ds_format_locale` and `macros.datetime_diff_for_humans` are not there.",
        "",
        "## Not there",
        "",
        "Asked for, these fail with the way out in the message.",
        "",
        "| Airflow's key | way out |",
        "|---|---|",
    )
    yield from (f"| `{name}` | {_code(hint)} |" for name, hint in sorted(ELSEWHERE.items()))


def _code(hint: str) -> str:
    return re.sub(r"^use (.*)$", lambda found: f"use `{found[1]}`".replace("|", "\\|"), hint)


def _arguments() -> Iterator[str]:
    yield from ("# Arguments of DAGs and tasks", "", _MADE, "", "Names and defaults are Airflow 3's.", "")
    yield from ("## `DAG(...)`, `@dag(...)`", "", "| argument | default | |", "|---|---|---|")
    yield from _table(DagArguments, DAG_DEFAULTS)
    yield from ("", "## Every task, and `default_args`", "", "| argument | default | |", "|---|---|---|")
    yield from _table(TaskArguments, TASK_DEFAULTS)
    yield from (
        "",
        "Also as attributes, to read and to set: `t1.retries = 3`, `t1.doc_md = ...`, `dag.doc_md = ...`.",
        "",
        "## Not there",
        "",
        "Accepted when the value asks for nothing, refused by name otherwise: nothing is silently dropped.",
        "",
        f"- DAG: {_names(ABSENT_DAG_ARGUMENTS)}",
        f"- tasks: {_names(ABSENT_TASK_ARGUMENTS)}",
        "",
        f"Accepted without any effect, as they are labels: {_names(IGNORED)}. `email` is accepted where",
        "`email_on_failure` and `email_on_retry` are both False.",
    )


def _table(arguments: type[Any], defaults: Mapping[str, object]) -> Iterator[str]:
    about = _docs(inspect.getsource(arguments))
    for name in arguments.__annotations__:
        yield f"| `{name}` | {_show(name, defaults[name])} | {about.get(name, '')} |"


def _docs(source: str) -> dict[str, str]:
    """Name -> the string below it in the class's body."""
    found = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', source, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()).replace("|", "\\|") for name, text in found}


def _show(name: str, default: object) -> str:
    if isinstance(default, str):
        return default if " " in default or "`" in default else f"`{default}`"
    if isinstance(default, float) and name.endswith("delay"):
        return f"{default:g} s"
    return f"`{default!r}`" if default not in (0.0,) or isinstance(default, int) else "`0`"


def _names(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
