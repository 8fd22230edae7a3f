"""The PostgreSQL of a run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from lastcall.embedded import postgres as embedded
from lastcall.embedded import postmaster, programs

from ..starvation import Failed
from .clock import SettableClock
from .processes import KILLED_SECONDS, START_SECONDS

LOOK_SECONDS = 0.01  # between two looks whether its processes are gone


class Database:
    """The run's own embedded PostgreSQL. It can be crashed and restarted, frozen and set.

    clock: its own, where that can be set.
    """

    def __init__(self, data_dir: Path, clock: SettableClock | None = None) -> None:
        self._data_dir = data_dir
        self._cluster = embedded.place(data_dir).cluster
        self._frozen: list[int] = []
        self.clock = clock
        self.url = ""

    @property
    def socket(self) -> Path:
        """The socket that it listens on."""
        (folder,) = parse_qs(urlsplit(self.url).query)["host"]
        return Path(folder) / f".s.PGSQL.{postmaster.PORT}"

    def start(self) -> None:
        self.url = embedded.start(self._data_dir)
        # The audit measures by the time of each commit.
        self._psql("ALTER SYSTEM SET track_commit_timestamp = on")
        self.restart()

    def restart(self) -> None:
        """Kills every backend at once and replays the log. Returns once connections are accepted again."""
        log = self._cluster / "server.log"
        arguments = ("restart", "-w", "-m", "immediate", "-t", str(int(START_SECONDS)), "-D", self._cluster, "-l", log)
        with self._clocked():
            answer = programs.run("pg_ctl", *arguments, user=self._cluster.stat().st_uid)
        if answer.returncode != 0:
            raise Failed(f"PostgreSQL did not restart: {answer.stderr.strip()}")

    @contextmanager
    def _clocked(self) -> Iterator[None]:
        """Lets the programs that are started in the block see the database's clock."""
        environment = self.clock.environment if self.clock is not None else {}
        os.environ.update(environment)
        try:
            yield
        finally:
            for name in environment:
                os.environ.pop(name, None)

    def kill(self) -> None:
        """Kills the postmaster. Its children notice and exit; returns when they have."""
        postmaster = self.postmaster()
        children = _children(postmaster)
        os.kill(postmaster, signal.SIGKILL)
        deadline = time.monotonic() + KILLED_SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in [postmaster, *children]):
            if time.monotonic() > deadline:
                raise Failed("the children of PostgreSQL outlived its postmaster")
            time.sleep(LOOK_SECONDS)

    def revive(self) -> None:
        """Starts it again after `kill`."""
        with self._clocked():
            embedded.start(self._data_dir)

    def set_read_only(self, read_only: bool) -> None:
        """For all connections, from their next transaction on."""
        self._psql(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if read_only else 'off'}")
        self._psql("SELECT pg_reload_conf()")

    def postmaster(self) -> int:
        """The process id of the postmaster; 0 while there is none."""
        with suppress(OSError, ValueError, IndexError):
            return int((self._cluster / "postmaster.pid").read_text().splitlines()[0])
        return 0

    def freeze(self) -> None:
        """Stops the postmaster first, so that it makes no further children."""
        postmaster = self.postmaster()
        os.kill(postmaster, signal.SIGSTOP)
        self._frozen = [postmaster]
        for child in _children(postmaster):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
                self._frozen.append(child)

    def thaw(self) -> None:
        for pid in reversed(self._frozen):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen = []

    def stop(self) -> None:
        self.thaw()
        embedded.stop(self._data_dir)

    def _psql(self, statement: str) -> None:
        answer = programs.run("psql", "--no-psqlrc", "-qc", statement, self.url)
        if answer.returncode != 0:
            raise Failed(answer.stderr.strip())


def _children(pid: int) -> list[int]:
    lines = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.split() for line in lines]
    return [int(child) for child, parent in pairs if int(parent) == pid]
