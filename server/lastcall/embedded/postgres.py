"""The PostgreSQL that runs without --database-url: which servers use it, and which one stops it.

It survives a kill of the server, and the next start attaches to it. Every server that uses it starts it again when it
ends; the folder's lock lets one do so, and the others find it running. The last server to leave stops it, unless its
URL was given out by `lastcall database-url`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import trio

from . import cluster
from .cluster import STOP_SECONDS, NotStarted
from .folder import Place, check, in_use_by, join_users, leave_users, locked, place, prepare, touch, unusable
from .postmaster import Postmaster, why_ended
from .programs import EmbeddedError

NAME = "embedded PostgreSQL"
WATCH_SECONDS = 0.25  # between two looks at whether it runs
LEAVE_SECONDS = STOP_SECONDS + 10.0
QUIET_CHECKS_MAX = 10  # backends of connections that were just closed take a moment to end
QUIET_CHECK_SECONDS = 0.1

__all__ = ["Embedded", "EmbeddedError", "Place", "keep_running", "open_embedded", "place", "release", "start", "stop"]


@dataclass(slots=True)
class Embedded:
    """A running embedded PostgreSQL. left_running: set on leaving; why it was not stopped, None if it was."""

    postmaster: Postmaster
    place: Place
    users: IO[str] = field(repr=False)
    left_running: str | None = None

    @property
    def url(self) -> str:
        """Valid across restarts."""
        return self.postmaster.url

    async def ended(self) -> str:
        """See `supervisor.Child`. One that was told to stop has ended: it lets nobody new in."""
        while True:
            reason = await trio.to_thread.run_sync(self._ended, abandon_on_cancel=True)
            if reason is not None:
                return reason
            await trio.sleep(WATCH_SECONDS)

    async def restart(self) -> str | None:
        """See `supervisor.Child`. Where another server has started it already, nothing is left to do."""
        return await trio.to_thread.run_sync(self._restart)

    def _ended(self) -> str | None:
        found = cluster.find(self.place.cluster)
        if found is None:
            return why_ended(self.place.cluster)
        return "it was told to stop" if found.status == "stopping" else None

    def _restart(self) -> str | None:
        try:
            with locked(self.place):
                self.postmaster = cluster.start(self.place.cluster, self.postmaster.sockets)
        except NotStarted as error:
            return error.reason
        except (EmbeddedError, OSError) as error:
            return str(error)
        return None


@contextlib.asynccontextmanager
async def open_embedded(data_dir: Path) -> AsyncIterator[Embedded]:
    """Starts or joins the PostgreSQL of a data directory; on leaving, stops it unless it is still in use.

    Each program that it runs takes `COMMAND_SECONDS` at most. A cancelled start leaves nothing running. Raises
    `EmbeddedError`.
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
    where = prepare(data_dir)
    with locked(where) as lock:
        return _start(where, lock).url


def stop(data_dir: Path) -> bool:
    """Stops it even if somebody is connected, undoes `keep_running`, and returns whether it ran.

    Raises `EmbeddedError` where a server uses it, which would start it again.
    """
    where = place(data_dir)
    if not where.cluster.is_dir():
        return False
    check(where)
    with locked(where):
        users = in_use_by(where)
        if users is not None:
            raise EmbeddedError(f"{users} is using PostgreSQL in {where.directory}; stop that first")
        release(data_dir)
        return cluster.stop(where.cluster)


def keep_running(data_dir: Path) -> None:
    """Lets it run when the last server leaves, for users who were given its URL. Raises `EmbeddedError`."""
    touch(prepare(data_dir).keep_marker)


def release(data_dir: Path) -> None:
    """Undoes `keep_running`."""
    place(data_dir).keep_marker.unlink(missing_ok=True)


def _start(where: Place, lock: int) -> Postmaster:
    try:
        if not where.cluster.exists():
            cluster.create(where.cluster, lock)
        return cluster.start(where.cluster)
    except OSError as error:
        raise unusable(where.directory, error) from error


def _join(data_dir: Path) -> Embedded:
    where = prepare(data_dir)
    with locked(where) as lock:
        users = join_users(where)
        try:
            return Embedded(_start(where, lock), where, users)
        except BaseException:
            leave_users(users)
            users.close()
            raise


def _leave(embedded: Embedded) -> str | None:
    """Stops it unless it is in use; returns why it was left running. Locked, so that nobody can join meanwhile."""
    with embedded.users as users, locked(embedded.place):
        alone = leave_users(users)
        if embedded.place.keep_marker.exists():
            return "its URL was asked for"
        if not alone:
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
