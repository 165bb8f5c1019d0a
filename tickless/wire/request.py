"""What a running task may ask for, and the answer. Version 1; fields may be added, never changed.

    runner --Request--> launcher --AttemptRequest--> daemon, and back: AttemptAnswer, Answer

Each message is a frame (see codec.py) on the socket that was the attempt's gate. A runner sends one request at a time
and numbers them from 1; the launcher adds the attempt's id itself, so that nobody asks in another's name. The pair
(attempt id, number) names a request for ever: asked again, it has the same effect once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from tickless.model.state import RunState

MAX_REQUEST_BYTES = 1024 * 1024
"""A whole frame; a launcher keeps at most one for each attempt."""
MAX_ANSWER_BYTES = 6 * 1024 * 1024
"""Of the JSON text in an answer; as a string inside a frame it may become twice as long."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=250)]
_Names = Annotated[list[Name], msgspec.Meta(max_length=1000)]
_States = Annotated[list[RunState], msgspec.Meta(min_length=1, max_length=len(RunState))]
_Indexes = Annotated[list[int], msgspec.Meta(max_length=10_000)]


class XComGet(msgspec.Struct, tag="xcom_get", frozen=True, kw_only=True):
    """Values that tasks of a run have handed on: a JSON array of `{"task_id", "map_index", "value"}`, in that order."""

    task_ids: _Names | None = None
    """None: of every task."""
    map_indexes: _Indexes | None = None
    """None: of every index."""
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] = "return_value"
    dag_id: Name | None = None
    """Both None: the asker's own run."""
    run_id: Name | None = None
    after: int | None = None
    """Not None: of the one task in `task_ids`, the first values after this map index, as many as fit; an empty answer
    says that there are no more."""


class VariableGet(msgspec.Struct, tag="variable_get", frozen=True, kw_only=True):
    """A JSON string."""

    key: Name


class VariableSet(msgspec.Struct, tag="variable_set", frozen=True, kw_only=True):
    key: Name
    value: str
    description: str | None = None
    """None: as it was."""


class VariableDelete(msgspec.Struct, tag="variable_delete", frozen=True, kw_only=True):
    """Whether there was one."""

    key: Name


class ConnectionGet(msgspec.Struct, tag="connection_get", frozen=True, kw_only=True):
    """A JSON object with the fields of a connection, secrets included."""

    conn_id: Name


class TriggerRun(msgspec.Struct, tag="trigger_run", frozen=True, kw_only=True):
    """Start a run: `{"run", "run_id"}`."""

    dag_id: Name
    conf: str = "{}"
    """A JSON object."""
    run_id: Name | None = None
    logical_date: datetime | None = None


class RunStateGet(msgspec.Struct, tag="run_state", frozen=True, kw_only=True):
    """The state of a run, as a JSON string."""

    dag_id: Name
    run_id: Name
    until: _States | None = None
    """Not None: answer when the run is in one of these states. The answer may come earlier, with another state, from
    a daemon that has enough who wait, or does not know how: ask again after a while."""


class PreviousRunGet(msgspec.Struct, tag="previous_run", frozen=True, kw_only=True):
    """The run of the asker's DAG before its own by logical date (or by when it was asked for), in this state if one is
    given: a JSON object of what `authoring.dagrun.DagRun` takes, or null."""

    state: RunState | None = None


Ask = XComGet | VariableGet | VariableSet | VariableDelete | ConnectionGet | TriggerRun | RunStateGet | PreviousRunGet


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """From a runner to its launcher."""

    number: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    ask: Ask


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """From a launcher to its runner: a value or an error."""

    number: int
    """0: the request could not even be read; nothing more will be answered."""
    value: str = "null"
    """JSON text."""
    error: str | None = None
    code: str = ""
    """not_found, refused, invalid or internal."""


class AttemptRequest(msgspec.Struct, frozen=True, kw_only=True):
    """From a launcher to its leader."""

    attempt_id: int
    number: int
    ask: Ask


class AttemptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """From a leader to its launcher. Dropped if the attempt has ended or waits for another number."""

    attempt_id: int
    answer: Answer
