"""Random DAGs on a whole daemon end as the oracle says: every task instance, every number of tries, every run.

TICKLESS_DAG_SEED=7     the DAG of that seed only, to see again what a failed test has named
TICKLESS_CHAOS=40       50 DAGs for each (`make chaos` has 1, which means 40)
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.support.dag_plan import DagPlan
from tests.support.house import House, eventually
from tests.support.ledger import Limits, Plan
from tests.support.oracle import Ending, Instance, Oracle, Outcome, in_order
from tests.support.oracle_rules import RULES
from tests.support.random_dag_files import body_of, source_of
from tests.support.random_dags import POOLS, coverage, random_dag

IN_ONE_HOUSE = 40 if os.environ.get("TICKLESS_PLANTED") else 200
"""DAGs. A planted bug need not wait for so many of them."""
IN_ONE_FILE = 4
WITH_KILLS = 30
KILLS = 3
LIMITS = Limits(parallelism=4, dag_concurrency=3)
HASTY = {"one_success", "one_failed", "one_done", "always"}
"""Rules that do not wait for all of the upstream."""
AT_ONCE = 25
"""Runs that are started together: enough to compete for every limit, not so many that each needs a zygote at once."""
_ASKED = int(os.environ.get("TICKLESS_CHAOS", "0"))
HOUSES = 1 if not _ASKED else max(1, (40 if _ASKED == 1 else _ASKED) * 50 // IN_ONE_HOUSE)


def batches() -> list[list[int]]:
    """The seeds of each house."""
    if seed := os.environ.get("TICKLESS_DAG_SEED"):
        return [[int(seed)]]
    return [list(range(first, first + IN_ONE_HOUSE)) for first in range(0, HOUSES * IN_ONE_HOUSE, IN_ONE_HOUSE)]


def batches_with_kills() -> list[list[int]]:
    """The same for the daemon that is killed: other seeds, and fewer of them."""
    if os.environ.get("TICKLESS_DAG_SEED"):
        return batches()
    return [list(range(first - WITH_KILLS, first)) for first in range(0, -HOUSES * WITH_KILLS, -WITH_KILLS)]


def named(seeds: list[int]) -> str:
    return f"{seeds[0]}..{seeds[-1]}"


@pytest.mark.parametrize("seeds", batches(), ids=named)
def test_random_dags_end_as_the_oracle_says(seeds: list[int]) -> None:
    dags = {seed: random_dag(seed) for seed in seeds}
    with house_of(dags) as house:
        house.start()
        for first in range(0, len(seeds), AT_ONCE):
            wait(house, dags, start(house, [dags[seed] for seed in seeds[first : first + AT_ONCE]]))
        judge(house, dags)
        if len(seeds) >= 200:
            assert limits_without_effect(house) == []


@pytest.mark.parametrize("seeds", batches_with_kills(), ids=named)
def test_random_dags_end_as_the_oracle_says_however_often_the_daemon_is_killed(seeds: list[int]) -> None:
    dags = {seed: random_dag(seed) for seed in seeds}
    dice = random.Random(seeds[0])
    with house_of(dags) as house:
        house.start()
        runs = start(house, list(dags.values()))
        for _ in range(KILLS):
            work(house, dice.randint(5, 100))
            house.kill_daemon()
            house.start()
        wait(house, dags, runs)
        judge(house, dags)


def house_of(dags: Mapping[int, DagPlan]) -> House:
    """A house with these DAGs."""
    limits = replace(
        LIMITS, max_active_tasks={dag.dag_id: dag.max_active_tasks for dag in dags.values() if dag.max_active_tasks}
    )
    plans = {dag.dag_id: Plan(run_state="", tasks={}) for dag in dags.values()}
    some = [list(dags.values())[first : first + IN_ONE_FILE] for first in range(0, len(dags), IN_ONE_FILE)]
    files = {f"{dags[0].dag_id}.py": source_of(dags) for dags in some}
    return House(files, plans, limits=limits, pools=POOLS)


def start(house: House, dags: list[DagPlan]) -> list[int]:
    """Start the runs of some DAGs; their keys."""
    return [house.run(dag.dag_id) for dag in dags for _ in range(dag.runs)]


def work(house: House, count: int) -> None:
    """Return when tasks have begun or ended so many times, or all is done."""
    enough = len(house.ledger.lines()) + count
    eventually(
        lambda: (
            len(house.ledger.lines()) >= enough
            or not house.query("select from dag_run where state in ('queued', 'running')")
        )
    )


def wait(house: House, dags: Mapping[int, DagPlan], runs: list[int]) -> None:
    """Until the runs have ended; else tell which have not."""
    try:
        house.wait_finished(runs)
    except AssertionError as error:
        error.add_note(stuck(dags, outcomes_in(house)))
        raise


def judge(house: House, dags: Mapping[int, DagPlan]) -> None:
    """Each run must have ended in one of the ways that the oracle finds, and the ledger must balance."""
    found = outcomes_in(house)
    wrong = [
        story(seed, dag, outcome)
        for seed, dag in dags.items()
        for outcome in found[dag.dag_id]
        if outcome not in Oracle(dag).outcomes()
    ]
    assert not wrong, f"{len(wrong)} runs ended otherwise than foretold\n" + "\n".join(wrong[:3])
    assert {dag_id: len(outcomes) for dag_id, outcomes in found.items()} == {d.dag_id: d.runs for d in dags.values()}
    assert miscounted(house) == []
    assert runs_at_once(house, [dag.dag_id for dag in dags.values() if dag.max_active_runs == 1]) == []
    # What the ledger asserts of every house, limits among them; that the states are right is known by now.
    house.plans = {dag.dag_id: plan_of(dag, found[dag.dag_id][0]) for dag in dags.values()}
    house.check()


def test_the_dice_cover_what_they_are_meant_to_cover() -> None:
    """A generator that quietly stops making something would leave the test above green about it."""
    found = coverage([random_dag(seed) for seed in range(200)])
    forbidding = set(RULES) - {"all_done", "all_done_setup_success", "always"}  # those never do, without setups
    at_least = (
        {f"rule {rule} runs": 4 for rule in RULES}
        | {f"rule {rule} forbids": 4 for rule in forbidding}
        | {f"state {state}": 100 for state in ("success", "failed", "skipped", "upstream_failed")}
        | {f"kind {kind}": 200 for kind in ("python", "bash", "empty")}
        | {"run success": 60, "run failed": 60, "retried, then success": 15, "retried, in vain": 25}
        | {"dags with one outcome": 160, "dags with several outcomes": 5, "dags with max_active_tasks": 80}
        | {"in a pool": 400, "tries": 900}
        | {"groups": 80, "groups in groups": 15, "groups that wait": 40, "groups waited for": 40}
        | {"dags with several runs": 15, "dags with runs one after the other": 4, "died": 10, "timed out": 3}
        | {
            "gave up before its last try": 5,
            "branch follows some": 20,
            "branch follows a group": 3,
            "branch follows none": 10,
            "short circuit": 10,
        }
    )
    missing = {name: f"{found[name]} of {least}" for name, least in at_least.items() if found[name] < least}
    assert not missing, missing


def limits_without_effect(house: House) -> list[str]:
    """The limits that no task ever met: nothing is known about those. With one less, the ledger would complain."""
    limits, rows = house.limits, house.rows()
    tighter = {
        "parallelism": (replace(limits, parallelism=limits.parallelism - 1), rows),
        "dag_concurrency": (replace(limits, dag_concurrency=limits.dag_concurrency - 1), rows),
        "max_active_tasks": (
            replace(limits, max_active_tasks={d: max(n - 1, 1) for d, n in limits.max_active_tasks.items()}),
            rows,
        ),
        **{f"pool {pool}": (limits, replace(rows, pools={**rows.pools, pool: rows.pools[pool] - 1})) for pool in POOLS},
    }
    return [
        name for name, (less, fewer) in tighter.items() if not house.ledger.check(fewer, house.plans, less).over_limit
    ]


def runs_at_once(house: House, dag_ids: list[str]) -> list[str]:
    """Of DAGs with max_active_runs=1: where a task began while tasks of another run had not all begun or ended."""
    last: dict[str, str] = {}
    over: set[tuple[str, str]] = set()
    found = []
    for line in house.ledger.lines():
        dag_id, run_id, _ = line.key.split("/")
        if dag_id in dag_ids and last.get(dag_id) != run_id:
            if (dag_id, run_id) in over:
                found.append(f"{run_id} of {dag_id} went on after {last[dag_id]} had begun")
            if dag_id in last:
                over.add((dag_id, last[dag_id]))
            last[dag_id] = run_id
    return found


def outcomes_in(house: House) -> dict[str, list[Outcome]]:
    """How the runs have ended, by dag_id."""
    rows = house.query("""
        select r.key, r.dag_id, r.state as run, task_id, map_index, i.state, count(a.attempt_id) as attempts
        from dag_run r
        join task_instance i on i.dag_run_key = r.key
        left join task_attempt a using (dag_run_key, task_id, map_index)
        group by r.key, i.dag_run_key, task_id, map_index
    """)
    runs: dict[int, tuple[str, str]] = {}
    endings: dict[int, dict[Instance, Ending]] = defaultdict(dict)
    for row in rows:
        runs[row["key"]] = row["dag_id"], row["run"]
        endings[row["key"]][row["task_id"], row["map_index"]] = Ending(state=row["state"], tries=row["attempts"])
    found = defaultdict(list)
    for key, (dag_id, run) in runs.items():
        found[dag_id].append(Outcome(run=run, instances=in_order(endings[key])))
    return found


def miscounted(house: House) -> list[str]:
    """The instances whose try_number is not the number of attempts that there were: nothing was lost in these runs.

    A try is counted when a task is scheduled, and so is one that a branch has skipped before it got its slot.
    """
    rows = house.query("""
        select i.dag_id, task_id, map_index, i.state, i.try_number, count(a.attempt_id) as attempts
        from task_instance i left join task_attempt a using (dag_run_key, task_id, map_index)
        group by dag_run_key, task_id, map_index
        having count(a.attempt_id) <> i.try_number
           and not (i.state = 'skipped' and count(a.attempt_id) = 0 and i.try_number = 1)
    """)
    return [str(dict(row)) for row in rows]


def plan_of(dag: DagPlan, outcome: Outcome) -> Plan:
    """What the ledger shall find: the states as they are, and that nothing began before what it had to wait for."""
    oracle = Oracle(dag)
    endings = {task_id: ending for (task_id, _), ending in outcome.instances}
    has_succeeded = {task_id for task_id, ending in endings.items() if ending.state == "success" and ending.tries}
    return Plan(
        run_state=outcome.run,
        tasks={task_id: str(ending.state) for task_id, ending in endings.items()},
        edges=[
            (upstream, task.task_id)
            for task in dag.tasks
            if task.rule not in HASTY
            for upstream in sorted(oracle.upstream[task.task_id] & has_succeeded)
        ],
    )


def story(seed: int, dag: DagPlan, found: Outcome) -> str:
    """All that one needs to understand a disagreement, and to see it again."""
    allowed = sorted(Oracle(dag).outcomes(), key=lambda outcome: difference(outcome, found))
    lines = [f"TICKLESS_DAG_SEED={seed}", body_of(dag)]
    lines += [f"run: expected {sorted({outcome.run for outcome in allowed})}, found {found.run}"]
    expected, endings = dict(allowed[0].instances), dict(found.instances)
    for task_id, index in sorted({*expected, *endings}):
        should, was = (show(each.get((task_id, index))) for each in (expected, endings))
        name = task_id if index == -1 else f"{task_id}[{index}]"
        lines.append(f"  {name}: expected {should}" + (f"   <-- found {was}" if was != should else ""))
    if len(allowed) > 1:
        lines.append(f"  (the nearest of {len(allowed)} endings that the order of events allows)")
    return "\n".join(lines)


def difference(one: Outcome, other: Outcome) -> int:
    return len(set(one.instances) ^ set(other.instances))


def stuck(dags: Mapping[int, DagPlan], found: Mapping[str, list[Outcome]]) -> str:
    """The runs that have not come to an end."""
    told = [
        story(seed, dag, outcome)
        for seed, dag in dags.items()
        for outcome in found.get(dag.dag_id, ())
        if outcome.run not in ("success", "failed")
    ]
    return f"{len(told)} runs did not end\n" + "\n".join(told[:3])


def show(ending: Ending | None) -> str:
    return "no such instance" if ending is None else f"{ending.state} after {ending.tries} tries"
