"""Arm failpoints for processes that a test starts, and insist that they were reached."""

from __future__ import annotations

from pathlib import Path

from tickless.failpoint import ENV, ENV_LOG


class Failpoints:
    """One set of armed failpoints. Give `env` to the processes; `assert_all_fired` at the end of the test."""

    def __init__(self, folder: Path, **armed: str) -> None:
        """`armed` maps a failpoint's name, with `__` for its dot, to its action: `launcher__at_gate="kill"`."""
        self._log = folder / "failpoints"
        self._armed = {name.replace("__", "."): action for name, action in armed.items()}
        self.env = {ENV: ",".join(f"{n}={a}" for n, a in self._armed.items()), ENV_LOG: str(self._log)}

    def fired(self) -> list[str]:
        """Names of the failpoints that fired, in order, one entry for each time."""
        return self._log.read_text().split() if self._log.exists() else []

    def assert_all_fired(self) -> None:
        """A test that missed its failpoint has tested nothing."""
        missed = set(self._armed) - set(self.fired())
        assert not missed, f"never reached: {', '.join(sorted(missed))}"
