"""Links to the database that can be cut: `python -m tests.verification.chaos.link SOCKET`, in a process of its own.

Each line on stdin sets one link's state: `["open", NAME]`, `["reset", NAME]`, `["stalled", NAME]` or `["hung", NAME]`.
Each answer on stdout is that line with the port of the link, written once the state holds.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from functools import partial

import trio

from .commands import lines_of_stdin

CHUNK_BYTES = 65_536
LINKS_MAX = 64
BACKLOG = 128
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the next close is a reset


class Link:
    """One port of this machine that leads to the database's socket.

    open: everything passes. reset: connections were reset, new ones are too. stalled: nothing moves, neither data nor
    ends, and new connections are accepted. hung: the same for new ones, while those that existed were reset.
    """

    def __init__(self, target: str, nursery: trio.Nursery) -> None:
        self._target = target
        self._nursery = nursery
        self._pairs: set[tuple[trio.SocketStream, trio.SocketStream]] = set()
        self._moving = trio.Event()
        self._moving.set()
        self._state = "open"
        self.port = 0

    async def listen(self) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=BACKLOG)
        self.port = listener.socket.getsockname()[1]
        self._nursery.start_soon(partial(trio.serve_listeners, self._serve, [listener], handler_nursery=self._nursery))

    def set(self, state: str) -> None:
        self._state = state
        if state in ("reset", "hung"):
            for pair in list(self._pairs):
                _reset(*pair)
        if state in ("stalled", "hung"):
            self._moving = trio.Event()
        else:
            self._moving.set()

    async def _serve(self, near: trio.SocketStream) -> None:
        if self._state == "reset":
            _reset(near)
            return
        await self._pass()
        try:
            far = await _connect(self._target)
        except OSError:
            _reset(near)
            return
        pair = (near, far)
        self._pairs.add(pair)
        try:
            async with trio.open_nursery() as pumps:
                pumps.start_soon(self._pump, near, far, pumps)
                pumps.start_soon(self._pump, far, near, pumps)
        finally:
            self._pairs.discard(pair)
            _close(near, far)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, pumps: trio.Nursery) -> None:
        """Passes on data until either side ends. While nothing moves, an end does not get through either."""
        try:
            while data := await source.receive_some(CHUNK_BYTES):
                await self._pass()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await self._pass()
        pumps.cancel_scope.cancel()

    async def _pass(self) -> None:
        while not self._moving.is_set():
            await self._moving.wait()


async def _connect(target: str) -> trio.SocketStream:
    end = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await end.connect(target)
    return trio.SocketStream(end)


def _reset(*streams: trio.SocketStream) -> None:
    for stream in streams:
        if stream.socket.fileno() >= 0:
            if stream.socket.family == socket.AF_INET:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            stream.socket.close()


def _close(*streams: trio.SocketStream) -> None:
    for stream in streams:
        if stream.socket.fileno() >= 0:
            stream.socket.close()


async def run(target: str) -> None:
    """Until stdin ends."""
    links: dict[str, Link] = {}
    async with trio.open_nursery() as nursery:
        async for line in lines_of_stdin():
            state, name = json.loads(line)
            if name not in links:
                assert len(links) < LINKS_MAX
                links[name] = Link(target, nursery)
                await links[name].listen()
            links[name].set(state)
            os.write(1, json.dumps([state, name, links[name].port]).encode() + b"\n")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(run, sys.argv[1])
