"""The limits as semaphores: which there are, who needs which, and what a change of one of them means."""

from __future__ import annotations

from collections.abc import Iterable

from tickless.core.admission import Admission, Group, Needs, Semaphore
from tickless.core.plan import DagPlan
from tickless.core.record import Backfill, DagState, Instance, Run
from tickless.model.dag import TaskSpec
from tickless.model.limit import Limits, Routing
from tickless.model.row import AttemptRow

UNLIMITED = 2**31
"""Limit of a semaphore whose key is not set: it never refuses, and setting the key later finds it counted."""


class Quota:
    """All semaphores of one engine, those of its DAGs with their queued runs, and who waits for slots."""

    def __init__(self, limits: Limits, routing: Routing) -> None:
        self.limits = limits
        self.routing = routing
        self.current: dict[str, DagPlan] = {}  # by dag_id
        self.dags: dict[str, DagState] = {}
        self.pools: dict[str, Semaphore] = {}
        self.executors: dict[str, Semaphore] = {}
        self.parallelism = Semaphore("parallelism", "the installation", limits.parallelism)
        self.admission = Admission()
        self.is_stopping = False
        self._unrouted: dict[str, Semaphore] = {}
        for name, slots in routing.executors.items():
            self.executor(name).limit = slots

    def dag(self, dag_id: str) -> DagState:
        dag = self.dags.get(dag_id)
        if dag is None:
            scope = f"DAG {dag_id}"
            dag = self.dags[dag_id] = DagState(
                dag_id,
                Semaphore("max_active_runs_per_dag", scope, 0),
                Semaphore("max_active_tasks_per_dag_total", scope, 0),
            )
            self.apply_dag_limits(dag)
        return dag

    def turns(self, run: Run) -> DagState | Backfill:
        """Where a run stands in turn with others: at its backfill as long as that is not completed, else its DAG."""
        dag = self.dag(run.row.dag_id)
        backfill = dag.backfills.get(run.row.backfill) if run.row.backfill is not None else None
        return backfill if backfill is not None else dag

    def pool(self, name: str) -> Semaphore:
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = Semaphore("pool", name, 0)
        return pool

    def executor(self, name: str) -> Semaphore:
        executor = self.executors.get(name)
        if executor is None:
            executor = self.executors[name] = Semaphore("executor", name, 0)
        return executor

    def group(self, run: Run, task: TaskSpec) -> Group:
        """Where a task of this run waits, with all that it needs. Lanes are one per needs: one per DAG and needs where
        DAGs are limited over all their runs, one per task where it is."""
        has_limits = task.max_active_tis_per_dag is not None or task.max_active_tis_per_dagrun is not None
        signature = (task.pool, task.pool_slots, task.queue, task.task_id if has_limits else "")
        group = run.groups.get(signature)
        if group is None:
            name = self.routing.queues.get(task.queue)
            if name is not None:
                executor = self.executor(name)
            else:
                executor = self._unrouted.setdefault(task.queue, Semaphore("queue", task.queue, 0))
            own, of_dag = self._own_slots(run, task), self._dag_slots(run, task)
            slots = ((self.pool(task.pool), task.pool_slots), (executor, 1), (self.parallelism, 1))
            key: tuple[object, ...] = (task.pool, task.pool_slots, task.queue)
            if task.max_active_tis_per_dag is not None:
                lane = self.admission.lane((*key, run.row.dag_id, task.task_id), (*of_dag, *slots))
            elif self.limits.max_active_tasks_per_dag_total is not None:
                lane = self.admission.lane((*key, run.row.dag_id), (*of_dag, *slots))
            else:
                lane = self.admission.lane(key, slots)
            group = run.groups[signature] = Group(run, signature, own, (*own, *of_dag, *slots), lane)
        return group

    def holds(self, run: Run | None, row: AttemptRow) -> Needs:
        """What a live attempt that is read back has taken."""
        slots = ((self.pool(row.pool), row.pool_slots), (self.executor(row.executor), 1), (self.parallelism, 1))
        if run is None:
            return slots
        task = run.plan.tasks[run.plan.index_of[row.task_id]].spec
        return (*self._own_slots(run, task), *self._dag_slots(run, task), *slots)

    # What a task needs, from the narrowest to the widest, so that a refusal is found where the fewest wait.

    def _own_slots(self, run: Run, task: TaskSpec) -> Needs:
        limit = task.max_active_tis_per_dagrun
        if limit is None:
            return ((run.slots, 1),)
        slots = run.task_slots.get(task.task_id)
        if slots is None:
            scope = f"task {task.task_id} of run {run.row.dag_id}/{run.row.run_id}"
            slots = run.task_slots[task.task_id] = Semaphore("max_active_tis_per_dagrun", scope, limit)
        return ((slots, 1), (run.slots, 1))

    def _dag_slots(self, run: Run, task: TaskSpec) -> Needs:
        dag = self.dag(run.row.dag_id)
        if task.max_active_tis_per_dag is None:
            return ((dag.total, 1),)
        slots = dag.task_slots.get(task.task_id)
        if slots is None:
            scope = f"task {task.task_id} of DAG {dag.dag_id}"
            slots = dag.task_slots[task.task_id] = Semaphore("max_active_tis_per_dag", scope, UNLIMITED)
            self._limit_task(dag, task.task_id, slots)
        return ((slots, 1), (dag.total, 1))

    def resize(self, semaphore: Semaphore, limit: int) -> None:
        semaphore.limit = limit
        if semaphore.reserved is not None and semaphore.reserved.weight_on(semaphore) > limit:
            semaphore.reserved = None  # it can never fit now and must not close the pool for all
        self.admission.freed([semaphore])

    def limit_active_runs(self, dag: DagState) -> None:
        """The current version says how many may run; of a vanished DAG, the version of the run that is next."""
        plan = self.current.get(dag.dag_id) or (dag.queued[0].plan if dag.queued else None)
        own = plan.spec.max_active_runs if plan is not None else None
        dag.active_runs.limit = own if own is not None else self.limits.max_active_runs_per_dag
        for task_id, slots in dag.task_slots.items():
            self._limit_task(dag, task_id, slots)

    def _limit_task(self, dag: DagState, task_id: str, slots: Semaphore) -> None:
        """The current version says it; of a vanished DAG, the newest version that a run still has."""
        plan = self.current.get(dag.dag_id)
        if plan is None:
            plan = max((run.plan for run in dag.live.values()), key=lambda each: each.version.key, default=None)
        index = plan.index_of.get(task_id) if plan is not None else None
        own = plan.tasks[index].spec.max_active_tis_per_dag if plan is not None and index is not None else None
        limit = own if own is not None else UNLIMITED
        if slots.limit != limit:
            self.resize(slots, limit)

    def apply_dag_limits(self, dag: DagState) -> None:
        self.limit_active_runs(dag)
        total = self.limits.max_active_tasks_per_dag_total
        self.resize(dag.total, total if total is not None else UNLIMITED)

    # ---- waiting --------------------------------------------------------------------------------------------------

    def wait_for_slots(self, instance: Instance) -> None:
        self.admission.wait(instance, self.group(instance.run, instance.task.spec))

    def requeue(self, runs: Iterable[Run]) -> None:
        """Queues may be served by other executors now: everybody who waits does so under the new needs."""
        runs = list(runs)
        waiting = [instance for run in runs for instance in run.instances.values() if instance.group]
        for instance in waiting:
            self.admission.leave(instance)
        for run in runs:  # also where nobody waits just now: the next one must find the new needs
            run.groups.clear()
            for semaphore in (run.slots, *run.task_slots.values()):
                semaphore.parked.clear()
        self.admission.forget_lanes()
        for instance in waiting:
            self.wait_for_slots(instance)

    # ---- other limits ---------------------------------------------------------------------------------------------

    def apply(self, limits: Limits, routing: Routing, runs: Iterable[Run]) -> None:
        """Take on a new configuration, all but who waits where: `requeue` comes last."""
        self.limits, self.routing = limits, routing
        self.resize(self.parallelism, limits.parallelism)
        for name in {*self.executors, *routing.executors}:
            self.resize(self.executor(name), routing.executors.get(name, 0))
        for run in runs:
            self.resize(run.slots, self.run_limit(run.plan))
        for dag in self.dags.values():
            self.apply_dag_limits(dag)

    def run_limit(self, plan: DagPlan) -> int:
        """How many tasks of one run may be queued and running."""
        own = plan.spec.max_active_tasks
        return own if own is not None else self.limits.dag_concurrency
