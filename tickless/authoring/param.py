"""Params: what a run of a DAG can be started with, with defaults and JSON schemas to check against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tickless.authoring.place import DagError
from tickless.model.dag import ParamSpec


class _NotGiven:
    def __repr__(self) -> str:
        return "NOTSET"


NOTSET = _NotGiven()


class Param:
    """`Param(5, type="integer", minimum=1, description="…")`. Without a default, each run must be given a value.

    Keyword arguments are those of JSON schema (type, enum, format, minimum, maxLength …), and what forms show (title,
    section, description_md, values_display, examples).
    """

    def __init__(
        self,
        default: Any = NOTSET,
        description: str | None = None,
        schema: Mapping[str, Any] | None = None,
        source: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.default = None if default is NOTSET else default
        self.is_required = default is NOTSET
        self.description = description
        self.schema: dict[str, Any] = {**(schema or {}), **kwargs}

    @property
    def value(self) -> Any:
        """The default."""
        return self.default

    def __repr__(self) -> str:
        return f"<Param {self.default!r}>"


def read_params(of: str, params: object) -> dict[str, Param]:
    """`params` of a DAG as written. Schemas and defaults are checked; jsonschema is only imported when there is one."""
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise DagError(f"params of {of} is {params!r}, but must be a dict of names and defaults.")
    found = {}
    for name, value in params.items():
        if not isinstance(name, str) or not name:
            raise DagError(f"params of {of} has the name {name!r}, but names must be strings.")
        param = value if isinstance(value, Param) else Param(value)
        what = f"param {name!r} of {of}"
        for part, content in (("default", param.default), ("schema", param.schema)):
            try:
                if json.loads(json.dumps(content, allow_nan=False)) != content:
                    raise ValueError("it does not come out of JSON as it went in")
            except (TypeError, ValueError) as error:
                raise DagError(f"the {part} of {what} is {content!r}, which is not JSON: {error}.") from None
        if param.schema:
            _check(what, param)
        found[name] = param
    return found


def _check(what: str, param: Param) -> None:
    from tickless.authoring.schema import schema_fault, value_fault

    if fault := schema_fault(param.schema):
        raise DagError(f"the schema of {what} is wrong: {fault}.")
    if not param.is_required and (fault := value_fault(param.schema, param.default)):
        raise DagError(
            f"the default of {what} does not fit its schema: {fault}.",
            hint='Leave the default out if every run must be given a value; type=["null", ...] allows None.',
        )


def to_spec(name: str, param: Param) -> ParamSpec:
    """A param as data."""
    return ParamSpec(
        name=name,
        default=param.default,
        is_required=param.is_required,
        description=param.description,
        schema=param.schema,
    )
