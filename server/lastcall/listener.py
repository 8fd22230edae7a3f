"""The listener: one port, where WebSocket upgrades go to `realtime/` and all other requests to the HTTP server."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from .limits.gate import PROBE_PATHS, refusal_bytes, reply_bytes
from .limits.limit import Limit
from .limits.quota import Caller, Refusal
from .limits.token_bucket import TokenBucket
from .protocol.errors import RequestRefused
from .realtime.connection import serve_websocket
from .realtime.services import Services
from .transport.direct import DirectStream, accept_all
from .transport.http.request_head import BadHead, ProxyProtocol, RequestHead, is_decided, parse_head
from .transport.stream import BufferedStream
from .transport.tls import ServerTls, TlsStream

if TYPE_CHECKING:
    from .transport.http.http1 import HttpServer

REFUSALS_AT_ONCE_MAX = 64  # further refused clients get no reply
REFUSED_HANDSHAKES_PER_SECOND = 50.0  # TLS handshakes for refusals alone: each costs a millisecond of CPU
HTTP_STARTS_AT_ONCE_MAX = 2  # plain HTTP connections that begin in a round of the loop: each takes milliseconds of CPU
PROBE_STARTS_AT_ONCE_MAX = 1  # and those of probes, which do not wait behind the others
REFUSAL_SECONDS = 1.0  # for a client to read a refusal
REFUSAL_BYTES = 65_536  # of its request, read meanwhile: closing with unread bytes would discard the refusal

_log = structlog.get_logger(__name__)


class Listener:
    """Accepts connections and serves each to its end.

    Args:
        services: What all connections share.
        http: Serves the requests that are not WebSocket upgrades.
        sockets_max: Sockets that may be open at once; further ones are closed when they are accepted.
        tls: None: connections are plain.

    Attributes:
        is_last: Whether no other process stays that accepts from the same sockets; looked at when accepting ends.
    """

    def __init__(self, services: Services, http: HttpServer, sockets_max: int, tls: ServerTls | None = None) -> None:
        self._services = services
        self._http = http
        self._tls = tls
        self.is_last = False
        self._sockets = self._refusals = 0
        self._sockets_max = sockets_max
        self._opening: dict[trio.CancelScope, None] = {}  # handshakes and first requests under way, oldest first
        self._http_starts = trio.CapacityLimiter(HTTP_STARTS_AT_ONCE_MAX)
        self._probe_starts = trio.CapacityLimiter(PROBE_STARTS_AT_ONCE_MAX)
        self._refused_handshakes = TokenBucket(REFUSED_HANDSHAKES_PER_SECOND, REFUSED_HANDSHAKES_PER_SECOND)

    async def accept(self, listeners: Sequence[trio.abc.Listener[DirectStream]], connections: trio.Nursery) -> None:
        """Accepts until cancelled; connections live on in their own nursery."""
        async with trio.open_nursery() as accepting:
            for each in listeners:
                accepting.start_soon(
                    accept_all,
                    each,
                    lambda stream: connections.start_soon(self._serve, stream),
                    lambda: self.is_last,
                )

    async def _serve(self, transport: DirectStream) -> None:
        """Serves one socket from accept to close. Raises nothing but cancellation."""
        gate = self._services.gate
        if self._sockets >= self._sockets_max and not self._end_an_opening():
            self._services.metrics.connections_refused.count("sockets")
            gate.count(Limit.SOCKETS)
            await trio.aclose_forcefully(transport)
            return
        self._sockets += 1
        # Before a byte is read, so that a refusal costs very little.
        caller = gate.caller(transport.address)
        entered = gate.enter_socket(caller)
        try:
            async with trio.open_nursery() as tasks:
                try:
                    if isinstance(entered, Refusal):
                        await self._refuse(transport, entered)
                    else:
                        await self._serve_caller(transport, caller, tasks)
                finally:
                    # Before its tasks end: an agent that ignores cancellation would keep it open.
                    tasks.cancel_scope.cancel()
                    transport.close()
        except Exception:  # noqa: BLE001 - one socket's failure ends no other
            _log.exception("socket_crashed")
        finally:
            self._sockets -= 1
            if isinstance(entered, Caller):
                entered.leave()

    def _end_an_opening(self) -> bool:
        """Ends the connection that has taken longest over its first request: who is quick gets in whoever is slow."""
        for opening in self._opening:
            del self._opening[opening]
            opening.cancel()
            self._services.gate.count(Limit.SOCKETS)
            return True
        return False

    @contextmanager
    def _replaceable(self, opening: trio.CancelScope) -> Iterator[None]:
        """While the block runs, the connection may be ended to make room for another one."""
        self._opening[opening] = None
        try:
            yield
        finally:
            self._opening.pop(opening, None)

    async def _serve_caller(self, transport: DirectStream, caller: str, tasks: trio.Nursery) -> None:
        secured = await self._secured(transport)
        if secured is None:
            return
        stream = self._buffered(secured, tasks)
        try:
            data = await self._read_head(stream)
            if data is not None:
                serving = self._serving(stream, data, caller, transport.address, tasks)
                del data
                await stream.finish(await serving)
        finally:
            await stream.close_now()

    async def _refuse(self, transport: DirectStream, refused: Refusal) -> None:
        """Sends the reason and gives the client a moment to read it, within TLS where that is on."""
        if self._refusals >= REFUSALS_AT_ONCE_MAX or (self._tls is not None and not self._refused_handshakes.take()):
            return
        self._refusals += 1
        try:
            with trio.move_on_after(REFUSAL_SECONDS):
                secured = await self._secured(transport)
                if secured is not None:
                    await _tell(secured, refused)
        finally:
            self._refusals -= 1

    async def _secured(self, transport: DirectStream) -> trio.abc.HalfCloseableStream | None:
        """Does the TLS handshake, where TLS is on. None: it failed, or took too long."""
        if self._tls is None:
            return transport
        stream = TlsStream(transport, self._tls.context)
        with trio.move_on_after(self._services.settings.handshake_seconds) as opening, self._replaceable(opening):
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError as error:
                _log.debug("tls_refused", error=repr(error.__cause__))
            else:
                return stream
        self._services.metrics.connections_refused.count("tls")
        return None

    def _buffered(self, transport: trio.abc.HalfCloseableStream, tasks: trio.Nursery) -> BufferedStream:
        settings = self._services.settings
        return BufferedStream(
            transport,
            tasks,
            self._services.flusher,
            send_seconds=settings.send_seconds,
            bytes_high=settings.outbox_bytes_high,
            bytes_max=settings.outbox_bytes_max,
        )

    def _serving(
        self, stream: BufferedStream, data: bytes, caller: str, peer: str, tasks: trio.Nursery
    ) -> Awaitable[bytes]:
        """What serves the first request, and returns the last bytes for the client.

        Not a coroutine of its own: its frame, with the head in it, would stay for as long as the session.
        """
        try:
            head = parse_head(data)
        except ProxyProtocol as announced:
            return _reply(RequestRefused("http_error", str(announced)))
        except BadHead:
            head = None  # the HTTP server parses it again, and replies
        if head is None or not head.wants_websocket:
            stream.unread(data)
            return self._serve_http(stream, caller, head)
        stream.unread(data[head.size :])
        return serve_websocket(stream, head, peer, self._services, tasks)

    async def _serve_http(self, stream: BufferedStream, caller: str, head: RequestHead | None) -> bytes:
        """Serves HTTP requests; returns the reply to a client that is refused."""
        gate = self._services.gate
        probe = head is not None and _is_probe(head)
        async with self._probe_starts if probe else self._http_starts:
            # Hundreds that begin at once would make each round of the loop long, and so every turn of a session slow.
            await trio.lowlevel.checkpoint()
        if gate.http_full and not probe:
            await self._http.make_room()  # which may take a second; probes have places of their own
        single = gate.http_full and probe
        with gate.probe_connection() if single else gate.http_connection(caller) as refused:
            if refused is not None:
                return refusal_bytes(refused)
            await self._http.serve(stream, single=single)
            return b""

    async def _read_head(self, stream: BufferedStream) -> bytes | None:
        """The request's head, or as much of it as is needed to refuse it; None where it did not arrive in time."""
        settings, data = self._services.settings, b""
        with trio.move_on_after(settings.handshake_seconds) as opening, self._replaceable(opening):
            while len(data) < settings.head_bytes_max:
                try:
                    more = await stream.receive(settings.head_bytes_max - len(data))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return None
                if not more:
                    return None
                data += more
                if is_decided(data, len(data) - len(more)):
                    break
            return data
        if trio.current_time() >= opening.deadline:
            self._services.gate.count(Limit.HANDSHAKE_TIME)
        return None


def _is_probe(head: RequestHead) -> bool:
    return head.path.decode() in PROBE_PATHS and head.method in (b"GET", b"HEAD") and not head.has_body


async def _reply(error: RequestRefused) -> bytes:
    return reply_bytes(error)


async def _tell(stream: trio.abc.HalfCloseableStream, refused: Refusal) -> None:
    try:
        await stream.send_all(refusal_bytes(refused))
        await stream.send_eof()
        left = REFUSAL_BYTES
        while left > 0 and (data := await stream.receive_some(left)):
            left -= len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
