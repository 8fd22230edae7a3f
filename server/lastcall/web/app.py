"""The HTTP application: routes and error handlers, without sockets. `transport/http/` runs it on a connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ExceptionHandler

from ..auth.identity import USER_HEADER
from ..protocol.endpoint import AZURE_BETA_PATH, PATH
from ..protocol.errors import RequestRefused
from ..secret_prefixes import API_KEY
from ..store.errors import StoreUnavailable
from .access import HttpServices
from .admin.routes import ADMIN_ROUTES
from .answers import error_answer
from .asyncapi import asyncapi
from .client_secrets import create_client_secret
from .conversations import conversation_items, conversations, delete_conversation, rename_conversation
from .memories import edit_memory, explain_recall, forget_memory, memories
from .middleware import EMBED_PATH, AzurePaths, Bounded, NotProxied, Rated, SafeHeaders
from .openapi import openapi
from .operators.access_log import access_logged
from .operators.health import health, metrics, readiness
from .pages import chat_page, console_page, embed_page, page_file
from .sign_in.routes import SIGN_IN_ROUTES


def create_app(services: HttpServices, *, origins: Collection[str] = (), tls: bool = False) -> Starlette:
    """The HTTP application. Every response is JSON, except pages, files and metrics.

    origins: of other pages whose scripts may read responses. tls: whether connections are encrypted.
    """
    app = Starlette(
        routes=ROUTES,
        middleware=[
            *access_logged(services),
            Middleware(AzurePaths),
            Middleware(SafeHeaders, tls=tls, embed_origins=services.settings.embed_origin),
            *_cors(origins),
            Middleware(Bounded, memory=services.gate.memory),
            Middleware(Rated),  # before any key is looked up, so that guessing keys is bounded
            Middleware(NotProxied),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.state.services = services
    return app


def _cors(origins: Collection[str]) -> Sequence[Middleware]:
    if not origins:
        return ()
    methods, headers = ("GET", "POST", "PATCH", "DELETE"), ("authorization", API_KEY, "content-type", USER_HEADER)
    return (Middleware(CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=headers),)


async def api_description(request: Request) -> Response:
    """A description of the API for machines."""
    document = request.url.path.removeprefix("/").removesuffix(".json")
    return Response(api_document(document), media_type="application/json")


@cache
def api_document(name: str) -> bytes:
    """`openapi` for HTTP, `asyncapi` for the WebSocket; as JSON."""
    return msgspec.json.encode(openapi(ROUTES) if name == "openapi" else asyncapi())


ROUTES: Sequence[BaseRoute] = (
    Route("/", chat_page),
    Route("/c/{conversation_id}", chat_page),
    Route(EMBED_PATH, embed_page),
    Route("/console", console_page),
    Route("/healthz", health),
    Route("/readyz", readiness),
    Route("/metrics", metrics),
    Route("/v1/memories", memories),
    Route("/v1/memories/recalled", explain_recall),
    Route("/v1/memories/{memory_id}", edit_memory, methods=["PATCH"]),
    Route("/v1/memories/{memory_id}", forget_memory, methods=["DELETE"]),
    Route("/v1/realtime/client_secrets", create_client_secret, methods=["POST"]),
    Route("/v1/conversations", conversations),
    Route("/v1/conversations/{conversation_id}", rename_conversation, methods=["POST"]),
    Route("/v1/conversations/{conversation_id}", delete_conversation, methods=["DELETE"]),
    Route("/v1/conversations/{conversation_id}/items", conversation_items),
    *SIGN_IN_ROUTES,
    *ADMIN_ROUTES,
    Route("/openapi.json", api_description),
    Route("/asyncapi.json", api_description),
    Route("/static/{path}", page_file),
)


# Where clients of the retired beta ask for client secrets, or post the description of a call.
BETA_PATHS = {
    f"{PATH}/sessions",
    f"{PATH}/transcription_sessions",
    AZURE_BETA_PATH,
    f"{AZURE_BETA_PATH}/sessions",
    f"{AZURE_BETA_PATH}/client_secrets",
    "/openai/realtimeapi/sessions",
}


async def http_error(request: Request, error: Exception) -> Response:
    """Errors of Starlette itself."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and request.url.path in BETA_PATHS:
        message = f"The Realtime Beta API is no longer supported. Please use {PATH} or {PATH}/client_secrets."
        refused = RequestRefused("beta_api_shape_disabled", message)
    elif error.status_code == 404:
        refused = RequestRefused("not_found", f"There is nothing at {request.url.path}.")
    elif error.status_code == 405:
        refused = RequestRefused("method_not_allowed", f"{request.method} is not allowed at {request.url.path}.")
    else:
        refused = RequestRefused("http_error", error.detail, status=error.status_code)
    return error_answer(refused, error.headers)


async def refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return error_answer(error)


async def store_unavailable(_request: Request, _error: Exception) -> Response:
    message = "The database is unavailable. Please try again in a moment."
    return error_answer(RequestRefused("store_unavailable", message))


async def internal_error(_request: Request, _error: Exception) -> Response:
    """Starlette raises the exception again after this response, and `Bounded` logs it."""
    return error_answer(RequestRefused("internal_error", "The server failed to answer; the error is in its log."))


EXCEPTION_HANDLERS: Mapping[type[Exception] | int, ExceptionHandler] = {
    HTTPException: http_error,
    RequestRefused: refused,
    StoreUnavailable: store_unavailable,
    Exception: internal_error,
}
