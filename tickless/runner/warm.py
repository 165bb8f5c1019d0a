"""Run the path of an attempt a few times in the base zygote, so that its forks inherit it warm.

CPython rewrites its bytecode while it learns what it runs, which in a forked child means copying the page for each of
these writes. Learnt before the fork, that happens once instead of in every attempt: a fifth of an attempt's cost.
"""

from __future__ import annotations

import os
import sys

import msgspec

from tickless.model.dag import TaskKind
from tickless.model.order import Order
from tickless.runner.attempt import OUTCOME, decode_order, enter, take_environment
from tickless.runner.execute import call
from tickless.wire.layout import outcome_path, scratch_path
from tickless.wire.outcome import Outcome, encode_outcome

_ROUNDS = 16  # more than the eight calls after which CPython 3.11 begins to specialise


_ORDER = Order(
    attempt_id=1,
    executor="",
    dag_id="warm",
    run_key=1,
    run_id="warm",
    task_id="warm",
    map_index=-1,
    try_number=1,
    kind=TaskKind.PYTHON,
    bundle="/",
    file="",
    version="",
    log_path="",
    kill_grace_seconds=0.0,
    max_output_bytes=1024,
)
_BODY = msgspec.json.encode(_ORDER)


def warm_up(folder: str) -> None:
    """Changes nothing that lasts. Descriptor 4 must be free."""
    workspace = f"warm-{os.getpid()}"
    scratch = scratch_path(folder, workspace)
    environment = dict(os.environ)
    try:
        if not os.path.isdir(scratch):
            os.mkdir(scratch, 0o700)  # not its parents: a launcher that has gone may be cleared away with its home
        for _ in range(_ROUNDS):
            enter(decode_order(_BODY), folder, workspace)
            os.pwrite(OUTCOME, _outcome(), 0)
            os.close(OUTCOME)
    finally:
        os.chdir("/")
        os.environ.clear()
        os.environ.update(environment)
        os.unlink(outcome_path(folder, workspace))
        os.rmdir(scratch)


def rehearse() -> None:
    """In a process that waits for its order: walk the way of an attempt without leaving a trace.

    Its memory is a copy-on-write image of its parent's, and each page that it writes to (a reference count is
    enough) costs a fault; those that every attempt writes to are faulted in now, while nobody waits.
    """
    take_environment(decode_order(_BODY), "/")
    _outcome()
    sys.stdout.flush()
    sys.stderr.flush()


def _outcome() -> bytes:
    outcome = call(_ORDER, lambda inputs, instance: None, {})
    assert isinstance(outcome, Outcome)
    return encode_outcome(outcome)
