"""Where the private Postgres of a home lies, and making those folders with the right owners.

    HOME/postgres.log            the server's output
    HOME/postgres/               or, for root with a home that the server's user cannot reach, a link to
                                 /var/lib/tickless/<hash of the home's path>
      data/                      the data directory: 0700, of the user who runs the server
      run/                       the socket's folder, likewise; elsewhere when the path is too long for a socket
      pg_hba.conf pg_ident.conf  who may connect; not in data/, where the server's user could change them
      start.lock use.lock        see `embedded`

Started by root, `postgres/` stays root's and its group may walk through it (0710): so the server's user cannot swap
what lies in it for links that root would follow.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tickless.errors import UserError
from tickless.store.run_user import RunUser, can_reach, choose_run_user, user_names_for_peer

SHARED_ROOT = Path("/var/lib/tickless")
PORT = 5432  # only a part of the socket's name: nothing listens on TCP

_LONGEST_SOCKET_PATH = 107  # bytes: sun_path holds 108, with the closing zero
# Other characters separate or quote entries in unix_socket_directories and in the host part of a DSN.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+=-]*")
_LOG_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The made folders of one home's server, and the user who runs it (None: ourselves)."""

    home: Path
    base: Path
    sockets: Path
    shared_root: Path
    user: RunUser | None

    @property
    def data(self) -> Path:
        return self.base / "data"

    def open(self, name: str, flags: int) -> int:
        """Open a file of ours in the base; one that root makes in another user's base becomes that user's."""
        return _open(self.base / name, flags | os.O_CREAT)

    def open_log(self) -> int:
        """Open the log for appending, after putting a big one aside."""
        path = log_path(self.home)
        if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write_access_files(self) -> None:
        """Write pg_hba.conf and pg_ident.conf: by socket only, as who one is, and only the right ones."""
        names = user_names_for_peer(self.user)
        self._write("pg_hba.conf", "local all all peer map=tickless\n")
        self._write("pg_ident.conf", "".join(f'tickless "{name}" tickless\n' for name in names))

    def make_partial_data(self) -> Path:
        """An empty folder for initdb, beside the data directory."""
        return make_private(self.base / "data.partial", self.user)

    def _write(self, name: str, text: str) -> None:
        # Aside and renamed: in a folder that is not root's, a planted link is replaced, not followed.
        fd, scratch = tempfile.mkstemp(dir=self.base, prefix=f".{name}-")
        with open(fd, "w") as file:
            file.write(text)
            if self.user is not None:
                os.fchown(fd, self.base.stat().st_uid, self.user.gid)
                os.fchmod(fd, 0o640)
        os.replace(scratch, self.base / name)


def log_path(home: Path) -> Path:
    return home / "postgres.log"


def find_base(home: Path) -> Path:
    """The folder that holds, or would hold, the data directory. Makes nothing."""
    return (home / "postgres").resolve()


def make_place(home: Path, shared_root: Path) -> Place:
    """Choose the user and the folders, and make those that are missing."""
    user = choose_run_user(_owner(find_base(home)))
    link = home / "postgres"
    # A link whose target was removed still says where the data belongs.
    is_placed = link.exists() or link.is_symlink()
    if not is_placed and user is not None and not can_reach(home, user):
        link.symlink_to(_make_shared_root(shared_root, home, user) / _hash(home))
    base = link.resolve()
    if not base.is_dir():
        base.mkdir(mode=0o700)
        if user is not None:
            os.chown(base, 0, user.gid)
            base.chmod(0o710)
    return Place(
        home=home,
        base=base,
        sockets=_make_socket_folder(home, base, user, shared_root),
        shared_root=shared_root,
        user=user,
    )


def make_shared_folder(place: Place, name: str) -> Path:
    """A folder of root's below the shared root, which the server's user can reach."""
    assert place.user is not None
    folder = _make_shared_root(place.shared_root, place.home, place.user) / name
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    return folder


def fits_a_socket(folder: Path) -> bool:
    """Whether a server's socket in `folder` has an address, and one that every client can spell."""
    address = os.fsencode(folder / f".s.PGSQL.{PORT}")
    return len(address) <= _LONGEST_SOCKET_PATH and _PLAIN_PATH.fullmatch(str(folder)) is not None


def make_private(folder: Path, user: RunUser | None) -> Path:
    """A folder of mode 0700 that belongs to the server's user. Refuses one that somebody else prepared."""
    uid, gid = (user.uid, user.gid) if user else (os.geteuid(), os.getegid())
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass  # judged below, like a new one
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (uid, os.geteuid()) or status.st_mode & 0o077:
        raise UserError(
            f"{folder} is not a private folder of ours: it must be a directory with mode 0700",
            hint=f"Look who made it, then remove it: ls -ld {folder}",
        )
    if status.st_uid != uid:
        os.chown(folder, uid, gid, follow_symlinks=False)
    return folder


def _make_socket_folder(home: Path, base: Path, user: RunUser | None, shared_root: Path) -> Path:
    if fits_a_socket(base / "run"):
        return make_private(base / "run", user)
    if user is not None:
        return make_private(_make_shared_root(shared_root, home, user) / f"run-{_hash(home)}", user)
    # Anyone may make this name first; make_private refuses it then.
    return make_private(Path(f"/tmp/tickless-{os.geteuid()}-{_hash(home)}"), user)


def _make_shared_root(root: Path, home: Path, user: RunUser) -> Path:
    if not root.is_dir():
        root.mkdir(mode=0o700, parents=True)
        root.chmod(0o711)  # nobody can list it, all can reach what is theirs in it
    if not can_reach(root, user):
        raise UserError(
            f"root may not run Postgres, and user {user.name}, who would, can reach neither {home} nor {root}",
            hint="Choose a home that other users may walk through, e.g. --home /srv/tickless, "
            "or run tickless as an ordinary user.",
        )
    return root


def _owner(base: Path) -> int | None:
    """Who owns the data; None when there is none yet."""
    for path in (base / "data", base):
        try:
            return path.stat().st_uid
        except FileNotFoundError:
            if path == base:
                return None
        except PermissionError:
            pass  # not ours to look into: the base says whose it is
    return None


def _hash(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]


def _open(path: Path, flags: int) -> int:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except PermissionError as refused:
        raise UserError(
            f"{path} belongs to another user", hint="Run tickless as that user, or choose another folder with --home."
        ) from refused
    if os.geteuid() == 0:
        os.fchown(fd, path.parent.stat().st_uid, -1)
    return fd
