"""HTTP/1.1 on a connection that is already accepted.

The only module that imports Hypercorn. `TCPServer` is not part of its documented API, so pyproject.toml caps the
version; `tests/integration/web/test_http1.py` notices a change.
"""

from __future__ import annotations

from typing import Any, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework
from starlette.types import ASGIApp

KEEP_ALIVE_SECONDS = 5  # of silence, before a request's head is complete and between requests
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

    async def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serves requests until either side closes, then closes the stream. Raises nothing but cancellation.

        stream: needs a `.socket` with `family`, `getpeername` and `getsockname`. Its `send_all` must accept all bytes
            even if it is cancelled, and raise `trio.BrokenResourceError` for a client that does not read.
        """
        connection = Http1Connection(self._app, self._config, self._context, {}, cast("Any", stream))
        try:
            with connection.scope:
                await connection.run()
        except* Exception as errors:
            log.exception("http_connection_failed", exc_info=errors)
        finally:
            # Hypercorn does not close the stream when it is cancelled.
            await trio.aclose_forcefully(stream)

    async def stop(self) -> None:
        """Ends idle connections at once and the others after their current response."""
        await self._context.terminated.set()


class Http1Connection(TCPServer):
    """Hypercorn's connection, made to end when its client is gone, and without the upgrade to HTTP/2.

    HTTP/2 would run requests concurrently on one connection, and a client could stall a response by flow control; our
    limits assume neither.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.scope = trio.CancelScope()

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # Hypercorn would close only the request, and wait for ever if another one is pipelined behind it.
                self.scope.cancel()

    async def _read_data(self) -> None:
        # RFC 9110 lets a server ignore `Upgrade: h2c`; `PRI * HTTP/2.0` is answered as an unknown method.
        protocol = cast("H11Protocol", self.protocol.protocol)
        protocol._check_protocol = _stay_with_http1  # type: ignore[assignment,method-assign] # noqa: SLF001
        await super()._read_data()
        # Without this a connection whose client is gone would stay open for the rest of its keep-alive time.
        await self.idle_task.stop()


async def _stay_with_http1(_request: object) -> None: ...


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = None  # the app logs its own exceptions, `serve` the rest
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = REQUESTS_PER_CONNECTION_MAX
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    return config
