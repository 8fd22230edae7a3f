"""The opening handshake of a WebSocket connection, and what those get to hear who are not let in."""

from __future__ import annotations

from contextlib import ExitStack
from uuid import uuid4

import structlog
import trio
from trio_websocket import WebSocketRequest

from ..auth.identity import Principal, RequestRefused
from ..limits.gate import refusal_of, retry_after
from ..limits.limit import Limit
from ..limits.session_limits import frame_pace
from ..protocol import server_events
from ..store.errors import StoreError
from ..transport.stream import BufferedStream
from ..transport.websocket import WebSocket, close_frame, text_frame
from .admission import Admission, admit, refusal_body
from .services import Services

BAD_KEY = 3000  # the close code of a client that is refused once its socket is open
_REASONS = {401: "credentials", 429: "limits"}

_log = structlog.get_logger(__name__)


async def shake_hands(
    stream: BufferedStream, services: Services, tasks: trio.Nursery, share: ExitStack
) -> tuple[WebSocket, Admission, Principal | RequestRefused] | None:
    """The opening handshake; None where it was refused. `RequestRefused`: to be told so on the open socket.

    share: keeps what the principal is given of its share of connections, for as long as this one lasts.
    """
    settings, held_back = services.settings, services.metrics.limits_refused.labels(Limit.FRAME_RATE.value).inc
    ws = WebSocket(stream, settings.message_bytes_max, frame_pace(settings), held_back)
    request = await ws.request(tasks)
    # trio-websocket keeps the Host to itself; a page's origin cannot be judged without it.
    host = request._event.host  # noqa: SLF001
    try:
        admission = admit(request.path, host, request.headers, request.proposed_subprotocols)
        principal = await _authenticate(admission, services)
        if isinstance(principal, Principal):
            _take_share(principal, services, share)
    except RequestRefused as refused:
        await _reject(request, refused, services)
        return None
    await request.accept(subprotocol=admission.subprotocol)
    return ws, admission, principal


def _take_share(principal: Principal, services: Services, share: ExitStack) -> None:
    """Before the handshake is answered: clients then hear it as an HTTP status. Raises `RequestRefused`."""
    refused = share.enter_context(services.gate.credential(principal))
    if refused is not None:
        status, code, message = refusal_of(refused)
        raise RequestRefused(status, code, message, retry_after=retry_after(refused))


async def _authenticate(admission: Admission, services: Services) -> Principal | RequestRefused:
    """Raises `RequestRefused` where the answer to the handshake can say so: browsers hide that from their pages, which
    would take it for a broken line and try again for ever. An outage is no answer either that clients retry after."""
    presented = admission.presented
    try:
        with trio.fail_after(services.settings.begin_seconds):
            return await services.authenticator.principal(presented)
    except RequestRefused as refused:
        if refused.status == 401 and presented.from_browser:
            return refused
        raise
    except (StoreError, trio.TooSlowError) as error:
        _log.warning("session_not_begun", error=repr(error))
        return RequestRefused(503, "store_unavailable", "The server cannot begin a session now.")


async def _reject(request: WebSocketRequest, refused: RequestRefused, services: Services) -> None:
    services.metrics.connections_refused.labels(_REASONS.get(refused.status, "handshake")).inc()
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.retry_after is not None:
        headers.append((b"retry-after", refused.retry_after.encode()))
    await request.reject(refused.status, extra_headers=headers, body=refusal_body(refused))


def refuse_on_socket(refused: RequestRefused, services: Services) -> bytes:
    """What a client that is refused on its open socket gets to hear."""
    services.metrics.connections_refused.labels("store" if refused.status == 503 else "credentials").inc()
    if refused.status == 503:
        detail = server_events.ErrorDetail(type="server_error", code=refused.code, message=refused.message)
        return _last_error(detail) + close_frame(1013, refused.code)
    detail = server_events.ErrorDetail(code=refused.code, message=refused.message)
    return _last_error(detail) + close_frame(BAD_KEY, f"invalid_request_error.{refused.code}")


def _last_error(detail: server_events.ErrorDetail) -> bytes:
    return text_frame(server_events.encode(server_events.Error(error=detail), f"event_{uuid4().hex[:12]}"))


def refuse_overloaded(services: Services) -> bytes:
    """What a client gets to hear, on its open socket too, that no session is begun for now."""
    if services.draining.is_set():
        return close_frame(1012, "the server is restarting")
    services.metrics.connections_refused.labels("overload").inc()
    return close_frame(1013, "too many connections")
