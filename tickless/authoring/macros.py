"""`macros` in templates, and the filters of the same names: Airflow's, as far as the standard library goes."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from typing import Any

__all__ = [
    "datetime", "ds", "ds_add", "ds_format", "ds_nodash", "json", "time", "timedelta", "ts", "ts_nodash",
    "ts_nodash_with_tz",
]  # fmt: skip


def ds(at: datetime) -> str:
    """2026-11-22"""
    return at.strftime("%Y-%m-%d")


def ds_nodash(at: datetime) -> str:
    """20261122"""
    return at.strftime("%Y%m%d")


def ts(at: datetime) -> str:
    """2026-11-22T13:14:15+00:00"""
    return at.isoformat()


def ts_nodash(at: datetime) -> str:
    """20261122T131415"""
    return at.strftime("%Y%m%dT%H%M%S")


def ts_nodash_with_tz(at: datetime) -> str:
    """20261122T131415+0000"""
    return ts(at.replace(microsecond=0)).replace("-", "").replace(":", "")


def ds_add(day: str, days: int) -> str:
    """The day as YYYY-MM-DD, some days later; `days` may be negative."""
    return ds(datetime.strptime(day, "%Y-%m-%d") + timedelta(days)) if days else day  # noqa: DTZ007 - a day, no instant


def ds_format(day: str, input_format: str, output_format: str) -> str:
    """A day from one format of strptime to another."""
    return datetime.strptime(str(day), input_format).strftime(output_format)  # noqa: DTZ007 - a day, no instant


def __getattr__(name: str) -> Any:
    """What few templates name is loaded when one does: `random()`, `uuid`, and `dateutil` and `yaml` if installed."""
    if name == "random":
        import random

        return random.random
    if name in {"uuid", "dateutil", "yaml"}:
        from importlib import import_module

        if name == "dateutil":
            import_module("dateutil.relativedelta"), import_module("dateutil.parser")
        return import_module(name)
    raise AttributeError(f"macros has no {name!r}")
