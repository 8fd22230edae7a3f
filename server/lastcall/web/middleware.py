"""ASGI middleware: the bounds of one HTTP request, the rate of requests, the security headers."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import closing

import structlog
import trio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..limits.gate import request_refused
from ..limits.memory import MemoryAccount, MemoryBudget
from ..limits.quota import caller_of
from ..protocol.endpoint import AZURE_PREFIX
from ..protocol.errors import RequestRefused
from .access import client_of, sign_of_proxy_in
from .answers import error_answer

BODY_BYTES_MAX = 1_048_576
REFUSED_BYTES_MAX = 8_388_608  # read and discarded, so that a client that is still writing sees the 413
REFUSED_SECONDS = 1.0
HEALTH_PATHS = frozenset({"/healthz", "/readyz"})  # they say nothing of anybody, and load balancers ask for them
REQUEST_SECONDS = 30.0  # from the request's head to the last byte of the response

EMBED_PATH = "/embed"
POLICY, NOBODY = "content-security-policy", "'none'"
SECURITY_HEADERS = {
    POLICY: (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; "
        "img-src 'self' data:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

_log = structlog.get_logger(__name__)


class SafeHeaders:
    """The security headers for every response, and no caching of stale pages after an upgrade of the server.

    No Strict-Transport-Security: it would bind the whole host name, other ports too, for longer than this server runs.
    tls: whether the connection is encrypted, which Hypercorn does not see.
    embed_origins: of sites that may show the page for frames, and no other page.
    """

    def __init__(self, app: ASGIApp, *, tls: bool, embed_origins: Collection[str] = ()) -> None:
        self._app = app
        self._tls = tls
        ancestors = f"frame-ancestors {' '.join(embed_origins) or NOBODY}"
        policy = SECURITY_HEADERS[POLICY].replace(f"frame-ancestors {NOBODY}", ancestors)
        self._for_frames = {**SECURITY_HEADERS, POLICY: policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._tls:
            scope["scheme"] = "https"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._for_frames if scope["path"] == EMBED_PATH else SECURITY_HEADERS)
                # Files have an ETag and can be revalidated with a 304; nothing else may be cached at all.
                headers.setdefault("cache-control", "no-cache" if "etag" in headers else "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Rated:
    """The rate of requests by caller, for an application with `app.state.services`. Beyond it, closes the connection.

    Closes it so that the next request has to pass the listener's limits, which cost less than a response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None
        if scope["type"] == "http":
            gate = scope["app"].state.services.gate
            refused = gate.request(caller_of(client_of(scope, gate.proxies).address), scope["path"])
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await error_answer(request_refused(refused), {"connection": "close"})(scope, receive, send)


class AzurePaths:
    """Serves everything under /v1 also under /openai/v1, where clients of Azure OpenAI look for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(f"{AZURE_PREFIX}/v1/"):
            scope["path"] = scope["path"].removeprefix(AZURE_PREFIX)
        await self._app(scope, receive, send)


class NotProxied:
    """While the server has no keys, refuses what came through a proxy, pages too; except for probes of its health."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in HEALTH_PATHS:
            authenticator = scope["app"].state.services.authenticator
            await authenticator.check_proxy(sign_of_proxy_in(scope), (scope.get("client") or ("",))[0])
        await self._app(scope, receive, send)


class ClientGoneError(Exception):
    """The client left before its request was complete."""


class Bounded:
    """Reads the whole body first, ends requests that take too long, and logs exceptions of the application.

    `transport/http/http1.py` needs the body to be read: an unread one blocks its connection.

    memory: what the bodies are counted in; None: nowhere.
    """

    def __init__(self, app: ASGIApp, memory: MemoryBudget | None = None) -> None:
        self._app = app
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        memory = MemoryAccount() if self._memory is None else self._memory.account()
        exchange = Exchange(scope, receive, send, memory)
        with closing(memory), trio.move_on_after(REQUEST_SECONDS) as deadline:
            await self._answer(exchange)
        if deadline.cancelled_caught:
            await exchange.refuse(exchange.too_slow())

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await exchange.read_body()
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except ClientGoneError:
            return
        except RequestRefused as refused:
            await exchange.discard(REFUSED_BYTES_MAX, REFUSED_SECONDS)
            await exchange.refuse(error_answer(refused))
        except Exception:  # noqa: BLE001 - the boundary of the application
            _log.exception("http_request_failed", method=exchange.scope["method"], path=exchange.scope["path"])
            await exchange.refuse(error_answer(RequestRefused("internal_error", "The server failed to answer.")))


class Exchange:
    """One request and its response, and which part of each has passed."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, memory: MemoryAccount) -> None:
        self.scope = scope
        self._memory = memory
        self._receive = receive
        self._send = send
        self._body: bytes | None = None
        self._body_complete = False
        self._answer_started = False
        self._answer_complete = False

    async def read_body(self) -> None:
        """Raises `RequestRefused` for a body that is too large, or `ClientGoneError`."""
        body = bytearray()
        self._check_size(int(Headers(scope=self.scope).get("content-length", "0")))  # do not wait for what is refused
        while not self._body_complete:
            piece = await self._piece()
            if not self._memory.fits(len(piece)):
                raise RequestRefused("overloaded", "The server has too little memory for this request.", retry_after=1)
            self._memory.add(len(piece))
            body += piece
            self._check_size(len(body))
        self._body = bytes(body)

    @staticmethod
    def _check_size(size: int) -> None:
        if size > BODY_BYTES_MAX:
            raise RequestRefused("body_too_large", f"The body is larger than {BODY_BYTES_MAX} bytes.")

    async def discard(self, bytes_max: float, seconds: float) -> None:
        """Reads and discards the rest of the body."""
        with trio.move_on_after(seconds):
            while not self._body_complete and bytes_max > 0:
                try:
                    bytes_max -= len(await self._piece())
                except ClientGoneError:
                    return

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        self._body_complete = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    async def receive(self) -> Message:
        """For the application: the body in one piece, then the end of the client, unless it is answered before.

        Hypercorn also reports the end of a complete response as `http.disconnect`, and then goes on to end or reuse the
        connection, inside `send`: an application that stops itself when it hears of that would cut this short.
        """
        if self._body is None:
            message = await self._receive()
            if self._answer_complete:
                await trio.sleep_forever()
            return message
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        self._answer_started = True
        self._answer_complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    def too_slow(self) -> Response:
        if self._body_complete:
            message = f"The server did not answer within {REQUEST_SECONDS:g} seconds."
            return error_answer(RequestRefused("timeout", message))
        message = f"The request took longer than {REQUEST_SECONDS:g} seconds."
        return error_answer(RequestRefused("request_timeout", message))

    async def refuse(self, response: Response) -> None:
        """Sends this response instead of the application's, unless that has begun: then the connection just ends."""
        if self._answer_started:
            return
        async with trio.open_nursery() as nursery:
            # The last `send` waits for room in the queue that the unread body fills; once sent, the discarding ends.
            nursery.start_soon(self.discard, math.inf, math.inf)
            response.headers["connection"] = "close"
            await response(self.scope, self._receive, self.send)
            nursery.cancel_scope.cancel()
