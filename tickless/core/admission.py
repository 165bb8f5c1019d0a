"""The semaphores: all or none, in order of priority and age, and who waits on which.

A scheduled task instance waits in a *group*: the instances of one run that need the same slots (pool, pool_slots,
queue). What refuses one member refuses all, so a group is tried once, not once per member, and a blocked group is
registered with exactly one semaphore that refuses it now. When that one has room again the group is tried again; if
another refuses it then, it moves there. So no wake-up is lost, nobody who cannot run holds a place that others
need, and the cost of a freed slot is the groups it lets through or moves on, never the backlog.

Wide tasks (pool_slots > 1) could starve behind narrow ones: after `pool_ageing` the head of a pool's waiters reserves
the pool, and nothing behind it in that pool is admitted until it fits.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime

from tickless.core.record import Instance, Run
from tickless.errors import InvariantBroken

Rank = tuple[int, datetime, int, int, int]
"""Order of admission: highest priority, then longest scheduled, then oldest run, then place in the DAG."""


Needs = tuple[tuple["Semaphore", int], ...]
"""Semaphores and how many slots of each: taken together, given back together."""


def rank_of(instance: Instance) -> Rank:
    """The place of a scheduled instance in the order of admission; smaller comes first."""
    assert instance.scheduled_at is not None
    task = instance.task
    return (-task.spec.priority_weight, instance.scheduled_at, instance.run.key, task.index, instance.map_index)


class Semaphore:
    """One limit: `used` of `limit` slots. `name` is what `why` calls it, `scope` says of what."""

    __slots__ = ("limit", "name", "reserved_for", "scope", "used", "waiters")

    def __init__(self, name: str, scope: str, limit: int) -> None:
        self.name = name
        self.scope = scope
        self.limit = limit
        self.used = 0
        self.reserved_for: Group | None = None
        # Registered groups, a heap per weight; an entry is dead when the group has moved on since (its stamp differs).
        self.waiters: dict[int, list[tuple[Rank, int, Group]]] = {}

    def __repr__(self) -> str:
        return f"<{self.name} {self.scope} {self.used}/{self.limit}>"

    @property
    def free(self) -> int:
        return self.limit - self.used

    def refuses(self, weight: int, group: Group | None) -> bool:
        """Whether a group of this weight cannot have its slots now."""
        return self.used + weight > self.limit or (self.reserved_for is not None and self.reserved_for is not group)

    def take(self, weight: int) -> None:
        self.used += weight

    def give_back(self, weight: int) -> None:
        self.used -= weight
        if self.used < 0:
            raise InvariantBroken(f"{self!r}: more slots given back than taken")

    def first_waiting(self, *, fitting: bool) -> Group | None:
        """The foremost registered group; with `fitting`, of those that the free slots would let through."""
        best: tuple[Rank, int, Group] | None = None
        for weight in list(self.waiters):
            if fitting and weight > self.free:
                continue
            heap = self.waiters[weight]
            while heap and heap[0][1] != heap[0][2].stamp:
                heapq.heappop(heap)
            if not heap:
                del self.waiters[weight]
            elif best is None or heap[0] < best:
                best = heap[0]
        if best is None:
            return None
        if fitting and self.reserved_for is not None and self.reserved_for is not best[2]:
            reserved = self.reserved_for
            return reserved if reserved.weight_on(self) <= self.free else None
        return best[2]


class Group:
    """Scheduled instances of one run with the same needs. `stamp` changes with each registration."""

    __slots__ = ("blocked_on", "blocked_since", "members", "needs", "run", "signature", "stamp")

    def __init__(self, run: Run, signature: tuple[str, int, str], needs: Needs) -> None:
        self.run = run
        self.signature = signature
        self.needs = needs
        self.members: list[tuple[Rank, Instance]] = []  # a heap
        self.blocked_on: Semaphore | None = None
        self.blocked_since: datetime | None = None
        self.stamp = 0

    def __lt__(self, other: Group) -> bool:
        return self.stamp < other.stamp  # ranks are unique; this only satisfies the heap's type

    def weight_on(self, semaphore: Semaphore) -> int:
        return next((weight for each, weight in self.needs if each is semaphore), 0)

    def refusing(self) -> list[tuple[Semaphore, int]]:
        """Every need that cannot be met now."""
        return [(semaphore, weight) for semaphore, weight in self.needs if semaphore.refuses(weight, self)]

    def drop_absent(self) -> None:
        """Forget members that left (cancelled) from the front of the heap."""
        while self.members and self.members[0][1].group is not self:
            heapq.heappop(self.members)


class Admission:
    """Who is let through next. The engine tells it of new waiters and freed slots, and pulls `next_admitted`."""

    def __init__(self) -> None:
        self._fresh: list[tuple[Rank, int, Group]] = []  # groups registered nowhere, to be tried
        self._dirty: dict[int, Semaphore] = {}  # semaphores with more room than when their waiters were last tried
        self._stamp = 0
        self.wide_waiters: list[tuple[Semaphore, datetime]] = []
        """Pools on which a wide group has begun to wait, for the engine to arm the ageing timer; it clears the list."""

    def wait(self, instance: Instance, group: Group) -> None:
        """Put a scheduled instance into its group."""
        instance.group = group
        rank = rank_of(instance)
        heapq.heappush(group.members, (rank, instance))
        if group.blocked_on is None:
            self._try_soon(group)
        elif group.members[0][1] is instance:
            self._register(group, group.blocked_on, group.blocked_since)  # its place among the waiters has moved up

    def leave(self, instance: Instance) -> None:
        """Take an instance out of the queue; it no longer wants a slot."""
        group, instance.group = instance.group, None
        if group is None:
            return
        group.drop_absent()
        if not group.members:
            self._unregister(group)

    def freed(self, semaphores: Iterable[Semaphore]) -> None:
        """These have more room now, or let others through again."""
        for semaphore in semaphores:
            if semaphore.waiters:
                self._dirty[id(semaphore)] = semaphore

    def next_admitted(self, now: datetime) -> tuple[Instance, Needs] | None:
        """Take all slots for the foremost instance that can have them; None when nobody can."""
        while (group := self._next_group()) is not None:
            group.drop_absent()
            if not group.members:
                self._unregister(group)
                continue
            refusing = next((semaphore for semaphore, weight in group.needs if semaphore.refuses(weight, group)), None)
            if refusing is not None:
                self._register(group, refusing, now)
                continue
            for semaphore, weight in group.needs:
                semaphore.take(weight)
            instance = heapq.heappop(group.members)[1]
            instance.group = None
            self._unregister(group)
            group.drop_absent()
            if group.members:
                self._try_soon(group)
            return instance, group.needs
        return None

    def has_work(self) -> bool:
        """Whether `next_admitted` might find somebody."""
        return bool(self._fresh or self._dirty)

    def reserve_if_aged(self, pool: Semaphore, now: datetime, ageing_seconds: float) -> datetime | None:
        """Let the head of the pool reserve it if it has waited long enough; else say when to look again."""
        candidates = [
            entry
            for weight, heap in pool.waiters.items()
            if weight <= pool.limit  # one that can never fit must not close the pool for all
            for entry in heap
            if entry[1] == entry[2].stamp
        ]
        if not candidates or pool.reserved_for is not None:
            return None
        head = min(candidates)[2]
        assert head.blocked_since is not None
        waited = (now - head.blocked_since).total_seconds()
        if waited >= ageing_seconds:
            if head.weight_on(pool) > 1:
                pool.reserved_for = head
                self.freed([pool])
            return None
        return head.blocked_since

    def _next_group(self) -> Group | None:
        while self._fresh and (self._fresh[0][1] != self._fresh[0][2].stamp):
            heapq.heappop(self._fresh)
        best: tuple[Rank, Group] | None = None
        if self._fresh:
            best = (self._fresh[0][0], self._fresh[0][2])
        for key, semaphore in list(self._dirty.items()):
            group = semaphore.first_waiting(fitting=True)
            if group is None:
                del self._dirty[key]
                continue
            group.drop_absent()
            if not group.members:
                self._unregister(group)
                return self._next_group()
            rank = group.members[0][0]
            if best is None or rank < best[0]:
                best = (rank, group)
        return best[1] if best is not None else None

    def _try_soon(self, group: Group) -> None:
        self._stamp += 1
        group.stamp = self._stamp
        group.blocked_on = None
        group.blocked_since = None
        heapq.heappush(self._fresh, (group.members[0][0], group.stamp, group))

    def _register(self, group: Group, semaphore: Semaphore, since: datetime | None) -> None:
        if group.blocked_on is not semaphore:
            self._unregister(group)
            group.blocked_since = since
        self._stamp += 1
        group.stamp = self._stamp
        group.blocked_on = semaphore
        weight = group.weight_on(semaphore)
        heapq.heappush(semaphore.waiters.setdefault(weight, []), (group.members[0][0], group.stamp, group))
        if weight > 1 and since is not None:
            self.wide_waiters.append((semaphore, since))

    def _unregister(self, group: Group) -> None:
        """The group waits nowhere; a reservation that it held is void, so others may be let through."""
        self._stamp += 1
        group.stamp = self._stamp
        group.blocked_on = None
        group.blocked_since = None
        for semaphore, _ in group.needs:
            if semaphore.reserved_for is group:
                semaphore.reserved_for = None
                self.freed([semaphore])
