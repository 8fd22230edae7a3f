"""The access log of HTTP requests."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...protocol.errors import RequestRefused
from ..access import KEY_ID, HttpServices, client_of

_log = structlog.get_logger(__name__)


class AccessLog:
    """Logs each request once it is over: the route's template, never the path or the query, which may hold secrets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = trio.current_time(), None

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            _log.info(
                "http_request",
                method=scope["method"],
                route=_template(scope),
                status=status,
                seconds=round(trio.current_time() - began, 6),
                address=_address(scope),
                key_id=scope.get(KEY_ID),
            )


def access_logged(services: HttpServices) -> Sequence[Middleware]:
    """The middleware, where the settings ask for it; it belongs around all others."""
    return [Middleware(AccessLog)] if services.settings.access_log else []


def _template(scope: Scope) -> str | None:
    """The path of the route, such as `/c/{conversation_id}`; None where there is none."""
    routes: Sequence[BaseRoute] = scope["app"].routes
    return next((each.path for each in routes if isinstance(each, Route) and _matches(each, scope)), None)


def _matches(route: Route, scope: Scope) -> bool:
    return route.matches(scope)[0] is not Match.NONE


def _address(scope: Scope) -> str:
    """Of the client; of the proxy in front where what it says of its client cannot be read."""
    try:
        return client_of(scope, scope["app"].state.services.gate.proxies).address
    except RequestRefused:
        return (scope.get("client") or ("",))[0]
