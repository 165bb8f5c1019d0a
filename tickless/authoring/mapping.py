"""Dynamic task mapping: `.partial()`, `.expand()`, `.expand_kwargs()`.

A mapped task is an ordinary operator whose arguments hold `Element`s: each stands for the one element of a source that
an instance gets. A source is a literal (a list or dict in the DAG file) or what another task will return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from tickless.authoring.place import DagError, caller
from tickless.authoring.relation import Relative
from tickless.authoring.xcom import XComArg
from tickless.exceptions import AirflowException
from tickless.model.dag import MappedOver

if TYPE_CHECKING:
    from tickless.authoring.dag import DAG
    from tickless.authoring.operators import Operator

Source = Sequence[Any] | XComArg


class Expansion:
    """What one task is mapped over: argument -> source, in the order in which they were written."""

    def __init__(self, what: str, given: Mapping[str, Any]) -> None:
        self.what = what
        self.sources: dict[str, Source] = {name: _source(what, name, value) for name, value in given.items()}

    def elements(self) -> dict[str, Any]:
        """Argument -> the element that an instance gets."""
        return {name: Element(self, name) for name in self.sources}

    def to_spec(self) -> tuple[MappedOver, ...]:
        return tuple(
            MappedOver(argument=name, task_id=source.operator.task_id)
            if isinstance(source, XComArg)
            else MappedOver(argument=name, length=len(source))
            for name, source in self.sources.items()
        )


class Element(XComArg):
    """One element of a source: a pair of key and value, if that is a dict."""

    def __init__(self, expansion: Expansion, name: str) -> None:
        self.expansion = expansion
        self.name = name
        self.source = expansion.sources[name]

    @property
    def literals(self) -> Sequence[Any]:
        """What it can be, as far as the DAG file says so."""
        return () if isinstance(self.source, XComArg) else self.source

    def heads(self) -> list[Operator]:
        return self.tails()

    def tails(self) -> list[Operator]:
        return [self.source.operator] if isinstance(self.source, XComArg) else []

    def reads(self) -> Iterator[tuple[str, str]]:
        """The order carries the one element, not what the source returned."""
        yield from ()

    def inner(self) -> list[Any]:
        """Values of the DAG file in it, in which there may be templates and results of tasks."""
        return list(self.literals)

    def resolved(self, inputs: Mapping[Any, Any], resolve: Callable[[Any], Any]) -> Any:
        """The value for this instance; `resolve` is for what comes from the DAG file."""
        if (None, self.name) not in inputs:
            raise AirflowException(f"{self.expansion.what} is mapped, but was not told which element it gets")
        value = inputs[None, self.name]
        if isinstance(self.source, XComArg):
            return value
        if value >= len(self.source):
            raise AirflowException(
                f"{self.expansion.what} has {len(self.source)} elements to map over, but had more when the DAG file "
                "was parsed: what it is mapped over must not change between imports"
            )
        return resolve(self.source[value])

    def __getitem__(self, key: Any) -> NoReturn:
        raise DagError(f"{self.expansion.what}: an element of what it is mapped over cannot be indexed here.")

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"<element of {self.name or 'expand_kwargs'}>"


class KeywordsElement(Element):
    """An element of `expand_kwargs` together with the arguments of `.partial()`: all keyword arguments."""

    def __init__(self, expansion: Expansion, base: Mapping[str, Any]) -> None:
        super().__init__(expansion, "")
        self.base = base

    @property
    def literals(self) -> Sequence[Any]:
        return [{**self.base, **each} for each in super().literals if isinstance(each, Mapping)]

    def inner(self) -> list[Any]:
        return [*super().literals, dict(self.base)]

    def resolved(self, inputs: Mapping[Any, Any], resolve: Callable[[Any], Any]) -> Any:
        value = _keywords(self.expansion.what, super().resolved(inputs, resolve), self.base)
        return {**resolve(dict(self.base)), **value}


class ItemElement(Element):
    """One argument in an element of `expand_kwargs` of an operator; None if it is not in it."""

    def __init__(self, expansion: Expansion, item: str, *, allowed: Sequence[str], base: Mapping[str, Any]) -> None:
        super().__init__(expansion, "")
        self.item = item
        self.allowed = allowed
        self.base = base

    @property
    def literals(self) -> Sequence[Any]:
        return [each[self.item] for each in super().literals if isinstance(each, Mapping) and self.item in each]

    def inner(self) -> list[Any]:
        return list(super().literals)

    def resolved(self, inputs: Mapping[Any, Any], resolve: Callable[[Any], Any]) -> Any:
        value = _keywords(self.expansion.what, super().resolved(inputs, resolve), self.base)
        if wrong := sorted(value.keys() - set(self.allowed)):
            raise AirflowException(
                f"{self.expansion.what}: an element of expand_kwargs has {', '.join(map(repr, wrong))}, which cannot "
                f"be mapped over; it can have {', '.join(self.allowed)}"
            )
        return value.get(self.item)


def _keywords(what: str, value: object, base: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise AirflowException(
            f"{what}: an element of expand_kwargs is {value!r:.200}, but must be a dict with names of arguments"
        )
    if both := sorted(base.keys() & value.keys()):
        raise AirflowException(f"{what}: {', '.join(both)} is given to .partial() and in an element of expand_kwargs")
    return value


class Partial:
    """A task whose `.expand()` is still to come."""

    is_task_factory = True
    way_out = "Add .expand(...)."

    def __init__(self, what: str, args: Mapping[str, Any], owner: DAG | None) -> None:
        """`owner` sees to it that it is expanded."""
        self.what = what
        self.args = args
        self.place = caller()
        self.is_expanded = False
        if owner is not None:
            owner.partials.append(self)

    def expansion(self, given: Mapping[str, Any]) -> Expansion:
        """Called by `.expand()` and `.expand_kwargs()`: of these arguments."""
        self.is_expanded = True
        if not given:
            raise DagError(
                f"{self.what}: .expand() is given nothing to map over.", hint="Give it a list: .expand(x=[1, 2, 3])."
            )
        if both := sorted(self.args.keys() & given.keys()):
            raise DagError(
                f"{self.what}: {', '.join(both)} is given to both .partial() and .expand().",
                hint="What is the same for every instance goes to .partial(), what differs to .expand().",
            )
        return Expansion(self.what, given)

    def check(self) -> None:
        """Refuse it when no `.expand()` has followed: no task has come of it."""
        if not self.is_expanded:
            raise DagError(
                f"{self.what} is given .partial(), but is never expanded, so it is no task.",
                place=self.place,
                hint="Add .expand(...), or call it instead.",
            )

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise DagError(f"{self.what} is given .partial() and then called.", hint="End with .expand(...).")

    def __repr__(self) -> str:
        return f"<{self.what}, not expanded>"


def _source(what: str, name: str, value: Any) -> Source:
    about = f"{what}: .expand({name}=...)" if name else f"{what}: .expand_kwargs(...)"
    if isinstance(value, Element) or (isinstance(value, XComArg) and value.path):
        raise DagError(
            f"{about} is given {value!r}, but a task can only be mapped over the whole of what another one returns.",
            hint="Let a task in between return the list.",
        )
    if isinstance(value, XComArg):
        return value
    if isinstance(value, Relative) or getattr(type(value), "is_task_factory", False):
        raise DagError(f"{about} is given {value!r}.", hint="Map over what it returns: .output, or call the function.")
    if isinstance(value, Mapping) and name:
        return list(value.items())
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        raise DagError(
            f"{about} is given {value!r:.80} ({type(value).__name__}), but must be given a list, "
            f"{'a dict, ' if name else ''}or what a task returns.",
            hint="Give arguments that are the same for every instance to .partial()." if name else None,
        )
    wrong = next((each for each in value if not isinstance(each, dict | XComArg)), None) if not name else None
    if wrong is not None:
        raise DagError(f"{about} is given {wrong!r:.80} in its list, but must be given dicts of arguments.")
    return list(value)
