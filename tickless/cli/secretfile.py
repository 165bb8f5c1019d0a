"""Files that secrets are exported to and imported from: JSON objects, readable by their owner alone."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from tickless.cli.output import emit_json
from tickless.errors import NotFound, UserError


def read_object(file: str) -> dict[str, Any]:
    """The JSON object in a file (`-`: stdin)."""
    try:
        if file == "-":
            text = sys.stdin.read()
        else:
            with open(file, encoding="utf-8") as stream:
                text = stream.read()
        found = json.loads(text)
    except FileNotFoundError:
        raise NotFound(f"there is no file {file}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{error.lineno}: this is not JSON: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} does not hold a JSON object")
    return found


def write_object(file: str, content: dict[str, Any]) -> None:
    """The JSON object into a file (`-`: stdout) with mode 0600."""
    if file == "-":
        return emit_json(content)
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w", encoding="utf-8") as stream:
            os.fchmod(fd, 0o600)  # also one that was there
            stream.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None
