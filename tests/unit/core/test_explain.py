"""Every reason for which a run or a task can wait, made by a script, and what is said of it: why, and what to do."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.support.clock import START
from tests.support.playbook import Playbook
from tickless.core import commands, events, explain
from tickless.core.explain import Reason, explain_run, explain_schedule, explain_task
from tickless.model.id import RunKey
from tickless.model.limit import Limits, Routing
from tickless.model.state import FINISHED_TASK_STATES, TaskState

Reasons = Callable[[], list[Reason]]


def of_task(book: Playbook, label: str) -> list[Reason]:
    return explain_task(book.engine, book.instance(label), book.clock.now())


def of_run(book: Playbook, run: int = 1) -> list[Reason]:
    return explain_run(book.engine, book.engine.runs[RunKey(run)], book.clock.now())


def started(book: Playbook, times: int = 1) -> Playbook:
    for number in range(times):
        book.start(run_id=str(number + 1))
    return book


def of_limited(**limits: int) -> Playbook:
    return started(Playbook("a; b", limits=Limits(**limits)))


# ---- rows: each makes one situation -------------------------------------------------------------------------------


def upstream() -> list[Reason]:
    return of_task(started(Playbook("a >> b")), "b")


def starting() -> list[Reason]:
    return of_task(started(Playbook("a")), "a")


def running() -> list[Reason]:
    book = started(Playbook("a"))
    book.begin("a")
    return of_task(book, "a")


def stopping() -> list[Reason]:
    book = started(Playbook("a"))
    book.begin("a")
    book.alter("clear", "a")
    assert book.state("a") == "restarting"
    return of_task(book, "a")


def retry_delay() -> list[Reason]:
    book = started(Playbook("a", retries=1, retry_delay=60))
    book.finish("a", "failed")
    return of_task(book, "a")


def retired_executor() -> list[Reason]:
    book = started(Playbook("a"))
    book.begin("a")
    book.routing = Routing(executors={"other": 4}, queues={"default": "other"})
    book.restart()
    return of_task(book, "a")


def queue() -> list[Reason]:
    return of_task(started(Playbook("a", routing=Routing(queues={}))), "a")


def executor() -> list[Reason]:
    return of_task(started(Playbook("a; b", routing=Routing(executors={"local": 1}))), "b")


def pool_without_slots() -> list[Reason]:
    return of_task(started(Playbook("a", pool="nowhere")), "a")


def pool_full() -> list[Reason]:
    return of_task(started(Playbook("a; b", pool="db", pools={"db": 1})), "b")


def pool_too_small() -> list[Reason]:
    return of_task(started(Playbook("a", pool="db", pools={"db": 1}, tasks={"a": {"pool_slots": 2}})), "a")


def paused_task() -> list[Reason]:
    book = started(Playbook("a >> b"))
    book.pause()
    book.finish("a")
    return of_task(book, "b")


def paused_run() -> list[Reason]:
    book = Playbook("a")
    book.pause()
    book.start()
    return of_run(book)


def max_active_runs() -> list[Reason]:
    return of_run(started(Playbook("a", limits=Limits(max_active_runs_per_dag=1)), 2), 2)


def stopping_daemon() -> list[Reason]:
    book = started(Playbook("a >> b"))
    book.when(commands.StopAdmitting())
    book.finish("a")
    return of_task(book, "b")


def frozen() -> list[Reason]:
    book = started(Playbook("a"))
    book.freeze()
    return of_run(book)


def cancelled() -> list[Reason]:
    book = started(Playbook("a"))
    book.begin("a")
    book.cancel()
    return of_run(book)


def creating() -> list[Reason]:
    book = Playbook("; ".join(f"t{number}" for number in range(2000)))
    book.start(drain=False)
    return of_run(book)


def removed_in_the_newest_version() -> list[Reason]:
    """A run keeps the version that it began with: its task waits for the same as before."""
    book = started(Playbook("a >> b"))
    book.dag("a >> c")
    return of_task(book, "b")


def vanished() -> list[Reason]:
    book = Playbook("a")
    book.when(events.DagVanished(dag_id="dag"))
    return explain_schedule(book.engine, "dag", book.clock.now())


def no_schedule() -> list[Reason]:
    return explain_schedule(Playbook("a").engine, "dag", Playbook("a").clock.now())


def of_the_past(*, ends: str = "", is_strict: bool = False, is_read: bool = True) -> list[Reason]:
    """Of the second run: the first one is still running, or has ended so."""
    book = Playbook("x" if is_strict else "a", depends_on_past=True)
    book.start(run_id="1", logical_date=START)
    if ends:
        book.finish("x" if is_strict else "a", ends)
    book.dag("a", depends_on_past=True, ignore_first_depends_on_past=not is_strict)
    book.reads_past = is_read
    book.start(run_id="2", logical_date=START + timedelta(days=1))
    return of_task(book, "2/a")


ROWS: list[tuple[Reasons, str, str]] = [
    (upstream, "upstream", "waits for a (queued)"),
    (starting, "starting", "has not reported its start"),
    (running, "running", "It is running since"),
    (stopping, "stopping", "its process has not ended yet"),
    (retry_delay, "retry_delay", "the next one starts in 60 s"),
    (retired_executor, "retired_executor", "Executor 'local' is not in the configuration any more"),
    (queue, "queue", "No executor serves the queue 'default'"),
    (executor, "executor", "All 1 slots of executor 'local' are taken"),
    (pool_without_slots, "pool", "has no slots (or does not exist)"),
    (pool_full, "pool", "1 of 1 slots of pool 'db' are used"),
    (pool_too_small, "pool", "It needs 2 slots of pool 'db', which has only 1"),
    (paused_task, "paused", "DAG 'dag' is paused"),
    (paused_run, "paused", "none of its queued runs starts"),
    (max_active_runs, "max_active_runs_per_dag", "1 of 1 runs"),
    (stopping_daemon, "stopping_daemon", "The daemon is stopping"),
    (frozen, "frozen", "An internal error of tickless"),
    (cancelled, "cancelled", "The run was cancelled"),
    (creating, "creating", "of 2000 task instances are created so far"),
    (removed_in_the_newest_version, "upstream", "waits for a (queued)"),
    (of_the_past, "depends_on_past", "it waits for a of the previous run, 1, which is queued now"),
    (lambda: of_the_past(ends="failed"), "depends_on_past", "a of the previous run, 1, which is failed"),
    (lambda: of_the_past(ends="success", is_strict=True), "depends_on_past", "has no task 'a'"),
    (lambda: of_the_past(is_read=False), "depends_on_past", "is being read"),
    (vanished, "vanished", "No file defines DAG 'dag' any more"),
    (no_schedule, "no_schedule", "It has no schedule"),
    (lambda: of_task(of_limited(parallelism=1), "b"), "parallelism", "1 of 1"),
    (lambda: of_task(of_limited(dag_concurrency=1), "b"), "dag_concurrency", "1 of 1"),
    (lambda: of_task(of_limited(max_active_tasks_per_dag_total=1), "b"), "max_active_tasks_per_dag_total", "1 of 1"),
    (
        lambda: of_task(started(Playbook("a", max_active_tis_per_dag=1), 2), "2/a"),
        "max_active_tis_per_dag",
        "1 of 1",
    ),
]


@pytest.mark.parametrize(("situation", "code", "says"), ROWS, ids=[f"{row[1]}-{i}" for i, row in enumerate(ROWS)])
def test_a_wait_is_explained_in_a_sentence_with_what_to_do(situation: Reasons, code: str, says: str) -> None:
    reason = situation()[0]
    assert (reason.code, says in reason.message) == (code, True), reason
    assert reason.message.endswith((".", "1"))
    assert reason.hint, "what to do"


ELSEWHERE = {
    "backfill_paused",  # test_backfills
    "max_active",  # test_backfills
    "admission",  # a moment between two steps: the state machine in tests/property meets it
    "expanding",  # test_mapping
    "schedule_problem",  # test_schedules
    "schedule_over",  # test_schedules
    "max_active_tis_per_dagrun",  # test_task_limits
}


def test_every_reason_there_is_has_a_row() -> None:
    """The codes are the literals in `core.explain`."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(explain))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Reason", "_reason"):
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"] + node.args[:1]
            found |= {each.value for each in given if isinstance(each, ast.Constant)}
        if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
            found.add(node.value.value)
    assert found | explain._HINTS.keys() == {code for _, code, _ in ROWS} | ELSEWHERE


def test_every_state_that_is_not_the_end_has_a_row_or_is_in_no_transition() -> None:
    met = {
        TaskState.NONE: upstream,
        TaskState.SCHEDULED: pool_full,
        TaskState.QUEUED: starting,
        TaskState.RUNNING: running,
        TaskState.RESTARTING: stopping,
        TaskState.UP_FOR_RETRY: retry_delay,
    }
    not_made = {TaskState.UP_FOR_RESCHEDULE, TaskState.DEFERRED}
    assert set(TaskState) - FINISHED_TASK_STATES == met.keys() | not_made
    assert {row[0] for row in ROWS} >= set(met.values())
