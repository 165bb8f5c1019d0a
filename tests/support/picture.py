"""What an engine believes, as plain data that can be compared: the heart of "RAM is a cache of the rows" (I9).

Left out is what cannot matter: entries of heaps that are dead, semaphores that nobody uses and that let nobody
through, which of several full semaphores a group is registered with, and since when.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tickless.core.admission import Semaphore
from tickless.core.decision import Effect, Launch, StopAttempt
from tickless.core.engine import Engine
from tickless.core.schedules import is_full
from tickless.core.stopping import timeout_at
from tickless.core.timers import RunTimeoutDue, SlotDue, TimeoutDue, Timer
from tickless.model.state import AttemptState, TaskState


def picture(engine: Engine) -> dict[str, Any]:
    """Normalised; two engines with equal pictures behave alike. Drain `more` first."""
    runs = engine.runs.values()
    instances = [instance for run in runs for instance in run.instances.values()]
    return {
        "runs": {run.key: run.image() for run in runs},
        "instances": {instance.key: instance.image() for instance in instances},
        "attempts": {attempt.id: attempt.image() for attempt in engine.attempts.values()},
        "instance of attempt": {
            attempt.id: attempt.instance.key if attempt.instance is not None else None
            for attempt in engine.attempts.values()
        },
        "holds": {
            attempt.id: sorted((each.name, each.scope, weight) for each, weight in attempt.holds)
            for attempt in engine.attempts.values()
        },
        "waits in": {instance.key: instance.group.signature for instance in instances if instance.group is not None},
        "counts": {
            (run.key, index): (count.success, count.skipped, count.failed, count.upstream_failed, count.removed)
            for run in runs
            for index, count in enumerate(run.counts)
        },
        "maps": {
            run.key: (
                run.sizes,
                run.upstream,
                run.lengths,
                run.returned,
                run.waiting,
                {index: (each.length, each.upto) for index, each in run.expansions.items()},
            )
            for run in runs
        },
        "tallies": {
            (run.key, index, state): count
            for run in runs
            for index, states in run.tallies.items()
            for state, count in states.items()
        },
        "semaphores": {
            (each.name, each.scope): (each.used, each.limit)
            for each in semaphores(engine)
            if each.used > 0 or each.limit > 0
        }
        | {
            (each.name, each.scope): (each.used, each.limit)
            for slots in (*(run.task_slots for run in runs), *(dag.task_slots for dag in engine.dags.values()))
            for each in slots.values()
            if each.used > 0
        },
        "backfills": {
            key: (each.image(), each.is_filled, [run.key for run in each.queued])
            for key, each in engine.backfills.active.items()
        },
        "backfills of DAGs": {
            dag.dag_id: (
                sorted(dag.backfills),
                sorted(b.row.key for b in dag.past_backfills if b.is_ahead_of(dag.last)),
            )
            for dag in engine.dags.values()
            if dag.last_number
        },
        "queued runs": {dag.dag_id: [run.key for run in dag.queued] for dag in engine.dags.values() if dag.queued},
        "last numbers": {dag.dag_id: dag.last_number for dag in engine.dags.values() if dag.last_number},
        "current": {dag_id: plan.version.key for dag_id, plan in engine.current.items()},
        "dags": {dag.dag_id: dag.image() for dag in engine.dags.values() if dag.last_number},
        "armed": {
            dag_id: dag.armed_at
            for dag_id in engine.current
            for dag in [engine.dags[dag_id]]
            if dag.armed_at is not None and not is_full(dag)  # then the end of a run looks at it again
        },
        "closed": sorted(run.key for run in runs if run.slots.is_closed),
        "ended runs": {
            key: {task_id: dict(states) for task_id in run.index_of if (states := run.states(task_id))}
            for key, run in engine.past.ended.items()
        },
        "followers": {key: sorted(followers) for key, followers in engine.past.followers.items()},
        "queued again": {dag.dag_id: sorted(dag.queued_again) for dag in engine.dags.values() if dag.queued_again},
        "timers": sorted(
            (
                (due_at, repr(timer))
                for due_at, timer in set(engine.timers.entries())
                if _is_live(engine, due_at, timer)
            ),
        ),
    }


def semaphores(engine: Engine) -> list[Semaphore]:
    """Every semaphore that counts something that outlives a restart, except of DAGs without a current version."""
    current = [dag for dag_id, dag in engine.dags.items() if dag_id in engine.current]
    return [
        engine.parallelism,
        *engine.pools.values(),
        *engine.executors.values(),
        *(run.slots for run in engine.runs.values()),
        *(each.active_runs for each in engine.backfills.active.values()),
        *(each for dag in current for each in (dag.active_runs, dag.total)),
    ]


def owed(engine: Engine) -> list[str]:
    """The effects that committed rows still owe, as a restore must release them."""
    launches = [f"launch {a.id}" for a in engine.attempts.values() if a.state is AttemptState.QUEUED]
    stops = [f"stop {a.id} {a.stop_reason}" for a in engine.attempts.values() if a.stop_requested_at is not None]
    return sorted(launches + stops)


def told(effects: list[Effect]) -> list[str]:
    """The launches and stops among effects, to compare with `owed`."""
    launches = [f"launch {each.attempt_id}" for each in effects if isinstance(each, Launch)]
    stops = [f"stop {each.stop.attempt_id} {each.stop.reason}" for each in effects if isinstance(each, StopAttempt)]
    return sorted(launches + stops)


def _is_live(engine: Engine, due_at: datetime, timer: Timer) -> bool:
    if isinstance(timer, TimeoutDue):
        attempt = engine.attempts.get(timer.attempt_id)
        return attempt is not None and attempt.stop_requested_at is None
    if isinstance(timer, RunTimeoutDue):
        run = engine.runs.get(timer.run)
        return run is not None and run.may_schedule and timeout_at(run) == due_at
    if isinstance(timer, SlotDue):
        return False  # which entry counts is in "armed"
    instance = engine.instance(timer.key)
    return (
        instance is not None
        and instance.state is TaskState.UP_FOR_RETRY
        and instance.try_number == timer.try_number
        and instance.run.may_schedule
    )
