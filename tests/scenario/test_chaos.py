"""Random faults under a random load, from a seed: whatever happens in whatever order, the ledger must balance.

TICKLESS_CHAOS_SEED=7   that seed only, to see again what a failed test has named
TICKLESS_CHAOS=200      so many seeds (`make chaos` has 1, which means 40)
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.support.house import PATIENCE_SECONDS, House, eventually, is_alive, send_signal
from tests.support.ledger import Limits
from tests.support.workload import DAGS, PLANS, POOLS
from tickless.errors import Unavailable

CI_SEEDS = 4
FAULTS_PER_SEED = 9
_ASKED = int(os.environ.get("TICKLESS_CHAOS", "0"))
IS_LONG = _ASKED > 0

TOTALS: Counter[str] = Counter()


def seeds() -> list[int]:
    if seed := os.environ.get("TICKLESS_CHAOS_SEED"):
        return [int(seed)]
    return list(range(CI_SEEDS if not IS_LONG else 40 if _ASKED == 1 else _ASKED))


@pytest.fixture(scope="module", autouse=True)
def totals() -> Iterator[None]:
    """What was done, for whoever runs this with -s."""
    yield
    print("\nchaos:", ", ".join(f"{count} {name}" for name, count in sorted(TOTALS.items())))


class Chaos:
    """One house and the dice."""

    def __init__(self, seed: int, house: House) -> None:
        self.dice = random.Random(seed)
        self.house = house
        self.asked: list[tuple[str, str]] = []
        self.done: list[str] = []

    # ---- load -----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """A few runs; some are asked for by SQL, some answers are never heard."""
        for _ in range(self.dice.randint(1, 4)):
            dag_id = self.dice.choice(list(PLANS))
            if self.dice.random() < 0.2:
                self.ask_by_sql(dag_id)
            else:
                self.asked.append((dag_id, self.house.ask(dag_id)))

    def ask_by_sql(self, dag_id: str) -> None:
        key = secrets.token_hex(8)
        try:
            self.house.query("select tickless.trigger_dag($1, idempotency_key => $2)", dag_id, key)
        except Unavailable:
            return  # perhaps committed, perhaps not: both are right, and both are judged
        self.house.accepted[key] = 0

    def load_until(self, probe: Callable[[], bool], what: str) -> None:
        """More load, as long as it has not happened and the last one is through."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not probe():
            assert time.monotonic() < deadline, f"never came: {what}"
            self.load()
            until = time.monotonic() + 0.5
            while not probe() and time.monotonic() < until:
                time.sleep(0.01)

    def moment(self) -> None:
        """Let a random amount of work be done."""
        lines = len(self.house.ledger.lines()) + self.dice.randint(0, 12)
        until = time.monotonic() + 0.4
        while len(self.house.ledger.lines()) < lines and time.monotonic() < until:
            time.sleep(0.002)

    # ---- faults ---------------------------------------------------------------------------------------------------

    def daemon_killed(self) -> None:
        self.house.kill_daemon()

    def daemon_told_to_stop(self) -> None:
        code = self.house.terminate_daemon()
        assert code in (0, -signal.SIGTERM), code  # the signal itself: it had not begun to listen to any

    def daemon_killed_at_a_step(self) -> None:
        """Whichever step: it must be reached, so the load goes on until it is."""
        point = self.dice.choice(
            [
                "daemon.before_flush",
                "store.before_flush",
                "store.after_flush",
                "daemon.after_flush",
                "daemon.before_release",
                "daemon.before_ack",
                "store.before_epoch",
                "store.after_epoch",
            ]
        )
        nth = 1 if point.endswith("epoch") else self.dice.randint(1, 8)
        self.house.kill_daemon()
        points = self.house.arm(**{point.replace(".", "__"): f"kill@{nth}"})
        self.house.start(points, is_awaited=False)
        self.load_until(lambda: not self.house.is_up, f"death at {point}@{nth}")
        self.house.wait_killed()
        points.assert_all_fired()
        self.done[-1] += f":{point}@{nth}"

    def launcher_killed(self) -> None:
        self.house.kill_launcher()

    def killed_below_the_daemon_at_a_step(self) -> None:
        """In the launcher, in a zygote, or in a task."""
        point = self.dice.choice(
            [
                "launcher.before_accept",
                "launcher.before_fork",
                "launcher.at_gate",
                "launcher.before_outcome",
                "launcher.before_report",
                "zygote.before_fork",
                "runner.before_outcome",
                "runner.after_outcome",
            ]
        )
        nth = self.dice.randint(1, 6)
        self.house.kill_daemon()
        if self.house.launcher_pid() is not None:
            self.house.kill_launcher()
        points = self.house.arm(**{point.replace(".", "__"): f"kill@{nth}"})
        self.house.start(points)
        self.load_until(lambda: bool(points.fired()), f"death at {point}@{nth}")
        self.done[-1] += f":{point}@{nth}"

    def zygotes_killed(self) -> None:
        kinds = self.dice.choice([["base zygote"], ["zygote"], ["base zygote", "zygote"]])
        for pid in [pid for kind in kinds for pid in self.house.of_kind(kind)]:
            send_signal(pid, signal.SIGKILL)

    def tasks_killed(self) -> None:
        attempts = self.house.of_kind("attempt")
        for pid in self.dice.sample(attempts, min(len(attempts), self.dice.randint(1, 3))):
            try:
                if os.getpgid(pid) == pid:
                    os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def daemon_frozen(self) -> None:
        self.freeze([self.house.daemon.pid], 0.4)

    def launcher_frozen(self) -> None:
        pid = self.house.launcher_pid()
        self.freeze([pid] if pid else [], 0.4)

    def postgres_frozen(self) -> None:
        self.freeze(self.house.postgres_pids(), 30 if IS_LONG and self.dice.random() < 0.1 else 0.6)

    def freeze(self, pids: list[int], longest: float) -> None:
        until = time.monotonic() + self.dice.uniform(0.05, 1) * longest
        with self.house.frozen(pids):
            self.house.ledger.lines()
            while time.monotonic() < until:
                time.sleep(0.01)

    def postgres_killed(self) -> None:
        postmaster = self.house.postmaster_pid()
        others = self.house.postgres_pids() if self.dice.random() < 0.5 else []
        for pid in [postmaster, *others]:
            if pid is not None:
                send_signal(pid, signal.SIGKILL)

    def postgres_shut_down(self) -> None:
        if (postmaster := self.house.postmaster_pid()) is not None:
            send_signal(postmaster, signal.SIGINT)

    def backend_killed(self) -> None:
        self.with_backends("select pid from pg_stat_activity where application_name like 'tickless %'", kill=True)

    def backend_terminated(self) -> None:
        self.with_backends("select pid from pg_stat_activity where application_name like 'tickless %'", kill=False)

    def with_backends(self, statement: str, *, kill: bool) -> None:
        try:
            pids = sorted(row["pid"] for row in self.house.query(statement))
            if pids:
                pid = self.dice.choice(pids)
                if kill:
                    send_signal(pid, signal.SIGKILL)
                else:
                    self.house.query("select pg_terminate_backend($1)", pid)
        except Unavailable:
            pass  # an earlier fault has done more than that already

    def daemon_and_launcher_killed(self) -> None:
        launcher = self.house.launcher_pid()
        self.house.daemon.kill()
        if launcher is not None:
            send_signal(launcher, signal.SIGKILL)
            eventually(lambda: not is_alive(launcher))
        self.house.daemon.wait()

    def everything_killed(self) -> None:
        for process in self.house.processes():
            if process.kind in ("daemon", "launcher", "base zygote", "zygote", "postgres"):
                send_signal(process.pid, signal.SIGKILL)
        self.house.daemon.wait()

    # ---- the run --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Load and faults in turn, then rest, then the reckoning."""
        faults: list[Callable[[], None]] = [
            self.daemon_killed,
            self.daemon_told_to_stop,
            self.daemon_killed_at_a_step,
            self.daemon_killed_at_a_step,
            self.launcher_killed,
            self.killed_below_the_daemon_at_a_step,
            self.zygotes_killed,
            self.tasks_killed,
            self.tasks_killed,
            self.daemon_frozen,
            self.launcher_frozen,
            self.postgres_frozen,
            self.postgres_killed,
            self.postgres_shut_down,
            self.backend_killed,
            self.backend_terminated,
            self.backend_terminated,
            self.daemon_and_launcher_killed,
            self.everything_killed,
        ]
        for _ in range(FAULTS_PER_SEED):
            self.load()
            self.moment()
            fault = self.dice.choice(faults)
            self.done.append(fault.__name__)
            fault()
            TOTALS[fault.__name__] += 1
            TOTALS["faults"] += 1
            if not self.house.is_up:
                self.moment()  # tasks go on without a daemon
                self.house.start(is_awaited=self.dice.random() < 0.7)
        self.house.wait_ready()
        for dag_id, key in self.asked:
            self.house.run(dag_id, key)
        found = self.house.check()
        rows = self.house.rows()
        TOTALS["seeds"] += 1
        TOTALS["runs"] += len(rows.runs)
        TOTALS["attempts"] += len(rows.attempts)
        for kind in ("lost", "twice", "over_limit", "other"):
            TOTALS[f"findings:{kind}"] += len(getattr(found, kind))


@pytest.mark.parametrize("seed", seeds())
def test_the_ledger_balances_after_random_faults(seed: int) -> None:
    limits = Limits(parallelism=8, dag_concurrency=4)
    with House(DAGS, PLANS, limits=limits, pools=POOLS, is_dev=seed % 4 == 3) as house:
        house.start()
        chaos = Chaos(seed, house)
        try:
            chaos.run()
        except BaseException as error:
            error.add_note(f"TICKLESS_CHAOS_SEED={seed}; faults: {', '.join(chaos.done)}")
            raise
