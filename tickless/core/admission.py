"""The semaphores: all or none, in order of priority and age, and who waits on which.

A scheduled task instance waits in a *group*: the instances of one run that need the same slots (pool, pool_slots,
queue, and the task itself if it has a limit of its own). Groups of all runs with the same needs beyond their own run
stand in one *lane*, foremost first. What refuses the head of a lane refuses all of it, so a lane is tried once, not
once per waiter, and a blocked lane is registered with exactly one semaphore that refuses it now. When that one has
room again the lane is tried again; if another refuses it then, it moves there. A group whose own run has no slot left,
for any task or for this one, is *parked* at that limit and stands in no lane.
So no wake-up is lost, nobody who cannot run holds a place that others need, and the cost of a freed slot is at most
the number of lanes, which follows from how DAGs are written, never from the backlog.

Wide tasks (pool_slots > 1) could starve behind narrow ones: once the head of a pool's waiters is older than
`pool_ageing`, whoever stands behind it and would overtake it is refused instead: the pool is reserved until it fits.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime

from tickless.core.record import Instance, Run
from tickless.errors import InvariantBroken

Rank = tuple[int, datetime, int, int, int]
"""Order of admission: highest priority, then longest scheduled, then oldest run, then place in the DAG."""


Signature = tuple[str, int, str, str]
"""Pool, pool_slots, queue, and the id of a task that has limits of its own (else empty)."""

Needs = tuple[tuple["Semaphore", int], ...]
"""Semaphores and how many slots of each: taken together, given back together."""


def rank_of(instance: Instance) -> Rank:
    """The place of a scheduled instance in the order of admission; smaller comes first."""
    assert instance.scheduled_at is not None
    task = instance.task
    return (-task.spec.priority_weight, instance.scheduled_at, instance.run.key, task.index, instance.map_index)


class Semaphore:
    """One limit: `used` of `limit` slots. `name` is what `why` calls it, `scope` says of what."""

    __slots__ = ("is_closed", "limit", "name", "parked", "reserved", "scope", "used", "waiters")

    def __init__(self, name: str, scope: str, limit: int) -> None:
        self.name = name
        self.scope = scope
        self.limit = limit
        self.used = 0
        self.is_closed = False  # of a run's own semaphore: its DAG is paused, nobody is let through
        self.reserved: Lane | None = None  # a wide lane that nobody behind it may overtake
        # Registered lanes, a heap per weight; an entry is dead when the lane has moved on since (its stamp differs).
        self.waiters: dict[int, list[tuple[Rank, int, Lane]]] = {}
        self.parked: list[Group] = []  # of a semaphore of a single run: the groups that it refuses

    def __repr__(self) -> str:
        return f"<{self.name} {self.scope} {self.used}/{self.limit}>"

    @property
    def free(self) -> int:
        return self.limit - self.used

    @property
    def reserved_for(self) -> Group | None:
        """The group that is next in here; nobody behind it is let through before."""
        return self.reserved.head() if self.reserved is not None else None

    def refuses(self, weight: int, group: Group | None) -> bool:
        """Whether a group of this weight cannot have its slots now."""
        return (
            self.is_closed
            or self.used + weight > self.limit
            or (group is not None and self.reserved is not None and self.reserved.stands_before(group))
        )

    def take(self, weight: int) -> None:
        self.used += weight

    def give_back(self, weight: int) -> None:
        self.used -= weight
        if self.used < 0:
            raise InvariantBroken(f"{self!r}: more slots given back than taken")

    def first_waiting(self, most: int) -> Lane | None:
        """The foremost registered lane, of those that want no more slots than `most`."""
        best: tuple[Rank, int, Lane] | None = None
        for weight in list(self.waiters):
            if weight > most:
                continue
            heap = self.waiters[weight]
            while heap and heap[0][1] != heap[0][2].stamp:
                heapq.heappop(heap)
            if not heap:
                del self.waiters[weight]
            elif best is None or heap[0] < best:
                best = heap[0]
        return best[2] if best is not None else None


class Group:
    """Scheduled instances of one run with the same needs. `stamp` changes each time it takes a new place."""

    __slots__ = ("lane", "members", "needs", "own", "run", "signature", "stamp")

    def __init__(self, run: Run, signature: Signature, own: Needs, needs: Needs, lane: Lane) -> None:
        self.run = run
        self.signature = signature
        self.own = own  # those needs that only its run knows
        self.needs = needs
        self.lane = lane
        self.members: list[tuple[Rank, Instance]] = []  # a heap
        self.stamp = 0

    def __lt__(self, other: Group) -> bool:
        return self.stamp < other.stamp  # ranks are unique; this only satisfies the heap's type

    @property
    def rank(self) -> Rank:
        return self.members[0][0]

    def refusing(self) -> list[tuple[Semaphore, int]]:
        """Every need that cannot be met now."""
        return [(semaphore, weight) for semaphore, weight in self.needs if semaphore.refuses(weight, self)]

    def parked_at(self) -> Semaphore | None:
        """The limit of its own run that lets none of it through now."""
        return next((semaphore for semaphore, weight in self.own if semaphore.refuses(weight, None)), None)

    def drop_absent(self) -> None:
        """Forget members that left (cancelled) from the front of the heap."""
        while self.members and self.members[0][1].group is not self:
            heapq.heappop(self.members)


class Lane:
    """Groups that differ only in their run. `stamp` changes with each registration."""

    __slots__ = ("blocked_on", "groups", "needs", "stamp")

    def __init__(self, needs: Needs) -> None:
        self.needs = needs  # without those of the single run
        self.groups: list[tuple[Rank, int, Group]] = []  # a heap; an entry is dead when the group's stamp differs
        self.blocked_on: Semaphore | None = None
        self.stamp = 0

    def __lt__(self, other: Lane) -> bool:
        return self.stamp < other.stamp

    def head(self) -> Group | None:
        """The group whose turn it is."""
        while self.groups and self.groups[0][1] != self.groups[0][2].stamp:
            heapq.heappop(self.groups)
        return self.groups[0][2] if self.groups else None

    def weight_on(self, semaphore: Semaphore) -> int:
        return next((weight for each, weight in self.needs if each is semaphore), 0)

    def stands_before(self, group: Group) -> bool:
        """Whether the group stands in another lane, and behind the head of this one."""
        head = self.head()
        return head is not None and group.lane is not self and head.rank < group.rank


class Admission:
    """Who is let through next. The engine tells it of new waiters and freed slots, and pulls `next_admitted`."""

    def __init__(self) -> None:
        self._lanes: dict[object, Lane] = {}
        self._fresh: list[tuple[Rank, int, Lane]] = []  # lanes registered nowhere, to be tried
        self._dirty: dict[int, Semaphore] = {}  # semaphores with more room than when their waiters were last tried
        self._stamp = 0

    def lane(self, key: object, needs: Needs) -> Lane:
        """The lane of this key; it is made with these needs."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(needs)
        return lane

    def forget_lanes(self) -> None:
        """Needs have changed; nobody may be waiting."""
        self._lanes.clear()

    def wait(self, instance: Instance, group: Group) -> None:
        """Put a scheduled instance into its group."""
        instance.group = group
        heapq.heappush(group.members, (rank_of(instance), instance))
        if group.members[0][1] is instance:
            self._place(group)

    def leave(self, instance: Instance) -> None:
        """Take an instance out of the queue; it no longer wants a slot."""
        group, instance.group = instance.group, None
        if group is not None and group.members[0][1] is instance:
            self._place(group)

    def freed(self, semaphores: Iterable[Semaphore]) -> None:
        """These have more room now, or let others through again."""
        for semaphore in semaphores:
            if semaphore.waiters:
                self._dirty[id(semaphore)] = semaphore
            if semaphore.parked and not semaphore.refuses(1, None):
                parked, semaphore.parked = semaphore.parked, []
                for group in parked:
                    self._place(group)

    def closed_or_opened(self, run: Run) -> None:
        """The slots of a run were closed or opened: its groups take their places accordingly."""
        for group in run.groups.values():
            self._place(group)
        self.freed([run.slots])

    def next_admitted(self, now: datetime, ageing_seconds: float) -> tuple[Instance, Needs] | None:
        """Take all slots for the foremost instance that can have them; None when nobody can."""
        while (lane := self._next_lane()) is not None:
            group = lane.head()
            assert group is not None
            if group.parked_at() is not None:
                self._place(group)
                continue
            refusing = next((semaphore for semaphore, weight in lane.needs if semaphore.refuses(weight, group)), None)
            if refusing is None:
                refusing = self._reserved_by_age(group, now, ageing_seconds)
            if refusing is not None:
                self._register(lane, refusing)
                continue
            for semaphore, weight in group.needs:
                semaphore.take(weight)
            instance = heapq.heappop(group.members)[1]
            instance.group = None
            self._place(group)  # first: others of its run may stand in its lane, whose head must not be empty
            if group.run.slots.refuses(1, None):
                for each in group.run.groups.values():
                    self._place(each)
            return instance, group.needs
        return None

    def has_work(self) -> bool:
        """Whether `next_admitted` might find somebody."""
        return bool(self._fresh or self._dirty)

    def _next_lane(self) -> Lane | None:
        while self._fresh and self._fresh[0][1] != self._fresh[0][2].stamp:
            heapq.heappop(self._fresh)
        best = self._fresh[0] if self._fresh else None
        for key, semaphore in list(self._dirty.items()):
            lane = semaphore.first_waiting(most=semaphore.free)
            head = lane.head() if lane is not None else None
            if lane is None or head is None or semaphore.refuses(lane.weight_on(semaphore), head):
                del self._dirty[key]
            elif best is None or (head.rank, lane.stamp, lane) < best:
                best = (head.rank, lane.stamp, lane)
        return best[2] if best is not None else None

    def _reserved_by_age(self, group: Group, now: datetime, ageing_seconds: float) -> Semaphore | None:
        """A pool whose first waiter is wide, old enough, and would be overtaken by this group."""
        for semaphore, _ in group.lane.needs:
            if max(semaphore.waiters, default=1) == 1:
                continue  # only in pools, and only wide tasks, can be overtaken
            first = semaphore.first_waiting(most=semaphore.limit)  # one that can never fit must not close the pool
            head = first.head() if first is not None else None
            if first is None or head is None or first.weight_on(semaphore) == 1 or not first.stands_before(group):
                continue
            _, scheduled_at, *_ = head.rank
            if (now - scheduled_at).total_seconds() >= ageing_seconds:
                semaphore.reserved = first
                return semaphore
        return None

    def _place(self, group: Group) -> None:
        """The group's head has changed, or its run's slots: give it its place in its lane, or park it."""
        self._stamp += 1
        group.stamp = self._stamp  # wherever it stood, it stands no more
        group.drop_absent()
        if group.members:
            full = group.parked_at()
            if full is not None:
                if group not in full.parked:
                    full.parked.append(group)
            else:
                heapq.heappush(group.lane.groups, (group.rank, group.stamp, group))
        self._try_soon(group.lane)

    def _try_soon(self, lane: Lane) -> None:
        self._unregister(lane)
        head = lane.head()
        if head is not None:
            heapq.heappush(self._fresh, (head.rank, lane.stamp, lane))

    def _register(self, lane: Lane, semaphore: Semaphore) -> None:
        self._unregister(lane, stays_at=semaphore)
        lane.blocked_on = semaphore
        head = lane.head()
        assert head is not None
        weight = lane.weight_on(semaphore)
        heapq.heappush(semaphore.waiters.setdefault(weight, []), (head.rank, lane.stamp, lane))

    def _unregister(self, lane: Lane, stays_at: Semaphore | None = None) -> None:
        """The lane waits nowhere; a reservation that it held elsewhere is void, so others may be let through."""
        self._stamp += 1
        lane.stamp = self._stamp
        lane.blocked_on = None
        for semaphore, _ in lane.needs:
            if semaphore.reserved is lane and semaphore is not stays_at:
                semaphore.reserved = None
                self.freed([semaphore])
