"""The links of a run to its database, kept by a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ..starvation import Failed
from .processes import each_line, open_process

SET_SECONDS = 10.0  # for a link to change its state


class Links:
    """Sets the states of links; see `link.py`. ports: of each link, by its name."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._asking = trio.Lock()
        self._answered = trio.Event()
        self.pid = process.pid
        self.ports: dict[str, int] = {}

    async def set(self, name: str, state: str) -> None:
        """Returns once the link is in that state. Raises `Failed`."""
        assert self._process.stdin is not None
        async with self._asking:
            self._answered = trio.Event()
            await self._process.stdin.send_all(json.dumps([state, name]).encode() + b"\n")
            with trio.move_on_after(SET_SECONDS) as limit:
                await self._answered.wait()
        if limit.cancelled_caught:
            raise Failed(f"the link {name} did not become {state} within {SET_SECONDS:.0f} s")

    async def open(self, names: list[str]) -> list[int]:
        """Opens links and returns their ports."""
        for name in names:
            await self.set(name, "open")
        return [self.ports[name] for name in names]

    async def listen(self) -> None:
        await each_line(self._process, self._take)

    def _take(self, line: bytes) -> None:
        _state, name, port = json.loads(line)
        self.ports[name] = port
        self._answered.set()


@asynccontextmanager
async def open_links(socket: Path, logs: Path) -> AsyncIterator[Links]:
    """Leaving the block ends all links."""
    command = [sys.executable, "-m", "tests.verification.chaos.link", str(socket)]
    with (logs / "links.log").open("ab") as log:
        async with open_process(command, stdin=subprocess.PIPE, stderr=log) as process, trio.open_nursery() as nursery:
            links = Links(process)
            nursery.start_soon(links.listen)
            yield links
            nursery.cancel_scope.cancel()
