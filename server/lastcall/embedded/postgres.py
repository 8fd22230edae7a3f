"""The PostgreSQL that runs where no --database-url is given: who uses it, and who stops it.

It outlives a kill of ours, and the next start attaches to it. Whoever leaves last stops it, unless its URL was asked
for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import trio

from . import cluster
from .cluster import COMMAND_SECONDS, POSTGRES_VERSION, ROOT_HOME, STOP_SECONDS, EmbeddedError

LOCK_SECONDS = 3 * COMMAND_SECONDS  # what another process that holds the lock may take
LEAVE_SECONDS = STOP_SECONDS + 10.0
QUIET_CHECKS_MAX = 10  # backends of connections that were just closed take a moment to go
QUIET_CHECK_SECONDS = 0.1

__all__ = ["Embedded", "EmbeddedError", "Place", "keep_running", "open_embedded", "place", "release", "start", "stop"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the data of a data directory really is; `note` says in one line why, when that is elsewhere."""

    directory: Path
    note: str | None = None

    @property
    def cluster(self) -> Path:
        return self.directory / "postgresql"

    @property
    def keep_marker(self) -> Path:
        return self.directory / "postgresql.keep"


@dataclass(slots=True)
class Embedded:
    """A running embedded PostgreSQL. `left_running` is set on leaving: why it was not stopped; None: it was."""

    url: str
    place: Place
    users: IO[str] = field(repr=False)
    left_running: str | None = None


@contextlib.asynccontextmanager
async def open_embedded(data_dir: Path) -> AsyncIterator[Embedded]:
    """Starts or joins the PostgreSQL of a data directory; on leaving, stops it unless somebody else needs it.

    Raises `EmbeddedError`. Starting is bounded by `COMMAND_SECONDS` for each program it runs, and is not interrupted
    half way.
    """
    embedded = await trio.to_thread.run_sync(_join, data_dir)
    try:
        yield embedded
    finally:
        embedded.left_running = "it did not stop in time"
        with trio.move_on_after(LEAVE_SECONDS, shield=True):
            embedded.left_running = await trio.to_thread.run_sync(_leave, embedded, abandon_on_cancel=True)


def start(data_dir: Path) -> str:
    """The URL of a data directory's PostgreSQL, started where it is not running. Raises `EmbeddedError`."""
    where = _prepare(data_dir)
    with _locked(where):
        return cluster.start(where.cluster)


def stop(data_dir: Path) -> bool:
    """Stops it whoever uses it, and takes back `keep_running`; whether it was running. Raises `EmbeddedError`."""
    where = place(data_dir)
    if not where.cluster.is_dir():
        return False
    release(data_dir)
    with _locked(where):
        return cluster.stop(where.cluster)


def keep_running(data_dir: Path) -> None:
    """Somebody was given the URL: servers that leave do not stop this PostgreSQL. Raises `EmbeddedError`."""
    _prepare(data_dir).keep_marker.touch()


def release(data_dir: Path) -> None:
    """Takes `keep_running` back."""
    place(data_dir).keep_marker.unlink(missing_ok=True)


def place(data_dir: Path) -> Place:
    """Where the data goes; creates nothing.

    PostgreSQL refuses to run as root, so root's is run by a user of its own, who cannot reach private folders.
    Opening them for it is no option: the data goes elsewhere.
    """
    directory = data_dir.expanduser().resolve()
    data = directory / "postgresql"
    if os.geteuid() != 0 or cluster.is_reachable(directory) or (data.exists() and data.stat().st_uid != 0):
        return Place(directory)
    elsewhere = ROOT_HOME / f"{directory.parent.name or 'root'}-{cluster.digest(directory)}"
    return Place(elsewhere, f"data in {elsewhere}: {directory} is private to root, and PostgreSQL does not run as root")


def _prepare(data_dir: Path) -> Place:
    """Raises `EmbeddedError` where no cluster of ours can be there."""
    where = place(data_dir)
    try:
        cluster.make_reachable(where.directory)
        writable = os.access(where.directory, os.W_OK | os.X_OK)
        _check_cluster(where.cluster)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EmbeddedError(f"cannot keep data in {where.directory} ({reason}); choose another --data-dir") from error
    if not writable:
        raise EmbeddedError(f"{where.directory} is not writable; choose another --data-dir")
    return where


def _check_cluster(data: Path) -> None:
    if not data.exists():
        return
    if os.geteuid() not in (0, data.stat().st_uid):
        raise EmbeddedError(f"{data} belongs to another user; choose another --data-dir")
    number = (data / "PG_VERSION").read_text().strip()
    if number != POSTGRES_VERSION:
        advice = "choose another --data-dir, or run that version and pass --database-url"
        raise EmbeddedError(f"{data} is of PostgreSQL {number}, the embedded one is {POSTGRES_VERSION}; {advice}")


@contextlib.contextmanager
def _locked(where: Place) -> Iterator[None]:
    """One process at a time starts or stops."""
    with (where.directory / "postgresql.lock").open("w") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _flock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise EmbeddedError(f"another process holds {file.name}; end it, or choose another --data-dir")
            time.sleep(0.02)
        yield


def _flock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _join(data_dir: Path) -> Embedded:
    where = _prepare(data_dir)
    with _locked(where):
        url = cluster.start(where.cluster)
        users = (where.directory / "postgresql.users").open("w")
        fcntl.flock(users, fcntl.LOCK_SH)  # given back by the kernel, however this process ends
        return Embedded(url, where, users)


def _leave(embedded: Embedded) -> str | None:
    """Why it was left running; None: it was stopped. Under the lock, so that nobody who just joined loses it."""
    with embedded.users as users, _locked(embedded.place):
        if embedded.place.keep_marker.exists():
            return "its URL was asked for"
        if not _flock(users, fcntl.LOCK_EX):
            return "another server uses it"
        if _has_clients(embedded.url):
            return "somebody is connected to it"
        try:
            cluster.stop(embedded.place.cluster)
        except EmbeddedError as error:
            return str(error)
        return None


def _has_clients(url: str) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    for _ in range(QUIET_CHECKS_MAX):
        answer = cluster.run("psql", "--no-psqlrc", "-Atc", query, url, seconds=STOP_SECONDS)
        if answer.returncode != 0 or answer.stdout.strip() == "0":
            return False
        time.sleep(QUIET_CHECK_SECONDS)
    return True
