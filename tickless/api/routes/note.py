"""Notes: what somebody wrote about a run or a task instance. They are shown with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import StringConstraints

from tickless.api.access import Access, access
from tickless.api.context import ActorOf, BackendOf, find_instance, find_run
from tickless.api.routes.task import MapIndex
from tickless.api.shape import Body
from tickless.errors import UserError
from tickless.model.id import UNMAPPED, RunKey, TaskId, TaskKey
from tickless.model.row import MAX_NOTE_LENGTH

router = APIRouter(tags=["notes"])


class NoteBody(Body):
    """What the note says."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_NOTE_LENGTH)]


@router.put("/runs/{run}/note", status_code=204, **access(Access.OPERATE))
async def set_run_note(backend: BackendOf, actor: ActorOf, run: int, body: NoteBody) -> None:
    """Write a note about a run, in the place of the one there is."""
    await find_run(backend, run)
    await backend.set_note(TaskKey(RunKey(run), TaskId("")), _text(body), actor)


@router.delete("/runs/{run}/note", status_code=204, **access(Access.OPERATE))
async def delete_run_note(backend: BackendOf, actor: ActorOf, run: int) -> None:
    """Remove the note about a run."""
    await find_run(backend, run)
    await backend.set_note(TaskKey(RunKey(run), TaskId("")), None, actor)


@router.put("/runs/{run}/tasks/{task_id}/note", status_code=204, **access(Access.OPERATE))
async def set_task_note(
    backend: BackendOf, actor: ActorOf, run: int, task_id: str, body: NoteBody, map_index: MapIndex = UNMAPPED
) -> None:
    """Write a note about a task instance, in the place of the one there is."""
    await find_instance(backend, run, task_id, map_index)
    await backend.set_note(TaskKey(RunKey(run), TaskId(task_id), map_index), _text(body), actor)


@router.delete("/runs/{run}/tasks/{task_id}/note", status_code=204, **access(Access.OPERATE))
async def delete_task_note(
    backend: BackendOf, actor: ActorOf, run: int, task_id: str, map_index: MapIndex = UNMAPPED
) -> None:
    """Remove the note about a task instance."""
    await find_instance(backend, run, task_id, map_index)
    await backend.set_note(TaskKey(RunKey(run), TaskId(task_id), map_index), None, actor)


def _text(body: NoteBody) -> str:
    try:
        body.text.encode()
    except UnicodeEncodeError:
        raise UserError("the note has half a surrogate pair, which is no character") from None
    if "\0" in body.text:
        raise UserError("the note has a NUL character")
    return body.text
