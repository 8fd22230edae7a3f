"""A link to a PostgreSQL that a test may cut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import trio

CHUNK_BYTES = 65_536
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Link:
    """TCP connections on `url` lead to the PostgreSQL behind a Unix socket, until the link is cut."""

    def __init__(self, target: str, tasks: trio.Nursery) -> None:
        parts = urlsplit(target)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._user, self._database = parts.username or "postgres", parts.path
        self._tasks = tasks
        self._open = self._accepting = trio.CancelScope()
        self._port = 0

    @property
    def url(self) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self._port}{self._database}"

    async def restore(self) -> None:
        """Lets connections through, on the same port as before."""
        (listener,) = await trio.open_tcp_listeners(self._port, host="127.0.0.1")
        self._port = listener.socket.getsockname()[1]
        self._open, self._accepting = trio.CancelScope(), trio.CancelScope()
        self._tasks.start_soon(self._serve, listener)

    def cut(self) -> None:
        """Ends all connections, and refuses new ones."""
        self._open.cancel()

    def refuse(self) -> None:
        """Refuses new connections; those that are open stay."""
        self._accepting.cancel()

    async def _serve(self, listener: trio.SocketListener) -> None:
        accepting = self._accepting
        with self._open:
            async with trio.open_nursery() as connections:
                with accepting:
                    await trio.serve_listeners(self._connect, [listener], handler_nursery=connections)

    async def _connect(self, near: trio.SocketStream) -> None:
        with suppress(*BROKEN):
            async with await trio.open_unix_socket(self._socket) as far, trio.open_nursery() as ways:
                for source, sink in ((near, far), (far, near)):
                    ways.start_soon(_forward, source, sink, ways.cancel_scope)


async def _forward(source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
    with suppress(*BROKEN):
        while chunk := await source.receive_some(CHUNK_BYTES):
            await sink.send_all(chunk)
    both.cancel()


@asynccontextmanager
async def open_link(target: str) -> AsyncIterator[Link]:
    """A link that lets connections through."""
    async with trio.open_nursery() as tasks:
        link = Link(target, tasks)
        await link.restore()
        yield link
        tasks.cancel_scope.cancel()
