"""The limits, one by one and together; who is let through, in which order, and at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from tests.support.playbook import Playbook
from tickless.core.admission import Admission, Semaphore
from tickless.errors import InvariantBroken
from tickless.model.limit import Limits, Routing

WIDE_OPEN = {"parallelism": 100_000, "dag_concurrency": 100_000, "max_active_runs_per_dag": 100_000}
MANY_SLOTS = Routing(executors={"local": 100_000, "other": 100_000}, queues={"default": "local", "fast": "other"})


def test_parallelism_3_and_dag_concurrency_2_let_exactly_2_of_3_run() -> None:
    book = Playbook("a; b; c", limits=Limits(parallelism=3, dag_concurrency=2))
    book.start().expect("launch a", "launch b")
    book.finish("a").expect("launch c")
    book.finish("b").expect()
    book.finish("c").expect("run success")


def test_parallelism_is_shared_by_all_runs() -> None:
    book = Playbook("a; b", limits=Limits(parallelism=3))
    book.start(run_id="1").expect("launch a", "launch b")
    book.start(run_id="2").expect("launch 2/a")
    book.finish("1/b").expect("launch 2/b")


def test_a_dag_says_its_own_dag_concurrency() -> None:
    Playbook("a; b; c", max_active_tasks=1).start().expect("launch a")
    Playbook("a; b; c", max_active_tasks=3, limits=Limits(dag_concurrency=1)).start().expect(
        "launch a", "launch b", "launch c"
    )


def test_dag_concurrency_counts_each_run_by_itself() -> None:
    book = Playbook("a; b", limits=Limits(dag_concurrency=1))
    book.start(run_id="1").expect("launch a")
    book.start(run_id="2").expect("launch 2/a")


def test_the_total_of_a_dag_counts_all_its_runs_and_no_other_dag() -> None:
    book = Playbook("a; b", limits=Limits(max_active_tasks_per_dag_total=3))
    book.dag("x", dag_id="other")
    book.start(run_id="1").expect("launch a", "launch b")
    book.start(run_id="2").expect("launch 2/a")
    book.start("other").expect("launch 3/x")
    book.finish("3/x").expect("run 3 success")
    book.finish("1/a").expect("launch 2/b")


def test_max_active_runs_lets_runs_start_in_the_order_of_their_making() -> None:
    book = Playbook("a", limits=Limits(max_active_runs_per_dag=2))
    book.start_many(4)
    assert book.runs() == ["running", "running", "queued", "queued"]
    book.finish("2/a").expect("run 2 success", "launch 3/a")
    book.finish("1/a").expect("run 1 success", "launch 4/a")


def test_a_pool_is_shared_and_pool_slots_weigh() -> None:
    book = Playbook("a; b; c", pool="db", pools={"db": 3}, tasks={"a": {"pool_slots": 2}})
    book.start().expect("launch a", "launch b")
    book.finish("b").expect("launch c")


def test_a_lower_priority_task_may_overtake_one_that_does_not_fit() -> None:
    book = Playbook(
        "first; wide; narrow",
        pool="db",
        pools={"db": 2},
        tasks={"first": {"priority": 3}, "wide": {"pool_slots": 2, "priority": 2}},
    )
    book.start().expect("launch first", "launch narrow")
    book.finish("first").expect()
    book.finish("narrow").expect("launch wide")


def test_a_task_takes_all_its_slots_or_none() -> None:
    book = Playbook(
        "a; b",
        pools={"db": 1, "net": 5},
        limits=Limits(parallelism=2),
        tasks={"a": {"pool": "db"}, "b": {"pool": "net"}},
    )
    book.dag("x; y", dag_id="other", tasks={"x": {"pool": "db"}, "y": {"pool": "net"}})
    book.start().expect("launch a", "launch b")
    book.start("other").expect()
    assert book.engine.pools["net"].used == 1, "2/y waits for parallelism and holds nothing of its pool"
    assert book.engine.executors["local"].used == 2
    book.finish("1/b").expect("launch 2/y")
    book.finish("1/a").expect("run 1 success", "launch 2/x")


def test_a_task_wider_than_its_pool_never_runs_and_stops_nobody() -> None:
    book = Playbook("wide; b", pool="db", pools={"db": 2}, tasks={"wide": {"pool_slots": 3, "priority": 9}})
    book.start().expect("launch b")
    book.after(3_600).expect()
    book.start(run_id="2").expect("launch 2/b")
    book.set_pool("db", 5).expect("launch 1/wide")


def test_an_unknown_pool_has_no_slots() -> None:
    book = Playbook("a; b", tasks={"a": {"pool": "nowhere"}})
    book.start().expect("launch b")
    book.set_pool("nowhere", 1).expect("launch a")


def test_a_queue_that_nobody_serves_starves_nobody() -> None:
    book = Playbook("a; b; c", tasks={"a": {"queue": "gpu", "priority": 9}}, limits=Limits(parallelism=1))
    book.start().expect("launch b")
    book.finish("b").expect("launch c")
    book.finish("c").expect()
    assert book.engine.parallelism.used == 0
    book.reload(routing=Routing(executors={"local": 1}, queues={"default": "local", "gpu": "local"})).expect("launch a")


def test_an_executor_has_slots_of_its_own() -> None:
    routing = Routing(executors={"local": 1, "other": 1}, queues={"default": "local", "fast": "other"})
    book = Playbook("a; b; c", routing=routing, tasks={"c": {"queue": "fast"}})
    book.start().expect("launch a", "launch c")
    assert book.attempt("c").executor == "other"
    book.finish("c").expect()
    book.finish("a").expect("launch b")


def test_priority_goes_first_then_age() -> None:
    book = Playbook("a; b; c; d", limits=Limits(parallelism=1), tasks={"c": {"priority": 5}})
    book.dag("x", dag_id="other", priority=5)
    book.start().expect("launch c")
    book.clock.advance(1)
    book.start("other").expect()
    for done, then in (("1/c", "2/x"), ("2/x", "1/a"), ("1/a", "1/b"), ("1/b", "1/d")):
        assert book.finish(done).launched == [then]


def test_a_retry_waits_behind_those_that_were_ready_before_it() -> None:
    book = Playbook("a; b; c", retries=1, retry_delay=1, limits=Limits(parallelism=1))
    book.start().expect("launch a")
    book.finish("a", "failed").expect("launch b")
    book.after(1).expect()
    book.finish("b").expect("launch c")
    book.finish("c").expect("launch a try 2")


def test_a_lost_attempt_keeps_its_place_in_the_order() -> None:
    book = Playbook("a; b; c", limits=Limits(parallelism=1))
    book.start().expect("launch a")
    book.lose("a").expect("launch a")


def test_a_raised_pool_wakes_as_many_as_fit_in_priority_order() -> None:
    book = Playbook("a; b; c; d", pool="db", pools={"db": 0}, tasks={"c": {"priority": 2}, "d": {"priority": 3}})
    book.dag("x", dag_id="other", pool="elsewhere")
    book.start()
    book.start("other")
    assert book.set_pool("db", 3).launched == ["1/d", "1/c", "1/a"]
    assert book.set_pool("db", 4).launched == ["1/b"]


def test_a_shrunk_pool_drains_and_kills_nothing() -> None:
    book = Playbook("a; b; c; d", pool="db", pools={"db": 3})
    book.start().expect("launch a", "launch b", "launch c")
    book.set_pool("db", 1).expect()
    book.finish("a").expect()
    book.finish("b").expect()
    book.finish("c").expect("launch d")


def test_a_pool_can_not_have_negative_slots() -> None:
    book = Playbook("a")
    with pytest.raises(Exception, match="-1 slots"):
        book.set_pool("db", -1)


def test_lowered_limits_drain_and_raised_ones_let_through() -> None:
    book = Playbook("a; b; c; d")
    book.start().expect("launch a", "launch b", "launch c", "launch d")
    book.reload(Limits(parallelism=1)).expect()
    book.start(run_id="2").expect()
    book.finish_all(["1/a", "1/b", "1/c"]).expect()
    book.reload(Limits(parallelism=3)).expect("launch 2/a", "launch 2/b")
    book.reload(Limits(parallelism=32, dag_concurrency=3)).expect("launch 2/c")


def test_a_limit_on_the_total_of_a_dag_counts_what_ran_before_it_was_set() -> None:
    book = Playbook("a; b")
    book.start(run_id="1").expect("launch a", "launch b")
    book.reload(Limits(max_active_tasks_per_dag_total=3)).expect()
    book.start(run_id="2").expect("launch 2/a")
    book.reload(Limits()).expect("launch 2/b")


def test_an_attempt_keeps_the_slots_of_the_executor_that_it_started_on() -> None:
    book = Playbook("a; b", routing=Routing(executors={"local": 1}, queues={"default": "local"}))
    book.start().expect("launch a")
    book.reload(routing=Routing(executors={"other": 1}, queues={"default": "other"})).expect("launch b")
    assert (book.engine.executors["local"].used, book.engine.executors["local"].limit) == (1, 0)
    book.restart().expect("launch a", "launch b")
    assert (book.engine.executors["local"].used, book.engine.executors["local"].limit) == (1, 0)
    book.finish("a").expect()
    assert book.engine.executors["local"].used == 0


def test_a_reload_reroutes_runs_in_which_nobody_waits_at_that_moment() -> None:
    book = Playbook("a >> b", routing=Routing(executors={"local": 1}, queues={"default": "local"}))
    book.start().expect("launch a")
    book.reload(routing=Routing(executors={"other": 1}, queues={"default": "other"}))
    book.finish("a").expect("launch b")
    assert book.attempt("b").executor == "other"
    assert (book.engine.executors["local"].used, book.engine.executors["other"].used) == (0, 1)


def test_slots_are_held_through_retries_only_while_an_attempt_lives() -> None:
    book = Playbook("a", retries=1)
    book.start()
    assert book.engine.parallelism.used == 1
    book.finish("a", "failed")
    assert book.engine.parallelism.used == 0


# ---- ageing ------------------------------------------------------------------------------------------------------


def _wide_among_narrow(**limits: Any) -> Playbook:
    book = Playbook(
        "n1; n2; wide; n3; n4; n5",
        pool="db",
        pools={"db": 2},
        tasks={"wide": {"pool_slots": 2}},
        limits=Limits(pool_ageing_seconds=60, **limits),
    )
    book.start().expect("launch n1", "launch n2")
    return book


def test_narrow_tasks_overtake_a_wide_one_until_it_has_aged() -> None:
    book = _wide_among_narrow()
    book.finish("n1").expect("launch n3")
    book.after(60).expect()
    book.finish("n2").expect()
    assert book.engine.pools["db"].reserved_for is book.instance("wide").group
    book.finish("n3").expect("launch wide")
    book.finish("wide").expect("launch n4", "launch n5")


def test_a_new_narrow_task_does_not_overtake_an_aged_wide_one() -> None:
    book = Playbook("n1; wide", pool="db", pools={"db": 2}, tasks={"wide": {"pool_slots": 2}})
    book.dag("late", dag_id="other", pool="db")
    book.dag("urgent", dag_id="third", pool="db", priority=9)
    book.start().expect("launch n1")
    book.after(60).expect()
    book.start("other").expect()
    book.start("third").expect("launch 3/urgent")
    book.finish("3/urgent").expect("run 3 success")
    book.finish("1/n1").expect("launch 1/wide")


def test_a_wide_task_that_becomes_the_head_later_still_ages() -> None:
    book = Playbook(
        "n1; n2; n3; wide; n4; n5",
        pool="db",
        pools={"db": 2},
        tasks={"n3": {"priority": 2}, "n1": {"priority": 3}, "n2": {"priority": 3}, "wide": {"pool_slots": 2}},
    )
    book.start().expect("launch n1", "launch n2")
    book.after(60).expect()
    book.finish("n1").expect("launch n3")
    book.finish("n2").expect()
    book.finish("n3").expect("launch wide")


def test_a_reservation_ends_with_the_one_who_holds_it() -> None:
    book = Playbook("wide", pool="db", pools={"db": 2}, pool_slots=2)
    book.dag("n1; n2; n3", dag_id="other", pool="db")
    book.set_pool("db", 1)
    book.start("other").expect("launch n1")
    book.set_pool("db", 2).expect("launch n2")
    book.start().expect()
    book.start("other", run_id="more").expect()
    book.after(60)
    book.finish("1/n1").expect("launch 1/n3")
    book.after(60)
    book.finish("1/n2").expect()
    book.cancel(2).expect("run 2 failed", "launch 3/n1")


def test_a_reservation_ends_when_the_pool_shrinks_below_it() -> None:
    book = _wide_among_narrow()
    book.after(60)
    book.finish("n1").expect()
    book.set_pool("db", 1).expect()
    book.finish("n2").expect("launch n3")


def test_a_reservation_holds_again_after_a_restart() -> None:
    book = _wide_among_narrow()
    book.after(60)
    book.finish("n1").expect()
    book.restart().expect("launch n2")
    book.finish("n2").expect("launch wide")


# ---- the cost of a freed slot --------------------------------------------------------------------------------------


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts every question to a semaphore and every move of a waiter."""
    calls: Counter[str] = Counter()

    def spy(owner: type, name: str) -> Any:
        original = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return original(*args, **kwargs)

        return mock.patch.object(owner, name, counting)

    with (
        spy(Semaphore, "refuses"),
        spy(Semaphore, "first_waiting"),
        spy(Admission, "_register"),
        spy(Admission, "_place"),
    ):
        yield calls


WAITERS = 10_000
MOST_CALLS = 60
"""Per freed slot, whatever the backlog."""


def test_a_freed_slot_costs_the_same_behind_10_000_waiting_tasks_of_one_run() -> None:
    book = Playbook(
        "; ".join(f"t{n}" for n in range(WAITERS)),
        pool="db",
        pools={"db": 2},
        limits=Limits(**WIDE_OPEN),
        routing=MANY_SLOTS,
    )
    book.start()
    with counted() as calls:
        book.finish("t0").expect("launch t2")
    assert sum(calls.values()) <= MOST_CALLS, calls


def test_a_freed_slot_costs_the_same_behind_10_000_waiting_runs() -> None:
    book = Playbook("a", pool="db", pools={"db": 2}, limits=Limits(**WIDE_OPEN), routing=MANY_SLOTS)
    book.start_many(WAITERS)
    for number in range(1, 20):
        with counted() as calls:
            book.finish(f"{number}/a").expect(f"launch {number + 2}/a", f"run {number} success")
        assert sum(calls.values()) <= MOST_CALLS, calls


def test_waiters_that_need_two_full_things_are_not_carried_from_one_to_the_other() -> None:
    book = Playbook(
        "a",
        pool="db",
        pools={"db": 1},
        limits=Limits(**WIDE_OPEN),
        routing=Routing(executors={"local": 3}, queues={"default": "local"}),
    )
    book.dag("x; y; z", dag_id="other")
    book.start("other", run_id="other-1")
    book.start_many(2_000)
    book.start("other", run_id="other-2")
    with counted() as calls:
        book.finish("1/x").expect("launch 2/a")  # the executor has room: one takes the pool, the rest meet a full pool
        book.finish("1/y").expect("launch 2002/x")
        book.finish("2/a").expect("run 2 success", "launch 3/a")
        book.set_pool("db", 2).expect()  # the pool has room, the executor has not
        book.finish("1/z").expect("run 1 success", "launch 4/a")
        book.finish("4/a").expect("run 4 success", "launch 5/a")
    assert sum(calls.values()) <= 6 * MOST_CALLS, calls


def test_a_run_at_its_own_limit_costs_nothing_to_others() -> None:
    book = Playbook("; ".join(f"t{n}" for n in range(2_000)), max_active_tasks=1, limits=Limits(**WIDE_OPEN))
    book.dag("x >> y", dag_id="other")
    book.start()
    book.start("other").expect("launch 2/x")
    with counted() as calls:
        book.finish("2/x").expect("launch 2/y")
    assert sum(calls.values()) <= MOST_CALLS, calls


def test_giving_back_more_than_was_taken_is_a_bug() -> None:
    semaphore = Semaphore("pool", "db", 3)
    semaphore.take(1)
    with pytest.raises(InvariantBroken):
        semaphore.give_back(2)
