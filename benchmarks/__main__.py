"""`make bench`: the figures of the README, beside the limits of the machine measured in the same run.

    python -m benchmarks [--rounds N] [--json FILE] [chain fan trigger map idle]

Every figure is the median of the rounds. Nothing here is a test: it prints, it does not judge.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import machine
from benchmarks.house import House, cpu_seconds, pss_mib, voluntary_switches

CONFIG = """
[limits]
parallelism = 16
dag_concurrency = 16
max_map_length = 100000
[executors.local]
slots = 16
"""
IDLE_SECONDS = 60


def chain(house: House, rounds: int, dsn: str) -> dict[str, float]:
    """Median time from the end of one task's code to the start of the next one's, in milliseconds, and its parts."""
    hops: list[float] = []
    parts: list[tuple[float, ...]] = []
    for _ in range(rounds):
        run, noted = _chain(house)
        hops.extend(_hops(noted))
        parts.extend(_parts(noted, asyncio.run(_attempts(dsn, run))))
    hops.sort()
    split = [statistics.median(column) for column in zip(*parts, strict=True)]
    return {
        "hop_ms_median": statistics.median(hops),
        "hop_ms_p95": hops[int(len(hops) * 0.95)],
        "  code end to recorded end": split[0],
        "  to the next one's decision": split[1],
        "  to its start record": split[2],
        "  to the start of its code": split[3],
    }


def _chain(house: House) -> tuple[int, list[tuple[str, str, int, int]]]:
    """One chain of 30: its run, and what its tasks noted."""
    seen = len(house.noted())
    run = house.start_run("chain_30")
    house.wait(run)
    return run, sorted(house.noted()[seen:], key=lambda line: line[1])


def _hops(noted: list[tuple[str, str, int, int]]) -> list[float]:
    return [(after[2] - before[3]) / 1e6 for before, after in itertools.pairwise(noted)]


def expand(house: House, rounds: int, dsn: str) -> dict[str, float]:
    """The hop of a chain alone, and while 100,000 instances of a mapped task of another DAG are made; milliseconds."""

    async def made() -> tuple[int, float]:
        connection = await asyncpg.connect(dsn)
        try:
            row = await connection.fetchrow(
                "select coalesce(max(expanded_upto), 0), extract(epoch from now())::float8 from tickless.task_map"
            )
            assert row is not None
            return int(row[0]), float(row[1])
        finally:
            await connection.close()

    house.command("pool", "set", "closed", "0")
    alone = sorted(hop for _ in range(rounds) for hop in _hops(_chain(house)[1]))
    house.start_run("map_100k")
    _, began = asyncio.run(made())
    beside: list[float] = []
    count, now = 0, began
    while count < 100_000:
        _, noted = _chain(house)
        count, now = asyncio.run(made())
        if count < 100_000 or not beside:  # a chain that outlives the expansion was partly alone
            beside.extend(_hops(noted))
    beside.sort()
    return {
        "hop_ms_median alone": statistics.median(alone),
        "hop_ms_p99 alone": alone[int(len(alone) * 0.99)],
        "hop_ms_median beside": statistics.median(beside),
        "hop_ms_p99 beside": beside[int(len(beside) * 0.99)],
        "hops beside": len(beside),
        "seconds until all are made": now - began,
    }


async def _attempts(dsn: str, run: int) -> dict[str, tuple[float, float, float]]:
    """By task: when its attempt was decided, its start recorded, its end recorded; in milliseconds."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "select task_id, queued_at, started_at, ended_at from tickless.task_attempt where dag_run_key = $1", run
        )
    finally:
        await connection.close()
    return {row[0]: (row[1].timestamp() * 1e3, row[2].timestamp() * 1e3, row[3].timestamp() * 1e3) for row in rows}


def _parts(
    noted: list[tuple[str, str, int, int]], attempts: dict[str, tuple[float, float, float]]
) -> Iterator[tuple[float, ...]]:
    for before, after in itertools.pairwise(noted):
        queued, started, _ = attempts[after[1]]
        ended = attempts[before[1]][2]
        moments = (before[3] / 1e6, ended, queued, started, after[2] / 1e6)
        yield tuple(later - sooner for sooner, later in itertools.pairwise(moments))


def fan(house: House, rounds: int, width: int) -> dict[str, float]:
    """Tasks per second from the run's start to its end, as committed."""
    rates = []
    for _ in range(rounds):
        run = house.start_run(f"fan_{width}")
        house.wait(run)
        row = house.get(f"/api/v1/runs/{run}")
        seconds = _instant(row["ended_at"]) - _instant(row["queued_at"])
        rates.append(width / seconds)
    return {"tasks_per_second": statistics.median(rates)}


def trigger(house: House, rounds: int) -> dict[str, float]:
    """From the API call to the first line of the task's code, in milliseconds."""
    took = []
    for _ in range(max(20, rounds)):
        seen = len(house.noted())
        began = time.time_ns()
        run = house.start_run("one")
        house.wait(run)
        took.append((house.noted()[seen][2] - began) / 1e6)
    return {"first_line_ms_median": statistics.median(took)}


def idle(house: House, dsn: str) -> dict[str, float]:
    """What a minute of nothing to do costs."""

    async def transactions() -> int:
        connection = await asyncpg.connect(dsn)
        try:
            count = await connection.fetchval(
                "select sum(xact_commit + xact_rollback) from pg_stat_database where datname = current_database()"
            )
            return int(count)
        finally:
            await connection.close()

    time.sleep(15)  # what the last benchmark left to do; Postgres counts transactions up to ten seconds late
    pids = house.processes()
    before_transactions = asyncio.run(transactions())
    cpu = sum(map(cpu_seconds, pids))
    daemon_switches = voluntary_switches(house.daemon_pid)
    time.sleep(IDLE_SECONDS)
    result = {
        "cpu_seconds": sum(map(cpu_seconds, pids)) - cpu,
        "daemon_voluntary_switches": voluntary_switches(house.daemon_pid) - daemon_switches,
        "pss_mib": sum(map(pss_mib, house.processes())),
        "processes": len(pids),
    }
    time.sleep(1.5)  # Postgres publishes its statistics at most once a second
    result["postgres_transactions"] = asyncio.run(transactions()) - before_transactions
    return result


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="*", help="chain bash trigger fan map idle (all of them when none is named)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    wanted = set(options.what) or {"chain", "bash", "trigger", "fan", "map", "idle"}
    results: dict[str, Any] = {}
    with House(CONFIG) as house:
        dsn = house.command("db", "url").strip()
        results["machine"] = limits = asdict(asyncio.run(machine.measure(dsn)))
        _print("machine: medians in ms", limits)
        house.wait(house.start_run("one"))  # zygotes are warm from here on, as they are after the first run of a day
        if "chain" in wanted:
            results["chain of 30"] = found = chain(house, options.rounds, dsn)
            found["times_commit_plus_fork"] = found["hop_ms_median"] / (limits["commit"] + limits["fork"])
            _print("chain of 30 Python tasks, end of one to start of the next", found)
        if "bash" in wanted:
            house_row = house.start_run("bash_chain_30")
            house.wait(house_row)
            row = house.get(f"/api/v1/runs/{house_row}")
            results["bash chain of 30"] = found = {
                "ms_per_task": (_instant(row["ended_at"]) - _instant(row["queued_at"])) / 30 * 1e3
            }
            _print("chain of 30 Bash tasks", found)
        if "trigger" in wanted:
            results["trigger"] = found = trigger(house, options.rounds)
            _print("API call to the first line of the task", found)
        if "fan" in wanted:
            for width, rounds in ((200, options.rounds), (2000, max(1, options.rounds // 2))):
                results[f"fan of {width}"] = found = fan(house, rounds, width)
                _print(f"fan of {width} Python tasks, parallelism 16", found)
        if "map" in wanted:
            results["map"] = found = expand(house, options.rounds, dsn)
            _print("chain of 30 while a task of another DAG expands to 100,000 instances", found)
        if "idle" in wanted:
            results["idle"] = found = idle(house, dsn)
            _print(f"idle for {IDLE_SECONDS} s: daemon, launcher and zygotes", found)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def _print(title: str, figures: dict[str, float]) -> None:
    sys.stdout.write(f"{title}\n")
    for name, value in figures.items():
        sys.stdout.write(f"    {name:<28} {value:10.3f}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
