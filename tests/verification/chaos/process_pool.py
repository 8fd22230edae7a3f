"""Processes of clients: each one that the system really stops and kills, none that has to be started anew.

One process has imported what clients need, and forks: a start would take as much of the processor as a hundred visits.
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
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from .clients import Settings
from .ledger import Ledger
from .processes import KILLED_SECONDS, SMALL_SHARE, Failed, each_line, open_process, people_command, set_share

BORN_SECONDS = 30.0
LOOK_SECONDS = 0.002  # between two looks whether a killed process is gone
WHOLE_SHARE = 0
SHARE_TRIES = 5
SHARE_WAIT_SECONDS = 0.1


@dataclass(slots=True)
class People:
    """One process of clients. over: it was killed, or all its clients have gone home."""

    number: int
    house: House
    born: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    pid: int = 0

    def lives(self) -> bool:
        """False once it is gone: who forks here leaves it to the system to bury them."""
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
        """Between which moments its sockets were closed: when it was killed, and when it was gone."""
        return await self.house.kill(self)


class House:
    """Where the clients of a run live. What they write goes to the ledger."""

    def __init__(self, process: trio.Process, ledger: Ledger, log: Path) -> None:
        self._process = process
        self._ledger = ledger
        self._log = log
        self._people: dict[int, People] = {}
        self._asking = trio.Lock()
        self._killing = trio.Lock()
        self._closing = False

    async def move_in(self, settings: Settings) -> People:
        """A new process of clients. Raises `Failed`."""
        assert self._process.stdin is not None
        people = self._people[settings.number] = People(settings.number, self)
        async with self._asking:
            await self._process.stdin.send_all(msgspec.json.encode(settings) + b"\n")
        with trio.move_on_after(BORN_SECONDS):
            await people.born.wait()
            return people
        raise self._failed(f"no process of clients within {BORN_SECONDS:.0f} s")

    async def kill(self, people: People) -> tuple[float, float]:
        """See `People.kill`. Raises `Failed` where it goes on living.

        To die takes the processor, too: out of the small share that clients have, up to a fifth of a second, in which
        their sockets were open.
        """
        async with self._killing:
            await self._share(WHOLE_SHARE)
            at = time.time()
            people.send(signal.SIGKILL)
            await self._gone(people)
            gone = time.time()
            await self._share(SMALL_SHARE)
        people.over.set()
        return at, gone

    async def _gone(self, people: People) -> None:
        with trio.move_on_after(KILLED_SECONDS):
            while True:
                if not people.lives():
                    return
                await trio.sleep(LOOK_SECONDS)
        raise self._failed(f"process {people.pid} did not end within {KILLED_SECONDS:.0f} s of SIGKILL")

    async def _share(self, nice: int) -> None:
        """Only root may set it more than ten times a second."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(BlockingIOError),
            wait=wait_fixed(SHARE_WAIT_SECONDS),
            stop=stop_after_attempt(SHARE_TRIES),
            sleep=trio.sleep,
            reraise=True,
        )
        with suppress(OSError):
            async for attempt in attempts:
                with attempt:
                    set_share(self._process.pid, nice)

    async def listen(self) -> None:
        """Until the house is closed. Raises `Failed` where it ends before."""
        await each_line(self._process, self._take)
        if not self._closing:
            raise self._failed("the processes of clients ended by themselves")

    async def close(self) -> None:
        """Ends all clients."""
        assert self._process.stdin is not None
        self._closing = True
        await trio.aclose_forcefully(self._process.stdin)

    def _take(self, line: bytes) -> None:
        what, who, *rest = note = json.loads(line)
        match what:
            case "born":
                self._people[who].pid = rest[1]
                self._people[who].born.set()
            case "failed":
                raise self._failed("a process of clients ended by itself")
            case "home":
                self._people[who].over.set()
            case _:
                self._ledger.note(note)

    def _failed(self, what: str) -> Failed:
        return Failed(f"{what}; see {self._log} (with --keep)")


@asynccontextmanager
async def open_house(ledger: Ledger, logs: Path) -> AsyncIterator[House]:
    """Leaving the block ends all clients; every line of theirs is in the ledger then."""
    path = logs / "people.log"
    with path.open("ab") as log:
        async with open_process(people_command(), stdin=subprocess.PIPE, stderr=log) as process:
            house = House(process, ledger, path)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.listen)
                try:
                    yield house
                finally:
                    await house.close()
