"""The bounds of one HTTP request, around any ASGI application."""

from __future__ import annotations

import math

import structlog
import trio
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import error_response

BODY_BYTES_MAX = 1_048_576
REFUSED_BYTES_MAX = 8_388_608  # read and thrown away, so that a client still writing gets to see the 413
REFUSED_SECONDS = 1.0
REQUEST_SECONDS = 30.0  # from the request's head to the last byte of its answer

log = structlog.get_logger(__name__)


class BodyTooLargeError(Exception):
    """The request's body is larger than `BODY_BYTES_MAX`."""


class ClientGoneError(Exception):
    """The client left before its request was complete."""


class Bounded:
    """ASGI middleware: reads the whole body first, ends a request that takes too long, logs what the app raises.

    Reading first is what `transport/http1.py` asks of an app; else a body nobody reads stops its connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        with trio.move_on_after(REQUEST_SECONDS) as deadline:
            await self._answer(exchange)
        if deadline.cancelled_caught:
            await exchange.refuse(exchange.too_slow())

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await exchange.read_body()
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except ClientGoneError:
            return
        except BodyTooLargeError:
            await exchange.discard(REFUSED_BYTES_MAX, REFUSED_SECONDS)
            message = f"The body is larger than {BODY_BYTES_MAX} bytes."
            await exchange.refuse(error_response(413, "body_too_large", message))
        except Exception:
            log.exception("http_request_failed", method=exchange.scope["method"], path=exchange.scope["path"])
            await exchange.refuse(error_response(500, "internal_error", "The server failed to answer."))


class Exchange:
    """One request and its answer: which part of each has passed."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._body: bytes | None = None
        self._body_complete = False
        self._answer_started = False

    async def read_body(self) -> None:
        """Raises `BodyTooLargeError` or `ClientGoneError`."""
        body = bytearray()
        while not self._body_complete:
            body += await self._piece()
            if len(body) > BODY_BYTES_MAX:
                raise BodyTooLargeError
        self._body = bytes(body)

    async def discard(self, bytes_max: float, seconds: float) -> None:
        """Throws away what is left of the body."""
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
        """For the app: the body in one piece, then whatever comes after it."""
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        self._answer_started = True
        await self._send(message)

    def too_slow(self) -> Response:
        if self._body_complete:
            return error_response(503, "timeout", f"There was no answer within {REQUEST_SECONDS:g} seconds.")
        return error_response(408, "request_timeout", f"The request took longer than {REQUEST_SECONDS:g} seconds.")

    async def refuse(self, response: Response) -> None:
        """Answers in the app's place, unless an answer has begun: then all that is left is to end the connection."""
        if self._answer_started:
            return
        async with trio.open_nursery() as nursery:
            # The last `send` waits for room in the same queue that the unread body fills; it ends this discarding.
            nursery.start_soon(self.discard, math.inf, math.inf)
            response.headers["connection"] = "close"
            await response(self.scope, self._receive, self.send)
            nursery.cancel_scope.cancel()
