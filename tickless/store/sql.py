"""The queries in queries/*.sql, by name. Read once, at import of whoever asks.

A file holds blocks; each begins with its name and the kind of its result, then a line of purpose and, with
parameters, a line that names them:

    -- name: run :one
    -- A run by its key.
    -- $1 key bigint
    select … where key = $1
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

_HEADER = re.compile(r"^-- name: (\w+) :(\w+)\n", re.MULTILINE)
_PARAMETER = re.compile(r"\$(\d+)")


class Kind(StrEnum):
    """What a query gives back."""

    ONE = "one"  # at most one row
    MANY = "many"
    EXEC = "exec"  # nothing that matters


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One named query, as it stands in its file."""

    name: str
    kind: Kind
    purpose: str
    text: str
    file: str

    @property
    def parameters(self) -> int:
        """How many parameters it takes."""
        return max((int(number) for number in _PARAMETER.findall(self.text)), default=0)


def query(name: str) -> str:
    """The text of a query. KeyError at import time of the caller, if there is none of that name."""
    return all_queries()[name].text


@cache
def all_queries() -> dict[str, Query]:
    """Every query by name."""
    found: dict[str, Query] = {}
    for entry in sorted((files("tickless.store") / "queries").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".sql"):
            for each in parse(entry.read_text(encoding="utf-8"), entry.name):
                if each.name in found:
                    raise ValueError(f"{each.file}: query {each.name} is in {found[each.name].file} already")
                found[each.name] = each
    return found


def parse(text: str, file: str) -> list[Query]:
    """The blocks of one file. ValueError for one without a purpose, or whose parameters are not named."""
    parts = _HEADER.split(text)
    queries = []
    for name, kind, block in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        lines = block.strip().splitlines()
        comments = []
        while lines and lines[0].startswith("--"):
            comments.append(lines.pop(0).removeprefix("--").strip())
        if not comments or comments[0].startswith("$"):
            raise ValueError(f"{file}: query {name} says no purpose")
        made = Query(
            name=name,
            kind=Kind(kind),
            purpose=comments[0],
            text="\n".join(lines).strip().rstrip(";"),
            file=file,
        )
        named = " ".join(comments[1:])
        for number in range(1, made.parameters + 1):
            if f"${number} " not in named:
                raise ValueError(f"{file}: query {name} does not name ${number}")
        queries.append(made)
    return queries
