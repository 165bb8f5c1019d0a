"""The limits as semaphores: which there are, who needs which, and what a change of one of them means."""

from __future__ import annotations

from collections.abc import Iterable

from tickless.core.admission import Admission, Group, Lane, Needs, Semaphore
from tickless.core.plan import DagPlan
from tickless.core.record import DagState, Instance, Run
from tickless.model.limit import Limits, Routing

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

    def needs(self, run: Run, pool: str, pool_slots: int, queue: str) -> Needs:
        executor = self.routing.queues.get(queue)
        if executor is not None:
            served = self.executor(executor)
        else:
            served = self._unrouted.setdefault(queue, Semaphore("queue", queue, 0))
        return self.slots(run, pool, pool_slots, served)

    def slots(self, run: Run | None, pool: str, pool_slots: int, executor: Semaphore) -> Needs:
        """From the narrowest to the widest, so that a refusal is found where the fewest wait."""
        own = ((run.slots, 1), (self.dag(run.row.dag_id).total, 1)) if run is not None else ()
        return (*own, (self.pool(pool), pool_slots), (executor, 1), (self.parallelism, 1))

    def lane(self, run: Run, signature: tuple[str, int, str], needs: Needs) -> Lane:
        """One per signature; one per DAG and signature when DAGs are limited over all their runs."""
        if self.limits.max_active_tasks_per_dag_total is None:
            return self.admission.lane(signature, needs[2:])
        return self.admission.lane((run.row.dag_id, *signature), needs[1:])

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

    def apply_dag_limits(self, dag: DagState) -> None:
        self.limit_active_runs(dag)
        total = self.limits.max_active_tasks_per_dag_total
        self.resize(dag.total, total if total is not None else UNLIMITED)

    # ---- waiting --------------------------------------------------------------------------------------------------

    def wait_for_slots(self, instance: Instance) -> None:
        run, spec = instance.run, instance.task.spec
        signature = (spec.pool, spec.pool_slots, spec.queue)
        group = run.groups.get(signature)
        if group is None:
            needs = self.needs(run, *signature)
            group = run.groups[signature] = Group(run, signature, needs, self.lane(run, signature, needs))
        self.admission.wait(instance, group)

    def requeue(self, runs: Iterable[Run]) -> None:
        """Queues may be served by other executors now: everybody who waits does so under the new needs."""
        runs = list(runs)
        waiting = [instance for run in runs for instance in run.instances.values() if instance.group]
        for instance in waiting:
            self.admission.leave(instance)
        for run in runs:  # also where nobody waits just now: the next one must find the new needs
            run.groups.clear()
            run.slots.parked.clear()
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
