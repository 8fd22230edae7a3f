"""The data directory: where it is, whose it is, and the locks in it, which nobody but its owner can take."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .programs import (
    COMMAND_SECONDS,
    POSTGRES_VERSION,
    ROOT_HOME,
    EmbeddedError,
    check_interrupted,
    digest,
    is_reachable,
    make_reachable,
)

LOCK_SECONDS = 3 * COMMAND_SECONDS  # waiting for another process that starts or stops PostgreSQL
LOCK_LOOK_SECONDS = 0.02
PIDS_BYTES_MAX = 65_536

__all__ = [
    "Place",
    "check",
    "in_use_by",
    "join_users",
    "leave_users",
    "locked",
    "place",
    "prepare",
    "touch",
    "unusable",
]


@dataclass(frozen=True, slots=True)
class Place:
    """The directory of the data. note: where it is not the data directory, a line for the user that says why."""

    directory: Path
    note: str | None = None

    @property
    def cluster(self) -> Path:
        return self.directory / "postgresql"

    @property
    def keep_marker(self) -> Path:
        return self.directory / "postgresql.keep"


def place(data_dir: Path) -> Place:
    """Returns where the data goes; creates nothing.

    PostgreSQL refuses to run as root, so for root it runs as a user of its own, which cannot enter root's private
    folders. Rather than open them to all users, the data goes elsewhere.
    """
    directory = data_dir.expanduser().resolve()
    data = directory / "postgresql"
    if os.geteuid() != 0 or is_reachable(directory) or (data.exists() and data.stat().st_uid != 0):
        return Place(directory)
    elsewhere = ROOT_HOME / f"{directory.parent.name or 'root'}-{digest(directory)}"
    return Place(elsewhere, f"data in {elsewhere}: {directory} is private to root, and PostgreSQL does not run as root")


def prepare(data_dir: Path) -> Place:
    """Creates the directory and checks its cluster. Raises `EmbeddedError` where it cannot be used."""
    where = place(data_dir)
    try:
        make_reachable(where.directory)
        writable = os.access(where.directory, os.W_OK | os.X_OK)
        check(where)
    except OSError as error:
        raise unusable(where.directory, error) from error
    if not writable:
        raise EmbeddedError(f"{where.directory} is not writable; choose another --data-dir")
    return where


def unusable(directory: Path, error: OSError) -> EmbeddedError:
    """The error for a user whose data cannot be there."""
    reason = error.strerror or str(error)
    return EmbeddedError(f"cannot keep data in {directory} ({reason}); choose another --data-dir")


def check(where: Place) -> None:
    """Raises `EmbeddedError` where the directory or its cluster is another user's, or of another version.

    Its owner could swap what is in it while it is used: root's directory is everybody's, and root may use what is
    entirely another user's, as that user.
    """
    us, owner = os.geteuid(), where.directory.stat().st_uid
    data = where.cluster
    cluster_owner = data.stat().st_uid if data.exists() else None
    if owner not in (us, 0) and not (us == 0 and owner == cluster_owner):
        raise EmbeddedError(f"{where.directory} belongs to another user; choose another --data-dir")
    if cluster_owner is None:
        return
    if us not in (0, cluster_owner):
        raise EmbeddedError(f"{data} belongs to another user; choose another --data-dir")
    number = (data / "PG_VERSION").read_text().strip()
    if number != POSTGRES_VERSION:
        advice = "choose another --data-dir, or run that version and pass --database-url"
        raise EmbeddedError(f"{data} is of PostgreSQL {number}, the embedded one is {POSTGRES_VERSION}; {advice}")


@contextlib.contextmanager
def locked(where: Place) -> Iterator[int]:
    """Lets one process at a time start or stop PostgreSQL. Yields the lock's descriptor. Raises `EmbeddedError`."""
    with _private_file(where.directory / "postgresql.lock") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _flock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise EmbeddedError(f"another process holds {file.name}; end it, or choose another --data-dir")
            check_interrupted()
            time.sleep(LOCK_LOOK_SECONDS)
        yield file.fileno()


def join_users(where: Place) -> IO[str]:
    """Marks this process as one that uses PostgreSQL, until it leaves or ends in any way. Only with the lock held."""
    users = _private_file(where.directory / "postgresql.users")
    fcntl.flock(users, fcntl.LOCK_SH)  # released by the kernel, however this process ends
    _write_pids(users, {*_pids(users), os.getpid()})
    return users


def leave_users(users: IO[str]) -> bool:
    """Returns whether no other process uses PostgreSQL. Only with the lock held."""
    _write_pids(users, _pids(users) - {os.getpid()})
    return _flock(users, fcntl.LOCK_EX)


def in_use_by(where: Place) -> str | None:
    """The processes that use PostgreSQL, in words; None: there are none. Only with the lock held."""
    with _private_file(where.directory / "postgresql.users") as users:
        if _flock(users, fcntl.LOCK_EX):
            return None
        pids = sorted(_pids(users))
    if not pids:
        return "another process"
    return ("process " if len(pids) == 1 else "processes ") + ", ".join(map(str, pids))


def touch(path: Path) -> None:
    """Creates a private file, if it is missing."""
    _private_file(path).close()


def _private_file(path: Path) -> IO[str]:
    """Opens a file that only its owner may open: with a lock on it, anybody who may read it could stop us for ever."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EmbeddedError(f"cannot open {path} ({reason}); remove it, or choose another --data-dir") from error
    try:
        _make_private(descriptor, path)
        return os.fdopen(descriptor, "r+")
    except BaseException:
        os.close(descriptor)
        raise


def _make_private(descriptor: int, path: Path) -> None:
    found, owner = os.fstat(descriptor), path.parent.stat().st_uid
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.geteuid(), owner) or found.st_nlink != 1:
        raise EmbeddedError(f"{path} is not a file of this user's; remove it, or choose another --data-dir")
    if found.st_mode & 0o077:
        os.fchmod(descriptor, 0o600)
    if os.geteuid() == 0 and found.st_uid != owner:  # root in a directory of another user's, who must still get in
        os.fchown(descriptor, owner, -1)


def _flock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pids(users: IO[str]) -> set[int]:
    """Those of the processes that live; only for people: the file's lock says whether it is in use."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        users.seek(0)
        return {int(line) for line in users.read(PIDS_BYTES_MAX).split() if line.isdecimal() and _lives(int(line))}
    return set()


def _write_pids(users: IO[str], pids: set[int]) -> None:
    with contextlib.suppress(OSError):  # a full disk
        users.seek(0)
        users.truncate()
        users.write("".join(f"{pid}\n" for pid in sorted(pids)))
        users.flush()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0
