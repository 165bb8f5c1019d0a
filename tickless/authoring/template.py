"""Jinja templates in the fields of operators: checked when the DAG file is parsed, rendered when the task runs.

jinja2 is imported here, and this module only where a DAG has a template: neither a DAG file nor a zygote without one
pays for it. Templates run in Jinja's sandbox; names that nobody defined are errors, as in Airflow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.runtime
from jinja2 import nodes
from jinja2.meta import find_referenced_templates
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from tickless.authoring import macros
from tickless.authoring.keys import ELSEWHERE
from tickless.authoring.place import DagError, Place
from tickless.authoring.standin import value_of
from tickless.authoring.xcom import RETURN_KEY
from tickless.exceptions import AirflowException

if TYPE_CHECKING:
    from tickless.authoring.dag import DAG

FILTERS = ("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz")
_UNDEFINED = re.compile(r"'(\w+)' is undefined")
_RAW = "Text that is no template goes between {% raw %} and {% endraw %}."


class _Sandbox(SandboxedEnvironment):
    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As in Airflow: one underscore is allowed, two are not."""
        return not attr.startswith("__") and (attr.startswith("_") or super().is_safe_attribute(obj, attr, value))


class _NativeSandbox(_Sandbox, NativeEnvironment):
    """Templates give Python values instead of strings."""


class _Names(jinja2.runtime.Context):
    """Names in a template give values, never stand-ins."""

    def resolve_or_missing(self, key: str) -> Any:
        return value_of(super().resolve_or_missing(key))


class Templates:
    """The templates of one DAG."""

    def __init__(self, dag: DAG) -> None:
        settings = dag.templating
        kind = _NativeSandbox if settings.is_native else _Sandbox
        folder = os.path.dirname(dag.file) if dag.file else ""
        paths = [os.path.join(folder, path) for path in (*settings.searchpath, "")]
        self._environment = kind(
            **{
                "undefined": settings.undefined or jinja2.StrictUndefined,
                "loader": jinja2.FileSystemLoader(paths),
                "extensions": ["jinja2.ext.do"],
                "cache_size": 0,
                **settings.environment,
            }
        )
        self._environment.context_class = _Names
        self._environment.filters.update({name: getattr(macros, name) for name in FILTERS})
        self._environment.filters.update(settings.filters)
        self._environment.globals.update(settings.macros)
        self._dag_id = dag.dag_id
        self._checked: dict[str, tuple[tuple[str, str], ...]] = {}

    def check(self, what: str, text: str, *, is_file: bool, place: Place) -> tuple[tuple[str, str], ...]:
        """The (task id, key) pairs that the template pulls, as far as they are written out in it.

        Raises DagError for a template that cannot be read. What it includes is opened too, and so becomes part of
        what the DAG file depends on.
        """
        if (found := self._checked.get(text)) is not None:
            return found
        try:
            found = tuple(self._read(text, is_file=is_file))
        except jinja2.TemplateNotFound as error:
            raise DagError(
                f"{what} names the template {error.name!r}, which is not there.",
                place=place,
                hint="Templates are looked for beside the DAG file and in template_searchpath. A space at the end "
                "makes it a command.",
            ) from None
        except jinja2.TemplateSyntaxError as error:
            where = f"line {error.lineno} of " + (error.name or "it")
            raise DagError(
                f"{what} is not a template that Jinja can read: {error.message} ({where}).", place=place, hint=_RAW
            ) from None
        self._checked[text] = found
        return found

    def _read(self, text: str, *, is_file: bool) -> Iterator[tuple[str, str]]:
        todo, seen = [(text, is_file)], set()
        while todo:
            source, named = todo.pop()
            if named:
                if source in seen:
                    continue
                seen.add(source)
                assert self._environment.loader is not None
                content = self._environment.loader.get_source(self._environment, source)[0]
                tree = self._environment.parse(content, source)
            else:
                tree = self._environment.parse(source)
            for kind, known in ((nodes.Filter, self._environment.filters), (nodes.Test, self._environment.tests)):
                for node in tree.find_all(kind):
                    if node.name not in known:
                        raise jinja2.TemplateSyntaxError(
                            f"there is no {kind.__name__.lower()} {node.name!r}",
                            node.lineno,
                            source if named else None,
                        )
            yield from _pulls(tree)
            todo += [(name, True) for name in find_referenced_templates(tree) if name is not None]

    def render(self, what: str, text: str, context: Mapping[str, Any], *, is_file: bool) -> Any:
        """The rendered text; with render_template_as_native_obj the value that it is. Raises AirflowException."""
        try:
            if is_file:
                return self._environment.get_template(text).render(context)
            return self._environment.from_string(text).render(context)
        except AirflowException:
            raise
        except jinja2.UndefinedError as error:
            name = _UNDEFINED.match(error.message or "")
            hint = ELSEWHERE.get(name[1]) if name else None
            raise AirflowException(f"{what} cannot be rendered: {error.message}{f'; {hint}' if hint else ''}") from None
        except jinja2.TemplateError as error:
            raise AirflowException(f"{what} cannot be rendered: {type(error).__name__}: {error}") from None
        except Exception as error:
            raise AirflowException(f"{what} cannot be rendered: {type(error).__name__}: {error}") from error


def _pulls(tree: nodes.Template) -> Iterator[tuple[str, str]]:
    """Calls like `ti.xcom_pull(task_ids='a', key='b')` whose arguments are written out."""
    for call in tree.find_all(nodes.Call):
        node = call.node
        if not (isinstance(node, nodes.Getattr) and node.attr == "xcom_pull" and isinstance(node.node, nodes.Name)):
            continue
        try:
            given = {keyword.key: keyword.value.as_const() for keyword in call.kwargs}
            given |= dict(zip(("task_ids", "key"), (value.as_const() for value in call.args), strict=False))
        except nodes.Impossible:
            continue  # put together when it is rendered
        if set(given) <= {"task_ids", "key", "default"}:
            task_ids, key = given.get("task_ids"), given.get("key", RETURN_KEY)
            for task_id in [task_ids] if isinstance(task_ids, str) else task_ids or ():
                if isinstance(task_id, str) and isinstance(key, str):
                    yield task_id, key
