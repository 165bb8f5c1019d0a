"""One attempt in its own process, from just after the fork (or exec) to its exit: what user code finds itself in.

Everything that can be done before the gate opens is done before, because the launcher is writing the start record
meanwhile. The outcome file is opened there too: user code may change the user, the root or the working folder.
"""

from __future__ import annotations

import os
from typing import NoReturn

import msgspec

from tickless import failpoint
from tickless.authoring import daemon
from tickless.model.order import Order
from tickless.model.state import AttemptState, EndReason
from tickless.runner.client import CLIENT, GATE
from tickless.runner.command import become
from tickless.runner.execute import execute
from tickless.runner.trace import format_user_traceback, tell
from tickless.wire.environment import attempt_environment
from tickless.wire.layout import outcome_path, scratch_path
from tickless.wire.outcome import Outcome, encode_outcome

OUTCOME = 4
EXIT_GATE_CLOSED = 125
_EXIT_INTERNAL = 70

decode_order = msgspec.json.Decoder(Order).decode
daemon.provide(CLIENT)


def enter(order: Order, launcher_folder: str, workspace: str) -> None:
    """Take on the attempt's identity: environment, working folder, and its outcome file as descriptor 4."""
    scratch = scratch_path(launcher_folder, workspace)
    os.chdir(scratch)
    take_environment(order, scratch)
    fd = _open_outcome(outcome_path(launcher_folder, workspace))
    if fd != OUTCOME:
        os.dup2(fd, OUTCOME, inheritable=False)
        os.close(fd)


def take_environment(order: Order, scratch: str) -> None:
    for name in (failpoint.ENV, failpoint.ENV_LOG):
        os.environ.pop(name, None)
    for name, value in attempt_environment(order, scratch).items():
        os.environ[name] = value


def wait_at_gate() -> None:
    """Return when the start record is in the spool; exit when it never will be. The gate stays: requests use it."""
    if not os.read(GATE, 1):
        os._exit(EXIT_GATE_CLOSED)
    CLIENT.begin()


def run_and_exit(order: Order, launcher_folder: str, workspace: str, problem: str | None = None) -> NoReturn:
    """Run the task, leave its outcome, exit. With a `problem` the task is not run, and that is its outcome."""
    code = _EXIT_INTERNAL
    try:
        outcome = execute(order) if problem is None else not_started(order, problem)
        if not isinstance(outcome, Outcome):
            outcome = not_started(order, become(order, outcome, scratch_path(launcher_folder, workspace)))
        failpoint.hit("runner.before_outcome")
        _write(encode_outcome(outcome), outcome_path(launcher_folder, workspace))
        failpoint.hit("runner.after_outcome")
        code = outcome.exit_code or 0
    except BaseException as error:
        tell(f"tickless: the outcome could not be written: {error!r}")
    finally:
        os._exit(code)


def not_started(order: Order, problem: str) -> Outcome:
    """The outcome of a task whose callable was never reached; the reason also goes to its log."""
    tell(problem)
    return Outcome(
        attempt_id=order.attempt_id,
        state=AttemptState.FAILED,
        reason=EndReason.NOT_STARTED,
        exit_code=1,
        error=problem,
    )


def import_problem(order: Order) -> str | None:
    """Import the DAG file of the order; the traceback when that fails."""
    from tickless.authoring.loader import load_dag_file

    try:
        load_dag_file(order.bundle, order.file)
    except BaseException as error:
        return f"the DAG file {order.file} cannot be imported:\n{format_user_traceback(error)}"
    return None


def _open_outcome(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _write(data: bytes, path: str) -> None:
    try:
        written = os.pwrite(OUTCOME, data, 0)
    except OSError:  # user code has closed it, as those who daemonise do
        written = os.pwrite(_open_outcome(path), data, 0)
    if written != len(data):
        raise OSError(f"{written} of {len(data)} bytes")
