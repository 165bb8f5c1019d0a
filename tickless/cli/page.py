"""Lists that come in pages."""

from __future__ import annotations

from typing import Any

from tickless.cli.client import Client

_PAGE = 1000


def every_page(
    client: Client, path: str, *, cursor: str = "after", most: int | None = None, **query: object
) -> list[Any]:
    """The items of all pages, at most `most`."""
    items: list[Any] = []
    at: str | None = None
    while True:
        left = _PAGE if most is None else min(_PAGE, most - len(items))
        page = client.get(path, **query, **{cursor: at}, limit=left)
        items += page["items"]
        at = page["next"]
        if at is None or (most is not None and len(items) >= most):
            return items
