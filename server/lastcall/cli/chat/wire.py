"""One connection to a server, as clients of the Realtime API have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)

OPEN_SECONDS = 10.0  # for the handshake
CLOSE_SECONDS = 2.0  # for the server's close frame, once ours is sent
FRAME_BYTES_MAX = 64 * 2**20
NO_CLOSE_FRAME = 1006
CLOSED_BY_SOMEBODY = 4001
# A connection that was closed like this is not opened again by itself: refused, a wrong key, another protocol.
FINAL_CODES = frozenset({1008, 3000, 4000, CLOSED_BY_SOMEBODY})
UNAUTHORIZED, SERVER_ERRORS = 401, 500

Event = dict[str, Any]


class Lost(Exception):
    """There is no connection any more, or there was none. final: opening another one would not help."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


@dataclass(frozen=True, slots=True)
class Address:
    """url: of the server, http or https. key, user: None where the server is to know without."""

    url: str
    model: str
    key: str | None = None
    user: str | None = None

    def of(self, conversation: str | None) -> str:
        """The address of the WebSocket. conversation: to be resumed; None: a new one."""
        named = {"model": self.model, "user": self.user, "conversation": conversation}
        query = urlencode({name: value for name, value in named.items() if value is not None})
        scheme = "wss" if urlsplit(self.url).scheme == "https" else "ws"
        return f"{scheme}{self.url[self.url.index(':') :].rstrip('/')}/v1/realtime?{query}"


class Wire:
    """Events to and from the server. All methods raise `Lost`."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.over = trio.Event()  # nobody wants it any more
        self._socket = socket
        self._error = ""  # the last one that the server told: a close frame has room for few words

    async def send(self, event: Event) -> None:
        try:
            await self._socket.send_message(msgspec.json.encode(event).decode())
        except ConnectionClosed as closed:
            raise self._lost(closed) from None

    async def receive(self) -> Event:
        try:
            event: Event = msgspec.json.decode(await self._socket.get_message())
        except ConnectionClosed as closed:
            raise self._lost(closed) from None
        except msgspec.DecodeError:
            raise Lost("the server does not speak the Realtime API", final=True) from None
        if event.get("type") == "error":
            self._error = str(event["error"].get("message", ""))
        return event

    def _lost(self, closed: ConnectionClosed) -> Lost:
        if closed.reason is None or closed.reason.code == NO_CLOSE_FRAME:
            return Lost("the connection broke")
        code, reason = closed.reason.code, closed.reason.reason
        if code == CLOSED_BY_SOMEBODY:
            return Lost(f"the session was closed by somebody else: {reason or 'no reason given'}", final=True)
        return Lost(self._error or reason or f"the server closed the connection ({code})", final=code in FINAL_CODES)


async def open_wire(nursery: trio.Nursery, address: Address, conversation: str | None) -> Wire:
    """Connects. nursery: reads the connection for as long as it lives. Raises `Lost`."""
    wire: Wire = await nursery.start(_run_wire, address, conversation)
    return wire


async def _run_wire(address: Address, conversation: str | None, task_status: trio.TaskStatus[Wire]) -> None:
    """Holds a connection open until it is over."""
    headers = [(b"Authorization", f"Bearer {address.key}".encode())] if address.key else []
    try:
        async with open_websocket_url(
            address.of(conversation),
            extra_headers=headers,
            max_message_size=FRAME_BYTES_MAX,
            connect_timeout=OPEN_SECONDS,
            disconnect_timeout=CLOSE_SECONDS,
        ) as socket:
            wire = Wire(socket)
            task_status.started(wire)
            await wire.over.wait()
    except ConnectionRejected as refused:
        raise Lost(_refusal(refused), final=refused.status_code < SERVER_ERRORS) from None
    except ConnectionTimeout:
        raise Lost(f"no answer from {address.url} within {OPEN_SECONDS:g} s") from None
    except DisconnectionTimeout:
        pass  # it has our close frame, and keeps its own to itself
    except (HandshakeError, OSError) as error:
        why = next(_causes(error), error)
        raise Lost(f"no server answers at {address.url} ({why}); lastcall serve starts one") from None


def _refusal(refused: ConnectionRejected) -> str:
    if refused.status_code == UNAUTHORIZED:
        return "the server wants a key that it knows: pass it as LASTCALL_CHAT_KEY"
    try:
        return str(msgspec.json.decode(refused.body or b"")["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"the server refused the connection (HTTP {refused.status_code})"


def _causes(error: BaseException | None) -> Iterator[OSError]:
    """The system's own reasons: the library wraps what trio raises, and trio tells of all addresses in one group."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    elif isinstance(error, OSError) and error.strerror:
        yield error
    elif error is not None:
        yield from _causes(error.__cause__)
