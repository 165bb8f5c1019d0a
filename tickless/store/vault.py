"""Sealing of what is secret in the database, with a key that lies beside it: in the file `secret.key` of the home.

Who has the database alone (a dump, a backup, a reading role) has nothing. Each sealed text names its key and holds,
inside, where it belongs: a password that somebody copies to another row is refused there.

The file has one key a line, the newest first: that one seals, all of them open. It is made at the first need, with
mode 0600. After a rotation the old keys are dropped as soon as nothing is sealed with them.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from tickless.errors import TicklessError, UserError

KEY_FILE = "secret.key"
_VERSION = "tk1"
_KEY_BYTES = 32


class CannotOpen(TicklessError):
    """A sealed text cannot be opened with the keys that there are."""


class Vault:
    """The keys of one home. Every method reads the file if it has not been read; none of them is thread-safe."""

    def __init__(self, home: Path) -> None:
        self.path = home / KEY_FILE
        self._keys: dict[str, bytes] = {}  # by id, newest first

    def seal(self, text: str, place: str) -> str:
        """The text, readable only by `open` with the same place ("connection/etl/password")."""
        from nacl.secret import SecretBox  # not at the daemon's start: most installations have no secrets

        keys = self._read() or self._add_key()
        key_id, key = next(iter(keys.items()))
        data = SecretBox(key).encrypt(f"{place}\0{text}".encode("utf-8", "surrogatepass"))
        return f"{_VERSION}:{key_id}:{base64.b64encode(data).decode()}"

    def open(self, sealed: str, place: str) -> str:
        """The text. Raises CannotOpen."""
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox

        version, _, rest = sealed.partition(":")
        key_id, _, data = rest.partition(":")
        if version != _VERSION:
            raise CannotOpen(f"{place} is not sealed in a way that this release knows")
        key = self._read().get(key_id)
        if key is None:
            raise CannotOpen(
                f"{place} is sealed with the key {key_id}, which is not in {self.path}",
                hint="Put the key file of the installation that wrote it there, or set the value again.",
            )
        try:
            found, _, text = (
                SecretBox(key).decrypt(base64.b64decode(data)).decode("utf-8", "surrogatepass").partition("\0")
            )
        except (CryptoError, ValueError) as error:
            raise CannotOpen(f"{place} was changed by somebody who does not have the key: {error}") from error
        if found != place:
            raise CannotOpen(f"{place} holds what was sealed for {found}: somebody has moved it in the database")
        return text

    def needs_sealing(self, sealed: str) -> bool:
        """Whether it is sealed with an older key than the newest."""
        return sealed.split(":", 2)[1] != next(iter(self._read()), None)

    def rotate(self) -> None:
        """Have a new newest key; the others go on opening."""
        self._read()
        self._add_key()

    def drop_old_keys(self) -> int:
        """Forget all keys but the newest; how many that were."""
        keys = self._read()
        dropped = max(0, len(keys) - 1)
        if dropped:
            self._write(dict([next(iter(keys.items()))]))
        return dropped

    def _read(self) -> dict[str, bytes]:
        if self._keys:
            return self._keys
        try:
            lines = self.path.read_text("ascii").split()
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UserError(f"the key file {self.path} cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            try:
                key = base64.b64decode(line, validate=True)
            except ValueError:
                key = b""
            if len(key) != _KEY_BYTES:
                raise UserError(f"{self.path}:{number}: this is not a key", hint="Restore the file from a backup.")
            self._keys[_id_of(key)] = key
        return self._keys

    def _add_key(self) -> dict[str, bytes]:
        key = os.urandom(_KEY_BYTES)
        self._write({_id_of(key): key, **self._keys})
        return self._keys

    def _write(self, keys: dict[str, bytes]) -> None:
        """All or nothing, and on disk before anything is sealed with it."""
        new = self.path.with_name(f"{KEY_FILE}.new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, b"".join(base64.b64encode(key) + b"\n" for key in keys.values()))
            os.fsync(fd)
        finally:
            os.close(fd)
        new.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._keys = keys


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"tickless key " + key).hexdigest()[:8]
