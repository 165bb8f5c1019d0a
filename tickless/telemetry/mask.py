"""Secrets that this process has seen, to be kept out of its log: each occurrence of one becomes `***`.

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

_known: OrderedDict[str, None] = OrderedDict()
_pattern: re.Pattern[str] | None = None


def is_sensitive(name: str) -> bool:
    """Whether something of this name is a secret."""
    low = name.lower()
    return any(word in low for word in _SENSITIVE)


def hide(secret: str | None) -> None:
    """Keep it out of the log from now on."""
    global _pattern
    if secret is None or len(secret) < MIN_LENGTH:
        return
    if secret not in _known:
        _pattern = None
    _known[secret] = None
    _known.move_to_end(secret)
    while len(_known) > MOST:
        _known.popitem(last=False)


def masked(value: Any) -> Any:
    """The value of a log key without secrets."""
    global _pattern
    if not _known:
        return value
    if _pattern is None:
        # The longest first: one may be the beginning of another.
        _pattern = re.compile("|".join(map(re.escape, sorted(_known, key=len, reverse=True))))
    if isinstance(value, str):
        return _pattern.sub("***", value)
    if isinstance(value, list | tuple):
        return [masked(each) for each in value]
    if isinstance(value, dict):
        return {key: masked(each) for key, each in value.items()}
    return value
