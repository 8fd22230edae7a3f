"""The opening handshake of a WebSocket connection, and the replies to rejected clients."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeAlias
from uuid import UUID, uuid4

import structlog
import trio

from ..auth.identity import Principal
from ..auth.proxies import RequestClient
from ..limits.gate import TRUSTED_PROXY, reply_bytes, request_refused
from ..limits.quota import Caller, Refusal, caller_of
from ..limits.session_limits import frame_pace
from ..protocol.errors import RequestRefused, error_event
from ..protocol.server_events import encode
from ..store.errors import StoreError
from ..transport.frames import close_frame, text_frame
from ..transport.http.request_head import RequestHead
from ..transport.http.upgrade import accepted, read_upgrade
from ..transport.stream import BufferedStream
from ..transport.websocket import WebSocket
from .admission import PATHS, Admission, admit
from .services import Services

BAD_KEY = 3000  # the close code for a client without a valid key on its open socket
SWITCHED = 101  # the HTTP status of a handshake that succeeded
BETA_CLIENT = 4000  # and for one that speaks the beta of the API, as the public API closes it
_REASONS = {401: "credentials", 429: "limits"}
_CLOSES = {401: ("credentials", BAD_KEY), 503: ("store", 1013)}  # by status: the reason to count and the close code

_log = structlog.get_logger(__name__)


Shaken: TypeAlias = tuple[WebSocket, Admission, Principal | RequestRefused]


class Rejected(Exception):
    """A handshake that was answered with an HTTP error. reply: the bytes of that."""

    def __init__(self, refused: RequestRefused) -> None:
        super().__init__()
        self.status, self.code = refused.status, refused.code
        self.reply = reply_bytes(refused)


def shake_hands(
    stream: BufferedStream, head: RequestHead, peer: str, services: Services, tasks: trio.Nursery, places: list[Caller]
) -> Awaitable[Shaken]:
    """Completes the opening handshake.

    Returns a `RequestRefused` in the place of the principal where the client can only be told on the open socket.
    peer: the address at the other end of the socket.
    places: what the connection takes of quotas besides its socket's; whoever ends the connection leaves them.

    Raises:
        Rejected: Its handshake is no valid one, or not for this client.
    """
    shaking = _shake_hands(stream, head, peer, services, tasks, places)
    return _logged(shaking, head, peer, services) if services.settings.access_log else shaking


async def _shake_hands(
    stream: BufferedStream, head: RequestHead, peer: str, services: Services, tasks: trio.Nursery, places: list[Caller]
) -> Shaken:
    try:
        upgrade = read_upgrade(head)
        client = _client(peer, head, services, places)
        admission = admit(head.target.decode("ascii"), upgrade.host, head.fields, upgrade.subprotocols, client)
        principal = await _authenticate(admission, services)
        if isinstance(principal, Principal):
            _take_place(services.gate.enter_credential(principal), places)
            principal = admission.beta or principal  # not before the key: strangers get no open socket
    except RequestRefused as refused:
        services.metrics.connections_refused.count(_REASONS.get(refused.status, "handshake"))
        raise Rejected(refused) from None
    stream.put(accepted(upgrade, admission.subprotocol))
    settings, held_back = services.settings, services.gate.count_held_back
    ws = WebSocket(stream, tasks, settings.message_bytes_max, frame_pace(settings), held_back)
    return ws, admission, principal


async def _logged(shaking: Awaitable[Shaken], head: RequestHead, peer: str, services: Services) -> Shaken:
    """Tells the access log how a handshake ended. One whose client left meanwhile has no line."""
    began = trio.current_time()
    try:
        shaken = await shaking
    except Rejected as rejected:
        _log_handshake(head, rejected.status, began, _address(peer, head, services), refused=rejected.code)
        raise
    _, admission, principal = shaken
    address = admission.presented.address
    if isinstance(principal, RequestRefused):
        _log_handshake(head, SWITCHED, began, address, refused=principal.code)
    else:
        _log_handshake(head, SWITCHED, began, address, key_id=principal.key_id or principal.credential_id)
    return shaken


def _log_handshake(
    head: RequestHead,
    status: int,
    began: float,
    address: str,
    *,
    key_id: UUID | None = None,
    refused: str | None = None,
) -> None:
    """refused: the error code, also of a client that is told on its open socket."""
    path = head.path.decode("latin-1")
    _log.info(
        "websocket_handshake",
        route=path if path in PATHS else None,  # any other may hold whatever somebody typed
        status=status,
        seconds=round(trio.current_time() - began, 6),
        address=address,
        key_id=None if key_id is None else str(key_id),
        refused=refused,
    )


def _address(peer: str, head: RequestHead, services: Services) -> str:
    try:
        return services.gate.proxies.client(peer, head.fields).address
    except RequestRefused:
        return peer


def _client(peer: str, head: RequestHead, services: Services, places: list[Caller]) -> RequestClient:
    """The client, which behind a trusted proxy is counted only here. Raises `RequestRefused`."""
    gate = services.gate
    client = gate.proxies.client(peer, head.fields)
    if gate.caller(peer) == TRUSTED_PROXY:
        _take_place(gate.enter_socket(caller_of(client.address)), places)
    return client


def _take_place(entered: Caller | Refusal | None, places: list[Caller]) -> None:
    """Before the reply to the handshake, so that clients get an HTTP status. Raises `RequestRefused`."""
    if isinstance(entered, Refusal):
        raise request_refused(entered)
    if entered is not None:
        places.append(entered)


async def _authenticate(admission: Admission, services: Services) -> Principal | RequestRefused:
    """Raises a `RequestRefused` where an HTTP reply can tell the client, else returns it for the open socket.

    Browsers hide that reply from their pages, which would take it for a lost connection and retry for ever. Other
    clients do not retry after an HTTP 503.
    """
    presented = admission.presented
    try:
        return await services.authenticator.principal(presented)
    except RequestRefused as refused:
        if refused.status == 401 and presented.from_browser:
            return refused
        raise
    except StoreError as error:
        _log.warning("session_not_begun", address=presented.address, error=repr(error))
        return RequestRefused("store_unavailable", "The server cannot begin a session now. Please try again.")


def refuse_on_socket(refused: RequestRefused, services: Services) -> bytes:
    """The `error` event and the close frame for a client that is rejected on its open socket."""
    reason, code = _CLOSES.get(refused.status, ("handshake", BETA_CLIENT))
    services.metrics.connections_refused.count(reason)
    error = text_frame(encode(error_event(refused.code, refused.message), f"event_{uuid4().hex[:12]}"))
    return error + close_frame(code, refused.code if code == 1013 else f"{refused.type}.{refused.code}")


def refuse_overloaded(services: Services) -> bytes:
    """The close frame for a client whose session cannot begin, because the server is draining or full."""
    if services.draining.is_set():
        return close_frame(1012, "the server is restarting")
    services.metrics.connections_refused.count("overload")
    return close_frame(1013, "too many connections")
