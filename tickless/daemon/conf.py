"""The conf of a run against the params of its DAG: checked where runs are asked for, before the engine decides.

What is refused here never becomes a run. A key of conf that is no param is fine, as in Airflow: tasks can read it.
"""

from __future__ import annotations

import json

from tickless.errors import UserError
from tickless.model.dag import DagSpec


def check_conf(spec: DagSpec, conf: str) -> None:
    """Raise UserError, with everything that does not fit, unless a run can be started with this conf (JSON)."""
    if not spec.params:
        return
    given = json.loads(conf)
    if not isinstance(given, dict):
        raise UserError(f"the conf of a run must be a JSON object, not {conf:.200}")
    faults = []
    for param in spec.params:
        if param.name in given:
            if param.schema:
                from tickless.authoring.schema import value_fault

                if fault := value_fault(param.schema, given[param.name]):
                    faults.append(f"{param.name}: {fault}")
        elif param.is_required:
            faults.append(f"{param.name}: it has no default, so a value must be given")
    if faults:
        raise UserError(
            f"DAG {spec.dag_id!r} cannot be started with this conf: {'; '.join(faults)}",
            hint="Its params are: " + ", ".join(param.name for param in spec.params) + ".",
        )
