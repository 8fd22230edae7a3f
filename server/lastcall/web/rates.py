"""The rate of HTTP requests, around any ASGI application that has `app.state.services`."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ..limits.gate import refusal_of, retry_after
from ..limits.quota import caller_of
from .errors import error_response


class Rated:
    """ASGI middleware: who asks too often is told when to come back, and its connection is closed.

    Closed, because the next request then has to pass the listener's own limits, which cost less than an answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None
        if scope["type"] == "http":
            refused = scope["app"].state.services.gate.request(caller_of((scope.get("client") or ("",))[0]))
        if refused is None:
            await self._app(scope, receive, send)
            return
        status, code, message = refusal_of(refused)
        headers = {"retry-after": retry_after(refused), "connection": "close"}
        await error_response(status, code, message, headers=headers)(scope, receive, send)
