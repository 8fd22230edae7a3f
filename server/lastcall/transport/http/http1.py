"""HTTP/1.1 on a connection that is already accepted.

The only module that imports Hypercorn. `TCPServer` is not part of its documented API, nor `ReceiveBuffer` of h11's, so
pyproject.toml caps their versions; `tests/integration/web/test_http1.py` notices a change.
"""

from __future__ import annotations

from typing import Any, cast

import h11
import structlog
import trio
from h11._receivebuffer import ReceiveBuffer
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework
from starlette.types import ASGIApp

from .request_head import BadHead, is_ambiguous, parse_head

KEEP_ALIVE_SECONDS = 5  # of silence, before a request's head is complete and between requests
CONNECTION_SECONDS = 60.0  # after which the next response closes the connection
LAST_REQUEST_SECONDS = 35.0  # beyond that, whatever the connection is doing then: longer than any request may take
SINGLE_SECONDS = 5.0  # for a connection that is for one request
ROOM_SECONDS = 1.0  # for an idle connection to give up its place
HEAD_BYTES_MAX = 16_384
REQUESTS_PER_CONNECTION_MAX = 1_000

log = structlog.get_logger(__name__)


class HttpServer:
    """Serves one ASGI application on any number of connections.

    app: must read a request's body before it responds. Hypercorn queues ten chunks of a body; a response that leaves
        them unread would block the connection on the full queue for ever.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = ASGIWrapper(cast("ASGIFramework", app))
        self._context = WorkerContext(None)
        self._config = _config()
        self._idle: dict[Http1Connection, None] = {}  # between two requests, in the order of their silence

    async def serve(self, stream: trio.abc.HalfCloseableStream, *, single: bool = False) -> None:
        """Serves requests until either side closes, then closes the stream. Raises nothing but cancellation.

        stream: needs a `.socket` with `family`, `getpeername` and `getsockname`. Its `send_all` must accept all bytes
            even if it is cancelled, and raise `trio.BrokenResourceError` for a client that does not read.
        single: for one short request, after which the connection ends.
        """
        connection = Http1Connection(self._app, self._config, self._context, {}, cast("Any", stream))
        connection.begin(self._idle, single=single)
        try:
            with connection.scope:
                await connection.run()
        except* Exception as errors:
            log.exception("http_connection_failed", exc_info=errors)
        finally:
            self._idle.pop(connection, None)
            # Hypercorn does not close the stream when it is cancelled.
            await trio.aclose_forcefully(stream)
            connection.over.set()

    async def make_room(self) -> None:
        """Ends the connection that has been idle for the longest, if there is one, and waits until it is gone."""
        for connection in self._idle:
            del self._idle[connection]
            connection.scope.cancel()
            with trio.move_on_after(ROOM_SECONDS):
                await connection.over.wait()
            return

    async def stop(self) -> None:
        """Ends idle connections at once and the others after their current, or first, response."""
        await self._context.terminated.set()


class Http1Connection(TCPServer):
    """Hypercorn's connection, made to end when its client is gone or its time is up, and without the upgrade to HTTP/2.

    HTTP/2 would run requests concurrently on one connection, and a client could stall a response by flow control; our
    limits assume neither.
    """

    def begin(self, idle: dict[Http1Connection, None], *, single: bool) -> None:
        """To be called before `run`. idle: where this connection is found while it waits for another request."""
        self.over = trio.Event()
        self._idle = idle
        self._asked = False  # whether a request has begun
        self._last_request = trio.current_time() + (0.0 if single else CONNECTION_SECONDS)
        # Idle times and deadlines of requests come earlier; this one holds whatever a client or the application does.
        seconds = SINGLE_SECONDS if single else LAST_REQUEST_SECONDS
        self.scope = trio.CancelScope(deadline=self._last_request + seconds)

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self._idle.pop(self, None)
            self._asked = True
            if event.idle:
                self._idle[self] = None
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # Hypercorn would close only the request, and wait for ever if another one is pipelined behind it.
                self.scope.cancel()

    async def _idle_timeout(self) -> None:
        """A connection that was accepted before a shutdown has its first request answered: it may be here already.

        Hypercorn would close it at once, as one that is idle between two requests.
        """
        if self._asked:
            await super()._idle_timeout()
            return
        await trio.sleep(KEEP_ALIVE_SECONDS)
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()

    async def _read_data(self) -> None:
        protocol = cast("H11Protocol", self.protocol.protocol)
        protocol.connection = StrictConnection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        protocol._check_protocol = self._check_protocol  # type: ignore[method-assign] # noqa: SLF001
        await super()._read_data()
        # Without this a connection whose client is gone would stay open for the rest of its keep-alive time.
        await self.idle_task.stop()

    async def _check_protocol(self, event: h11.Request) -> None:
        """Called for each request. RFC 9110 lets a server ignore `Upgrade: h2c`, which Hypercorn would not."""
        if trio.current_time() >= self._last_request:
            self.protocol.protocol.keep_alive_requests = REQUESTS_PER_CONNECTION_MAX


class StrictConnection(h11.Connection):
    """h11, which is lenient by itself, with `parse_head` before it.

    What follows a connection's last request is ignored (RFC 9112, 9.6). To h11 it is an error, for which Hypercorn
    would end the connection under the answer.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._receive_buffer = StrictBuffer()

    def receive_data(self, data: bytes) -> None:
        if not data or self.their_state is not h11.MUST_CLOSE:
            super().receive_data(data)

    def next_event(self) -> Any:
        head = None
        if self.their_state is h11.MUST_CLOSE and self.trailing_data[0]:
            return h11.NEED_DATA
        if self.their_state is h11.IDLE:
            try:
                head = parse_head(self.trailing_data[0])
            except BadHead as bad:
                raise h11.RemoteProtocolError(str(bad)) from bad
            if head is not None and head.wants_websocket:
                raise h11.RemoteProtocolError("a WebSocket has to begin its connection")
        event = super().next_event()
        if isinstance(event, h11.Request) and head is not None:
            return h11.Request(
                method=event.method, target=head.target, headers=event.headers, http_version=event.http_version
            )
        return event


class StrictBuffer(ReceiveBuffer):
    """h11's, which would also let a bare line end finish the trailers of a body, where another server reads on."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        if not self._data.startswith(b"\r\n") and is_ambiguous(self._data):
            raise h11.RemoteProtocolError("a bare line end or NUL")
        return super().maybe_extract_lines()


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = None  # the app logs its own exceptions, `serve` the rest
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = REQUESTS_PER_CONNECTION_MAX
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    return config
