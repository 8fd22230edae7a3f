"""The processes of a run: PostgreSQL, servers, clients. Each is ended by its id, however the run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio
from lastcall.embedded import cluster
from lastcall.embedded import postgres as embedded

from ..starvation import Failed
from .agent import FAILED_ONCE
from .ledger import ServerLife
from .plan import Pace

START_SECONDS = 30.0
KILLED_SECONDS = 5.0  # from SIGKILL to the exit
LINE_BYTES_MAX = 1 << 20
# Clients stand for other machines and must not take the servers' time. Linux may divide it by session before niceness.
AUTOGROUP = "/proc/{}/autogroup"
SMALL_SHARE = 10  # as a nice value
NICE = ("sh", "-c", f'echo {SMALL_SHARE} 2>/dev/null >/proc/self/autogroup; exec nice -n {SMALL_SHARE} "$@"', "sh")
ROOT = Path(__file__).resolve().parents[3]


class Database:
    """The run's own embedded PostgreSQL. It can be crashed and restarted, and frozen."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._cluster = embedded.place(data_dir).cluster
        self._frozen: list[int] = []
        self.url = ""

    def start(self) -> None:
        self.url = embedded.start(self._data_dir)
        # The audit measures by the time of each commit.
        self._psql("ALTER SYSTEM SET track_commit_timestamp = on")
        self.restart()

    def restart(self) -> None:
        """Kills every backend at once and replays the log. Returns once connections are accepted again."""
        log = self._cluster / "server.log"
        arguments = ("restart", "-w", "-m", "immediate", "-t", str(int(START_SECONDS)), "-D", self._cluster, "-l", log)
        answer = cluster.run("pg_ctl", *arguments, user=self._cluster.stat().st_uid)
        if answer.returncode != 0:
            raise Failed(f"PostgreSQL did not restart: {answer.stderr.strip()}")

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
        answer = cluster.run("psql", "--no-psqlrc", "-qc", statement, self.url)
        if answer.returncode != 0:
            raise Failed(answer.stderr.strip())


def _children(pid: int) -> list[int]:
    lines = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.split() for line in lines]
    return [int(child) for child, parent in pairs if int(parent) == pid]


@asynccontextmanager
async def open_process(command: list[str], **options: Any) -> AsyncIterator[trio.Process]:
    """A process in its own session, out of reach of the terminal's Ctrl-C. On leaving, the whole session is killed."""
    options = {"stdin": subprocess.DEVNULL, **options}
    process = await trio.lowlevel.open_process(
        command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        with trio.move_on_after(KILLED_SECONDS, shield=True):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if process.stdout is not None:
            await trio.aclose_forcefully(process.stdout)


async def each_line(process: trio.Process, take: Callable[[bytes], None]) -> None:
    """Passes on every line of a process's stdout until its end."""
    pending = b""
    assert process.stdout is not None
    async for data in process.stdout:
        *lines, pending = (pending + bytes(data)).split(b"\n")
        if len(pending) > LINE_BYTES_MAX:
            raise Failed(f"process {process.pid} writes endless lines")
        for line in lines:
            take(line)


class Server:
    """One port, and the server processes that run on it one after the other."""

    def __init__(self, port: int, database_url: str, pace: Pace, logs: Path) -> None:
        self.port = port
        self.life: ServerLife | None = None
        self.process: trio.Process | None = None
        self._logs = logs
        self._command = [sys.executable, "-m", "lastcall", "serve", "--port", str(port), "--json-logs"]
        self._command += ["--database-url", database_url, "--agent", "tests.verification.chaos.agent:ChaosAgent"]
        self._command += ["--ping-interval", str(pace.ping_interval), "--ping-timeout", str(pace.ping_timeout)]
        self._command += ["--drain-seconds", str(pace.drain)]
        failed_once = logs / "failed-once"
        failed_once.mkdir(exist_ok=True)
        settings = {
            FAILED_ONCE: str(failed_once),
            "LASTCALL_LEASE_SECONDS": str(pace.lease),
            "LASTCALL_LOG_LEVEL": "warning",
        }
        self._environment = {**os.environ, **settings}
        self._ready = trio.Event()
        self._over = trio.Event()

    async def live(self, lives: list[ServerLife], *, task_status: trio.TaskStatus[None]) -> None:
        """Runs one process until it exits. Reports as started once it accepts connections, or exited before it did."""
        self._ready, self._over = trio.Event(), trio.Event()
        with (self._logs / f"server-{self.port}.log").open("ab") as log:
            async with open_process(self._command, env=self._environment, stderr=log) as process:
                life = self.life = ServerLife(process.pid, self.port, time.time())
                self.process = process
                lives.append(life)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_ready, task_status)
                    await each_line(process, partial(self._take, life, log.write))
                    life.exit_code = await process.wait()
                    life.died = time.time()
                    self._ready.set()
                    self._over.set()

    async def _watch_ready(self, task_status: trio.TaskStatus[None]) -> None:
        await self._ready.wait()
        task_status.started()

    def _take(self, life: ServerLife, write: Callable[[bytes], int], line: bytes) -> None:
        write(line + b"\n")
        with suppress(ValueError):
            if life.ready is None and json.loads(line).get("event") == "ready":
                life.ready = time.time()
                self._ready.set()

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    async def ended(self) -> None:
        """Waits until its process has exited and the ledger says so."""
        await self._over.wait()


def set_share(pid: int, nice: int) -> None:
    """Sets the share of a process's session.

    Raises:
        BlockingIOError: it was changed too recently.
        OSError: this kernel does not group processes by session.
    """
    Path(AUTOGROUP.format(pid)).write_text(str(nice))


def clients_command() -> list[str]:
    return [*NICE, sys.executable, "-m", "tests.verification.chaos.clients"]


def orphans_command(database_url: str) -> list[str]:
    return [*NICE, sys.executable, "-m", "lastcall", "orphans", "--json", "--database-url", database_url]
