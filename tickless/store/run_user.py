"""Who runs the private Postgres, and what that user can reach.

Postgres refuses to run as root. When tickless is root (a container, a first try on a server), initdb and postgres are
started as an unprivileged user. The rule that shapes the rest: we make folders of our own for that user, and never
change the mode of a folder that somebody else made. A home below /root stays as closed as it was.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from tickless.errors import UserError

# The first that exists. `nobody` is shared with other services of a careless host, so it comes last.
_PREFERRED = ("tickless", "postgres", "nobody")

_EXTERNAL = "Give tickless a Postgres server instead: TICKLESS_DATABASE_URL=postgresql://user:password@host/database"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUser:
    """The unprivileged user that root drops to."""

    name: str
    uid: int
    gid: int


def choose_run_user(owner_uid: int | None) -> RunUser | None:
    """The user to drop to, or None to stay who we are.

    `owner_uid` owns the existing data directory, None when there is none yet: an existing directory keeps its owner.
    """
    euid = os.geteuid()
    if euid != 0:
        if owner_uid not in (None, euid):
            raise UserError(
                f"the database of this home belongs to user {_name(owner_uid)}, and tickless runs as {_name(euid)}",
                hint=f"Run tickless as {_name(owner_uid)}, or choose another folder with --home.",
            )
        _name_of_existing(euid)
        return None
    if owner_uid not in (None, 0):
        entry = _name_of_existing(owner_uid)
        return RunUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    for name in _PREFERRED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise UserError(
        f"Postgres refuses to run as root, and none of the users {', '.join(_PREFERRED)} exists to run it",
        hint="Make one: useradd --system --shell /usr/sbin/nologin tickless",
    )


def user_names_for_peer(owner: RunUser | None) -> tuple[str, ...]:
    """The operating system users whom the server takes for the superuser `tickless`.

    `nobody` is never one of them: other services run as it, too.
    """
    names = {"root", _name(os.geteuid())}
    if owner is not None and owner.name != "nobody":
        names.add(owner.name)
    return tuple(sorted(names))


def can_reach(path: Path, user: RunUser, *, need: int = os.X_OK) -> bool:
    """Whether `user` passes every folder above `path` and has the `need` bits (os.R_OK | …) on `path` itself.

    Reads mode bits only. An ACL may grant more; then we merely choose the other place.
    """
    resolved = path.resolve()
    return all(_allows(parent.stat(), user, os.X_OK) for parent in resolved.parents) and _allows(
        resolved.stat(), user, need
    )


def _allows(status: os.stat_result, user: RunUser, need: int) -> bool:
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
    return (status.st_mode >> shift) & need == need


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid if uid is not None else os.geteuid()).pw_name
    except KeyError:
        return str(uid)


def _name_of_existing(uid: int | None) -> pwd.struct_passwd:
    # initdb and peer authentication both look the user id up; without a passwd entry they fail obscurely.
    try:
        return pwd.getpwuid(uid if uid is not None else os.geteuid())
    except KeyError as missing:
        raise UserError(
            f"user id {uid} has no entry in the passwd database, and Postgres needs one to start",
            hint=_EXTERNAL,
        ) from missing
