"""What the instances of a mapped task have handed on, for a task below it: read from the daemon when it is used."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, overload

from tickless.authoring.daemon import daemon

_ABSENT: Any = object()


class LazyXComs(Sequence[Any]):
    """In the order of their map indexes; instances that handed on nothing are left out, as in Airflow.

    It is read page by page, once, as far as it is looked at; `len()` and negative indexes read all of it.
    """

    def __init__(self, task_id: str, key: str, path: tuple[Any, ...] = ()) -> None:
        self._task_id = task_id
        self._key = key
        self._path = path
        self._values: list[Any] = []
        self._after: int | None = -1
        """The last map index that was read; None = there is nothing more."""

    def __iter__(self) -> Iterator[Any]:
        index = 0
        while self._reaches(index):
            yield self._values[index]
            index += 1

    def __len__(self) -> int:
        while self._read():
            pass
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice) or index < 0:
            len(self)
        else:
            self._reaches(index)
        return self._values[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | tuple | LazyXComs):
            return NotImplemented
        return all(mine == theirs for mine, theirs in zip_longest(self, other, fillvalue=_ABSENT))

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return f"<values of the mapped task {self._task_id!r}>"

    def _reaches(self, index: int) -> bool:
        while len(self._values) <= index:
            if not self._read():
                return False
        return True

    def _read(self) -> bool:
        """The next page; whether there was one."""
        if self._after is None:
            return False
        page = daemon(f"the values of task {self._task_id!r}").xcoms(
            task_ids=[self._task_id], key=self._key, after=self._after
        )
        self._after = page[-1].map_index if page else None
        self._values += [functools.reduce(operator.getitem, self._path, each.value) for each in page]
        return bool(page)
