"""The port for operators: health, readiness and metrics, also while the server shuts down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from ...transport.direct import DirectListener, DirectStream
from ...transport.flusher import Flusher
from ...transport.http.http1 import HttpServer
from ...transport.stream import BufferedStream
from ..access import HttpServices
from ..app import EXCEPTION_HANDLERS
from ..middleware import Bounded, SafeHeaders
from .access_log import access_logged
from .health import all_metrics, health, readiness

CONNECTIONS_MAX = 32  # further ones are closed
SEND_SECONDS = 10.0  # for a client to take what it asked for
UNSENT_BYTES_HIGH, UNSENT_BYTES_MAX = 262_144, 8_388_608

ROUTES: Sequence[BaseRoute] = (
    Route("/healthz", health),
    Route("/readyz", readiness),
    Route("/metrics", all_metrics),
)


def create_admin_app(services: HttpServices) -> Starlette:
    """The application of the admin port. It asks for no key: whoever can reach the port is an operator."""
    app = Starlette(
        routes=ROUTES,
        middleware=[
            *access_logged(services),
            Middleware(SafeHeaders, tls=False),
            Middleware(Bounded, memory=services.gate.memory),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.state.services = services
    return app


@asynccontextmanager
async def serve_operators(
    services: HttpServices, listen: Callable[[], Sequence[DirectListener]]
) -> AsyncIterator[None]:
    """Serves the admin port, if there is one, for as long as the block lasts."""
    listeners = listen()
    if not listeners:
        yield
        return
    http, flusher = HttpServer(create_admin_app(services)), Flusher()
    places = trio.CapacityLimiter(CONNECTIONS_MAX)

    async def serve(transport: DirectStream) -> None:
        try:
            places.acquire_nowait()
        except trio.WouldBlock:
            await trio.aclose_forcefully(transport)
            return
        try:
            async with trio.open_nursery() as tasks:
                stream = BufferedStream(
                    transport,
                    tasks,
                    flusher,
                    send_seconds=SEND_SECONDS,
                    bytes_high=UNSENT_BYTES_HIGH,
                    bytes_max=UNSENT_BYTES_MAX,
                )
                await http.serve(stream)
                tasks.cancel_scope.cancel()
        finally:
            places.release()

    async with trio.open_nursery() as serving:
        serving.start_soon(flusher.run)
        serving.start_soon(trio.serve_listeners, serve, list(listeners))
        yield
        serving.cancel_scope.cancel()
