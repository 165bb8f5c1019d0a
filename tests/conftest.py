"""Fixtures for everybody."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.support.postgres", "tests.support.store"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Our drivers need asyncio."""
    return "asyncio"
