"""The DAGs of the benchmarks. Each task notes the nanosecond of its start and of its end in $TICKLESS_BENCH_OUT."""

from __future__ import annotations

import os
import time

from tickless import DAG, BashOperator, chain, task


def note(start: int) -> None:
    """Append one line; a line this short is written whole."""
    name = f"{os.environ['TICKLESS_RUN_ID']} {os.environ['TICKLESS_TASK_ID']}"
    fd = os.open(os.path.join(os.path.dirname(__file__), "out.path"), os.O_RDONLY)
    path = os.read(fd, 4096).decode().strip()
    os.close(fd)
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(out, f"{name} {start} {time.time_ns()}\n".encode())
    os.close(out)


@task
def step() -> None:
    """A task that does nothing but say when."""
    note(time.time_ns())


@task
def nothing() -> None:
    """A task that does nothing at all."""


with DAG("chain_30"):
    chain(*[step.override(task_id=f"s{number:02}")() for number in range(30)])

for width in (200, 2000):
    with DAG(f"fan_{width}"):
        for number in range(width):
            nothing.override(task_id=f"t{number:04}")()

with DAG("one"):
    step()

with DAG("bash_chain_30"):
    chain(*[BashOperator(task_id=f"s{number:02}", bash_command=":") for number in range(30)])
