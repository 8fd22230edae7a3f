"""The receiver of webhooks of a run, kept by a process of its own, and what it received."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ..starvation import Failed
from .processes import NICE, each_line, open_process
from .receiver import WELL

SET_SECONDS = 10.0  # for its mood to change
RECEIPTS_MAX = 500_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """A request that came in whole. at: Unix seconds. status: what it was answered; 0: nothing."""

    at: float
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


class ReceiverProcess:
    """Sets the mood of the receiver; see `receiver.py`. url: of its endpoint. receipts: in order of arrival."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._asking = trio.Lock()
        self._answered = trio.Event()
        self._port = 0
        self.receipts: list[Receipt] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/hook"

    async def set(self, mood: str) -> None:
        """Returns once that holds; all that came in before is among the receipts then. Raises `Failed`."""
        assert self._process.stdin is not None
        async with self._asking:
            self._answered = trio.Event()
            await self._process.stdin.send_all(mood.encode() + b"\n")
            with trio.move_on_after(SET_SECONDS) as limit:
                await self._answered.wait()
        if limit.cancelled_caught:
            raise Failed(f"the receiver of webhooks was not {mood} within {SET_SECONDS:.0f} s")

    async def listen(self) -> None:
        await each_line(self._process, self._take)

    def _take(self, line: bytes) -> None:
        kind, *rest = json.loads(line)
        if kind != "received":
            (self._port,) = rest
            self._answered.set()
            return
        if len(self.receipts) >= RECEIPTS_MAX:
            raise Failed(f"more than {RECEIPTS_MAX:,} deliveries of webhooks")
        at, status, headers, body = rest
        self.receipts.append(Receipt(at, status, headers, body.encode("latin-1")))


@asynccontextmanager
async def open_receiver(logs: Path) -> AsyncIterator[ReceiverProcess]:
    """It is well at first. Leaving the block ends it."""
    command = [*NICE, sys.executable, "-m", "tests.verification.chaos.receiver"]
    with (logs / "receiver.log").open("ab") as log:
        async with open_process(command, stdin=subprocess.PIPE, stderr=log) as process, trio.open_nursery() as nursery:
            receiver = ReceiverProcess(process)
            nursery.start_soon(receiver.listen)
            await receiver.set(WELL)
            yield receiver
            nursery.cancel_scope.cancel()
