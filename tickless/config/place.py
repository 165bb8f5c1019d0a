"""Where things are: the home folder, the config file, the API socket. Stdlib only, so that the CLI starts fast."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tickless.errors import ConfigError

CONFIG_NAME = "tickless.toml"
SOCKET_NAME = "api.sock"
_MAX_SOCKET_PATH_BYTES = 107
"""sizeof(sun_path) - 1."""


def home_folder(option: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path:
    """The home folder, absolute: `--home`, else TICKLESS_HOME, else ~/.tickless. It need not exist."""
    chosen = option or environ.get("TICKLESS_HOME") or "~/.tickless"
    # Not resolved: a link that an operator moves must be followed at each start, not once.
    return Path(os.path.abspath(Path(chosen).expanduser()))


def config_file(home: Path, option: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    """The config file, or None when there is none: `--config`, else TICKLESS_CONFIG, else HOME/tickless.toml.

    A file that was asked for by name must exist (ConfigError); the one in the home folder is optional.
    """
    chosen = option or environ.get("TICKLESS_CONFIG")
    if not chosen:
        standard = home / CONFIG_NAME
        return standard if standard.exists() else None
    path = Path(os.path.abspath(Path(chosen).expanduser()))
    if not path.is_file():
        raise ConfigError(
            f"the config file {path} does not exist",
            hint="Check --config and TICKLESS_CONFIG; without them HOME/tickless.toml is read, if it is there.",
        )
    return path


def api_socket(home: Path, option: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path:
    """Where a client finds the daemon's socket: what `Settings` would say, without validating the other keys.

    A config file that cannot be read counts as absent: the daemon is the one to complain about it.
    """
    chosen = environ.get("TICKLESS_API__SOCKET")
    if not chosen:
        try:
            file = config_file(home, option, environ)
            section = tomllib.loads(file.read_text(encoding="utf-8")).get("api", {}) if file else {}
            chosen = section.get("socket") if isinstance(section, dict) else None
        except (OSError, ValueError):
            chosen = None
    return home / (chosen if isinstance(chosen, str) else SOCKET_NAME)


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """What to bind or connect to for a unix socket at `path`, however long the path is.

    The kernel takes 107 bytes; a longer path is reached through a descriptor of its folder.
    """
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
