"""Templated fields of operators: what is in them when the DAG is built, and what they become when the task runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tickless.authoring import arguments
from tickless.authoring.mapping import Element
from tickless.authoring.place import DagError
from tickless.authoring.relation import Relative
from tickless.authoring.xcom import XComArg

Render = Callable[[str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Templating:
    """How the templates of a DAG are looked up and rendered: its arguments of Airflow's names."""

    searchpath: tuple[str, ...] = ()
    """Relative ones count from the folder of the DAG file."""
    undefined: Any = None
    """A class of jinja2; None = StrictUndefined."""
    macros: Mapping[str, Any] = field(default_factory=dict)
    filters: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    is_native: bool = False

    @staticmethod
    def read(of: str, args: Mapping[str, Any]) -> Templating:
        """From the arguments of a DAG."""
        paths = args.get("template_searchpath") or ()
        paths = (paths,) if isinstance(paths, str) else paths
        if not isinstance(paths, Iterable):
            raise DagError(f"template_searchpath of {of} is {paths!r}, but must be a folder or a list of folders.")
        return Templating(
            searchpath=tuple(arguments.text(f"template_searchpath of {of}", path) for path in paths),
            undefined=args.get("template_undefined"),
            macros=_names(f"user_defined_macros of {of}", args.get("user_defined_macros")),
            filters=_names(f"user_defined_filters of {of}", args.get("user_defined_filters"), are_callable=True),
            environment=_names(f"jinja_environment_kwargs of {of}", args.get("jinja_environment_kwargs")),
            is_native=arguments.flag(
                f"render_template_as_native_obj of {of}", args.get("render_template_as_native_obj", False)
            ),
        )


def _names(what: str, value: object, *, are_callable: bool = False) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise DagError(f"{what} is {value!r}, but must be a dict with names as keys.")
    for name, item in value.items():
        if are_callable and not callable(item):
            raise DagError(f"{what} has {name!r}, which is {item!r} and cannot be called.")
    return value


def has_template(text: str, extensions: tuple[str, ...] = ()) -> bool:
    """Whether a string of a templated field is one, or names a file that is."""
    return "{{" in text or "{%" in text or is_template_file(text, extensions)


def is_template_file(text: str, extensions: tuple[str, ...]) -> bool:
    """`load.sql`: a file to be looked for. With a blank in it, or from the root, it is meant as a command."""
    return text.endswith(extensions) and not text.startswith("/") and not any(char.isspace() for char in text)


def find(value: Any, texts: list[str]) -> Iterator[XComArg]:
    """Every XComArg in the value: itself, or nested in lists, tuples and dicts. Strings are added to `texts`."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, Element):
        yield value
        yield from find(value.inner(), texts)
    elif isinstance(value, XComArg):
        yield value
    elif isinstance(value, Relative) or getattr(type(value), "is_task_factory", False):
        raise DagError(
            f"{value!r} is passed to a task as a value.",
            hint="Pass what it returns: `.output` of an operator, or the result of calling a @task function.",
        )
    elif type(value) in (list, tuple):
        for item in value:
            yield from find(item, texts)
    elif type(value) is dict:
        for item in value.values():
            yield from find(item, texts)


def resolve(value: Any, inputs: Mapping[Any, Any], render: Render | None = None) -> Any:
    """The value with every XComArg in it replaced by what its task has handed on, and its strings rendered.

    What a task has handed on is data: it is never rendered.
    """
    if isinstance(value, Element):
        return value.resolved(inputs, lambda each: resolve(each, inputs, render))
    if isinstance(value, XComArg):
        return value.value(inputs)
    if render is not None and isinstance(value, str):
        return render(value)
    if type(value) is list:
        return [resolve(item, inputs, render) for item in value]
    if type(value) is tuple:
        return tuple(resolve(item, inputs, render) for item in value)
    if type(value) is dict:
        return {key: resolve(item, inputs, render) for key, item in value.items()}
    return value
