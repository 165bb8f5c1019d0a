"""Why is this not running? The same predicates that hold a run or task back, as sentences with their numbers.

Nothing here is stored: the engine is asked at the moment of the question, so the answer cannot be out of date.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from datetime import datetime

from tickless.core.admission import Semaphore
from tickless.core.engine import Engine
from tickless.core.past import ABSENT, Blocker
from tickless.core.readiness import Verdict, judge
from tickless.core.record import Attempt, Backfill, Instance, Run
from tickless.core.schedules import is_full
from tickless.model.backfill import BackfillKey
from tickless.model.id import UNMAPPED
from tickless.model.state import AttemptState, RunState, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that holds a run or a task back (or says how far it is)."""

    code: str
    """Stable, for programs: the limit's config name, or upstream, retry_delay, starting, running, frozen …"""
    message: str
    """A sentence with the numbers."""
    hint: str | None = None
    """What would change it, often a command."""
    task_id: str | None = None
    """None = it holds the whole run back."""
    map_index: int = UNMAPPED
    used: int | None = None
    limit: int | None = None
    needed: int | None = None
    """Of a semaphore: slots taken, slots there are, slots that the task wants."""


_HINTS = {
    "parallelism": "Raise [limits] parallelism, or wait for running tasks to end.",
    "dag_concurrency": "Raise the DAG's max_active_tasks or [limits] dag_concurrency.",
    "max_active_tasks_per_dag_total": "Raise [limits] max_active_tasks_per_dag_total.",
    "max_active_tis_per_dag": "Raise the task's max_active_tis_per_dag.",
    "max_active_tis_per_dagrun": "Raise the task's max_active_tis_per_dagrun.",
    "max_active": "It is the backfill's own limit; the DAG's other runs do not count.",
    "max_active_runs_per_dag": "Raise the DAG's max_active_runs or [limits] max_active_runs_per_dag.",
}


def explain_run(engine: Engine, run: Run, now: datetime) -> list[Reason]:
    """Reasons of a run as a whole, then of its unfinished tasks that are nearest to running (at most 20)."""
    if run.frozen is not None:
        return [_frozen(run)]
    if run.state is RunState.QUEUED:
        if engine.dags[run.row.dag_id].is_paused:
            return [_paused(run.row.dag_id, "none of its queued runs starts")]
        dag = engine.dags[run.row.dag_id]
        backfill = dag.backfills.get(run.row.backfill) if run.row.backfill is not None else None
        if backfill is not None and backfill.is_paused:
            return [_paused_backfill(backfill)]
        turns = backfill if backfill is not None else dag
        semaphore = turns.active_runs
        if engine.is_stopping and not semaphore.refuses(1, None):
            return [_stopping()]
        ahead = turns.queued.index(run)
        return [
            _limit(
                semaphore,
                f"{semaphore.used} of {semaphore.limit} runs of {semaphore.scope} are running"
                + (f", and {ahead} queued before this one" if ahead else ""),
            )
        ]
    reasons = []
    if run.slots.is_closed:
        reasons.append(_paused(run.row.dag_id, "none of its tasks is sent off; what runs goes on"))
    if run.cancel_requested_at is not None:
        reasons.append(_cancelled(run))
    if run.created_upto < len(run.plan.tasks):
        reasons.append(
            Reason(
                code="creating",
                message=f"{run.created_upto} of {len(run.plan.tasks)} task instances are created so far.",
                hint="Nothing needs to be done: this takes moments.",
            )
        )
    nearness = [
        *(TaskState.RUNNING, TaskState.RESTARTING, TaskState.QUEUED, TaskState.SCHEDULED, TaskState.UP_FOR_RETRY),
        TaskState.NONE,
    ]
    for instance in heapq.nsmallest(
        20, run.instances.values(), key=lambda i: (nearness.index(i.state), i.task.index, i.map_index)
    ):
        reasons.extend(explain_task(engine, instance, now))
    return reasons


def explain_task(engine: Engine, instance: Instance, now: datetime) -> list[Reason]:
    """Reasons of one unfinished task instance."""
    run = instance.run
    if run.frozen is not None:
        return [_frozen(run)]
    attempt = engine.attempts.get(instance.attempt_id)
    if attempt is not None:
        reason = _of_attempt(attempt, now, instance)
        if attempt.row.executor not in engine.routing.executors:
            return [_of_retired_executor(reason, attempt, instance)]
        return [reason]
    match instance.state:
        case TaskState.NONE:
            return [_of_upstream(engine, instance)]
        case TaskState.UP_FOR_RETRY:
            assert instance.due_at is not None
            left = max(0.0, (instance.due_at - now).total_seconds())
            return [
                _reason(
                    "retry_delay",
                    f"Try {instance.try_number} of {instance.tries_cleared + instance.task.spec.retries + 1} ended "
                    f"({instance.reason}); "
                    f"the next one starts in {left:.0f} s, at {instance.due_at:%H:%M:%S} UTC.",
                    instance,
                    hint=f"`tickless task clear {_ref(instance)}` starts it at once.",
                )
            ]
        case TaskState.SCHEDULED if engine.is_stopping:
            return [_stopping()]
        case TaskState.SCHEDULED if run.slots.is_closed:
            return [
                replace(
                    _paused(run.row.dag_id, "none of its tasks is sent off"),
                    task_id=instance.task.spec.task_id,
                    map_index=instance.map_index,
                )
            ]
        case TaskState.SCHEDULED if instance.group is not None:
            refusing = instance.group.refusing()
            if engine.parallelism.refuses(1, None):
                # An executor whose slots follow parallelism is full with it; raising them would change nothing.
                own = engine.parallelism.limit
                refusing = [(s, weight) for s, weight in refusing if s.name != "executor" or s.limit < own]
            if refusing:
                return [_of_semaphore(semaphore, weight, instance) for semaphore, weight in refusing]
            return [
                _reason(
                    "admission",
                    "It has its slots as soon as those before it are through.",
                    instance,
                    hint="Nothing needs to be done: this takes moments.",
                )
            ]
        case _:
            return [_reason(instance.state.value, f"It is {instance.state}.", instance)]


def explain_backfill(engine: Engine, key: BackfillKey) -> str | None:
    """What holds a backfill back, in a sentence; None: nothing, or it is completed."""
    backfill = engine.backfills.active.get(key)
    if backfill is None:
        return None
    dag_id, unfinished = backfill.row.dag_id, backfill.unfinished
    if backfill.cancelled_at is not None:
        return f"It was cancelled; {unfinished} of its runs have not ended yet."
    if backfill.is_paused:
        return f"It is paused; {unfinished} of its runs have not ended yet."
    if backfill.is_filled:
        return f"Every slot is dealt with; {unfinished} of its runs have not ended yet."
    if engine.dags[dag_id].is_paused:
        return f"DAG {dag_id!r} is paused: `tickless dag unpause {dag_id}` lets it go on."
    if dag_id not in engine.current:
        return f"No file defines DAG {dag_id!r} any more."
    if unfinished >= backfill.active_runs.limit:
        return f"max_active: {unfinished} of {backfill.active_runs.limit} runs of it are unfinished."
    return None


def explain_schedule(engine: Engine, dag_id: str, now: datetime) -> list[Reason]:
    """Why the schedule of a DAG makes no run now; empty when nothing but time holds it back."""
    plan, dag = engine.current.get(dag_id), engine.dags.get(dag_id)
    if plan is None or dag is None:
        return [
            Reason(
                code="vanished",
                message=f"No file defines DAG {dag_id!r} any more: no new runs are made.",
                hint="`tickless dag errors` lists the files that cannot be read.",
            )
        ]
    if dag.is_paused:
        return [_paused(dag_id, "its schedule makes no runs")]
    spec = plan.spec.schedule
    if spec is None:
        return [
            Reason(
                code="no_schedule",
                message="It has no schedule: runs are made only when somebody asks.",
                hint=f"`tickless run start {dag_id}` starts one.",
            )
        ]
    slot = engine.schedules.next_slot(dag, spec, now)
    if dag.schedule_problem is not None:
        return [
            Reason(
                code="schedule_problem",
                message=f"Its schedule cannot be read here: {dag.schedule_problem}.",
                hint="Correct it in the DAG file, or install what it needs on this machine.",
            )
        ]
    if slot is None:
        return [
            Reason(
                code="schedule_over",
                message="Its schedule makes no more runs.",
                hint=f"`tickless run start {dag_id}` starts one; its end_date may have passed.",
            )
        ]
    if slot.run_after <= now and is_full(dag):
        live = dag.active_runs.used + len(dag.queued)
        text = f"{live} of {dag.active_runs.limit} runs of {dag.active_runs.scope} are queued or running"
        return [_limit(dag.active_runs, f"{text}; the next one is made when one of them has ended")]
    return []


def _of_attempt(attempt: Attempt, now: datetime, about: Instance) -> Reason:
    if attempt.stop_requested_at is not None:
        return _reason(
            "stopping",
            f"It is being stopped ({attempt.stop_reason}); its process has not ended yet.",
            about,
            hint="It is killed when [tasks] kill_grace_seconds have passed.",
        )
    if attempt.state is AttemptState.QUEUED:
        waited = (now - attempt.row.queued_at).total_seconds()
        return _reason(
            "starting",
            f"It has its slots; executor {attempt.row.executor!r} was sent attempt {attempt.id} {waited:.1f} s ago "
            "and has not reported its start.",
            about,
            hint="If it stays so: `tickless status` tells whether the launcher is there.",
        )
    assert attempt.started_at is not None
    watch = f"`tickless task logs {_ref(about)} -f` shows what it writes."
    seconds = (now - attempt.started_at).total_seconds()
    return _reason(
        "running", f"It is running since {seconds:.1f} s, pid {attempt.pid} on {attempt.host}.", about, hint=watch
    )


def _of_retired_executor(reason: Reason, attempt: Attempt, about: Instance) -> Reason:
    name = attempt.row.executor
    return replace(
        reason,
        code="retired_executor",
        message=f"{reason.message} Executor {name!r} is not in the configuration any more: what it holds is let end.",
        hint=f"`tickless task clear {_ref(about)}` stops it and runs it where its queue is served now; "
        "`tickless task mark` gives it up.",
    )


def _ref(instance: Instance) -> str:
    index = "" if instance.map_index == UNMAPPED else f"[{instance.map_index}]"
    return f"{instance.run.key} {instance.task.spec.task_id}{index}"


def _of_upstream(engine: Engine, instance: Instance) -> Reason:
    run, task = instance.run, instance.task
    counts = run.counts[task.index]
    blocker = engine.past.blocker(instance)
    if blocker is not None and judge(task.spec.trigger_rule, counts, run.upstream[task.index]) is Verdict.RUN:
        return _of_past(blocker, instance)
    if run.is_expanding(task.index):
        expansion = run.expansions[task.index]
        return _reason(
            "expanding",
            f"{expansion.upto:,} of its {expansion.length:,} instances are made so far.",
            instance,
            hint="Nothing needs to be done: those that are made run already.",
        )
    waiting = list(filter(None, (_waited_for(run, index) for index in task.upstream)))
    size = run.upstream[task.index]
    names = ", ".join(waiting[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
    return _reason(
        "upstream",
        f"Its trigger rule is {task.spec.trigger_rule}; {counts.done} of {size} upstream "
        f"{'tasks' if len(task.upstream) == size else 'instances'} are finished. It waits for {names}.",
        instance,
        hint=f"`tickless why {run.key}` says what holds those back.",
    )


def _of_past(blocker: Blocker, instance: Instance) -> Reason:
    spec, previous, task_id = instance.task.spec, blocker.previous, blocker.task_id
    rule = "wait_for_downstream" if spec.wait_for_downstream else "depends_on_past"
    mark = f"`tickless task mark success {instance.run.key} {spec.task_id}`"
    if previous is None:
        text, hint = "Which run is the previous one is being read.", "Nothing: it takes as long as Postgres does."
        return _reason("depends_on_past", text, instance, hint=hint)
    if blocker.state == ABSENT:
        text = f"It depends on its past, and the previous run, {previous}, has no task {task_id!r}."
        hint = f"{mark} does without this one; without ignore_first_depends_on_past=False it would not wait."
    elif blocker.is_over:
        text = f"{rule}: it waits for {task_id} of the previous run, {previous}, which is {blocker.state}."
        hint = (
            f"`tickless task clear {previous} {task_id}` runs that again; "
            f"`tickless task mark success {previous} {task_id}` lets this one start."
        )
    else:
        text = f"{rule}: it waits for {task_id} of the previous run, {previous}, which is {blocker.state} now."
        hint = f"`tickless why {previous} {task_id}` says what that one waits for."
    return _reason("depends_on_past", text, instance, hint=hint)


def _waited_for(run: Run, index: int) -> str | None:
    """An upstream task that is not finished, and how far it is."""
    name, size = run.plan.tasks[index].spec.task_id, run.sizes.get(index)
    if run.created_upto <= index:
        return f"{name} (not created)"
    if size is not None:
        done = sum(run.tallies.get(index, {}).values())
        return f"{name} ({done:,} of {size:,} instances are finished)" if done < size else None
    upstream = run.instances.get((index, UNMAPPED))
    return f"{name} ({upstream.state})" if upstream is not None else None


def _of_semaphore(semaphore: Semaphore, weight: int, instance: Instance) -> Reason:
    spec = instance.task.spec
    used, limit = semaphore.used, semaphore.limit
    match semaphore.name:
        case "queue":
            return _reason(
                "queue",
                f"No executor serves the queue {spec.queue!r}.",
                instance,
                hint=f'Add `{spec.queue} = "<executor>"` to [queues] in the configuration.',
            )
        case "pool":
            wide = semaphore.reserved if semaphore.reserved_for is not instance.group else None
            ahead = wide.weight_on(semaphore) if wide is not None else 0
            raise_pool = f"tickless pool set {spec.pool} {used + ahead + weight}"
            if limit == 0:
                text = f"Pool {spec.pool!r} has no slots (or does not exist)."
            elif weight > limit:
                text = f"It needs {weight} slots of pool {spec.pool!r}, which has only {limit}."
            elif wide is not None:
                text = (
                    f"Pool {spec.pool!r} ({used} of {limit} slots used) is reserved for a wide task that waits longer."
                )
            else:
                text = f"{used} of {limit} slots of pool {spec.pool!r} are used; it needs {weight}."
            hint = f"`{raise_pool}` would make room."
            return _reason("pool", text, instance, hint=hint, used=used, limit=limit, needed=weight)
        case "executor":
            text = f"All {limit} slots of executor {semaphore.scope!r} are taken."
            hint = f"Raise [executors.{semaphore.scope}] slots."
            return _reason("executor", text, instance, hint=hint, used=used, limit=limit)
        case name:
            text = f"{name}: {used} of {limit} task instances of {semaphore.scope} are queued or running."
            return _reason(name, text, instance, hint=_HINTS.get(name), used=used, limit=limit)


def _limit(semaphore: Semaphore, text: str) -> Reason:
    return Reason(
        code=semaphore.name,
        message=f"{semaphore.name}: {text}.",
        hint=_HINTS.get(semaphore.name),
        used=semaphore.used,
        limit=semaphore.limit,
    )


def _frozen(run: Run) -> Reason:
    return Reason(
        code="frozen",
        message=f"An internal error of tickless stopped scheduling of this run: {run.frozen}",
        hint=f"Please report it; `tickless run cancel {run.key}` ends the run.",
    )


def _cancelled(run: Run) -> Reason:
    hint = f"`tickless run rerun {run.key}` begins it anew when it has ended."
    if run.cancel_reason is None:
        text = "The run was cancelled; its running tasks are being stopped."
        return Reason(code="cancelled", message=text, hint=hint)
    code, _, why = run.cancel_reason.partition(": ")
    text = f"The run is ended by {code} ({why}); its running tasks are being stopped."
    return Reason(code=code, message=text, hint=hint)


def _paused(dag_id: str, meaning: str) -> Reason:
    return Reason(
        code="paused",
        message=f"DAG {dag_id!r} is paused: {meaning}.",
        hint=f"`tickless dag unpause {dag_id}` lets it go on.",
    )


def _paused_backfill(backfill: Backfill) -> Reason:
    key = backfill.row.key
    return Reason(
        code="backfill_paused",
        message=f"Backfill {key} is paused: none of its queued runs starts.",
        hint=f"`tickless backfill unpause {key}` lets it go on.",
    )


def _stopping() -> Reason:
    return Reason(
        code="stopping_daemon",
        message="The daemon is stopping and admits nothing more.",
        hint="What waits goes on when it is started again.",
    )


def _reason(
    code: str,
    text: str,
    about: Instance,
    *,
    hint: str | None = None,
    used: int | None = None,
    limit: int | None = None,
    needed: int | None = None,
) -> Reason:
    return Reason(
        code=code,
        message=text,
        hint=hint,
        used=used,
        limit=limit,
        needed=needed,
        task_id=about.task.spec.task_id,
        map_index=about.map_index,
    )
