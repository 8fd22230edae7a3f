"""A TCP port that leads to a database's Unix socket, and may stop doing so: it hangs, or resets its connections."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import parse_qs, urlsplit

import trio

CHUNK_BYTES = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Link:
    """A way to the database.

    hangs: nothing is passed on any more, in either direction, and nobody is told. closes: connections are closed as
    soon as they are accepted. accepted: connections so far.
    """

    def __init__(self, database_url: str, port: int) -> None:
        [directory] = parse_qs(urlsplit(database_url).query)["host"]
        self._socket = f"{directory}/.s.PGSQL.5432"
        self._open: set[trio.SocketStream] = set()
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self.place = f"127.0.0.1:{port}"
        self.hangs = False
        self.closes = False
        self.accepted = 0

    def reset(self) -> None:
        """Resets all connections, as a pooler that restarts would."""
        for stream in self._open:
            stream.setsockopt(SOL_SOCKET, SO_LINGER, RESET_ON_CLOSE)
            stream.socket.close()

    async def serve(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        if self.closes:
            await client.aclose()
            return
        self._open.add(client)
        try:
            if self.hangs:
                await trio.sleep_forever()
            server = await trio.open_unix_socket(self._socket)
            async with server, client, trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, client, server)
                await self._pass_on(server, client)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        finally:
            self._open.discard(client)

    async def _pass_on(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for data in source:
            if self.hangs:
                await trio.sleep_forever()
            await target.send_all(data)
        await target.send_eof()


@asynccontextmanager
async def open_link(database_url: str) -> AsyncIterator[Link]:
    """A link to the database of `database_url`, on a free port of this machine."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    link = Link(database_url, listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, link.serve, [listener])
        yield link
        nursery.cancel_scope.cancel()
