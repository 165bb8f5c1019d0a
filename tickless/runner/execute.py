"""Running one Python task in this process: inputs in, the callable called, an outcome out. It never raises."""

from __future__ import annotations

import atexit
import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from tickless.authoring.bash import Command
from tickless.authoring.context import TaskInstance, enter
from tickless.authoring.secret import masked
from tickless.authoring.xcom import RETURN_KEY
from tickless.errors import UserError
from tickless.exceptions import AirflowException, TaskFailed, TaskSkipped
from tickless.model.dag import TaskKind
from tickless.model.order import Order
from tickless.model.state import AttemptState, EndReason
from tickless.runner.encode import NotJson, encode_value
from tickless.runner.trace import format_user_traceback, tell
from tickless.wire.outcome import MAX_OUTPUT_BYTES, Outcome, clean_text


def execute(order: Order) -> Outcome | Command:
    """Call the task of this order. Its DAG file has been imported. What it prints goes to our stdout and stderr.

    Of a bash task comes the command that this process is to become, if nothing goes wrong before.
    """
    try:
        function = _find(order)
        inputs: dict[Any, Any] = {task_id: json.loads(text) for task_id, text in (order.inputs or {}).items()}
        for task_id, values in (order.input_keys or {}).items():
            inputs |= {(task_id, key): json.loads(text) for key, text in values.items()}
        inputs |= {(None, name): index for name, index in (order.map_picks or {}).items()}
        inputs |= {(None, name): json.loads(text) for name, text in (order.map_values or {}).items()}
        inputs |= {(None, name): (key, inputs[None, name]) for name, key in (order.map_keys or {}).items()}
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else format_user_traceback(error)
        tell(message)
        return _failed(order, EndReason.NOT_STARTED, message)
    outcome = call(order, function, inputs)
    return _leave(order, outcome) if isinstance(outcome, Outcome) else outcome


def _find(order: Order) -> Callable[..., Any]:
    from tickless.authoring.registry import callables

    functions = callables(order.dag_id)
    if order.task_id not in functions:
        raise UserError(f"{order.file} defines no task {order.task_id!r} for a runner in DAG {order.dag_id!r}")
    return functions[order.task_id]


def call(order: Order, function: Callable[..., Any], inputs: Mapping[Any, Any]) -> Outcome | Command:
    """What the task comes to. `function` takes the inputs and the task instance."""
    encoder = Encoder(order)
    instance = TaskInstance(order, inputs, encoder.encode)
    enter(instance)
    outcome = _call(order, function, inputs, instance, encoder)
    if instance.pushed and isinstance(outcome, Outcome):
        outcome = msgspec.structs.replace(outcome, xcoms=instance.pushed)
    return outcome


def _call(
    order: Order,
    function: Callable[..., Any],
    inputs: Mapping[Any, Any],
    instance: TaskInstance,
    encoder: Encoder,
) -> Outcome | Command:
    output = length = None
    try:
        value = function(inputs, instance)
        if order.kind is TaskKind.BASH:
            return cast(Command, value)
        if order.do_xcom_push and value is not None:
            if instance.multiple_outputs:
                _push_items(instance, value)
            output = encoder.encode(RETURN_KEY, value)
            length = len(value) if isinstance(value, list | tuple | dict) else None
    except NotJson as error:
        tell(str(error))
        return _failed(order, EndReason.OUTPUT_REFUSED, str(error))
    except SystemExit as error:
        return _exited(order, error)
    except TaskSkipped as error:
        tell(f"skipped: {error}" if error.args else "skipped")
        return Outcome(attempt_id=order.attempt_id, state=AttemptState.SKIPPED, reason=EndReason.EXITED, exit_code=0)
    except BaseException as error:
        trace = format_user_traceback(error)
        tell(trace)
        return _failed(order, EndReason.RAISED, trace, may_retry=not isinstance(error, TaskFailed))
    return Outcome(
        attempt_id=order.attempt_id,
        state=AttemptState.SUCCESS,
        reason=EndReason.EXITED,
        exit_code=0,
        output=output,
        length=length,
        follow=instance.follow,
        skip_below=instance.skip_below,
    )


def _push_items(instance: TaskInstance, value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise AirflowException(
            f"task {instance.task_id!r} has multiple_outputs, so it must return a dict with strings as keys, "
            f"and not {type(value).__qualname__}: {value!r:.200}"
        )
    for key, item in value.items():
        instance.xcom_push(key, item)


_ENTRY_BYTES = 16


class Encoder:
    """JSON of what one attempt hands on, within its limits."""

    def __init__(self, order: Order) -> None:
        self._task_id = order.task_id
        self._limit = min(order.max_output_bytes, MAX_OUTPUT_BYTES)
        self._left = MAX_OUTPUT_BYTES

    def encode(self, key: str, value: object) -> str | None:
        """None for None. Raises NotJson."""
        text = encode_value(value, task_id=self._task_id, limit=self._limit, key=key)
        self._left -= len(key.encode()) + _ENTRY_BYTES + (len(text.encode()) if text is not None else 0)
        if self._left < 0:
            raise NotJson(
                f"task {self._task_id!r} hands on more than {MAX_OUTPUT_BYTES:,} bytes in all. "
                "Store them in a file or a table and hand on where they are."
            )
        return text


def _exited(order: Order, error: SystemExit) -> Outcome:
    """sys.exit() and sys.exit(0) are a success without a value, as for any program."""
    if error.code is None or error.code == 0:
        return Outcome(attempt_id=order.attempt_id, state=AttemptState.SUCCESS, reason=EndReason.EXITED, exit_code=0)
    if isinstance(error.code, int):
        return _failed(order, EndReason.EXITED, f"sys.exit({error.code})", exit_code=error.code & 0xFF)
    tell(str(error.code))
    return _failed(order, EndReason.EXITED, f"sys.exit: {error.code}", exit_code=1)


def _leave(order: Order, outcome: Outcome) -> Outcome:
    """What an interpreter does at its end, before the outcome is written: wait for threads, run atexit, flush."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what multiprocessing does in its forked children
        atexit._run_exitfuncs()
    except BaseException as error:
        tell(format_user_traceback(error))
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError) as error:
        if outcome.state is AttemptState.SUCCESS:
            return _failed(order, EndReason.RAISED, f"the output could not be written to the log: {error}", exit_code=1)
    return outcome


def _failed(order: Order, reason: EndReason, error: str, exit_code: int = 1, *, may_retry: bool = True) -> Outcome:
    return Outcome(
        attempt_id=order.attempt_id,
        state=AttemptState.FAILED,
        reason=reason,
        exit_code=exit_code,
        error=clean_text(masked(error)),
        may_retry=may_retry,
    )


def configure_logging() -> None:
    """INFO and above to the task's log, unless the DAG file has set up logging itself."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
