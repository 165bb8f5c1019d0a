"""Variables, as user code sees them: an environment variable where the task runs comes before the database."""

from __future__ import annotations

import json
import os
from typing import Any

from tickless.authoring.daemon import daemon
from tickless.authoring.secret import hide_variable
from tickless.errors import NotFound, UserError

PREFIXES = ("TICKLESS_VAR_", "AIRFLOW_VAR_")
_ABSENT: Any = object()


class Variable:
    """Values that tasks share, by key:

    bucket = Variable.get("bucket", default="s3://test")
    Variable.set("seen", ["a", "b"], serialize_json=True)
    """

    @staticmethod
    def get(key: str, default: Any = _ABSENT, *, deserialize_json: bool = False, default_var: Any = _ABSENT) -> Any:
        """The value. Without one: the default, or KeyError. TICKLESS_VAR_KEY (or AIRFLOW_VAR_KEY) comes first."""
        text = from_environment(PREFIXES, key)
        if text is None:
            try:
                text = daemon(f"variable {key!r}").variable(key)
            except NotFound as error:
                if default is _ABSENT:
                    default = default_var  # its name in Airflow 2
                if default is _ABSENT:
                    raise KeyError(f"Variable {key} does not exist: {error.message}") from None
                return default
        hide_variable(key, text)
        if not deserialize_json:
            return text
        try:
            return json.loads(text)
        except ValueError as error:
            raise UserError(f"variable {key!r} is not JSON: {error}") from None

    @staticmethod
    def set(key: str, value: Any, description: str | None = None, *, serialize_json: bool = False) -> None:
        """Create it or change its value; returns when that is committed."""
        text = json.dumps(value) if serialize_json else value
        if not isinstance(text, str):
            text = str(text)
        hide_variable(key, text)
        daemon(f"variable {key!r}").set_variable(key, text, description)

    @staticmethod
    def delete(key: str) -> int:
        """How many there were: 1 or 0."""
        return int(daemon(f"variable {key!r}").delete_variable(key))


def from_environment(prefixes: tuple[str, ...], name: str) -> str | None:
    """What the environment says of a variable or a connection; the first prefix wins."""
    for prefix in prefixes:
        if (value := os.environ.get(prefix + name.upper())) is not None:
            return value
    return None
