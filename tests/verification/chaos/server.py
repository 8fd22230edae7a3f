"""The servers of a run."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from .agent import FAILED_ONCE
from .clock import SettableClock
from .ledger import ServerLife
from .places import REMOTE, Place, elsewhere, link_names
from .plan import Pace
from .processes import START_SHARE, WHOLE_SHARE, each_line, open_process, share

LOG_PIPE_BYTES = 4_096


class Server:
    """One port, and the server processes that run on it one after the other.

    clock: its own, where it can be set. seen_elsewhere: see `ServerLife`.
    """

    def __init__(
        self,
        port: int,
        place: Place,
        urls: str,
        pace: Pace,
        logs: Path,
        clock: SettableClock | None,
        *,
        seen_elsewhere: bool,
    ) -> None:
        self.port = port
        self._seen_elsewhere = seen_elsewhere
        self.place = place
        self.clock = clock
        self.life: ServerLife | None = None
        self.process: trio.Process | None = None
        self._logs = logs
        self._command = _serve_command(port, urls, pace)
        if place.name == REMOTE:
            self._command = elsewhere(self._hostname, self._command)
        failed_once = logs / "failed-once"
        failed_once.mkdir(exist_ok=True)
        settings = {FAILED_ONCE: str(failed_once), "LASTCALL_LEASE_SECONDS": str(place.lease)}
        self._environment = {**os.environ, **settings, **(clock.environment if clock is not None else {})}
        self._ready = trio.Event()
        self._over = trio.Event()
        self._reading = trio.Event()
        self._reading.set()

    @property
    def _hostname(self) -> str:
        return f"chaos-{self.port}"

    @property
    def links(self) -> list[str]:
        """The names of its links to the database."""
        return link_names(self.port, self.place)

    async def live(self, lives: list[ServerLife], *, task_status: trio.TaskStatus[None]) -> None:
        """Runs one process until it exits. Reports as started once it accepts connections, or exited before it did."""
        self._ready, self._over = trio.Event(), trio.Event()
        with (self._logs / f"server-{self.port}.log").open("ab") as log:
            async with open_process(self._command, env=self._environment, stderr=log) as process:
                _shrink_pipe(process)
                life = self.life = ServerLife(process.pid, self.port, time.time(), lease=self.place.lease)
                life.linked, life.seen_elsewhere = self.place.hosts > 0, self._seen_elsewhere
                self.process = process
                lives.append(life)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_ready, life, task_status)
                    await each_line(process, partial(self._take, life, log.write), self._may_read)
                    life.exit_code = await process.wait()
                    life.died = time.time()
                    self._ready.set()
                    self._over.set()

    async def _watch_ready(self, life: ServerLife, task_status: trio.TaskStatus[None]) -> None:
        """A start takes as much processor time as hundreds of visits; it stands for a start on another machine."""
        await share(life.process, START_SHARE)
        await self._ready.wait()
        await share(life.process, WHOLE_SHARE)
        task_status.started()

    def _take(self, life: ServerLife, write: Callable[[bytes], int], line: bytes) -> None:
        write(line + b"\n")
        with suppress(ValueError):
            if life.ready is None and json.loads(line).get("event") == "ready":
                life.ready = time.time()
                if self.place.name == REMOTE:
                    life.hostname = self._hostname
                    life.process, life.pid = _inside(life.process)
                self._ready.set()

    async def _may_read(self) -> None:
        await self._reading.wait()

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Within the block nobody reads its log."""
        self._reading = trio.Event()
        try:
            yield
        finally:
            self._reading.set()

    def send(self, number: signal.Signals) -> None:
        if self.life is not None and self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.life.process, number)

    async def ended(self) -> None:
        """Waits until its process has exited and the ledger says so."""
        await self._over.wait()


def _serve_command(port: int, database_url: str, pace: Pace) -> list[str]:
    command = [sys.executable, "-m", "lastcall", "serve", "--port", str(port), "--json-logs"]
    command += ["--database-url", database_url, "--agent", "tests.verification.chaos.agent:ChaosAgent"]
    command += ["--ping-interval", str(pace.ping_interval), "--ping-timeout", str(pace.ping_timeout)]
    return [*command, "--drain-seconds", str(pace.drain)]


def _shrink_pipe(process: trio.Process) -> None:
    """So that a log that nobody reads is full after some lines. Linux only."""
    if process.stdout is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, LOG_PIPE_BYTES)  # type: ignore[attr-defined]


def _inside(outer: int) -> tuple[int, int]:
    """The process that `unshare` has started: its id here, and in its own namespace."""
    pid = int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:")]
    return pid, int(line.split()[-1])
