"""Secrets and how they are kept out of logs: each occurrence of one becomes `***`.

Best effort, by value: what is shorter than MIN_LENGTH is everywhere anyway, and only the latest MOST are known.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

MIN_LENGTH = 5
MOST = 2_000
_SENSITIVE = (
    *("access_token", "api_key", "apikey", "authorization", "passphrase", "passwd", "password", "private_key"),
    *("secret", "token", "keyfile_dict", "service_account", "credential"),
)
"""Airflow's words: a name that has one of them names a secret."""


def is_sensitive(name: str) -> bool:
    """Whether something of this name is a secret."""
    low = name.lower()
    return any(word in low for word in _SENSITIVE)


class Mask:
    """The secrets that a process has seen."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()
        self._pattern: re.Pattern[str] | None = None

    def hide(self, secret: str | None) -> None:
        """Mask it from now on."""
        if secret is None or len(secret) < MIN_LENGTH:
            return
        if secret not in self._known:
            self._pattern = None
        self._known[secret] = None
        self._known.move_to_end(secret)
        while len(self._known) > MOST:
            self._known.popitem(last=False)

    def masked(self, value: Any) -> Any:
        """The value without secrets, in strings and in lists and dicts of them."""
        if not self._known:
            return value
        if self._pattern is None:
            # The longest first: one may be the beginning of another.
            self._pattern = re.compile("|".join(map(re.escape, sorted(self._known, key=len, reverse=True))))
        if isinstance(value, str):
            return self._pattern.sub("***", value)
        if isinstance(value, list | tuple):
            return [self.masked(each) for each in value]
        if isinstance(value, dict):
            return {key: self.masked(each) for key, each in value.items()}
        return value
