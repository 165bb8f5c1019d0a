"""Every test begins and ends with an empty registry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tickless.authoring import registry


@pytest.fixture(autouse=True)
def _empty_registry() -> Iterator[None]:
    registry.reset()
    yield
    registry.reset()
