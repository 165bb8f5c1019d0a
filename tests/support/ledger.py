"""The ledger: what tasks did, in their own words, and the invariants that it must satisfy together with the database.

Every task appends one line when its code begins and one when it ends, with O_APPEND, so the order of the lines is the
order of what happened:

    S <attempt id> <dag_id>/<run_id>/<task_id> <pid> <seconds>      it runs
    X <same>                                                        it runs, and another attempt of the task is alive
    E <same>                                                        its code has ended

Whether another attempt is alive is not judged by what anybody believes: each task holds a flock on a file of its task
instance until its last process is dead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

PYTHON_HEAD = '''
import fcntl, os, time
from tickless import DAG, BashOperator, EmptyOperator, PythonOperator, TriggerRule, chain, dag, task

LEDGER, LOCKS, GO = {ledger!r}, {locks!r}, {go!r}

def note(kind):
    env = os.environ
    key = "/".join(env["TICKLESS_" + name] for name in ("DAG_ID", "RUN_ID", "TASK_ID"))
    if kind == "S":
        lock = os.open(LOCKS + "/" + key.replace("/", ","), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _write("X", key)
    _write(kind, key)

def _write(kind, key):
    line = f"{{kind}} {{os.environ['TICKLESS_ATTEMPT_ID']}} {{key}} {{os.getpid()}} {{time.time():.6f}}\\n"
    fd = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)

def wait_for_go():
    while not os.path.exists(GO):
        time.sleep(0.01)

BASH_HEAD = """
note() {{ printf '%s %s %s %s %s\\\\n' "$1" "$TICKLESS_ATTEMPT_ID" "$key" $$ "$EPOCHREALTIME" >> {ledger}; }}
key="$TICKLESS_DAG_ID/$TICKLESS_RUN_ID/$TICKLESS_TASK_ID"
exec 9>> {locks}/"${{key//\\\\//,}}" 8<> {fifo}
flock -n 9 || note X
nap() {{ read -rt "$1" -u 8; :; }}
wait_for_go() {{ while [ ! -e {go} ]; do nap 0.02; done; }}
note S
"""

def bash(task_id, command, **args):
    """A bash task that notes its start, and its end when the command is through."""
    return BashOperator(task_id=task_id, bash_command=BASH_HEAD + command + "\\nnote E\\n", **args)

def python(task_id, body=lambda *_: None, *inputs, **args):
    """The same in Python: `body` gets the outputs of `inputs`; what it returns is the output."""
    def call(*values):
        note("S")
        value = body(*values)
        note("E")
        return value
    operator = PythonOperator(task_id=task_id, python_callable=call, op_args=[i.output for i in inputs], **args)
    return operator
'''


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger."""

    index: int
    kind: str
    attempt_id: int
    key: str
    pid: int
    at: float
    """Seconds since the epoch, as the database has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What must become of a run of a DAG, whatever is killed meanwhile."""

    run_state: str
    tasks: Mapping[str, str]
    """task_id -> its final state."""
    edges: Collection[tuple[str, str]] = ()
    """(a, b): b may start only after an attempt of a has succeeded."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """task_id -> its return value, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The database at one moment."""

    runs: Sequence[Mapping[str, Any]]
    instances: Sequence[Mapping[str, Any]]
    attempts: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]] = ()
    pools: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of the house, as configured."""

    parallelism: int = 32
    dag_concurrency: int = 16
    max_active_tasks: Mapping[str, int] = field(default_factory=dict)
    """dag_id -> its own limit in place of `dag_concurrency`."""


@dataclass(slots=True)
class Findings:
    """Violations by kind; all must stay empty."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    over_limit: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        for kind in ("lost", "twice", "over_limit", "other"):
            for text in getattr(self, kind):
                yield f"{kind}: {text}"


class Ledger:
    """The file, and the folder of locks beside it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger"
        self.locks = folder / "locks"
        self.go = folder / "go"
        self.fifo = folder / "fifo"

    def head(self) -> str:
        """How a DAG file begins that wants to note its tasks."""
        return PYTHON_HEAD.format(ledger=str(self.path), locks=str(self.locks), go=str(self.go), fifo=str(self.fifo))

    def lines(self) -> list[Line]:
        """What was noted so far."""
        if not self.path.exists():
            return []
        found = []
        *whole, _ = self.path.read_text().split("\n")  # a reader may see the first half of a line that is being written
        for index, text in enumerate(whole):
            kind, attempt_id, key, pid, at = text.split(" ")
            found.append(Line(index, kind, int(attempt_id), key, int(pid), float(at)))
        return found

    def started(self) -> dict[int, Line]:
        """Start lines by attempt."""
        return {line.attempt_id: line for line in self.lines() if line.kind == "S"}

    def check(self, rows: Rows, plans: Mapping[str, Plan], limits: Limits) -> Findings:
        """Judge a house that has come to rest. `plans` are by dag_id."""
        found = Findings()
        lines = self.lines()
        _check_attempts(found, lines, rows)
        _check_rivals(found, lines, rows)
        _check_runs(found, lines, rows, plans)
        _check_limits(found, lines, rows, limits)
        return found


def _check_attempts(found: Findings, lines: Sequence[Line], rows: Rows) -> None:
    """I1 for each attempt by itself."""
    known = {row["attempt_id"]: row for row in rows.attempts}
    starts: dict[int, Line] = {}
    ended: set[int] = set()
    for line in lines:
        if line.kind == "X":
            found.twice.append(f"two attempts of {line.key} were alive when {line.attempt_id} began")
        elif line.kind == "E":
            ended.add(line.attempt_id)
        elif line.attempt_id in starts:
            found.twice.append(f"attempt {line.attempt_id} of {line.key} started twice")
        else:
            starts[line.attempt_id] = line
            if line.attempt_id not in known:
                found.other.append(f"attempt {line.attempt_id} of {line.key} ran and is in no row")
    for row in rows.attempts:
        attempt_id, name = row["attempt_id"], f"attempt {row['attempt_id']} of {row['task_id']}"
        if row["state"] == "success" and attempt_id not in ended:
            found.lost.append(f"{name} is a success in the database, and its code has not come to its end")
        if row["state"] in ("queued", "running"):
            found.lost.append(f"{name} is still {row['state']}")


def _check_rivals(found: Findings, lines: Sequence[Line], rows: Rows) -> None:
    """I1 for the attempts of one task instance: one after the other, and none after a success."""
    start_of = {line.attempt_id: line for line in lines if line.kind == "S"}
    of_instance: dict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows.attempts:
        of_instance[row["dag_run_key"], row["task_id"]].append(row)
    for (run, task_id), attempts in of_instance.items():
        name = f"task {task_id} of run {run}"
        attempts.sort(key=lambda row: int(row["attempt_id"]))
        successes = [row for row in attempts if row["state"] in ("success", "skipped")]
        if len(successes) > 1:
            found.twice.append(f"{name} has {len(successes)} accepted ends")
        if successes and successes[0] is not attempts[-1]:
            found.twice.append(f"{name} was run again after its success")
        ran = [(row, start_of[row["attempt_id"]]) for row in attempts if row["attempt_id"] in start_of]
        for (row, _), (_, later) in pairwise(ran):
            ended_at: datetime | None = row["ended_at"]
            if ended_at is None or ended_at.timestamp() > later.at:
                found.twice.append(
                    f"{name}: attempt {later.attempt_id} began at {later.at}, before the end of "
                    f"{row['attempt_id']} was recorded ({ended_at})"
                )


def _check_runs(found: Findings, lines: Sequence[Line], rows: Rows, plans: Mapping[str, Plan]) -> None:
    """Every run ends as planned, no task ran before its upstream (I2)."""
    states: dict[int, dict[str, str]] = defaultdict(dict)
    for row in rows.instances:
        states[row["dag_run_key"]][row["task_id"]] = row["state"]
    outputs = {(row["dag_run_key"], row["task_id"]): row["value"] for row in rows.outputs}
    accepted = {(row["dag_run_key"], row["task_id"]): row for row in rows.attempts if row["state"] == "success"}
    first: dict[str, Line] = {}
    end_of: dict[int, Line] = {}
    for line in lines:
        if line.kind == "S":
            first.setdefault(line.key, line)
        elif line.kind == "E":
            end_of[line.attempt_id] = line
    for run in rows.runs:
        plan = plans[run["dag_id"]]
        name = f"run {run['key']} of {run['dag_id']}"
        if run["state"] != plan.run_state:
            found.lost.append(f"{name} is {run['state']}, not {plan.run_state}")
        if states[run["key"]] != plan.tasks:
            wrong = {task: state for task, state in states[run["key"]].items() if plan.tasks.get(task) != state}
            missing = plan.tasks.keys() - states[run["key"]].keys()
            found.lost.append(f"{name}: {wrong} should be otherwise, {missing or 'nothing'} is missing")
        for task_id, value in plan.outputs.items():
            if outputs.get((run["key"], task_id)) != value:
                found.lost.append(f"{name}: the output of {task_id} is {outputs.get((run['key'], task_id))}")
        for before, after in plan.edges:
            began = first.get(f"{run['dag_id']}/{run['run_id']}/{after}")
            upstream = accepted.get((run["key"], before))
            end = end_of.get(upstream["attempt_id"]) if upstream is not None else None
            if began is not None and (end is None or end.index > began.index):
                found.other.append(f"{name}: {after} began before {before} had succeeded")


def _check_limits(found: Findings, lines: Sequence[Line], rows: Rows, limits: Limits) -> None:
    """I4, from what the tasks themselves say. One without an end line has lived until its recorded end."""
    of_attempt = {row["attempt_id"]: row for row in rows.attempts}
    dag_of = {row["key"]: row["dag_id"] for row in rows.runs}
    end_at = {line.attempt_id: line.at for line in lines if line.kind == "E"}
    changes: list[tuple[float, int, Mapping[str, Any]]] = []
    for line in lines:
        row = of_attempt.get(line.attempt_id)
        if line.kind != "S" or row is None:
            continue
        recorded: datetime | None = row["ended_at"]
        end = end_at.get(line.attempt_id) or (recorded.timestamp() if recorded is not None else float("inf"))
        changes += [(line.at, 1, row), (end, -1, row)]
    use: dict[tuple[str, object], int] = defaultdict(int)
    limit_of = {("parallelism", None): limits.parallelism}
    for at, step, row in sorted(changes, key=lambda change: change[:2]):  # an end before a start at the same moment
        run, pool = ("dag_concurrency", row["dag_run_key"]), ("pool", row["pool"])
        limit_of[run] = limits.max_active_tasks.get(dag_of.get(row["dag_run_key"], ""), limits.dag_concurrency)
        limit_of[pool] = rows.pools.get(row["pool"], 0)
        for key, weight in ((("parallelism", None), 1), (run, 1), (pool, row["pool_slots"])):
            use[key] += step * weight
            if step > 0 and use[key] > limit_of[key]:
                found.over_limit.append(f"{key[0]} {key[1] or ''}: {use[key]} of {limit_of[key]} at {at}")
