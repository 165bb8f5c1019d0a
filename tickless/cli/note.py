"""Notes about runs and task instances: written, printed, removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from tickless.cli.client import Client
from tickless.cli.options import options_of
from tickless.cli.output import emit_json, moment, safe
from tickless.cli.problem import say
from tickless.errors import UserError


def take_note(
    ctx: click.Context,
    client: Client,
    about: str,
    text: str | None,
    *,
    is_deleted: bool,
    query: Mapping[str, Any] | None = None,
) -> None:
    """`about` is the path of what the note is about."""
    if is_deleted and text is not None:
        raise UserError("a text and --delete?", hint="Give one of them.")
    if is_deleted:
        client.call("DELETE", f"{about}/note", query=query)
    elif text is not None:
        client.call("PUT", f"{about}/note", query=query, body={"text": text})
    found = client.get(about, **(query or {}))["note"]
    if options_of(ctx).is_json:
        return emit_json(found)
    if found is None:
        return say("there is no note")
    if text is None:
        print(safe(found["text"]))
    say(f"noted by {found['author']} at {moment(found['changed_at'])}")
