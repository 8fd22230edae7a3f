"""The main process of a PostgreSQL cluster, seen from outside: is it there, what does it say, and how it is ended."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

PORT = 5432  # names the socket; nothing listens on TCP
LOOK_SECONDS = 0.02
LOG_TAIL_BYTES = 16_384
FULL_DISK_BYTES = 16_777_216  # of free space: one segment of PostgreSQL's log
REASON_CHARS_MAX = 300
# Of PostgreSQL itself: not what it told those who were connected, or tried to be, meanwhile.
_OWN_FAILURE = re.compile(r"\b(?:FATAL|PANIC): +(?! |the database system is|terminating |connection to client lost).*")


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A running PostgreSQL, as its pid file tells. status: starting, ready, stopping, or empty at first."""

    pid: int
    sockets: Path
    status: str

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.sockets), safe='/')}&port={PORT}"


def find(cluster: Path) -> Postmaster | None:
    """Returns the cluster's living postmaster, whatever its status; None: there is none."""
    lines = _pid_file(cluster)
    if not lines or not lines[0].isdecimal() or not _is_postmaster(int(lines[0]), cluster):
        return None
    sockets, status = (lines[index].strip() if len(lines) > index else "" for index in (4, 7))
    return Postmaster(int(lines[0]), Path(sockets), status)


def is_alive(pid: int) -> bool:
    """Whether it exists and still runs. A zombie is dead, and reaped if it is ours, as in a container without init."""
    try:
        os.kill(pid, 0)  # denied where it is another user's process: not the one that was started
        _, name, (state, *_) = _stat(pid)
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # a system without /proc
    except (OSError, OverflowError):
        return False
    if state in "ZX" and name in ("postgres", "sh"):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return state not in "ZX"


def end(pid: int, seconds: float, *, at_once_seconds: float = 0.0) -> bool:
    """Ends a postmaster and its connections; returns whether it is gone.

    seconds: for a shutdown with a checkpoint. at_once_seconds: after that, for one without.
    """
    for number, limit in ((signal.SIGINT, seconds), (signal.SIGQUIT, at_once_seconds)):
        deadline = time.monotonic() + limit
        while is_alive(pid) and time.monotonic() < deadline:
            hurry(pid, number)  # again and again: a signal that comes while it still starts is lost
            time.sleep(LOOK_SECONDS)
    return not is_alive(pid)


def hurry(pid: int, number: signal.Signals = signal.SIGINT) -> None:
    """Has a shutdown no longer wait for clients."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def forget_dead(cluster: Path, sockets: Path) -> None:
    """Removes what a crashed one left, where its pid exists again or is a zombie's: PostgreSQL would not start.

    Should processes of the crashed one still run, PostgreSQL sees that by their shared memory, and does not start.
    """
    lines = _pid_file(cluster)
    if lines and (Path("/proc") / lines[0].strip()).exists():
        (cluster / "postmaster.pid").unlink(missing_ok=True)
    (sockets / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)


def log_of(cluster: Path) -> Path:
    """PostgreSQL's log."""
    return cluster / "server.log"


def why_ended(cluster: Path, written: int = 0) -> str:
    """The last that PostgreSQL wrote about its end, in a line. written: the bytes of its log from before."""
    worst = ""
    with contextlib.suppress(OSError), log_of(cluster).open("rb") as log:
        log.seek(max(written, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        for line in log.read(LOG_TAIL_BYTES).decode(errors="replace").splitlines():
            found = _OWN_FAILURE.search(line)
            worst = found[0] if found else worst
    with contextlib.suppress(OSError):
        if not worst and shutil.disk_usage(cluster).free < FULL_DISK_BYTES:
            worst = "no space left on the disk of its data"  # not even for a line of its log
    return " ".join(worst[:REASON_CHARS_MAX].split()) or "its main process is gone"


def _is_postmaster(pid: int, cluster: Path) -> bool:
    """Whether the process runs in this cluster: the pid in its file may be another program's by now."""
    if not is_alive(pid):
        return False
    try:
        process, name, _ = _stat(pid)
        return name == "postgres" and (process / "cwd").samefile(cluster)
    except PermissionError:
        return True
    except OSError:
        return not Path("/proc/self").exists()


def _stat(pid: int) -> tuple[Path, str, list[str]]:
    """The process's folder, its name and its further fields; proc(5). Raises `OSError`."""
    process = Path("/proc") / str(pid)
    name, _, fields = (process / "stat").read_text(errors="replace").rpartition(") ")
    return process, name.partition("(")[2], fields.split()


def _pid_file(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
    except OSError:
        return []
