"""Task instances of a run, their attempts and their logs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, TypeVar

import anyio
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from tickless.api.access import Access, access
from tickless.api.base import Backend
from tickless.api.context import BackendOf, find_instance, find_run, page_size
from tickless.api.views import AttemptView, Page, TaskView
from tickless.api.watch import Watcher
from tickless.core.decision import AttemptEnded
from tickless.errors import NotFound, TicklessError
from tickless.model.id import UNMAPPED, RunKey, TaskId, TaskKey
from tickless.model.row import AttemptRow
from tickless.model.state import FINISHED_TASK_STATES, LIVE_ATTEMPT_STATES, TaskState

router = APIRouter(tags=["tasks"])
T = TypeVar("T")

_LOG_TYPE = "text/plain; charset=utf-8"
MapIndex = Annotated[int, Query(ge=UNMAPPED, lt=2**31)]


@router.get("/runs/{run}/tasks", **access(Access.READ))
async def list_tasks(
    backend: BackendOf,
    run: int,
    state: Annotated[list[TaskState] | None, Query()] = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1)] = 500,
) -> Page[TaskView]:
    """Task instances by task_id and map_index, each with its latest attempt."""
    await find_run(backend, run)
    limit = page_size(limit)
    found = await backend.reader.instances(RunKey(run), states=state or (), after=_cursor(after), limit=limit)
    last = f"{found[-1].row.task_id}[{found[-1].row.map_index}]" if len(found) == limit else None
    notes = {(note.task_id, note.map_index): note for note in await backend.reader.notes([RunKey(run)])}
    items = [TaskView.of(info, notes.get((info.row.task_id, info.row.map_index))) for info in found]
    return Page(items=items, next=last)


@router.get("/runs/{run}/tasks/{task_id}", **access(Access.READ))
async def show_task(backend: BackendOf, run: int, task_id: str, map_index: MapIndex = UNMAPPED) -> TaskView:
    """One task instance."""
    info = await find_instance(backend, run, task_id, map_index)
    notes = await backend.reader.notes([RunKey(run)])
    mine = (note for note in notes if (note.task_id, note.map_index) == (task_id, map_index))
    return TaskView.of(info, next(mine, None))


@router.get("/runs/{run}/tasks/{task_id}/attempts", **access(Access.READ))
async def list_attempts(
    backend: BackendOf, run: int, task_id: str, map_index: MapIndex = UNMAPPED
) -> Page[AttemptView]:
    """Its attempts, newest first, at most 50."""
    await find_instance(backend, run, task_id, map_index)
    rows = await backend.reader.attempts(TaskKey(RunKey(run), TaskId(task_id), map_index))
    return Page(items=[AttemptView.of(row) for row in rows])


@router.get(
    "/runs/{run}/tasks/{task_id}/logs",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "headers": {
                "Tickless-Attempt": {"schema": {"type": "integer"}, "description": "Whose log it is."},
                "Tickless-Try": {"schema": {"type": "integer"}, "description": "Which try that was."},
            },
        }
    },
    **access(Access.READ),
)
async def read_log(
    request: Request,
    backend: BackendOf,
    run: int,
    task_id: str,
    map_index: MapIndex = UNMAPPED,
    try_number: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    attempt_id: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    after_attempt: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    offset: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    follow: bool = False,
) -> StreamingResponse:
    """What an attempt wrote (stdout and stderr), from byte `offset` on; the latest attempt unless one is named.

    With `follow` it waits for the attempt to start, and ends when it has ended and everything is read. The header
    Tickless-Attempt names the attempt: ask for it again, with an offset, to go on after a broken connection; or ask
    for the next one with `after_attempt`. When no other comes because the task has ended, nothing is answered and the
    header is not there.
    """
    key = TaskKey(RunKey(run), TaskId(task_id), map_index)
    info = await find_instance(backend, run, task_id, map_index)
    if after_attempt is not None:
        attempt = await _while_connected(request, partial(_wait_for_attempt, backend, key, after_attempt))
        if attempt is None:
            return StreamingResponse(iter(()), media_type=_LOG_TYPE)
        attempt_id = attempt.attempt_id
    attempt = await _choose(backend, key, try_number, attempt_id)
    if attempt is None and (try_number or attempt_id):
        raise NotFound(f"{key} has no such attempt", hint=f"`tickless task list {run}` shows the latest try.")
    if attempt is None and follow and info.row.state not in FINISHED_TASK_STATES:
        attempt = await _while_connected(request, partial(_wait_for_attempt, backend, key, 0))
    if attempt is None:
        raise NotFound(f"{key} has not run: it is {info.row.state}", hint=f"`tickless why {run} {task_id}` says why.")
    headers = {"Tickless-Attempt": str(attempt.attempt_id), "Tickless-Try": str(attempt.try_number)}
    if follow and attempt.state in LIVE_ATTEMPT_STATES:
        return StreamingResponse(_follow(backend, attempt, offset), media_type=_LOG_TYPE, headers=headers)
    if await backend.logs.size(attempt.log_path) is None:
        # Live and not yet started, or ended without ever starting: nothing was written, which is no error.
        return StreamingResponse(iter(()), media_type=_LOG_TYPE, headers=headers)
    return StreamingResponse(backend.logs.read(attempt.log_path, offset=offset), media_type=_LOG_TYPE, headers=headers)


async def _choose(backend: Backend, key: TaskKey, try_number: int | None, attempt_id: int | None) -> AttemptRow | None:
    """The latest attempt that fits."""
    for row in await backend.reader.attempts(key):
        if attempt_id in (None, row.attempt_id) and try_number in (None, row.try_number):
            return row
    return None


async def _wait_for_attempt(backend: Backend, key: TaskKey, after: int) -> AttemptRow | None:
    """The latest attempt, once there is one later than `after`; None when the task has ended without any."""
    with backend.watch.subscribe(key.run) as watcher:
        while True:
            attempt = await _choose(backend, key, None, None)
            if attempt is not None and attempt.attempt_id <= after:
                attempt = None
            info = await backend.reader.instance(key)
            if attempt is not None or info is None or info.row.state in FINISHED_TASK_STATES:
                return attempt
            await watcher.wake.wait()
            watcher.take()


async def _while_connected(request: Request, wait: Callable[[], Awaitable[T]]) -> T | None:
    """What `wait` returns, or None if the client leaves before: nobody else cuts an answer that has not begun."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()

    found: T | None = None
    failure: TicklessError | None = None  # kept out of the group, which would wrap it
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            found = await wait()
        except TicklessError as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return found


async def _follow(backend: Backend, attempt: AttemptRow, offset: int) -> AsyncIterator[bytes]:
    with backend.watch.subscribe(attempt.run) as watcher:
        end = _End(backend, watcher, attempt)
        async for chunk in backend.logs.follow(
            attempt.log_path, offset=offset, wake=watcher.wake, is_ended=end.has_come
        ):
            yield chunk


class _End:
    """Knows whether an attempt has ended: from the news, or from its row where news may be missing."""

    def __init__(self, backend: Backend, watcher: Watcher, attempt: AttemptRow) -> None:
        self._backend = backend
        self._watcher = watcher
        self._attempt = attempt
        self._must_look = True  # it may have ended between the caller's read and the subscription
        self._has_come = False

    async def has_come(self) -> bool:
        must_look = self._must_look or self._watcher.must_look
        for effect in self._watcher.take():
            if isinstance(effect, AttemptEnded) and effect.attempt.attempt_id == self._attempt.attempt_id:
                self._has_come = True
        if must_look and not self._has_come:
            row = await self._backend.reader.attempt(self._attempt.attempt_id)
            self._has_come = row is None or row.state not in LIVE_ATTEMPT_STATES
        self._must_look = False
        return self._has_come


def _cursor(after: str | None) -> tuple[str, int] | None:
    """`task[3]` as a cursor."""
    if after is None:
        return None
    task_id, _, index = after.removesuffix("]").rpartition("[")
    return (task_id, int(index)) if task_id and index.lstrip("-").isdigit() else (after, UNMAPPED)
