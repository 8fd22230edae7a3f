"""A PostgreSQL cluster run by the programs that pip installs: create, start and stop it. Blocking, bounded."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

from .postmaster import LOOK_SECONDS, PORT, Postmaster, end, find, forget_dead, hurry, is_alive, log_of, why_ended
from .programs import (
    COMMAND_SECONDS,
    EmbeddedError,
    check_interrupted,
    digest,
    failure_line,
    last_line,
    owner_of_new_data,
    programs,
    run,
    run_command,
)

__all__ = ["COMMAND_SECONDS", "EmbeddedError", "Postmaster", "create", "digest", "find", "run", "start", "stop"]

CONNECTIONS_MAX = 200
STOP_SECONDS = 10.0
STOP_AT_ONCE_SECONDS = 5.0  # for a start that was interrupted: then without a checkpoint
SMART_STOP_SECONDS = 3.0  # that a shutdown may wait for clients to leave; a server's own connections never do
SOCKET_PATH_BYTES_MAX = 100
LOG_BYTES_MAX = 1_048_576  # a start begins another log then; two are kept
LAUNCH = 'umask 077; exec "$@" >>"$0" 2>&1 </dev/null & echo $!'  # no child of ours: it outlives a kill of this process


class NotStarted(EmbeddedError):
    """PostgreSQL did not start. reason: in a few words, without advice."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"PostgreSQL did not start: {reason} {advice}")
        self.reason = reason


def create(cluster: Path, lock: int) -> None:
    """Creates the cluster under another name and renames it, so that an interrupted initdb leaves no cluster.

    lock: the descriptor of the folder's lock. initdb holds it too, so that no other one begins before it has ended,
    should this process be killed.
    """
    fresh = cluster.with_suffix(".new")
    if fresh.is_dir() and not fresh.is_symlink():
        shutil.rmtree(fresh, ignore_errors=True)
    else:
        fresh.unlink(missing_ok=True)
    user = owner_of_new_data()
    fresh.mkdir(mode=0o700)
    os.chown(fresh, user, -1, follow_symlinks=False)
    settings = (f"max_connections={CONNECTIONS_MAX}", "log_checkpoints=off", "listen_addresses=")
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
    options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", *(f"--set={each}" for each in settings)]
    try:
        answer = run("initdb", *options, "-D", fresh, user=user, pass_fds=(lock,))
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if answer.returncode != 0:
        reason = failure_line(answer.stderr)
        raise EmbeddedError(f"initdb failed in {cluster.parent}: {reason}; or pass --database-url")
    fresh.rename(cluster)


def start(cluster: Path, sockets: Path | None = None) -> Postmaster:
    """Starts the cluster, or waits until one that runs is ready; call it with the folder's lock held.

    An interrupted start leaves no postmaster behind; one that takes too long goes on, so that a long recovery ends.

    Args:
        cluster: Its folder.
        sockets: Where it is reached, if it has to be started; None: in a folder that fits.

    Raises:
        NotStarted: It cannot start, or is not ready after `COMMAND_SECONDS`.
    """
    if not cluster.exists():
        raise NotStarted(f"{cluster} is gone", "(restore it, or choose another --data-dir)")
    found = _settled(cluster)
    if found is not None:
        return found
    written, launched = _launch(cluster, sockets or _socket_directory(cluster))
    try:
        found = _settled(cluster, launched)
    except NotStarted:
        raise
    except BaseException:
        end(launched, STOP_SECONDS, at_once_seconds=STOP_AT_ONCE_SECONDS)
        raise
    if found is None:
        raise NotStarted(why_ended(cluster, written), f"(its log: {log_of(cluster)}); or pass --database-url")
    return found


def _settled(cluster: Path, launched: int | None = None) -> Postmaster | None:
    """Waits until a postmaster is ready, or none is left: then returns None. Hurries one that waits for its clients."""
    began = time.monotonic()
    while time.monotonic() < began + COMMAND_SECONDS:
        found = find(cluster)
        if found is None and (launched is None or not is_alive(launched)):
            return None
        if found is not None and found.status in ("ready", "standby"):
            return found
        if found is not None and found.status == "stopping" and time.monotonic() > began + SMART_STOP_SECONDS:
            hurry(found.pid)
        check_interrupted()
        time.sleep(LOOK_SECONDS)
    raise NotStarted(f"it is not ready after {COMMAND_SECONDS:.0f} s", f"(its log: {log_of(cluster)}); try again later")


def stop(cluster: Path) -> bool:
    """Stops the cluster and its open connections; returns whether it was running. Raises `EmbeddedError`."""
    found = find(cluster)
    if found is None:
        return False
    if not end(found.pid, STOP_SECONDS):
        raise EmbeddedError(f"PostgreSQL in {cluster} did not stop in {STOP_SECONDS:.0f} s; see {log_of(cluster)}")
    if found.sockets != cluster:
        with contextlib.suppress(OSError):
            found.sockets.rmdir()
    return True


def _launch(cluster: Path, sockets: Path) -> tuple[int, int]:
    """Returns the bytes of the log so far, and the pid."""
    log, owner = log_of(cluster), cluster.stat().st_uid
    written = log.stat().st_size if log.exists() else 0
    if written > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
        written = 0
    _make_socket_directory(sockets, owner)
    forget_dead(cluster, sockets)
    options = ("-D", cluster, "-k", sockets, "-p", PORT, "-c", "listen_addresses=")
    command = ["/bin/sh", "-c", LAUNCH, log, programs() / "postgres", *options]
    answer = run_command([str(each) for each in command], owner)
    if not answer.stdout.strip().isdecimal():
        raise NotStarted(last_line(answer.stderr), "(it could not be launched); or pass --database-url")
    return written, int(answer.stdout)


def _socket_directory(cluster: Path) -> Path:
    """The cluster's own folder, which is private to its user, or one among the temporary files.

    The latter where the path is too long for a socket, or needs quoting in a URL or in PostgreSQL's settings. A name
    that nobody can guess where another user took the usual one.
    """
    length = len(os.fsencode(cluster / f".s.PGSQL.{PORT}.lock"))
    if length <= SOCKET_PATH_BYTES_MAX and re.fullmatch(r"[\w./+-]+", str(cluster), re.ASCII):
        return cluster
    usual = Path(tempfile.gettempdir()) / f"lastcall-{digest(cluster)}"
    if _is_private(usual, cluster.stat().st_uid) or not os.path.lexists(usual):
        return usual
    unusual = Path(tempfile.mkdtemp(prefix="lastcall-"))
    os.chown(unusual, cluster.stat().st_uid, -1, follow_symlinks=False)
    return unusual


def _make_socket_directory(sockets: Path, owner: int) -> None:
    with contextlib.suppress(FileExistsError):
        sockets.mkdir(mode=0o700)
        os.chown(sockets, owner, -1, follow_symlinks=False)
    if not _is_private(sockets, owner):
        raise NotStarted(f"{sockets} is not private to PostgreSQL's user", "(remove it, or take a shorter --data-dir)")


def _is_private(directory: Path, owner: int) -> bool:
    """Whether it is a folder of this owner that no other user may enter."""
    with contextlib.suppress(OSError):
        found = directory.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o077
    return False
