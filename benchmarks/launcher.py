"""What the launcher alone can do: latencies and throughput of attempts, without daemon and database.

    python -m benchmarks.launcher [--tasks N] [--slots 1,4,16] [python bash]

`started` is from the submit to the Started report in the client, `code` to the first line of the task's own code (its
clock is ours: CLOCK_MONOTONIC), `ended` to the Finished report; medians. `CPU` is per attempt.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tickless.executors.launcher_client import LauncherClient
from tickless.executors.local import LocalExecutor
from tickless.model.dag import TaskKind
from tickless.model.id import AttemptId, Epoch, make_attempt_id
from tickless.model.order import Order
from tickless.model.report import Finished, Report

DAG = """
import time
from tickless import dag, task

@dag(dag_id="bench")
def bench():
    @task
    def t():
        return time.monotonic()
    t()

bench()
"""


class Bench:
    """One launcher on a home of its own, and a client that counts."""

    def __init__(self, folder: Path, kind: TaskKind) -> None:
        self.kind = kind
        self.folder = folder
        (folder / "bundle").mkdir()
        (folder / "bundle" / "dag.py").write_text(DAG)
        self.client = LauncherClient(folder / "home")
        self.executor = LocalExecutor("local", self.client, slots=64)
        self._ended: list[Finished] = []
        self._is_started = False
        self._news = asyncio.Event()
        self._made = 0

    def order(self) -> Order:
        """The next attempt; of a task of its own, as in a wide run."""
        self._made += 1
        return Order(
            attempt_id=make_attempt_id(Epoch(1), self._made),
            executor="local",
            dag_id="bench",
            run_key=1,
            run_id="r",
            task_id="t",
            map_index=self._made,
            try_number=1,
            kind=self.kind,
            bundle=str(self.folder / "bundle"),
            file="dag.py",
            version="1",
            log_path=f"bench/r/t/{self._made}.log",
            kill_grace_seconds=5.0,
            max_output_bytes=1024,
            command=":" if self.kind is TaskKind.BASH else None,
            do_xcom_push=self.kind is TaskKind.PYTHON,
        )

    def sink(self, reports: Sequence[Report]) -> None:
        self._is_started = True
        self._ended += [report for report in reports if isinstance(report, Finished)]
        self._news.set()

    async def next_ends(self) -> list[Finished]:
        """At least one."""
        while not self._ended:
            self._news.clear()
            await self._news.wait()
        ends, self._ended = self._ended, []
        self.executor.ack([AttemptId(end.attempt_id) for end in ends])
        return ends

    async def burst(self, tasks: int, slots: int) -> float:
        """Attempts per second with so many at once."""
        orders = [self.order() for _ in range(tasks)]
        begin = time.perf_counter()
        sent = done = 0
        while done < tasks:
            room = min(slots - (sent - done), tasks - sent)
            self.executor.submit(orders[sent : sent + room])
            sent += room
            done += len(await self.next_ends())
        return tasks / (time.perf_counter() - begin)

    async def latencies(self, rounds: int) -> tuple[float, float, float]:
        """Medians in ms: to Started, to the task's code (0 for bash), to Finished."""
        started, code, ended = [], [], []
        for _ in range(rounds):
            self._is_started = False
            begin = time.monotonic()
            self.executor.submit([self.order()])
            while not self._is_started:
                self._news.clear()
                await self._news.wait()
            started.append(time.monotonic() - begin)
            (end,) = await self.next_ends()
            ended.append(time.monotonic() - begin)
            code.append(float(end.output) - begin if end.output else 0.0)
        return statistics.median(started) * 1e3, statistics.median(code) * 1e3, statistics.median(ended) * 1e3


async def measure(kind: TaskKind, tasks: int, slots: list[int]) -> None:
    """One kind on a fresh launcher; prints a line for each number of slots."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-P", "-m", "tickless.launcher", "--home", str(folder / "home")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)  # noqa: ASYNC220
        try:
            while not (folder / "home" / "launcher" / "launcher.sock").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            bench = Bench(folder, kind)
            await bench.executor.connect(Epoch(1), {}, bench.sink)
            await bench.burst(50, 4)
            started, code, ended = await bench.latencies(min(tasks, 200))
            print(f"{kind:7} one at a time   started {started:5.2f} ms   code {code:5.2f} ms   ended {ended:5.2f} ms")
            for count in slots:
                before, mine = cpu_of(process.pid), own_cpu()
                rate = await bench.burst(tasks, count)
                launcher = (cpu_of(process.pid) - before) / tasks * 1e6
                own = (own_cpu() - mine) / tasks * 1e6
                print(
                    f"{kind:7} {count:3} at once {rate:7.0f}/s   CPU launcher {launcher:4.0f} us   client {own:4.0f} us"
                )
            bench.executor.disconnect()
            await bench.client.shut_down(kill=True)
        finally:
            process.kill()
            process.wait()


def cpu_of(pid: int) -> float:
    """Seconds of CPU that the process itself has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    return time.process_time()


def main() -> None:
    """Parse the command line and measure."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tasks", type=int, default=1000)
    options.add_argument("--slots", default="1,4,16,32")
    options.add_argument("kinds", nargs="*", default=["python", "bash"])
    given = options.parse_args()
    for kind in given.kinds:
        asyncio.run(measure(TaskKind(kind), given.tasks, [int(count) for count in given.slots.split(",")]))


if __name__ == "__main__":
    main()
