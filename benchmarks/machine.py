"""The limits of the machine itself, measured in the same run: no scheduler can hop faster than these."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import asyncpg

_FORK_PROGRAM = """
import os, time
took = []
for _ in range(300):
    began = time.perf_counter_ns()
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    took.append(time.perf_counter_ns() - began)
print(sorted(took)[len(took) // 2])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLimits:
    """Medians, in milliseconds."""

    commit: float
    """One fsynced commit of one row, over a unix socket, by asyncpg."""
    fork: float
    """fork and wait of a bare Python process."""
    round_trip: float
    """One byte to another process and back over a unix socket."""


async def measure(dsn: str) -> MachineLimits:
    """Takes about a second; `dsn` is the very server that the daemon uses."""
    return MachineLimits(commit=await _commit(dsn), fork=_fork(), round_trip=_round_trip())


async def _commit(dsn: str) -> float:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("create table if not exists public.bench_commit (n int primary key, at bigint)")
        await connection.execute("insert into public.bench_commit values (1, 0) on conflict do nothing")
        statement = await connection.prepare("update public.bench_commit set at = $1 where n = 1")
        took = []
        for number in range(300):
            began = time.perf_counter_ns()
            await statement.fetch(number)
            took.append(time.perf_counter_ns() - began)
        await connection.execute("drop table public.bench_commit")
        return statistics.median(took) / 1e6
    finally:
        await connection.close()


def _fork() -> float:
    output = subprocess.run([sys.executable, "-S", "-c", _FORK_PROGRAM], check=True, capture_output=True, text=True)
    return int(output.stdout) / 1e6


def _round_trip() -> float:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        while byte := theirs.recv(1):
            theirs.send(byte)
        os._exit(0)
    theirs.close()
    took = []
    for _ in range(2000):
        began = time.perf_counter_ns()
        ours.send(b".")
        ours.recv(1)
        took.append(time.perf_counter_ns() - began)
    ours.close()
    os.waitpid(pid, 0)
    return statistics.median(took) / 1e6
