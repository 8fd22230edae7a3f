"""One port: WebSocket upgrades go to `connection.py`, every other request to the HTTP server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog
import trio

from .limits.gate import refusal_bytes
from .limits.limit import SPARE_SOCKETS, Limit
from .limits.quota import Refusal, caller_of
from .limits.token_bucket import TokenBucket
from .realtime.connection import serve_websocket
from .realtime.services import Services
from .runtime.host import allow_descriptors
from .transport.stream import BufferedStream
from .transport.tls import TlsStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from .config import Settings
    from .transport.http1 import HttpServer

SPARE_DESCRIPTORS = 128  # beyond the sockets: the database's connections, files, the agent's own
SOCKETS_MIN = 16  # even where there are no descriptors for them: fewer would serve nobody
REFUSALS_AT_ONCE_MAX = 64  # beyond them, who is refused is told nothing
REFUSED_HANDSHAKES_PER_SECOND = 50.0  # of TLS, for refusals alone: each costs the processor a millisecond
REFUSAL_SECONDS = 1.0  # for its peer to read a refusal
REFUSAL_BYTES = 65_536  # of the peer's, read meanwhile: unread bytes would make the kernel take the refusal back

_log = structlog.get_logger(__name__)
# Only a guess at which parser the head is for: each reads it for itself, and answers 400 where the guess was wrong.
_UPGRADE = re.compile(rb"^upgrade:[ \t]*websocket", re.IGNORECASE | re.MULTILINE)


def sockets_allowed(settings: Settings) -> int:
    """The sockets that the settings' connections need, or as many of them as the process may have files open.

    Refusing a socket is no trouble; a process without descriptors would also fail at its files and its database.
    """
    wanted = settings.connections_max + SPARE_SOCKETS
    allowed = allow_descriptors(wanted + SPARE_DESCRIPTORS) - SPARE_DESCRIPTORS
    if allowed < wanted:
        advice = "raise the limit of open files (ulimit -n), or lower --connections-max"
        _log.warning("few_descriptors", sockets=max(allowed, SOCKETS_MIN), wanted=wanted, advice=advice)
    return min(wanted, max(allowed, SOCKETS_MIN))


class Listener:
    """Accepts connections and serves each to its end. sockets_max: at once. tls: None takes plain ones."""

    def __init__(
        self, services: Services, http: HttpServer, sockets_max: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._services = services
        self._http = http
        self._tls = tls
        self._sockets = 0
        self._sockets_max = sockets_max
        self._refusals = 0
        self._refused_handshakes = TokenBucket(REFUSED_HANDSHAKES_PER_SECOND, REFUSED_HANDSHAKES_PER_SECOND)

    async def accept(self, listeners: Sequence[trio.SocketListener], connections: trio.Nursery) -> None:
        """Accepts until cancelled; connections live on in their own nursery."""
        await trio.serve_listeners(self._serve, list(listeners), handler_nursery=connections)

    async def _serve(self, transport: trio.SocketStream) -> None:
        """One socket, from accept to close. Raises nothing but cancellation: one connection's failure is its own."""
        if self._sockets >= self._sockets_max:
            self._services.metrics.connections_refused.labels("sockets").inc()
            self._services.gate.count(Limit.SOCKETS)
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
            await self._serve_caller(transport, _caller(transport), replies)
        finally:
            replies.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(transport)

    async def _serve_caller(self, transport: trio.SocketStream, caller: str, replies: trio.Nursery) -> None:
        """Serves one socket, if its caller may have it. Refusal before a byte is read: that costs next to nothing."""
        with self._services.gate.socket(caller) as refused:
            if refused is None:
                secured = await self._secured(transport)
                if secured is not None:
                    await self._serve_stream(self._buffered(secured), caller, replies)
        if refused is not None and self._refusals < REFUSALS_AT_ONCE_MAX:
            self._refusals += 1
            try:
                await self._refuse(transport, refused)
            finally:
                self._refusals -= 1

    async def _refuse(self, transport: trio.SocketStream, refused: Refusal) -> None:
        """Says why, and gives the peer a moment to read it. Within TLS, where that is spoken: else nobody reads it."""
        if self._tls is not None and not self._refused_handshakes.take():
            return
        with trio.move_on_after(REFUSAL_SECONDS):
            secured = await self._secured(transport)
            if secured is not None:
                await _tell(secured, refused)

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

    async def _serve_stream(self, stream: BufferedStream, caller: str, replies: trio.Nursery) -> None:
        async with trio.open_nursery() as writer:
            writer.start_soon(stream.run_writer)
            head = await self._read_head(stream)
            if head is not None:
                stream.unread(head)
                farewell = b""
                if _UPGRADE.search(head):
                    farewell = await serve_websocket(stream, self._services, replies)
                else:
                    farewell = await self._serve_http(stream, caller)
                await stream.finish(farewell)
            writer.cancel_scope.cancel()

    async def _serve_http(self, stream: BufferedStream, caller: str) -> bytes:
        """HTTP to its end; returns what the peer should still hear."""
        with self._services.gate.http_connection(caller) as refused:
            if refused is not None:
                return refusal_bytes(refused)
            await self._http.serve(stream)
            return b""

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
        self._services.gate.count(Limit.HANDSHAKE_TIME)
        return None


def _caller(transport: trio.SocketStream) -> str:
    """Whose socket it is; an empty string where that cannot be told."""
    try:
        address = transport.socket.getpeername()
    except (OSError, AttributeError):  # gone already; or a stream of a test's, which has no socket
        return ""
    return caller_of(str(address[0])) if isinstance(address, tuple) else ""


async def _tell(stream: trio.abc.HalfCloseableStream, refused: Refusal) -> None:
    try:
        await stream.send_all(refusal_bytes(refused))
        await stream.send_eof()
        left = REFUSAL_BYTES
        while left > 0 and (data := await stream.receive_some(left)):
            left -= len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
