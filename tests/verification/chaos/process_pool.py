"""Client processes that the run can really stop and kill, without starting an interpreter for each.

One process imports what clients need and forks the others; each start would cost as much time as a hundred visits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from ..starvation import Failed, TimedOut
from .clients import Settings
from .ledger import Ledger
from .processes import KILLED_SECONDS, SMALL_SHARE, WHOLE_SHARE, clients_command, each_line, open_process, share

STARTED_SECONDS = 30.0
LOOK_SECONDS = 0.002  # between two looks whether a killed process is gone


@dataclass(slots=True)
class ClientProcess:
    """One process of clients. over: it was killed, or all its clients have finished."""

    number: int
    pool: ProcessPool
    started: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    pid: int = 0

    def is_alive(self) -> bool:
        """False once it is gone: the kernel reaps it at once."""
        if not self.over.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, 0)
                return True
        return False

    def send(self, number: signal.Signals) -> None:
        if not self.over.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> tuple[float, float]:
        """Returns the two moments between which its sockets were closed: when it was killed, and when it was gone."""
        return await self.pool.kill(self)


class ProcessPool:
    """The client processes of a run. What they write goes to the ledger."""

    def __init__(self, process: trio.Process, ledger: Ledger, log: Path) -> None:
        self._process = process
        self._ledger = ledger
        self._log = log
        self._clients: dict[int, ClientProcess] = {}
        self._asking = trio.Lock()
        self._killing = trio.Lock()
        self._closing = False

    async def start(self, settings: Settings) -> ClientProcess:
        """Returns a new process of clients. Raises `Failed`."""
        assert self._process.stdin is not None
        began = time.time()
        clients = self._clients[settings.number] = ClientProcess(settings.number, self)
        async with self._asking:
            await self._process.stdin.send_all(msgspec.json.encode(settings) + b"\n")
        with trio.move_on_after(STARTED_SECONDS):
            await clients.started.wait()
            return clients
        raise TimedOut(self._see_log(f"no client process started within {STARTED_SECONDS:.0f} s"), began)

    async def kill(self, clients: ClientProcess) -> tuple[float, float]:
        """See `ClientProcess.kill`. Raises `Failed` where the process survives.

        Dying takes processor time, too: with the small share of a client up to a fifth of a second, in which its
        sockets stay open. So the clients get a whole share meanwhile.
        """
        async with self._killing:
            await share(self._process.pid, WHOLE_SHARE)
            at = time.time()
            clients.send(signal.SIGKILL)
            await self._gone(clients, at)
            gone = time.time()
            await share(self._process.pid, SMALL_SHARE)
        clients.over.set()
        return at, gone

    async def _gone(self, clients: ClientProcess, killed: float) -> None:
        with trio.move_on_after(KILLED_SECONDS):
            while True:
                if not clients.is_alive():
                    return
                await trio.sleep(LOOK_SECONDS)
        raise TimedOut(
            self._see_log(f"process {clients.pid} did not end within {KILLED_SECONDS:.0f} s of SIGKILL"), killed
        )

    async def listen(self) -> None:
        """Reads until the pool is closed. Raises `Failed` where its process ends earlier."""
        await each_line(self._process, self._take)
        if not self._closing:
            raise Failed(self._see_log("the client processes ended by themselves"))

    async def close(self) -> None:
        """Ends all clients."""
        assert self._process.stdin is not None
        self._closing = True
        await trio.aclose_forcefully(self._process.stdin)

    def _take(self, line: bytes) -> None:
        kind, subject, *rest = note = json.loads(line)
        match kind:
            case "started":
                self._clients[subject].pid = rest[1]
                self._clients[subject].started.set()
            case "failed":
                raise Failed(self._see_log("a client process ended by itself"))
            case "finished":
                self._clients[subject].over.set()
            case _:
                self._ledger.note(note)

    def _see_log(self, problem: str) -> str:
        return f"{problem}; see {self._log} (with --keep)"


@asynccontextmanager
async def open_process_pool(ledger: Ledger, logs: Path) -> AsyncIterator[ProcessPool]:
    """Leaving the block ends all clients; the ledger then has every line they wrote."""
    path = logs / "clients.log"
    with path.open("ab") as log:
        async with open_process(clients_command(), stdin=subprocess.PIPE, stderr=log) as process:
            pool = ProcessPool(process, ledger, path)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.listen)
                try:
                    yield pool
                finally:
                    await pool.close()
