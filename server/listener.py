"""One port: WebSocket upgrades go to `connection.py`, every other request to the HTTP server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog
import trio

from .connection import Services, serve_websocket
from .stream import BufferedStream
from .tls import TlsStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from .http import HttpServer

SPARE_SOCKETS = 256  # beyond the sessions: handshakes and HTTP requests

_log = structlog.get_logger(__name__)
# Only a guess at which parser the head is for: each reads it for itself, and answers 400 where the guess was wrong.
_UPGRADE = re.compile(rb"^upgrade:[ \t]*websocket", re.IGNORECASE | re.MULTILINE)


class Listener:
    """Accepts connections and serves each to its end. tls: None takes plain ones."""

    def __init__(self, services: Services, http: HttpServer, tls: ssl.SSLContext | None = None) -> None:
        self._services = services
        self._http = http
        self._tls = tls
        self._sockets = 0

    async def accept(self, listeners: Sequence[trio.SocketListener], connections: trio.Nursery) -> None:
        """Accepts until cancelled; connections live on in their own nursery."""
        await trio.serve_listeners(self._serve, list(listeners), handler_nursery=connections)

    async def _serve(self, transport: trio.SocketStream) -> None:
        """One socket, from accept to close. Raises nothing but cancellation: one connection's failure is its own."""
        if self._sockets >= self._services.settings.connections_max + SPARE_SOCKETS:
            self._services.metrics.connections_refused.labels("sockets").inc()
            await trio.aclose_forcefully(transport)
            return
        self._sockets += 1
        try:
            async with trio.open_nursery() as replies:
                await self._serve_and_close(transport, replies)
        except Exception:  # noqa: BLE001 - the socket's boundary
            _log.exception("socket_crashed")
        finally:
            self._sockets -= 1

    async def _serve_and_close(self, transport: trio.SocketStream, replies: trio.Nursery) -> None:
        """Closes the socket before `replies` ends: an agent that ignores cancellation would keep it open."""
        try:
            secured = await self._secured(transport)
            if secured is not None:
                await self._serve_stream(self._buffered(secured), replies)
        finally:
            replies.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(transport)

    async def _secured(self, transport: trio.SocketStream) -> trio.abc.HalfCloseableStream | None:
        """The stream within TLS, where that is spoken here; None where there was no handshake in time."""
        if self._tls is None:
            return transport
        stream = TlsStream(transport, self._tls)
        with trio.move_on_after(self._services.settings.handshake_seconds):
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError as error:
                _log.debug("tls_refused", error=repr(error.__cause__))
            else:
                return stream
        self._services.metrics.connections_refused.labels("tls").inc()
        return None

    def _buffered(self, transport: trio.abc.HalfCloseableStream) -> BufferedStream:
        settings = self._services.settings
        return BufferedStream(
            transport,
            send_seconds=settings.send_seconds,
            bytes_high=settings.outbox_bytes_high,
            bytes_max=settings.outbox_bytes_max,
        )

    async def _serve_stream(self, stream: BufferedStream, replies: trio.Nursery) -> None:
        async with trio.open_nursery() as writer:
            writer.start_soon(stream.run_writer)
            head = await self._read_head(stream)
            if head is not None:
                stream.unread(head)
                farewell = b""
                if _UPGRADE.search(head):
                    farewell = await serve_websocket(stream, self._services, replies)
                else:
                    await self._http.serve(stream)
                await stream.finish(farewell)
            writer.cancel_scope.cancel()

    async def _read_head(self, stream: BufferedStream) -> bytes | None:
        """The request's head, or what came of it up to the limit; None where it did not come in time, or at all."""
        settings, head = self._services.settings, b""
        with trio.move_on_after(settings.handshake_seconds):
            while b"\r\n\r\n" not in head and len(head) < settings.head_bytes_max:
                try:
                    data = await stream.receive_some(settings.head_bytes_max - len(head))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return None
                if not data:
                    return None
                head += data
            return head
        return None
