"""The PostgreSQL that runs without --database-url: which servers use it, and which one stops it.

It survives a kill of the server, and the next start attaches to it. The last server to leave stops it, unless its URL
was given out by `lastcall database-url`.
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

LOCK_SECONDS = 3 * COMMAND_SECONDS  # waiting for another process that starts or stops it
LEAVE_SECONDS = STOP_SECONDS + 10.0
QUIET_CHECKS_MAX = 10  # backends of connections that were just closed take a moment to end
QUIET_CHECK_SECONDS = 0.1

__all__ = ["Embedded", "EmbeddedError", "Place", "keep_running", "open_embedded", "place", "release", "start", "stop"]


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


@dataclass(slots=True)
class Embedded:
    """A running embedded PostgreSQL. left_running: set on leaving; why it was not stopped, None if it was."""

    url: str
    place: Place
    users: IO[str] = field(repr=False)
    left_running: str | None = None


@contextlib.asynccontextmanager
async def open_embedded(data_dir: Path) -> AsyncIterator[Embedded]:
    """Starts or joins the PostgreSQL of a data directory; on leaving, stops it unless it is still in use.

    Each program that it runs takes `COMMAND_SECONDS` at most, and is not interrupted. Raises `EmbeddedError`.
    """
    embedded = await trio.to_thread.run_sync(_join, data_dir)
    try:
        yield embedded
    finally:
        embedded.left_running = "it did not stop in time"
        with trio.move_on_after(LEAVE_SECONDS, shield=True):
            embedded.left_running = await trio.to_thread.run_sync(_leave, embedded, abandon_on_cancel=True)


def start(data_dir: Path) -> str:
    """Starts the PostgreSQL of a data directory if needed and returns its URL. Raises `EmbeddedError`."""
    where = _prepare(data_dir)
    with _locked(where):
        return cluster.start(where.cluster)


def stop(data_dir: Path) -> bool:
    """Stops it even if it is in use, undoes `keep_running`, and returns whether it ran. Raises `EmbeddedError`."""
    where = place(data_dir)
    if not where.cluster.is_dir():
        return False
    release(data_dir)
    with _locked(where):
        return cluster.stop(where.cluster)


def keep_running(data_dir: Path) -> None:
    """Lets it run when the last server leaves, for users who were given its URL. Raises `EmbeddedError`."""
    _prepare(data_dir).keep_marker.touch()


def release(data_dir: Path) -> None:
    """Undoes `keep_running`."""
    place(data_dir).keep_marker.unlink(missing_ok=True)


def place(data_dir: Path) -> Place:
    """Returns where the data goes; creates nothing.

    PostgreSQL refuses to run as root, so for root it runs as a user of its own, which cannot enter root's private
    folders. Rather than open them to all users, the data goes elsewhere.
    """
    directory = data_dir.expanduser().resolve()
    data = directory / "postgresql"
    if os.geteuid() != 0 or cluster.is_reachable(directory) or (data.exists() and data.stat().st_uid != 0):
        return Place(directory)
    elsewhere = ROOT_HOME / f"{directory.parent.name or 'root'}-{cluster.digest(directory)}"
    return Place(elsewhere, f"data in {elsewhere}: {directory} is private to root, and PostgreSQL does not run as root")


def _prepare(data_dir: Path) -> Place:
    """Creates the directory and checks its cluster. Raises `EmbeddedError` where it cannot be used."""
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
    """Lets one process at a time start or stop it."""
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
        fcntl.flock(users, fcntl.LOCK_SH)  # released by the kernel, however this process ends
        return Embedded(url, where, users)


def _leave(embedded: Embedded) -> str | None:
    """Stops it unless it is in use; returns why it was left running. Locked, so that nobody can join meanwhile."""
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
