"""The runner's end of its attempt's channel: one request at a time, its answer waited for.

Blocking, and safe to use from the threads of user code. The launcher holds a request until a daemon answers it, so
there is nothing to retry here; when the task's time is up, the process is ended while it waits.

A signal handler that raises may leave a request half sent or its answer unread: what is unsent goes first the next
time, and answers to older numbers are dropped.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tickless.authoring.daemon import TriggeredRun, XCom
from tickless.errors import InvariantBroken, NotFound, Refused, TicklessError, Unavailable, UserError
from tickless.model.state import RunState
from tickless.wire.codec import BadMessage, FrameReader, encode_frame
from tickless.wire.request import (
    MAX_REQUEST_BYTES,
    Answer,
    Ask,
    ConnectionGet,
    PreviousRunGet,
    Request,
    RunStateGet,
    TriggerRun,
    VariableDelete,
    VariableGet,
    VariableSet,
    XComGet,
)

GATE = 3
_LENGTH_BYTES = 4
_READ_BYTES = 256 * 1024
_FAMILIES: dict[str, type[TicklessError]] = {"not_found": NotFound, "refused": Refused, "invalid": UserError}


class Client:
    """Implements `authoring.daemon.Daemon` on descriptor 3."""

    def __init__(self) -> None:
        self._pid = 0
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._number = 0
        self._unsent = bytearray()
        self._reader: FrameReader[Answer] = FrameReader(Answer)

    def begin(self) -> None:
        """This process is the attempt, and its gate is open."""
        self._pid = os.getpid()

    # ---- what a task asks -----------------------------------------------------------------------------------------

    def xcoms(
        self,
        *,
        task_ids: Sequence[str] | None = None,
        map_indexes: Sequence[int] | None = None,
        key: str = "return_value",
        dag_id: str | None = None,
        run_id: str | None = None,
        after: int | None = None,
    ) -> list[XCom]:
        found = self.ask(
            XComGet(
                task_ids=None if task_ids is None else list(task_ids),
                map_indexes=None if map_indexes is None else list(map_indexes),
                key=key,
                dag_id=dag_id,
                run_id=run_id,
                after=after,
            )
        )
        return [XCom(**each) for each in found]

    def variable(self, key: str) -> str:
        return str(self.ask(VariableGet(key=key)))

    def set_variable(self, key: str, value: str, description: str | None = None) -> None:
        self.ask(VariableSet(key=key, value=value, description=description))

    def delete_variable(self, key: str) -> bool:
        return bool(self.ask(VariableDelete(key=key)))

    def connection(self, conn_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(ConnectionGet(conn_id=conn_id))
        return found

    def trigger(
        self, dag_id: str, *, conf: str = "{}", run_id: str | None = None, logical_date: datetime | None = None
    ) -> TriggeredRun:
        found = self.ask(TriggerRun(dag_id=dag_id, conf=conf, run_id=run_id, logical_date=logical_date))
        return TriggeredRun(dag_id=dag_id, run_id=found["run_id"], run=found["run"])

    def run_state(self, dag_id: str, run_id: str, *, until: Sequence[RunState] | None = None) -> str:
        states = None if until is None else list(until)
        return str(self.ask(RunStateGet(dag_id=dag_id, run_id=run_id, until=states)))

    def previous_run(self, state: RunState | None = None) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.ask(PreviousRunGet(state=state))
        return found

    # ---- asking ---------------------------------------------------------------------------------------------------

    def ask(self, ask: Ask) -> Any:
        """The value that the daemon answers with. Raises what refuses it, Unavailable when the channel is gone."""
        if os.getpid() != self._pid:
            raise UserError(
                "a process that the task has forked cannot ask the daemon",
                hint="Ask in the task's own process, and hand the answer on.",
            )
        with self._lock:
            sock = self._connected()
            frame = self._frame(ask)
            self._number += 1
            self._unsent += frame
            answer = self._exchange(sock, self._number)
        if answer.error is not None:
            raise _FAMILIES.get(answer.code, InvariantBroken)(answer.error)
        return json.loads(answer.value)

    def _frame(self, ask: Ask) -> bytes:
        try:
            frame = encode_frame(Request(number=self._number + 1, ask=ask))
            list(FrameReader(Request).feed(frame))  # what the launcher could not read would end the channel
        except (BadMessage, UnicodeEncodeError) as error:
            raise UserError(f"this cannot be asked: {error}") from None
        if len(frame) - _LENGTH_BYTES > MAX_REQUEST_BYTES:
            raise UserError(
                f"a request of {len(frame):,} bytes is over the limit of {MAX_REQUEST_BYTES:,}",
                hint="Keep large data in files or object storage, and hand on where it is.",
            )
        return frame

    def _connected(self) -> socket.socket:
        try:
            stat = os.fstat(GATE)
            identity = (stat.st_dev, stat.st_ino)
            if self._sock is None:
                sock = socket.socket(fileno=GATE)
                if sock.family != socket.AF_UNIX:
                    sock.detach()
                    raise _gone()
                sock.settimeout(None)
                self._sock, self._identity = sock, identity
        except OSError:
            raise _gone() from None
        if identity != self._identity:
            raise _gone()  # closed, and its number given to a file of the user's
        return self._sock

    def _exchange(self, sock: socket.socket, number: int) -> Answer:
        try:
            while self._unsent:
                del self._unsent[: sock.send(self._unsent)]
            data = b""
            while True:
                for answer in self._reader.feed(data):
                    if answer.number in (number, 0):
                        return answer
                data = sock.recv(_READ_BYTES)
                if not data:
                    raise Unavailable("the launcher has closed this task's channel to the daemon")
        except OSError as error:
            if error.errno is None:
                raise  # from a signal handler of the user's: a TimeoutError is an OSError, too
            raise Unavailable(f"this task's channel to the daemon is broken: {error}") from error


def _gone() -> UserError:
    return UserError(
        f"this task's channel to the daemon (descriptor {GATE}) has been closed by its own code",
        hint="Leave the descriptor open, or ask before it is closed.",
    )


CLIENT = Client()
"""Of this process. Made in the zygote, so that a fork has nothing to make."""
