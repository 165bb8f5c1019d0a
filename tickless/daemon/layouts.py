"""Layouts of DAG versions in files, by the version's hash: computed once, and worth nothing that is not in the spec."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import msgspec

from tickless.model.dag import DagSpec
from tickless.model.layout import LAYOUT_VERSION, Layout, lay_out
from tickless.model.row import VersionRow

MOST_FILES = 1000

_decode_spec = msgspec.json.Decoder(DagSpec).decode
_decode_layout = msgspec.json.Decoder(Layout).decode


class Layouts:
    """A folder of layouts. One that cannot be read or written costs a computation, nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, version: VersionRow) -> Layout:
        """The stored one, or a new one; beside the loop, for a large DAG takes a while."""
        return await anyio.to_thread.run_sync(self.find, version)

    def find(self, version: VersionRow) -> Layout:
        """See `get`."""
        file = self._folder / f"{version.hash}.{LAYOUT_VERSION}.json"
        try:
            return _decode_layout(file.read_bytes())
        except (OSError, msgspec.DecodeError):
            layout = lay_out(_decode_spec(version.spec))
            self._keep(file, msgspec.json.encode(layout))
            return layout

    def _keep(self, file: Path, content: bytes) -> None:
        hidden = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            hidden.write_bytes(content)
            hidden.rename(file)
            kept = sorted(self._folder.iterdir(), key=lambda each: each.stat().st_mtime)
            for old in kept[: max(0, len(kept) - MOST_FILES)]:
                old.unlink(missing_ok=True)
        except OSError:
            pass  # a full disk, or two of us at once
