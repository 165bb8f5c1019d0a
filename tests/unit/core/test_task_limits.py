"""max_active_tis_per_dag and max_active_tis_per_dagrun: limits of a single task."""

from __future__ import annotations

from unittest import mock

from tests.support.playbook import Playbook
from tickless.core import events
from tickless.core.admission import Admission
from tickless.core.explain import explain_task
from tickless.model.limit import Limits, Routing

MANY_RUNS = Limits(max_active_runs_per_dag=10_000, parallelism=10_000)
MANY_SLOTS = Routing(executors={"local": 10_000}, queues={"default": "local"})


def test_one_task_over_all_runs() -> None:
    book = Playbook("a; b", tasks={"a": {"max_active_tis_per_dag": 1}})
    book.start(run_id="1").expect("launch a", "launch b")
    book.start(run_id="2").expect("launch 2/b")
    book.start(run_id="3").expect("launch 3/b")
    book.finish("1/a").expect("launch 2/a")
    book.finish("2/a", "failed").expect("launch 3/a")
    book.restart().expect("launch 1/b", "launch 2/b", "launch 3/a", "launch 3/b")
    book.finish_all(["1/b", "2/b", "3/a", "3/b"])
    assert book.is_idle


def test_other_dags_with_a_task_of_this_name_are_not_counted() -> None:
    book = Playbook("a", max_active_tis_per_dag=1)
    book.dag("a", dag_id="other", max_active_tis_per_dag=1)
    book.start().expect("launch a")
    book.start("other").expect("launch 2/a")


def test_within_a_run_the_slots_are_its_own() -> None:
    book = Playbook("a", max_active_tis_per_dagrun=1)
    book.start(run_id="1").expect("launch a")
    book.start(run_id="2").expect("launch 2/a")
    holds = book.engine.attempts[book.attempt("1/a").attempt_id].holds
    assert ("max_active_tis_per_dagrun", 1) in [(semaphore.name, semaphore.used) for semaphore, _ in holds]


def test_who_waits_for_it_keeps_nobody_else_waiting() -> None:
    book = Playbook("a; b", tasks={"a": {"max_active_tis_per_dag": 1, "priority": 9}}, limits=Limits(parallelism=2))
    book.start(run_id="1").expect("launch a", "launch b")
    book.start(run_id="2").expect()
    book.finish("1/b").expect("launch 2/b")
    book.finish("2/b").expect()
    book.finish("1/a").expect("launch 2/a", "run 1 success")


def test_a_retry_gives_the_slot_to_others() -> None:
    book = Playbook("a", max_active_tis_per_dag=1, retries=1, retry_delay=10)
    book.start(run_id="1")
    book.start(run_id="2")
    book.finish("1/a", "failed").expect("launch 2/a")
    book.after(10).expect()
    book.finish("2/a").expect("launch 1/a try 2", "run 2 success")


def test_a_new_version_raises_it_for_those_who_wait() -> None:
    book = Playbook("a", max_active_tis_per_dag=1)
    for number in "123":
        book.start(run_id=number)
    book.dag("a", max_active_tis_per_dag=2).expect("launch 2/a")
    book.dag("a", retries=1).expect("launch 3/a")  # the current version has no such limit


def test_a_vanished_dag_keeps_the_limit_of_its_runs() -> None:
    book = Playbook("a", max_active_tis_per_dag=1)
    book.start(run_id="1")
    book.start(run_id="2")
    book.when(events.DagVanished(dag_id="dag")).expect()
    book.restart().expect("launch 1/a")
    book.finish("1/a").expect("launch 2/a", "run 1 success")


def test_why_names_it_with_the_numbers() -> None:
    book = Playbook("a", max_active_tis_per_dag=1)
    book.start(run_id="1")
    book.start(run_id="2")
    (reason,) = explain_task(book.engine, book.instance("2/a"), book.clock.now())
    assert (reason.code, reason.used, reason.limit) == ("max_active_tis_per_dag", 1, 1)
    assert reason.message == (
        "max_active_tis_per_dag: 1 of 1 task instances of task a of DAG dag are queued or running."
    )


def test_a_freed_slot_does_not_walk_over_those_who_wait() -> None:
    book = Playbook("a", max_active_tis_per_dag=1, limits=MANY_RUNS, routing=MANY_SLOTS, pools={"default_pool": 9999})
    book.start_many(1000)
    with mock.patch.object(Admission, "_next_lane", autospec=True, side_effect=Admission._next_lane) as tries:
        book.finish("1/a").expect("launch 2/a", "run 1 success")
    assert tries.call_count < 10


def test_groups_of_one_run_in_one_lane() -> None:
    tasks = {"b": {"max_active_tis_per_dagrun": 1, "priority": 9}}
    book = Playbook("a; b", tasks=tasks, limits=Limits(dag_concurrency=1, parallelism=0))
    book.start().expect()
    book.reload(limits=Limits(dag_concurrency=1)).expect("launch b")
    book.finish("b").expect("launch a")
