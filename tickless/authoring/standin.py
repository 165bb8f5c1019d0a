"""Values of the context that are asked for when somebody looks at them, because asking the daemon costs a round trip.

A task that names one (as a parameter, in a template, as `context["…"]`) is given the value itself. One that takes
all of them as `**context` gets stand-ins, as in Airflow: those behave like the value, but are never `None` themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from tickless.authoring.keys import ELSEWHERE


class Lazy:
    """Stands for what `read` returns; read once."""

    __slots__ = ("_read", "_value")

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read: Callable[[], Any] | None = read
        self._value: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(value_of(self), name)

    @property  # type: ignore[misc]  # so that isinstance() sees the value
    def __class__(self) -> type:
        return type(value_of(self))

    def __bool__(self) -> bool:
        return bool(value_of(self))

    def __str__(self) -> str:
        return str(value_of(self))

    def __repr__(self) -> str:
        return repr(value_of(self))

    def __format__(self, spec: str) -> str:
        return format(value_of(self), spec)

    def __hash__(self) -> int:
        return hash(value_of(self))


def _forward(name: str) -> Callable[[Lazy, Any], Any]:
    if name.startswith("r"):
        plain = getattr(operator, name[1:])
        return lambda self, other: plain(value_of(other), value_of(self))
    plain = getattr(operator, name)
    return lambda self, other: plain(value_of(self), value_of(other))


for _name in ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "radd", "rsub"):
    setattr(Lazy, f"__{_name}__", _forward(_name))


def value_of(thing: Any) -> Any:
    """The value itself, if it is a stand-in; else the thing."""
    if type(thing) is not Lazy:
        return thing
    read = thing._read
    if read is not None:
        thing._value = read()
        thing._read = None
    return thing._value


class Context(dict[str, Any]):
    """Airflow's context: a dict whose entries are read when they are looked at."""

    def __getitem__(self, name: str) -> Any:
        return value_of(super().__getitem__(name))

    def __missing__(self, name: str) -> Any:
        hint = ELSEWHERE.get(name)
        raise KeyError(f"{name} is not in the context" + (f": {hint}" if hint else ""))

    def get(self, name: str, default: Any = None) -> Any:
        return value_of(super().get(name, default))

    def arguments(self, names: Sequence[str], function: Callable[..., Any]) -> dict[str, Any]:
        """Entries to call a function with: the value of what it has a parameter for, stand-ins in its `**context`."""
        code = getattr(function, "__code__", None)
        own = () if code is None else code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return {name: self[name] if name in own else dict.get(self, name) for name in names}
