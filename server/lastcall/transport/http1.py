"""HTTP on a connection that is already accepted.

The only module that knows Hypercorn. `TCPServer` is not a documented entry of it, so what is relied on stands here
and is tested over a real socket in `tests/integration/web/test_http1.py`.
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

KEEP_ALIVE_SECONDS = 5  # of silence: before a request's head is complete, and between requests
HEAD_BYTES_MAX = 16_384
REQUESTS_PER_CONNECTION_MAX = 1_000

log = structlog.get_logger(__name__)


class HttpServer:
    """Serves one ASGI application on any number of connections.

    app: reads a request's body before it answers. Hypercorn queues ten pieces of a body, and an app that answers
    without reading them would leave the connection waiting on the full queue for ever.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = ASGIWrapper(cast("ASGIFramework", app))
        self._context = WorkerContext(None)
        self._config = _config()

    async def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serves requests until either side has had enough, then closes the stream. Raises nothing but cancellation.

        stream: has a `.socket` with `family`, `getpeername` and `getsockname`. Its `send_all` takes all of its bytes
        even if it is cancelled, and gives up on a client that reads nothing, with `trio.BrokenResourceError`.
        """
        connection = Http1Connection(self._app, self._config, self._context, {}, cast("Any", stream))
        try:
            with connection.scope:
                await connection.run()
        except* Exception as errors:
            log.exception("http_connection_failed", exc_info=errors)
        finally:
            # Hypercorn leaves the stream open when it is cancelled.
            await trio.aclose_forcefully(stream)

    async def stop(self) -> None:
        """Idle connections end at once, the others after the answer they are giving."""
        await self._context.terminated.set()


class Http1Connection(TCPServer):
    """Hypercorn's connection, with a sure end, and without its way into HTTP/2.

    In HTTP/2, requests would run side by side on one connection and a client could hold back an answer by flow
    control, which none of our bounds is written for.
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
                # Hypercorn would close the request only, and wait for ever where another one is pipelined behind it.
                self.scope.cancel()

    async def _read_data(self) -> None:
        # RFC 9110 lets a server ignore `Upgrade: h2c`; and `PRI * HTTP/2.0` becomes one more unknown method.
        protocol = cast("H11Protocol", self.protocol.protocol)
        protocol._check_protocol = _stay_with_http1  # type: ignore[assignment,method-assign] # noqa: SLF001
        await super()._read_data()
        # Otherwise a connection whose client is gone would stay for the rest of its keep-alive time.
        await self.idle_task.stop()


async def _stay_with_http1(_request: object) -> None: ...


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = None  # the app logs what it raises, `serve` the rest
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = REQUESTS_PER_CONNECTION_MAX
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    return config
