"""The HTTP routes: pure requests and answers, no sockets. `transport/http1.py` runs them on a connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, ExceptionHandler, Message, Receive, Scope, Send

from ..auth.identity import USER_HEADER, RequestRefused
from ..store.errors import StoreUnavailable
from .access import Services, operator_of, principal_of, services_of
from .answers import Health, MemoryBody, MemoryList, Readiness, answer
from .asyncapi import asyncapi
from .bounds import Bounded
from .client_secrets import create_client_secret
from .conversations import conversation_items, conversations
from .errors import error_response
from .openapi import openapi
from .rates import Rated

STATIC = Path(__file__).with_name("static")

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def create_app(services: Services, *, origins: Collection[str] = (), tls: bool = False) -> Starlette:
    """The HTTP application. Every answer that is no page, file or metrics text is JSON.

    origins: of foreign pages that may ask. tls: whether it is spoken below.
    """
    app = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(SafeHeaders, tls=tls),
            *_foreign_pages(origins),
            Middleware(Bounded),
            Middleware(Rated),  # before any key is looked up: guessing is bounded
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.state.services = services
    return app


def _foreign_pages(origins: Collection[str]) -> Sequence[Middleware]:
    """Lets the scripts of these pages read the answers."""
    if not origins:
        return ()
    methods, headers = ("GET", "POST"), ("authorization", "content-type", USER_HEADER)
    return (Middleware(CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=headers),)


async def chat_page(_request: Request) -> Response:
    return FileResponse(STATIC / "index.html", media_type="text/html")


async def health(_request: Request) -> Response:
    """200 for as long as the process serves; whether it *should* be asked is `/readyz`."""
    return answer(Health())


async def readiness(request: Request) -> Response:
    reason = await services_of(request).ready()
    if reason is None:
        return answer(Readiness("ready"))
    return answer(Readiness("unready", reason), status=503)


async def metrics(request: Request) -> Response:
    """The Prometheus text format, or OpenMetrics for a client that asks for it. For operators, once there are keys."""
    await operator_of(request)
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(services_of(request).metrics), headers={"content-type": content_type})


async def memories(request: Request) -> Response:
    """What is remembered of the user, oldest first."""
    facts = await services_of(request).recall((await principal_of(request)).user_id)
    return answer(MemoryList(data=[MemoryBody(fact.kind, fact.content) for fact in facts]))


async def api_description(request: Request) -> Response:
    """A description of the API for machines."""
    document = request.url.path.removeprefix("/").removesuffix(".json")
    return Response(api_document(document), media_type="application/json")


@cache
def api_document(name: str) -> bytes:
    """`openapi` for the HTTP routes, `asyncapi` for the WebSocket; as JSON."""
    return msgspec.json.encode(openapi(ROUTES) if name == "openapi" else asyncapi())


ROUTES: Sequence[BaseRoute] = (
    Route("/", chat_page),
    Route("/healthz", health),
    Route("/readyz", readiness),
    Route("/metrics", metrics),
    Route("/v1/memories", memories),
    Route("/v1/realtime/client_secrets", create_client_secret, methods=["POST"]),
    Route("/v1/conversations", conversations),
    Route("/v1/conversations/{conversation_id}/items", conversation_items),
    Route("/openapi.json", api_description),
    Route("/asyncapi.json", api_description),
    Mount("/static", StaticFiles(directory=STATIC)),
)


async def http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return error_response(404, "not_found", f"There is nothing at {request.url.path}.", headers=headers)
    if error.status_code == 405:
        message = f"{request.method} is not allowed at {request.url.path}."
        return error_response(405, "method_not_allowed", message, headers=headers)
    return error_response(error.status_code, "http_error", error.detail, headers=headers)


async def refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    return error_response(error.status, error.code, error.message, param=error.param, headers=headers)


async def store_unavailable(_request: Request, _error: Exception) -> Response:
    return error_response(503, "store_unavailable", "The database is out of reach; try again in a moment.")


async def internal_error(_request: Request, _error: Exception) -> Response:
    """The exception goes on to whoever runs the app, who logs it; the client learns only that it was our fault."""
    return error_response(500, "internal_error", "The server failed to answer; the error is in its log.")


EXCEPTION_HANDLERS: Mapping[type[Exception] | int, ExceptionHandler] = {
    HTTPException: http_error,
    RequestRefused: refused,
    StoreUnavailable: store_unavailable,
    Exception: internal_error,
}


class SafeHeaders:
    """ASGI middleware: the security headers on every answer, and no stale page after an upgrade of the server.

    No Strict-Transport-Security: it would bind the whole host name, other ports too, for longer than this server runs.
    tls: whether it is spoken below, where Hypercorn does not see it.
    """

    def __init__(self, app: ASGIApp, *, tls: bool) -> None:
        self._app = app
        self._tls = tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._tls:
            scope["scheme"] = "https"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                # Files have an ETag, so that asking again costs a 304; nothing else may be kept at all.
                headers.setdefault("cache-control", "no-cache" if "etag" in headers else "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)
